//! Which types go to the mounter: known to the binary on the node without asking anybody.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The file beside the binary that lists further types, one a line; `hostmount install` writes it.
pub const FILE: &str = "served-types";

/// What kubelet sends to an external mounter. `fuse` and `fuse.*` are served as well.
const ALWAYS: [&str; 4] = ["nfs", "glusterfs", "ceph", "cifs"];

/// Whether the mounter serves `fstype`. A list that is not there, or cannot be read, is an empty one.
pub fn is_served(fstype: &str) -> bool {
    if fstype == "fuse" || fstype.starts_with("fuse.") || ALWAYS.contains(&fstype) {
        return true;
    }
    let list = std::env::current_exe().ok().and_then(|exe| fs::read_to_string(exe.with_file_name(FILE)).ok());
    list.is_some_and(|list| lists(&list, fstype))
}

/// Writes the list into `directory`, all or nothing.
pub fn write_list(directory: &Path, types: BTreeSet<String>) -> std::io::Result<()> {
    let unfinished = directory.join(format!(".{FILE}.new"));
    fs::write(&unfinished, types.into_iter().map(|fstype| fstype + "\n").collect::<String>())?;
    fs::rename(unfinished, directory.join(FILE))
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
