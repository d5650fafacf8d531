//! The calls of a helper that mounts as libfuse 3.19 does, by libc's functions: an object that is loaded into it replaces those.
//!
//! Runs in the helper.
#![expect(unsafe_code, reason = "neither nix nor rustix calls libc for these; it is never shipped")]

use rustix::io::Errno;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Of linux/fuse.h, since 6.18.
const FUSE_DEV_IOC_SYNC_INIT: libc::Ioctl = 0xe503;
const FSOPEN_CLOEXEC: c_uint = 1;
const FSMOUNT_CLOEXEC: c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 4;

/// What fsconfig(2) is to do.
#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(super) enum Command {
    SetFlag = 0,
    SetString = 1,
    Create = 6,
}

unsafe extern "C" {
    // Of glibc 2.36. Not in the libc crate.
    fn fsopen(name: *const c_char, flags: c_uint) -> c_int;
    fn fsconfig(fd: c_int, command: c_uint, key: *const c_char, value: *const c_void, aux: c_int) -> c_int;
    fn fsmount(fd: c_int, flags: c_uint, attributes: c_uint) -> c_int;
    fn move_mount(from: c_int, path: *const c_char, to: c_int, target: *const c_char, flags: c_uint) -> c_int;
}

/// Asks for the INIT of this FUSE device while its filesystem is created.
pub(super) fn ask_for_a_synchronous_init(device: impl AsFd) -> Result<(), Errno> {
    // SAFETY: takes no argument.
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), FUSE_DEV_IOC_SYNC_INIT) }).map(drop)
}

/// fsopen(2).
pub(super) fn open_filesystem(name: &CStr) -> Result<OwnedFd, Errno> {
    // SAFETY: the name is a C string.
    made(unsafe { fsopen(name.as_ptr(), FSOPEN_CLOEXEC) })
}

/// fsconfig(2).
pub(super) fn configure(
    filesystem: impl AsFd,
    command: Command,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> Result<(), Errno> {
    let fd = filesystem.as_fd().as_raw_fd();
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: both are null, where the command takes none, or C strings.
    check(unsafe { fsconfig(fd, command as c_uint, pointer(key), pointer(value).cast(), 0) }).map(drop)
}

/// fsmount(2), `nosuid,nodev`.
pub(super) fn mount_detached(filesystem: impl AsFd) -> Result<OwnedFd, Errno> {
    let attributes = (libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV) as c_uint;
    // SAFETY: takes plain numbers.
    made(unsafe { fsmount(filesystem.as_fd().as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })
}

/// move_mount(2) of a detached mount.
pub(super) fn attach(mount: impl AsFd, target: &CStr) -> Result<(), Errno> {
    let from = mount.as_fd().as_raw_fd();
    // SAFETY: both paths are C strings.
    check(unsafe { move_mount(from, c"".as_ptr(), libc::AT_FDCWD, target.as_ptr(), MOVE_MOUNT_F_EMPTY_PATH) }).map(drop)
}

/// The path as libc takes it.
pub(super) fn c_path(path: &Path) -> Result<std::ffi::CString, Errno> {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)
}

fn made(answer: c_int) -> Result<OwnedFd, Errno> {
    // SAFETY: the call has just made it, and nothing else has it.
    check(answer).map(|number| unsafe { OwnedFd::from_raw_fd(number) })
}

fn check(answer: c_int) -> Result<c_int, Errno> {
    let error = || Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    if answer < 0 { Err(error()) } else { Ok(answer) }
}
