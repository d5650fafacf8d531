//! How a hostmount program is known: of any version, under any name.
//!
//! Runs in every process that looks for the node's own `mount`, and where programs are installed. A program is
//! recognized by its content, not by its path, as there may be any number of copies.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Every program of hostmount's that replaces one of the node's contains these bytes: never change them.
#[used]
static MARK: [u8; 46] = *b"hostmount, which is never the node's own mount";

/// Whether the file at `path` is hostmount's.
pub fn is_ours(path: &Path) -> bool {
    // Usually it is this very program, first in PATH: that need not be read.
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let this = identity(Path::new("/proc/self/exe"));
    this.is_some() && this == identity(path) || has_mark(path).unwrap_or(false)
}

fn has_mark(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    // Ours are static (main.rs sees to that); the node's own, as a rule, is not, and need not be read.
    if asks_for_a_loader(&file).unwrap_or(false) {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(memchr::memmem::find(&bytes, &MARK).is_some())
}

/// Whether it is an executable that names its dynamic loader (elf(5): PT_INTERP), as no static one does. All else has to be
/// read.
fn asks_for_a_loader(file: &File) -> io::Result<bool> {
    const PT_INTERP: u32 = 3;
    /// How much says what a segment is.
    const SEGMENT: usize = 56;
    let mut header = [0; 64];
    file.read_exact_at(&mut header, 0)?;
    // 64 bits, little-endian.
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Ok(false);
    }
    let [length, count] = [54, 56].map(|at| usize::from(u16::from_le_bytes([header[at], header[at + 1]])));
    if length != SEGMENT {
        return Ok(false);
    }
    let mut table = [0; 8];
    table.copy_from_slice(&header[32..40]);
    let mut segments = vec![0; SEGMENT * count];
    file.read_exact_at(&mut segments, u64::from_le_bytes(table))?;
    Ok(segments.chunks(SEGMENT).any(|segment| segment.starts_with(&PT_INTERP.to_le_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test is static, and has the mark.
    #[test]
    fn a_program_is_known_by_its_content() {
        let here = std::env::temp_dir().join(format!("hostmount-mark-{}", std::process::id()));
        let this = std::env::current_exe().unwrap();
        assert!(is_ours(&this));
        fs::copy(&this, &here).unwrap();
        assert!(is_ours(&here));
        assert!(!asks_for_a_loader(&File::open(&this).unwrap()).unwrap());
        for dynamic in ["/bin/sh", "/bin/mount"] {
            assert!(!is_ours(Path::new(dynamic)));
            assert!(asks_for_a_loader(&File::open(dynamic).unwrap()).unwrap());
        }
        // Whatever else has the mark is ours, a part of a program too.
        for (content, expected) in
            [(&MARK[..], true), (&MARK[1..], false), (b"", false), (b"\x7fELF\x02\x01", false), (b"#!/bin/sh\n", false)]
        {
            fs::write(&here, content).unwrap();
            assert_eq!(is_ours(&here), expected, "{content:?}");
        }
        fs::remove_file(&here).unwrap();
        assert!(!is_ours(&here));
    }
}
