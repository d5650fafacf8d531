//! What becomes of files that are open in the filesystem of a helper that is gone: an heir (`crate::heir`) is to serve them.
//!
//! Runs in the mounter; [`answering`](super::answering) finds out whether any are open.

use crate::config::open_files::OpenFiles;
use crate::node::fuse_device::Answers;
use crate::node::tree::Tree;
use crate::node::visible_mounts::DetachedMount;
use linux::mount_table::Device;
use linux::statx::unique_mount;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Instant;

/// What files that are open in a dead helper's filesystem are served from, by an heir (`crate::heir`).
#[derive(Debug)]
pub struct Inheritance {
    /// The fresh filesystem.
    pub tree: Tree,
    /// The mounts that files may have been opened by.
    pub detached: Vec<DetachedMount>,
    /// The number of the mount by which an heir of the filesystem before may have opened them.
    pub heirs: Option<u64>,
    /// What may be done.
    pub mode: OpenFiles,
}

/// A connection with open files, for which an heir is to be started.
#[derive(Debug)]
pub struct Orphan {
    /// The volume's target.
    pub target: PathBuf,
    /// The device number of the old filesystem.
    pub device: Device,
    /// Until when what comes on the connection is answered whatever it is about.
    pub until: Option<Instant>,
    /// The connection.
    pub answers: Answers,
    /// What its files are served from.
    pub inheritance: Inheritance,
}

impl Inheritance {
    /// The number of the mount that it is, which no other is ever given.
    pub(super) fn tree_number(&self) -> Option<u64> {
        unique_mount(self.tree.as_fd()).ok().flatten()
    }
}
