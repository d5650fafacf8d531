//! The place on the node where a volume shall appear.
//!
//! Every function runs on a thread that stands in the node's mount namespace (see [`MountNamespace::visit`]).
//! A path is resolved once; after that only its descriptor is used, so that it cannot be exchanged meanwhile.
//!
//! [`MountNamespace::visit`]: linux::mount_namespace::MountNamespace::visit

use linux::mount_table::{Device, Mount};
use linux::statx;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::fs::{mkdirat, open, openat, openat2, readlinkat, unlinkat};
use rustix::io::Errno;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// A directory on the node, held by a descriptor that cannot be used for anything but naming it.
#[derive(Debug)]
pub struct Target {
    fd: OwnedFd,
    /// The device of the filesystem that is mounted just there, if one is.
    pub mounted: Option<Device>,
}

/// Why there is no mounting at a path.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// In the words of mount(8).
    #[error("mount point does not exist")]
    Missing,
    /// In the words of mount(8).
    #[error("mount point is not a directory")]
    NotADirectory,
    /// Below kubelet's directory a pod may have made the link.
    #[error("mount point is below a symbolic link, which is not followed below {kubelet_dir}",
            kubelet_dir = kubelet_dir.display())]
    Symlink {
        /// Kubelet's directory.
        kubelet_dir: PathBuf,
    },
    /// mkdir(2).
    #[error("cannot make the mount point")]
    Make(#[source] io::Error),
    /// Anything else.
    #[error("cannot open the mount point")]
    Open(#[source] io::Error),
    /// It was opened by its path, and is gone or covered by another.
    #[error("the mount is not to be seen there any more")]
    Gone,
}

impl Target {
    /// Resolves `path`. Below `kubelet_dir` symbolic links are refused; elsewhere they are followed, as mount(8) does.
    pub fn open(path: &Path, kubelet_dir: &Path) -> Result<Self, TargetError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = match path.strip_prefix(kubelet_dir) {
            // The kubelet directory itself may well be a link that the administrator made.
            Ok(below) if !below.as_os_str().is_empty() => {
                open(kubelet_dir, flags, Mode::empty()).and_then(|base| open_below(base, below))
            }
            _ => open(path, flags, Mode::empty()),
        };
        let fd = opened.map_err(|errno| match errno {
            Errno::NOENT => TargetError::Missing,
            Errno::NOTDIR => TargetError::NotADirectory,
            Errno::LOOP => TargetError::Symlink { kubelet_dir: kubelet_dir.to_owned() },
            errno => TargetError::Open(errno.into()),
        })?;
        let mounted = statx::mount_root(fd.as_fd()).map_err(TargetError::Open)?;
        Ok(Self { fd, mounted })
    }

    /// Makes the last directory of `path`, which must be below `kubelet_dir`, and opens it. Nobody but its owner may enter
    /// it, as with the directories that kubelet makes.
    pub fn make(path: &Path, kubelet_dir: &Path) -> Result<(Self, MadeDirectory), TargetError> {
        let below = path.strip_prefix(kubelet_dir).is_ok_and(|below| !below.as_os_str().is_empty());
        let (Some(above), Some(name), true) = (path.parent(), path.file_name(), below) else {
            return Err(TargetError::Missing);
        };
        let above = Self::open(above, kubelet_dir)?.fd;
        mkdirat(&above, name, Mode::RWXU | Mode::RGRP | Mode::XGRP).map_err(|errno| TargetError::Make(errno.into()))?;
        let made = MadeDirectory { above, name: name.to_owned() };
        match Self::open(path, kubelet_dir) {
            Ok(target) => Ok((target, made)),
            Err(error) => {
                let _ = made.remove();
                Err(error)
            }
        }
    }

    /// Where it is on the node, without links.
    pub fn path(&self) -> io::Result<PathBuf> {
        // Of our own /proc: see `visit`.
        let path = readlinkat(CWD, format!("self/fd/{}", self.fd.as_raw_fd()), Vec::new())?;
        Ok(OsString::from_vec(path.into_bytes()).into())
    }

    /// The root of a mount that the table has shown, if it is still there and on top.
    pub fn of_mount(mount: &Mount) -> Result<Self, TargetError> {
        let fd = open(&mount.target, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| TargetError::Open(errno.into()))?;
        let stat = statx::cached(fd.as_fd()).map_err(TargetError::Open)?;
        // The kernel uses the id of a mount that is gone again: the mount that took its place may have it.
        let device = Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor };
        if (stat.stx_mnt_id, device) != (mount.id, mount.device) {
            return Err(TargetError::Gone);
        }
        Ok(Self { fd, mounted: Some(mount.device) })
    }
}

/// A directory that was made for a mount.
#[derive(Debug)]
pub struct MadeDirectory {
    above: OwnedFd,
    name: OsString,
}

impl MadeDirectory {
    /// Removes it, if nothing is in it or mounted on it.
    pub fn remove(self) -> io::Result<()> {
        Ok(unlinkat(self.above, self.name, AtFlags::REMOVEDIR)?)
    }
}

/// The file or directory `below` a directory, for naming it only, with no symbolic link on the way.
pub(super) fn open_inside(base: BorrowedFd<'_>, below: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat2(base, below, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH) {
        Err(Errno::NOSYS) => Ok(open_by_steps(base.try_clone_to_owned()?, below)?),
        opened => Ok(opened?),
    }
}

/// The directory `below` that of `base`, with no symbolic link on the way.
fn open_below(base: OwnedFd, below: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(&base, below, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH) {
        Err(Errno::NOSYS) => open_by_steps(base, below),
        opened => opened,
    }
}

/// The same where openat2(2) is missing: each directory is opened by its name in the one before, and looked at.
fn open_by_steps(base: OwnedFd, below: &Path) -> Result<OwnedFd, Errno> {
    below.components().try_fold(base, |directory, component| {
        // `..` could lead out.
        let Component::Normal(name) = component else { return Err(Errno::XDEV) };
        let next = openat(&directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = statx::cached(next.as_fd()).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::Directory => Ok(next),
            FileType::Symlink => Err(Errno::LOOP),
            _ => Err(Errno::NOTDIR),
        }
    })
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn by_steps_or_at_once_is_the_same() {
        let root = std::env::temp_dir().join(format!("hostmount-target-{}", std::process::id()));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/file"), "").unwrap();
        symlink("a", root.join("link")).unwrap();
        symlink("b", root.join("a/link")).unwrap();
        let base = || open(&root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let name = |opened: Result<OwnedFd, Errno>| opened.map(|fd| statx::identity(fd.as_fd()).unwrap());
        for path in ["a", "a/b", "a/b/", "a/./b", "link", "link/b", "a/link", "a/file", "a/file/x", "none/b", "../x"] {
            let below = Path::new(path);
            assert_eq!(name(open_by_steps(base(), below)), name(open_below(base(), below)), "{path}");
        }
        fs::remove_dir_all(&root).unwrap();
    }
}
