//! Which types go to the mounter: found in the container when the programs are installed, and read on the node from a
//! file, without asking the mounter.
//!
//! Runs in the caller's process.

use api::request::is_fuse;
use std::fs;

/// The file beside the program that lists the types that the mounter serves, one a line.
pub const FILE: &str = "served-types";

/// What kubelet sends to an external mounter. `fuse` and `fuse.*` are served as well.
const ALWAYS: [&str; 4] = ["nfs", "glusterfs", "ceph", "cifs"];

/// Whether the mounter serves `fstype`: one of these, or in the list that `hostmount install` has written. A missing or
/// unreadable list counts as empty.
pub fn is_served(fstype: &str) -> bool {
    if is_fuse(fstype) || ALWAYS.contains(&fstype) {
        return true;
    }
    let list = std::env::current_exe().ok().and_then(|exe| fs::read_to_string(exe.with_file_name(FILE)).ok());
    list.is_some_and(|list| lists(&list, fstype))
}

fn lists(list: &str, fstype: &str) -> bool {
    list.lines().map(str::trim).any(|line| line == fstype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_lines_count() {
        assert!(lists("sshfs\nbindfs \n", "bindfs"));
        assert!(!lists("sshfs\n", "ssh"));
        assert!(is_served("fuse.anything") && is_served("glusterfs") && !is_served("ext4") && !is_served("fuseblk"));
    }
}
