//! What is behind a path or a descriptor, by statx(2).
//!
//! Runs in every program. Kernel: 5.8 (STATX_ATTR_MOUNT_ROOT). All of it but [`ask`] and [`attributes`] answers from what the kernel knows and
//! asks no filesystem, so that one that is dead or hangs does not matter.

use crate::mount_table::Device;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxAttributes, StatxFlags, open, statx};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// The device of what is mounted at `path`, if a mount's root is just there. Asks no filesystem: a hung or dead one
/// does not matter.
pub fn device_at(path: &Path) -> io::Result<Option<Device>> {
    match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(fd) => mount_root(fd.as_fd()),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// The device of a mount, if its root is behind the descriptor.
pub fn mount_root(fd: BorrowedFd<'_>) -> io::Result<Option<Device>> {
    let stat = cached(fd)?;
    let root = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    Ok(root.then_some(Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor }))
}

/// The device and inode number behind a descriptor, without asking its filesystem.
pub fn identity(fd: BorrowedFd<'_>) -> io::Result<(Device, u64)> {
    let stat = cached(fd)?;
    Ok((Device { major: stat.stx_dev_major, minor: stat.stx_dev_minor }, stat.stx_ino))
}

/// The device number if `fd` is a character device.
pub fn character_device(fd: BorrowedFd<'_>) -> io::Result<Option<Device>> {
    let stat = cached(fd)?;
    let character = FileType::from_raw_mode(stat.stx_mode.into()).is_char_device();
    Ok(character.then_some(Device { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor }))
}

/// Whether `fd` is a directory, without asking its filesystem.
pub fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(cached(fd)?.stx_mode.into()).is_dir())
}

/// Type, inode number and mount id of what is behind a descriptor, without asking its filesystem.
pub fn cached(fd: BorrowedFd<'_>) -> io::Result<rustix::fs::Statx> {
    // DONT_SYNC: FUSE answers from what the kernel has and sends no request to the helper.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    match statx(fd, c"", flags, StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID) {
        // Of a FUSE filesystem of a user namespace that we are not in, a pod's, it tells only which one it is, and by which mount.
        Err(Errno::ACCESS) => Ok(statx(fd, c"", flags, StatxFlags::empty())?),
        told => Ok(told?),
    }
}

/// Whether what is behind a descriptor is in a FUSE filesystem of a user namespace that we are not in: it tells us nothing.
pub fn is_closed(fd: BorrowedFd<'_>) -> bool {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    statx(fd, c"", flags, StatxFlags::TYPE).err() == Some(Errno::ACCESS)
}

/// STATX_MNT_ID_UNIQUE, Linux 6.8: a mount's number that no other mount is ever given.
const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// The number of the mount that a descriptor was opened by, which no other mount is ever given, without asking a filesystem; `None`:
/// the kernel has no such numbers.
pub fn unique_mount(fd: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = statx(fd, c"", flags, StatxFlags::TYPE | UNIQUE)?;
    Ok(StatxFlags::from_bits_retain(stat.stx_mask).contains(UNIQUE).then_some(stat.stx_mnt_id))
}

/// All attributes of what is behind a descriptor, as the kernel has them, without asking its filesystem.
pub fn known(fd: BorrowedFd<'_>) -> io::Result<rustix::fs::Statx> {
    Ok(statx(fd, c"", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, StatxFlags::BASIC_STATS)?)
}

/// All attributes of what is behind a descriptor, as its filesystem has them now: it is asked, and waited for.
pub fn attributes(fd: BorrowedFd<'_>) -> io::Result<rustix::fs::Statx> {
    Ok(statx(fd, c"", AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS)?)
}

/// The number of the mount that `path` is in, which the kernel gives to no other; a link at its end is not followed. None
/// before Linux 6.8.
pub fn unique_mount_id(path: &Path) -> io::Result<Option<u64>> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let stat = statx(CWD, path, flags, UNIQUE)?;
    Ok((stat.stx_mask & UNIQUE.bits() != 0).then_some(stat.stx_mnt_id))
}

/// Asks the filesystem behind a descriptor for its attributes and waits for the answer, whatever it is. Only
/// errors that mean that no process serves it are returned: also that the kernel has refused the answer to INIT.
pub fn ask(fd: BorrowedFd<'_>) -> io::Result<()> {
    match statx(fd, c"", AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS) {
        Err(gone @ (Errno::NOTCONN | Errno::CONNABORTED | Errno::CONNREFUSED)) => Err(gone.into()),
        _ => Ok(()),
    }
}
