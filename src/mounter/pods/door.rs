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

/// The socket that a program connects to.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: UnixListener,
    /// Its inode: another one at its name is the pod's.
    pub(super) inode: Inode,
}

/// A device and inode number.
pub(super) type Inode = (u64, u64);

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
        let opened = match Target::open(&volume.directory(kubelet_dir), kubelet_dir, patience) {
            Err(TargetError::Missing) => return Err(DoorError::NoEmptyDir(volume.empty_dir.clone())),
            opened => opened.map_err(DoorError::EmptyDir)?,
        };
        let directory = opened.as_fd();
        make_directory(directory, &volume.name)?;
        let name = volume.socket();
        match listen(directory, &name) {
            Ok((listener, inode)) => Ok(Self { listener, inode }),
            Err(error) => {
                let _ = unlinkat(directory, &*volume.name, AtFlags::REMOVEDIR);
                Err(DoorError::Make(name, error))
            }
        }
    }
}

/// Removes the socket with this inode, or any if it is an earlier mounter's, and the directory, unless the pod has put something into
/// it. The thread must be on a visit to the node.
pub(super) fn remove(volume: &PodVolume, socket: Option<Inode>, kubelet_dir: &Path, patience: Patience<'_>) {
    // Kubelet may have removed the emptyDir before.
    let Ok(opened) = Target::open(&volume.directory(kubelet_dir), kubelet_dir, patience) else { return };
    let (directory, name) = (opened.as_fd(), volume.socket());
    if inode(directory, &name).is_ok_and(|inode| socket.is_none_or(|ours| ours == inode)) {
        let _ = unlinkat(directory, &*name, AtFlags::empty());
    }
    let _ = unlinkat(directory, &*volume.name, AtFlags::REMOVEDIR);
}

/// The directory that programs are told to mount at: many look whether it is there, and empty, and s3fs whether its user may write to
/// it. Who is in the pod may write beside it anyway.
fn make_directory(directory: BorrowedFd<'_>, name: &str) -> Result<(), DoorError> {
    // The visit's thread has one of its own.
    let before = umask(Mode::empty());
    let made = mkdirat(directory, name, Mode::from_raw_mode(0o777));
    umask(before);
    match made {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let there = openat(directory, name, flags, Mode::empty());
            there.map(drop).map_err(|_| DoorError::NoDirectory(name.to_owned()))
        }
        Err(errno) => Err(DoorError::Make(name.to_owned(), errno.into())),
    }
}

/// A socket that every user of the pod can connect to. It appears when it takes connections, and not before, in the place of what
/// an earlier mounter has left; in that of a directory it does not.
fn listen(directory: BorrowedFd<'_>, name: &str) -> io::Result<(UnixListener, Inode)> {
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
fn inode(directory: BorrowedFd<'_>, name: &str) -> io::Result<Inode> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Err(Errno::NOTSOCK.into());
    }
    Ok((stat.st_dev, stat.st_ino))
}
