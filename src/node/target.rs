//! The place on the node where a volume shall appear.
//!
//! Every function runs on a thread that stands in the node's mount namespace (see [`MountNamespace::visit`]).
//! A path is resolved once; after that only its descriptor is used, so that it cannot be exchanged meanwhile.
//!
//! [`MountNamespace::visit`]: linux::mount_namespace::MountNamespace::visit

use linux::mount_table::{Device, Mount};
use linux::statx;
use linux::sys::ask::{self, Patience};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, mkdirat, readlinkat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::ffi::{OsStr, OsString};
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
    /// A filesystem on the way there.
    #[error("a filesystem that the mount point is in does not answer")]
    NoAnswer,
    /// It was opened by its path, and is gone or covered by another.
    #[error("the mount is not to be seen there any more")]
    Gone,
}

impl Target {
    /// Resolves `path`. Below `kubelet_dir` symbolic links are refused; elsewhere they are followed, as mount(8) does.
    pub fn open(path: &Path, kubelet_dir: &Path, patience: Patience<'_>) -> Result<Self, TargetError> {
        let open = |path| ask::open(CWD, path, OFlags::DIRECTORY, None, patience).map_err(errno_of);
        let opened = match path.strip_prefix(kubelet_dir) {
            // The kubelet directory itself may well be a link that the administrator made.
            Ok(below) if !below.as_os_str().is_empty() => {
                open(kubelet_dir).and_then(|base| open_below(base, below, patience))
            }
            _ => open(path),
        };
        let fd = opened.map_err(|errno| match errno {
            Errno::NOENT => TargetError::Missing,
            Errno::NOTDIR => TargetError::NotADirectory,
            Errno::LOOP => TargetError::Symlink { kubelet_dir: kubelet_dir.to_owned() },
            Errno::TIMEDOUT => TargetError::NoAnswer,
            errno => TargetError::Open(errno.into()),
        })?;
        let mounted = statx::mount_root(fd.as_fd()).map_err(TargetError::Open)?;
        Ok(Self { fd, mounted })
    }

    /// Makes the last directory of `path`, which must be below `kubelet_dir`, and opens it. Nobody but its owner may enter
    /// it, as with the directories that kubelet makes.
    pub fn make(path: &Path, kubelet_dir: &Path, patience: Patience<'_>) -> Result<(Self, MadeDirectory), TargetError> {
        if !path.strip_prefix(kubelet_dir).is_ok_and(|below| !below.as_os_str().is_empty()) {
            return Err(TargetError::Missing);
        }
        let directory = Directory::of(path, kubelet_dir, patience)?;
        mkdirat(&directory.fd, &directory.name, Mode::RWXU | Mode::RGRP | Mode::XGRP)
            .map_err(|errno| TargetError::Make(errno.into()))?;
        let made = MadeDirectory(directory);
        match Self::open(path, kubelet_dir, patience) {
            Ok(target) => Ok((target, made)),
            Err(error) => {
                let _ = made.remove();
                Err(error)
            }
        }
    }

    /// Where it is on the node, without links, if that is not `asked`. [`TargetError::Gone`]: its mount was detached since.
    pub fn path_unless(&self, asked: &Path, patience: Patience<'_>) -> Result<Option<PathBuf>, TargetError> {
        // Of our own /proc: see `visit`.
        let path = readlinkat(CWD, format!("self/fd/{}", self.fd.as_raw_fd()), Vec::new());
        let path =
            PathBuf::from(OsString::from_vec(path.map_err(|errno| TargetError::Open(errno.into()))?.into_bytes()));
        if path == asked {
            return Ok(None);
        }
        // What is detached has a path that begins at its own root.
        let there = ask::open(CWD, &path, OFlags::NOFOLLOW, None, patience);
        let mount_of = |fd: BorrowedFd<'_>| statx::cached(fd).map(|stat| stat.stx_mnt_id).map_err(TargetError::Open);
        match there {
            Ok(there) if mount_of(there.as_fd())? == mount_of(self.fd.as_fd())? => Ok(Some(path)),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::TIMEDOUT) => Err(TargetError::NoAnswer),
            _ => Err(TargetError::Gone),
        }
    }

    /// The root of a mount that the table has shown, if it is still there and on top. Its path may lead through filesystems
    /// of others.
    pub fn of_mount(mount: &Mount, patience: Patience<'_>) -> Result<Self, TargetError> {
        let fd = ask::open(CWD, &mount.target, OFlags::NOFOLLOW, None, patience).map_err(TargetError::Open)?;
        let stat = statx::cached(fd.as_fd()).map_err(TargetError::Open)?;
        // The kernel uses the id of a mount that is gone again: the mount that took its place may have it.
        let device = Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor };
        if (stat.stx_mnt_id, device) != (mount.id, mount.device) {
            return Err(TargetError::Gone);
        }
        Ok(Self { fd, mounted: Some(mount.device) })
    }

    /// Detaches the mount whose root it is, and no other. On a visit a thread stands in a directory of /proc where
    /// descriptors have names.
    pub fn detach(&self) -> io::Result<()> {
        Ok(unmount(format!("self/fd/{}", self.fd.as_raw_fd()), UnmountFlags::DETACH)?)
    }
}

/// The directory that a place on the node is in.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    name: OsString,
}

impl Directory {
    /// That of `place`, resolved as with [`Target::open`].
    pub fn of(place: &Path, kubelet_dir: &Path, patience: Patience<'_>) -> Result<Self, TargetError> {
        let (Some(above), Some(name)) = (place.parent(), place.file_name()) else { return Err(TargetError::Missing) };
        Ok(Self { fd: Target::open(above, kubelet_dir, patience)?.fd, name: name.to_owned() })
    }

    /// The place's name in it.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Removes the place, if it is an empty directory and nothing is mounted on it.
    pub fn remove(&self) -> io::Result<()> {
        Ok(unlinkat(&self.fd, &self.name, AtFlags::REMOVEDIR)?)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A directory that was made for a mount.
#[derive(Debug)]
pub struct MadeDirectory(Directory);

impl MadeDirectory {
    /// Removes it, if nothing is in it or mounted on it.
    pub fn remove(self) -> io::Result<()> {
        self.0.remove()
    }
}

/// The file or directory `below` a directory, for naming it only, with no symbolic link on the way.
pub(super) fn open_inside(base: BorrowedFd<'_>, below: &Path, patience: Patience<'_>) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match ask::open(base, below, OFlags::NOFOLLOW, Some(resolve), patience).map_err(errno_of) {
        Err(Errno::NOSYS) => Ok(open_by_steps(base.try_clone_to_owned()?, below, Last::Any, patience)?),
        opened => Ok(opened?),
    }
}

/// The file or directory `below` the root of a filesystem, for naming it only: with no link on the way or at its end, and in
/// that very filesystem, whatever its helper, a pod or another client of the storage makes of it.
pub fn open_in_filesystem(root: BorrowedFd<'_>, below: &Path, patience: Patience<'_>) -> io::Result<OwnedFd> {
    let device = |fd: BorrowedFd<'_>| statx::identity(fd).map(|(device, _)| device);
    let below = below.strip_prefix("/").unwrap_or(below);
    if below.as_os_str().is_empty() {
        return root.try_clone_to_owned();
    }
    let links = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let resolve = links | ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    let opened = match ask::open(root, below, OFlags::empty(), Some(resolve), patience).map_err(errno_of) {
        Err(Errno::NOSYS) => open_by_steps(root.try_clone_to_owned()?, below, Last::Any, patience)?,
        opened => opened?,
    };
    if device(opened.as_fd())? != device(root)? {
        return Err(Errno::XDEV.into());
    }
    Ok(opened)
}

/// The directory `below` that of `base`, with no symbolic link on the way.
fn open_below(base: OwnedFd, below: &Path, patience: Patience<'_>) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match ask::open(base.as_fd(), below, OFlags::DIRECTORY, Some(resolve), patience).map_err(errno_of) {
        Err(Errno::NOSYS) => open_by_steps(base, below, Last::Directory, patience),
        opened => opened,
    }
}

fn errno_of(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// What the last step of a path may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Directory,
    /// Anything but a link.
    Any,
}

/// The same where openat2(2) is missing: each directory is opened by its name in the one before, and looked at.
fn open_by_steps(base: OwnedFd, below: &Path, last: Last, patience: Patience<'_>) -> Result<OwnedFd, Errno> {
    let mut components = below.components().peekable();
    let mut at = base;
    while let Some(component) = components.next() {
        // `..` could lead out.
        let Component::Normal(name) = component else { return Err(Errno::XDEV) };
        at = ask::open(at.as_fd(), Path::new(name), OFlags::NOFOLLOW, None, patience).map_err(errno_of)?;
        let stat = statx::cached(at.as_fd()).map_err(errno_of)?;
        match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::Directory => {}
            FileType::Symlink => return Err(Errno::LOOP),
            _ if last == Last::Any && components.peek().is_none() => {}
            _ => return Err(Errno::NOTDIR),
        }
    }
    Ok(at)
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::own_mounts::{in_own_mounts, new_tmpfs};
    use rustix::fs::open;
    use std::fs;
    use std::os::unix::fs::symlink;

    const PATIENCE: Patience<'_> = Patience::USUAL;

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
            assert_eq!(
                name(open_by_steps(base(), below, Last::Directory, PATIENCE)),
                name(open_below(base(), below, PATIENCE)),
                "{path}"
            );
        }
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    #[ignore = "a mount namespace needs root: make test-quick"]
    fn a_filesystem_is_not_left() {
        in_own_mounts(|| {
            fs::create_dir_all("/mnt/a/b").unwrap();
            fs::write("/mnt/a/file", "").unwrap();
            for (to, link) in [("/", "a/link"), ("b", "a/inside"), ("/proc/self/root", "magic"), ("..", "a/b/up")] {
                symlink(to, Path::new("/mnt").join(link)).unwrap();
            }
            new_tmpfs("/mnt/a/other");
            let root = open("/mnt", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
            let opened = |below| open_in_filesystem(root.as_fd(), Path::new(below), PATIENCE).map(drop);
            let by_steps =
                |below| open_by_steps(root.try_clone().unwrap(), Path::new(below), Last::Any, PATIENCE).map(drop);
            for below in ["/", "", "/a/b", "a/file"] {
                opened(below).unwrap();
            }
            for below in ["/a/link", "a/link/etc", "a/inside", "magic", "a/b/up", "a/other", "../etc", "a/../../etc"] {
                opened(below).unwrap_err();
            }
            for below in ["a/link", "a/link/etc", "a/inside", "magic/etc", "a/b/up", "../etc", "a/file/x"] {
                by_steps(below).unwrap_err();
            }
            by_steps("a/file").unwrap();
        });
    }
}
