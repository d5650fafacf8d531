//! FUSE connections as the kernel's control filesystem shows them (fusectl): without touching any filesystem.
//!
//! Runs in the mounter. The control filesystem is held by a descriptor and mounted nowhere.

use super::mounts::Device;
use rustix::fs::{AtFlags, statat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::io;
use std::os::fd::OwnedFd;

/// The control filesystem.
#[derive(Debug)]
pub struct Connections(OwnedFd);

/// One mounted filesystem, told from every other that is, was or will be.
///
/// Its device number alone would not do: the kernel gives it to the next filesystem as soon as this one is unmounted
/// everywhere, which is before its helper has noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// What mount tables show.
    pub device: Device,
    /// The inode number of its connection's directory in the control filesystem, which no other gets for as long as that
    /// is mounted anywhere; none for a filesystem of the kernel's own.
    pub connection: Option<u64>,
}

impl Connections {
    /// Opens it: fsopen(2), 5.2 and later.
    pub fn open() -> io::Result<Self> {
        let context = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        Ok(Self(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?))
    }

    /// The filesystem that has this device number now.
    pub fn identify(&self, device: Device) -> Identity {
        // A connection's directory is called like the minor number of its filesystem.
        let directory = statat(&self.0, device.minor.to_string(), AtFlags::SYMLINK_NOFOLLOW);
        Identity { device, connection: directory.ok().map(|stat| stat.st_ino) }
    }

    /// Whether a FUSE filesystem is still mounted, somewhere on the machine.
    pub fn has(&self, filesystem: Identity) -> bool {
        filesystem.connection.is_some() && self.identify(filesystem.device) == filesystem
    }
}
