//! The socket in a pod's emptyDir at which its program asks for the volume's filesystem, and the empty directory beside it that the program
//! is told to mount at.
//!
//! Runs in the mounter, on visits to the node. The emptyDir is the pod's, which can have anything there, and exchange it at any time: it
//! is opened once, with no link on the way, and what is made in it is made by that descriptor. Its mode is right from its beginning, as a
//! later change would need a name. What the pod makes of the names afterwards leads its own programs astray, and nobody else.

use super::PodVolume;
use crate::node::target::{Target, TargetError};
use linux::sys::ask::Patience;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::umask;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// The socket that a program connects to, and what is to be removed with it.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: UnixListener,
    left: Left,
}

/// What a door has made in the emptyDir.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    /// The socket's inode: another one at its name is the pod's.
    socket: (u64, u64),
    /// The directory is not the pod's own.
    made_directory: bool,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// No such volume of the pod's.
    #[error(
        "the pod has no emptyDir volume named '{0}': the attribute 'emptyDir' names one of the same pod's, which the program's container mounts"
    )]
    NoEmptyDir(String),
    /// On the way to it.
    #[error("cannot open the pod's emptyDir")]
    EmptyDir(#[source] TargetError),
    /// Something of the pod's is in the way.
    #[error(
        "'{0}' in the pod's emptyDir is no directory: programs are told to mount there; remove it, or choose another 'name'"
    )]
    NoDirectory(String),
    /// The kernel.
    #[error("cannot make {0} in the pod's emptyDir")]
    Make(String, #[source] io::Error),
}

impl Door {
    /// Opens one. The thread must be on a visit to the node.
    pub(super) fn open(volume: &PodVolume, kubelet_dir: &Path, patience: Patience<'_>) -> Result<Self, DoorError> {
        let emptied = match Target::open(&volume.directory(kubelet_dir), kubelet_dir, patience) {
            Err(TargetError::Missing) => return Err(DoorError::NoEmptyDir(volume.empty_dir.clone())),
            opened => opened.map_err(DoorError::EmptyDir)?,
        };
        let directory = emptied.as_fd();
        let made_directory = make_directory(directory, &volume.name)?;
        let name = volume.socket();
        match listen(directory, &name) {
            Ok((listener, socket)) => Ok(Self { listener, left: Left { socket, made_directory } }),
            Err(error) => {
                if made_directory {
                    let _ = unlinkat(directory, &*volume.name, AtFlags::REMOVEDIR);
                }
                Err(DoorError::Make(name, error))
            }
        }
    }

    /// What is to be removed when the volume is no more.
    pub(super) fn left(&self) -> Left {
        self.left
    }
}

impl Left {
    /// Removes it, as far as it is still there and has not become the pod's. The thread must be on a visit to the node.
    pub(super) fn remove(self, volume: &PodVolume, kubelet_dir: &Path, patience: Patience<'_>) {
        // Kubelet may have removed the emptyDir before.
        let Ok(emptied) = Target::open(&volume.directory(kubelet_dir), kubelet_dir, patience) else { return };
        let (directory, name) = (emptied.as_fd(), volume.socket());
        if inode(directory, &name).is_ok_and(|inode| inode == self.socket) {
            let _ = unlinkat(directory, &*name, AtFlags::empty());
        }
        if self.made_directory {
            // It fails if the pod has put something into it.
            let _ = unlinkat(directory, &*volume.name, AtFlags::REMOVEDIR);
        }
    }
}

/// The directory that programs are told to mount at: many look whether it is there, and empty. Whether it was made.
fn make_directory(directory: BorrowedFd<'_>, name: &str) -> Result<bool, DoorError> {
    let made = mkdirat(directory, name, Mode::from_raw_mode(0o755));
    match made {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let there = openat(directory, name, flags, Mode::empty());
            there.map(|_| false).map_err(|_| DoorError::NoDirectory(name.to_owned()))
        }
        Err(errno) => Err(DoorError::Make(name.to_owned(), errno.into())),
    }
}

/// A socket that every user of the pod can connect to. It appears when it takes connections, and not before, in the place of what
/// an earlier mounter has left; in that of a directory it does not.
fn listen(directory: BorrowedFd<'_>, name: &str) -> io::Result<(UnixListener, (u64, u64))> {
    let unfinished = format!(".{name}.new");
    match unlinkat(directory, &*unfinished, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    // The visit's thread has one of its own.
    let before = umask(Mode::from_raw_mode(0o111));
    let bound = UnixListener::bind(format!("self/fd/{}/{unfinished}", directory.as_raw_fd()));
    umask(before);
    let listener = bound?;
    listener.set_nonblocking(true)?;
    let done = inode(directory, &unfinished).and_then(|inode| {
        renameat(directory, &*unfinished, directory, name)?;
        Ok(inode)
    });
    if done.is_err() {
        let _ = unlinkat(directory, &*unfinished, AtFlags::empty());
    }
    done.map(|inode| (listener, inode))
}

/// That of a socket.
fn inode(directory: BorrowedFd<'_>, name: &str) -> io::Result<(u64, u64)> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(Errno::NOTSOCK.into());
    }
    Ok((stat.st_dev, stat.st_ino))
}
