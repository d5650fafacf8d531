//! How a hostmount program is known: of any version, under any name.
//!
//! Runs in every process that looks for the node's own `mount`, and where programs are installed. A program is
//! recognized by its content, not by its path, as there may be any number of copies.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Every program of hostmount's that replaces one of the node's contains these bytes: never change them.
#[used]
static MARK: [u8; 46] = *b"hostmount, which is never the node's own mount";

/// Whether the file at `path` is hostmount's.
pub fn is_ours(path: &Path) -> bool {
    // Usually it is this very program, first in PATH: that need not be read.
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let this = identity(Path::new("/proc/self/exe"));
    this.is_some() && this == identity(path) || has_mark(path)
}

fn has_mark(path: &Path) -> bool {
    fs::read(path).is_ok_and(|bytes| memchr::memmem::find(&bytes, &MARK).is_some())
}
