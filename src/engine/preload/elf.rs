//! Is a program linked statically? Then no shared object is ever loaded into it.
//!
//! Reads the first bytes of the program's file, no more; parsing is pure. Layout: elf(5), 64 bits, little endian.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Programs have their program headers right at the beginning.
const BEGINNING: u64 = 4096;
const PT_INTERP: u32 = 3;

/// Whether the program at `path` is an ELF file that names no dynamic linker. A script is not.
pub fn is_static(path: &Path) -> io::Result<bool> {
    let mut beginning = Vec::new();
    File::open(path)?.take(BEGINNING).read_to_end(&mut beginning)?;
    Ok(names_an_interpreter(&beginning) == Some(false))
}

/// `None` for what is not such a file.
fn names_an_interpreter(file: &[u8]) -> Option<bool> {
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let headers = usize::try_from(u64::from_le_bytes(bytes(file, 32)?)).ok()?;
    let size = usize::from(u16::from_le_bytes(bytes(file, 54)?));
    let count = u16::from_le_bytes(bytes(file, 56)?);
    for number in 0..usize::from(count) {
        let at = headers.checked_add(number.checked_mul(size)?)?;
        if u32::from_le_bytes(bytes(file, at)?) == PT_INTERP {
            return Some(true);
        }
    }
    Some(false)
}

fn bytes<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn programs_of_both_kinds() {
        // Tests are built as the program is, statically; the shell of a Debian machine is not.
        assert!(is_static(Path::new("/proc/self/exe")).unwrap());
        assert!(!is_static(Path::new("/bin/sh")).unwrap());
        assert!(!is_static(Path::new("/etc/passwd")).unwrap());
        assert!(is_static(Path::new("/nonexistent")).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(tail in prop::collection::vec(any::<u8>(), 0..128)) {
            names_an_interpreter(&[b"\x7fELF\x02\x01", tail.as_slice()].concat());
        }
    }
}
