//! Files that are locked: whoever has a lock relies on it, and it is on the old file. Such a file is not served: others could
//! lock the fresh one.
//!
//! /proc/locks has the locks that the kernel keeps (proc_locks(5)); those that a helper kept are gone with it.

use linux::mount_table::Device;
use std::fs;
use std::path::Path;

/// Whether any process has a lock on this file, or that cannot be seen.
pub(super) fn is_locked(host_proc: &Path, device: Device, inode: u64) -> bool {
    fs::read_to_string(host_proc.join("locks")).map_or(true, |locks| names(&locks, device, inode))
}

fn names(locks: &str, device: Device, inode: u64) -> bool {
    let file = format!("{:02x}:{:02x}:{inode}", device.major, device.minor);
    locks.lines().any(|line| line.split_ascii_whitespace().any(|field| field == file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_names_its_file() {
        let locks = "1: POSIX  ADVISORY  WRITE 3568 00:3d:1000 0 EOF\n2: FLOCK  ADVISORY  WRITE 3517 08:02:7 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 3600 08:02:9 0 EOF\n";
        let names = |minor, inode| names(locks, Device { major: 0, minor }, inode);
        assert!(names(0x3d, 1000) && !names(0x3d, 100) && !names(0x3e, 1000));
    }
}
