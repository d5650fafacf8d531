//! Which types go to the mounter: found in the container when the binary is installed, and known to it on the node without
//! asking anybody.

use crate::config::Config;
use crate::helper::find;
use crate::node::programs;
use crate::policy::is_fuse;
use std::collections::BTreeSet;
use std::fs;

/// What kubelet sends to an external mounter. `fuse` and `fuse.*` are served as well.
const ALWAYS: [&str; 4] = ["nfs", "glusterfs", "ceph", "cifs"];

/// Whether the mounter serves `fstype`: one of these, or in the list that `hostmount install` has written. A list that is not there, or cannot be read, is an empty one.
pub fn is_served(fstype: &str) -> bool {
    if is_fuse(fstype) || ALWAYS.contains(&fstype) {
        return true;
    }
    let list =
        std::env::current_exe().ok().and_then(|exe| fs::read_to_string(exe.with_file_name(programs::TYPES)).ok());
    list.is_some_and(|list| lists(&list, fstype))
}

/// The types that helpers of this container serve.
pub fn types_of_helpers(config: &Config) -> BTreeSet<String> {
    find::types().into_iter().chain(config.types_with_command().map(str::to_owned)).collect()
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
