//! FUSE connections as the kernel's control filesystem shows them (fusectl): without touching any filesystem.
//!
//! Runs in the mounter. The control filesystem is held by a descriptor and mounted nowhere.

use super::mounts::Device;
use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::io;
use std::os::fd::OwnedFd;

/// The control filesystem, or none where the kernel gives us none.
#[derive(Debug)]
pub struct Connections(Option<OwnedFd>);

impl Connections {
    /// Opens it: fsopen(2), 5.2 and later.
    pub fn open() -> (Self, io::Result<()>) {
        let opened = || {
            let context = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_create(&context)?;
            let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        };
        match opened() {
            Ok(fd) => (Self(Some(fd)), Ok(())),
            Err(errno) => (Self(None), Err(errno.into())),
        }
    }

    /// Whether the filesystem with this device number is certainly gone from everywhere.
    pub fn is_gone(&self, device: Device) -> bool {
        let Some(fd) = &self.0 else { return false };
        statat(fd, device.minor.to_string(), AtFlags::empty()).is_err_and(|errno| errno == Errno::NOENT)
    }
}
