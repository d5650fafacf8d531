//! A tree: a mounted filesystem held by a descriptor, visible nowhere; and grafting it.
//!
//! Kernel: open_tree(2) and move_mount(2), 5.2 and later.

use super::target::Target;
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// A detached mount. Dropped without having been grafted it ends, and with it (if it was the last copy) its helper.
#[derive(Debug)]
pub struct Tree(OwnedFd);

impl Tree {
    /// A copy of what is mounted at `path`. Runs in the mount namespace of that path.
    pub fn copy_of(path: &Path) -> io::Result<Self> {
        Ok(Self(open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?))
    }

    /// Attaches it at `target`, on top of what may be mounted there. Runs in the mount namespace of the target.
    ///
    /// The descriptor is given up: held any longer, it would make the mount busy for umount(2).
    pub fn graft(self, target: &Target) -> io::Result<()> {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(move_mount(&self.0, c"", target, c"", flags)?)
    }
}
