//! `libhostmount_preload.so`: replaces libc's mount() and umount() in a helper, makes capset() do nothing there, and
//! refuses what of ioctl() would not get on with that.
//!
//! Runs in helpers' processes, by `/etc/ld.so.preload` or `LD_PRELOAD`. With a mounter ([`mounter`]) the helper has no
//! capability and the mounter performs the call; without one ([`node`]) a copy of the process mounts on the node.
//!
//! It is a guest in another program: no constructors, no threads, no allocation, no panic, and no symbol except
//! the ones it replaces. It does not see system calls that a program makes without libc (Go's do).
//! docs/without-a-mounter.md is the page for administrators.
#![cfg_attr(panic = "abort", no_std)]
#![allow(unsafe_code)]

pub mod message;
mod mounter;
mod mountinfo;
mod node;
mod sys;

use core::ffi::{CStr, c_char, c_int, c_ulong, c_void};
use sys::Errno;

/// Old programs put this into the flags' upper half; the kernel ignores it (mount(2)).
const MS_MGC_VAL: u64 = 0xc0ed_0000;
const MS_MGC_MSK: u64 = 0xffff_0000;

/// mount(2).
///
/// # Safety
///
/// As for libc's: each string is null or a C string, and `data` is what the type takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mount(
    source: *const c_char,
    target: *const c_char,
    fstype: *const c_char,
    flags: c_ulong,
    data: *const c_void,
) -> c_int {
    // SAFETY: what the caller vouches for is what this asks for.
    answer(unsafe { try_mount(source, target, fstype, flags, data) })
}

/// umount2(2).
///
/// # Safety
///
/// `target` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn umount2(target: *const c_char, flags: c_int) -> c_int {
    // SAFETY: what the caller vouches for is what this asks for.
    answer(unsafe { try_unmount(target, flags) })
}

/// umount(2).
///
/// # Safety
///
/// `target` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn umount(target: *const c_char) -> c_int {
    // SAFETY: as above.
    answer(unsafe { try_unmount(target, 0) })
}

/// capset(2). In a mounter's helper it returns success and does nothing: the helper has no capability to drop, and does
/// not need the ones that it raises for its mount(2), as mount.cifs does.
///
/// # Safety
///
/// As for libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn capset(header: *mut c_void, data: *const c_void) -> c_int {
    if mounter::is_there() {
        return 0;
    }
    // SAFETY: what the caller vouches for is what this asks for.
    answer(unsafe { sys::capset(header, data) })
}

/// Functions of the new mount interface. On ENOSYS programs fall back to mount(2).
///
/// Their arguments are ignored, which C's calling conventions permit: the caller cleans them up.
macro_rules! not_here {
    ($($name:ident)*) => {$(
        #[doc = "Answers ENOSYS."]
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> c_int {
            answer(Err(Errno(libc::ENOSYS)))
        }
    )*};
}

not_here! { fsopen fsconfig fsmount fspick open_tree open_tree_attr move_mount mount_setattr }

/// `FUSE_DEV_IOC_SYNC_INIT` (Linux 6.18).
const SYNC_INIT: c_ulong = 0xe503;

/// ioctl(2), but that a FUSE device answers ENOTTY to a request for a synchronous INIT, as before Linux 6.18. libfuse then takes
/// its INIT after mount(2). With one it would wait for ever, once fsopen(2) has been refused: its thread that reads the device
/// waits in the kernel until the device is mounted.
///
/// C declares it with a variable argument; there is one at most, and the calling conventions of the architectures that this is
/// built for pass it as a named one.
///
/// # Safety
///
/// As for libc's: `argument` is what the request takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    if request & 0xffff_ffff == SYNC_INIT {
        return answer(Err(Errno(libc::ENOTTY)));
    }
    // SAFETY: what the caller vouches for is what this asks for.
    match unsafe { sys::ioctl(fd, request, argument) } {
        Ok(number) => number,
        Err(errno) => answer(Err(errno)),
    }
}

fn answer(done: Result<(), Errno>) -> c_int {
    match done {
        Ok(()) => 0,
        Err(errno) => {
            errno.set();
            -1
        }
    }
}

/// # Safety
///
/// As for [`mount`].
unsafe fn try_mount(
    source: *const c_char,
    target: *const c_char,
    fstype: *const c_char,
    flags: c_ulong,
    data: *const c_void,
) -> Result<(), Errno> {
    let modern = if flags & MS_MGC_MSK == MS_MGC_VAL { flags & !MS_MGC_MSK } else { flags };
    // SAFETY: the caller vouches that it is null or a C string.
    let source_text = unsafe { text(source) };
    // SAFETY: as above.
    let target_text = unsafe { text(target) };
    // SAFETY: as above.
    let fstype_text = unsafe { text(fstype) };
    if target.is_null() {
        return Err(Errno::FAULT);
    }
    if mounter::is_there() {
        // SAFETY: the types that a mounter serves take a string as their data, and a null pointer is an empty one.
        let data = unsafe { text(data.cast()) };
        return mounter::mount([source_text, target_text, fstype_text, data], modern);
    }
    if node::takes(fstype_text, modern) {
        // SAFETY: `data` is the caller's, for this type.
        if let Some(done) = unsafe { node::mount([source_text, target_text, fstype_text], modern, data) } {
            return done;
        }
    }
    // SAFETY: the caller vouches for the pointers.
    unsafe { sys::mount(source, target, fstype, flags, data) }
}

/// # Safety
///
/// `target` is null or a C string.
unsafe fn try_unmount(target: *const c_char, flags: c_int) -> Result<(), Errno> {
    if target.is_null() {
        return Err(Errno::FAULT);
    }
    // SAFETY: it is a C string then.
    let path = unsafe { text(target) };
    if mounter::is_there() {
        return mounter::unmount(path, flags);
    }
    match node::unmount(path, flags) {
        Some(done) => done,
        // SAFETY: as above.
        None => unsafe { sys::unmount(target, flags) },
    }
}

/// A C string; an empty one for a null pointer, as the kernel takes it.
///
/// # Safety
///
/// The pointer is null or leads to a C string that lives as long as the result.
unsafe fn text<'a>(pointer: *const c_char) -> &'a CStr {
    // SAFETY: as the caller vouches.
    if pointer.is_null() { c"" } else { unsafe { CStr::from_ptr(pointer) } }
}

/// Nothing here panics; should it all the same, the program must not go on.
#[cfg(panic = "abort")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::abort() }
}
