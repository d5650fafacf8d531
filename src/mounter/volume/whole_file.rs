//! Files that root alone may read, and that appear whole, by rename(2), or not at all.
//!
//! Runs in the mounter.

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;

/// Writes a file that root alone may read, whole or not at all.
pub(in crate::mounter) fn write_at(directory: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = format!("{}new", name.trim_end_matches("json"));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let new = openat(directory, &unfinished, flags, Mode::RUSR | Mode::WUSR)?;
    let written =
        File::from(new).write_all(bytes).and_then(|()| Ok(renameat(directory, &unfinished, directory, name)?));
    if written.is_err() {
        // Each volume has a name of its own: on a full filesystem they would become more and more.
        let _ = unlinkat(directory, &unfinished, AtFlags::empty());
    }
    written
}

/// The content of such a file.
pub(in crate::mounter) fn read_at(directory: BorrowedFd<'_>, name: &str) -> io::Result<Vec<u8>> {
    let file = openat(directory, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    File::from(file).read_to_end(&mut bytes)?;
    Ok(bytes)
}
