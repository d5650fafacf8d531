//! FUSE connections as the kernel's control filesystem shows them (fusectl): without touching any filesystem.
//!
//! Runs in the mounter. The control filesystem is held by a descriptor and mounted nowhere.

use linux::mount_table::Device;
use rustix::fs::{AtFlags, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::io;
use std::os::fd::OwnedFd;
use tracing::warn;

/// The control filesystem.
#[derive(Debug)]
pub struct Connections(OwnedFd);

/// One mounted filesystem, distinguished from every other that is, was or will be.
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

/// A filesystem whose helper is gone, and whose requests may wait all the same.
#[derive(Debug, Clone, Copy)]
pub struct Dead<'a> {
    /// Which one it is.
    pub filesystem: Identity,
    /// Where it is ended.
    pub connections: &'a Connections,
}

impl Dead<'_> {
    /// What waits for it gets an error, and lets go of the locks that it holds.
    pub(super) fn end(self) {
        if let Err(error) = self.connections.abort(self.filesystem) {
            warn!("cannot end the connection of a helper that is gone: {error}");
        }
    }
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

    /// How many requests wait for an answer: those that the helper has read, and those that it has not.
    pub fn waiting(&self, filesystem: Identity) -> io::Result<u64> {
        let file = self.file_of(filesystem, "waiting", OFlags::RDONLY)?;
        let mut text = [0; 32];
        let length = rustix::io::read(file, &mut text)?;
        let number = std::str::from_utf8(&text[..length]).ok().and_then(|text| text.trim().parse().ok());
        number.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Ends the connection: every request, those that wait too, is answered with an error. The mount stays.
    pub fn abort(&self, filesystem: Identity) -> io::Result<()> {
        rustix::io::write(self.file_of(filesystem, "abort", OFlags::WRONLY)?, b"1")?;
        Ok(())
    }

    /// A file of a connection's, and of no other's that got its number since.
    fn file_of(&self, filesystem: Identity, name: &str, how: OFlags) -> io::Result<OwnedFd> {
        let number = filesystem.device.minor.to_string();
        let directory = openat(&self.0, number, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        if Some(fstat(&directory)?.st_ino) != filesystem.connection {
            return Err(Errno::NOENT.into());
        }
        Ok(openat(directory, name, how | OFlags::CLOEXEC, Mode::empty())?)
    }
}
