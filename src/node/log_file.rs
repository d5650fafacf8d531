//! A log file on the node for a helper in the container: kubelet names one for each GlusterFS volume, and reads its last
//! lines into the pod's event when the mount has failed.
//!
//! Runs in the mounter, on a visit to the node. Only files below kubelet's own directory for its in-tree plugins are
//! opened: options may come from a pod, and a helper must not write to any other file of the node's.

use super::target::{Target, TargetError};
use super::tree::Tree;
use rustix::fs::{Mode, OFlags, openat};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// The mount option that names it.
pub const OPTION: &str = "log-file";
/// Below kubelet's directory.
const PLUGINS: &str = "plugins/kubernetes.io";

/// It cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LogFileError {
    /// Its directory, which kubelet makes.
    #[error("the directory of the log file")]
    Directory(#[source] TargetError),
    /// The file itself.
    #[error("cannot open the log file")]
    Open(#[source] io::Error),
}

/// Whether `path` is on the node and not in the container.
pub fn is_on_node(path: &Path, kubelet_dir: &Path) -> bool {
    path.starts_with(kubelet_dir.join(PLUGINS)) && path.file_name().is_some()
}

/// Opens the file, and makes it if need be. The tree is the file alone.
pub fn open(path: &Path, kubelet_dir: &Path) -> Result<Tree, LogFileError> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(LogFileError::Directory(TargetError::Missing));
    };
    let directory =
        Target::open(directory, kubelet_dir, linux::sys::ask::Patience::USUAL).map_err(LogFileError::Directory)?;
    // Not followed, and not written by us: a link or a device there is none of ours.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = openat(&directory, name, flags, Mode::RUSR | Mode::WUSR);
    let file = opened.map_err(|errno| LogFileError::Open(errno.into()))?;
    Tree::copy_at(file.as_fd()).map_err(LogFileError::Open)
}
