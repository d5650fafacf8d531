//! A helper's own mount point: the one directory that its grant is for.
//!
//! Runs in the mounter, on the volume's own thread, **inside the helper's mount namespace**: elsewhere the path leads to
//! nothing, or to something else.

use linux::mount_table::Device;
use linux::statx::identity;
use rustix::fs::{Mode, OFlags, open};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// A directory in the helper's mount namespace, known by its path and by what it is.
#[derive(Debug)]
pub struct MountPoint {
    path: PathBuf,
    identity: (Device, u64),
}

impl MountPoint {
    /// The directory at `path`, on which nothing is mounted yet.
    pub fn at(path: &Path) -> io::Result<Self> {
        let directory = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let identity = identity(directory.as_fd())?;
        Ok(Self { path: path.to_owned(), identity })
    }

    /// The path that the helper gets in its arguments.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a descriptor names this very directory.
    pub fn is(&self, fd: BorrowedFd<'_>) -> bool {
        identity(fd).is_ok_and(|identity| identity == self.identity)
    }
}
