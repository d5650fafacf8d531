//! The place on the node where a volume shall appear.
//!
//! Every function runs on a thread that stands in the node's mount namespace (see [`MountNamespace::visit`]).
//! A path is resolved once; after that only its descriptor is used, so that nobody can exchange it meanwhile.
//!
//! [`MountNamespace::visit`]: super::namespace::MountNamespace::visit

use super::mounts::{Device, Mount};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags, open, openat, openat2, statx,
};
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
    /// As mount(8) says it.
    #[error("mount point does not exist")]
    Missing,
    /// As mount(8) says it.
    #[error("mount point is not a directory")]
    NotADirectory,
    /// Below kubelet's directory a link may be a pod's work.
    #[error("mount point is below a symbolic link, which is not followed below {kubelet_dir}",
            kubelet_dir = kubelet_dir.display())]
    Symlink {
        /// Kubelet's directory.
        kubelet_dir: PathBuf,
    },
    /// Anything else.
    #[error("cannot open the mount point")]
    Open(#[source] io::Error),
    /// Looked for by its id, and gone or covered by another.
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
        let mounted = mount_root(fd.as_fd()).map_err(TargetError::Open)?;
        Ok(Self { fd, mounted })
    }

    /// The root of a mount that the table has shown, if it is still there and on top.
    pub fn of_mount(mount: &Mount) -> Result<Self, TargetError> {
        let fd = open(&mount.target, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| TargetError::Open(errno.into()))?;
        let stat = cached_statx(fd.as_fd(), c"").map_err(TargetError::Open)?;
        // The kernel gives the id of a mount that has ended to the next one: what took its place may have it.
        let device = Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor };
        if (stat.stx_mnt_id, device) != (mount.id, mount.device) {
            return Err(TargetError::Gone);
        }
        Ok(Self { fd, mounted: Some(mount.device) })
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
        let stat =
            cached_statx(next.as_fd(), c"").map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
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

/// The device of what is mounted at `path`, if a mount's root is just there. Asks no filesystem: a hung or dead one
/// does not matter.
pub fn device_at(path: &Path) -> io::Result<Option<Device>> {
    match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => mount_root(fd.as_fd()),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn mount_root(fd: BorrowedFd<'_>) -> io::Result<Option<Device>> {
    let stat = cached_statx(fd, c"")?;
    let root = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    Ok(root.then_some(Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor }))
}

/// The device and inode number behind a descriptor, without asking its filesystem.
pub fn identity(fd: BorrowedFd<'_>) -> io::Result<(Device, u64)> {
    let stat = cached_statx(fd, c"")?;
    Ok((Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor }, stat.stx_ino))
}

/// The device number if `fd` is a character device.
pub fn character_device(fd: BorrowedFd<'_>) -> io::Result<Option<Device>> {
    let stat = cached_statx(fd, c"")?;
    let character = FileType::from_raw_mode(stat.stx_mode.into()).is_char_device();
    Ok(character.then_some(Device { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor }))
}

/// Whether `fd` is a directory, without asking its filesystem.
pub fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(cached_statx(fd, c"")?.stx_mode.into()).is_dir())
}

fn cached_statx(fd: BorrowedFd<'_>, path: &CStr) -> io::Result<rustix::fs::Statx> {
    // DONT_SYNC: FUSE answers from what the kernel has and sends no request to the helper.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    Ok(statx(fd, path, flags, StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID)?)
}

/// Asks the filesystem at `path` for its root's attributes and waits for the answer, whatever it is. Errors that tell
/// that nobody answers are returned.
pub fn ask(path: &Path) -> io::Result<()> {
    match statx(CWD, path, AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS) {
        Err(gone @ (Errno::NOTCONN | Errno::CONNABORTED)) => Err(gone.into()),
        _ => Ok(()),
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
        let name = |opened: Result<OwnedFd, Errno>| opened.map(|fd| identity(fd.as_fd()).unwrap());
        for path in ["a", "a/b", "a/b/", "a/./b", "link", "link/b", "a/link", "a/file", "a/file/x", "none/b", "../x"] {
            let below = Path::new(path);
            assert_eq!(name(open_by_steps(base(), below)), name(open_below(base(), below)), "{path}");
        }
        fs::remove_dir_all(&root).unwrap();
    }
}
