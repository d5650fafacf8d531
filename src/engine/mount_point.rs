//! A helper's own mount point, the one directory that its grant is for; and what it has mounted there.
//!
//! Runs in the mounter, on the volume's own thread, **inside the helper's mount namespace**. Both are held by descriptors,
//! the directory from before the helper starts. Its path is for the helper alone: directories above it may be the helper's
//! to rename, so nothing here goes by it.

use linux::mount_table::Device;
use linux::processes::name_of;
use linux::statx::{identity, mount_root};
use linux::sys::fuse_of_users;
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, UnmountFlags, mount, move_mount, unmount};
use std::ffi::{CStr, CString, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A directory in the helper's mount namespace.
#[derive(Debug)]
pub struct MountPoint {
    path: PathBuf,
    /// On a filesystem of ours, which is read-only for the helper: there the name stays that of `directory`.
    above: OwnedFd,
    name: OsString,
    directory: OwnedFd,
    identity: (Device, u64),
}

/// What is mounted on a mount point, held by its root. While it is held, no other filesystem gets its device number.
#[derive(Debug)]
pub struct Mounted {
    root: OwnedFd,
    /// Of the filesystem.
    pub device: Device,
}

impl MountPoint {
    /// The directory at `path`, on which nothing is mounted yet; no helper runs in this mount namespace yet either.
    pub fn at(path: &Path) -> io::Result<Self> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL.into()) };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let above = open(above, flags, Mode::empty())?;
        let directory = openat(&above, name, flags, Mode::empty())?;
        let identity = identity(directory.as_fd())?;
        Ok(Self { path: path.to_owned(), above, name: name.to_owned(), directory, identity })
    }

    /// The path that the helper gets in its arguments.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a descriptor names this very directory.
    pub fn is(&self, fd: BorrowedFd<'_>) -> bool {
        identity(fd).is_ok_and(|identity| identity == self.identity)
    }

    /// mount(2) on the directory itself, wherever it may have been moved to.
    pub fn mount(&self, source: &CStr, fstype: &str, flags: MountFlags, data: &CStr) -> io::Result<Mounted> {
        mount(source, name_of(self.directory.as_fd()), fstype, flags, data)?;
        self.mounted()
    }

    /// The same for this user namespace, as FUSE filesystems can be: its users are theirs. `device` is a descriptor that `data` names; returns
    /// the one that it is served by, which is another. By its path: for a mount namespace without a helper.
    pub fn mount_for(
        &self,
        users: BorrowedFd<'_>,
        (source, fstype): (&CStr, &str),
        flags: MountFlags,
        data: &CStr,
        device: BorrowedFd<'_>,
    ) -> io::Result<(OwnedFd, Mounted)> {
        let [at, fstype] = [self.path.as_os_str().as_bytes(), fstype.as_bytes()].map(CString::new);
        let (at, fstype) = (at?, fstype?);
        let flags = flags.bits().into();
        let call = fuse_of_users::Call { source, at: &at, fstype: &fstype, flags, data, device };
        let (device, mount) = fuse_of_users::mount(users, call)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&mount, c"", &self.directory, c"", flags)?;
        drop(mount);
        Ok((device, self.mounted()?))
    }

    /// What is mounted there.
    fn mounted(&self) -> io::Result<Mounted> {
        // A descriptor of the directory leads below what is mounted on it: only a name leads there.
        let root = openat(&self.above, &self.name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        match mount_root(root.as_fd())? {
            Some(device) if device != self.identity.0 => Ok(Mounted { root, device }),
            _ => Err(Errno::STALE.into()),
        }
    }
}

impl Mounted {
    /// Detaches the mount, and no other. The filesystem ends when this is dropped as well, and no other copy is left.
    pub fn detach(&self, flags: UnmountFlags) -> io::Result<()> {
        Ok(unmount(name_of(self.root.as_fd()), flags | UnmountFlags::DETACH)?)
    }
}

impl AsFd for Mounted {
    /// Its root.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}
