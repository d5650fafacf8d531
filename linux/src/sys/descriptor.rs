//! Descriptors that we know by number only: those inherited from the process that started us.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Marks descriptor `number` close-on-exec; one that is not open is left alone.
pub fn close_on_exec(number: i32) {
    // SAFETY: fcntl(F_SETFD) takes plain numbers and changes a flag only; ownership stays where it is.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// Another descriptor, of our own and close-on-exec, of what the inherited one of this number is open on. EBADF: it is not open.
pub fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(F_DUPFD_CLOEXEC) takes plain numbers, and leaves the descriptor of that number as it is.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made it, and nothing else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Closes all that this process has open, but the standard ones and `kept`: what was inherited by mistake would be held open
/// for as long as this process lives. For a process that owns no other descriptor any more. Kernel: close_range(2), 5.9;
/// before that nothing is closed.
pub fn close_all_but(kept: &OwnedFd) {
    let kept = kept.as_raw_fd().cast_unsigned();
    let first = 3;
    if kept > first {
        // SAFETY: takes plain numbers. No owner of a descriptor is left that would close one of these again.
        unsafe { close_range(first, kept - 1) };
    }
    // SAFETY: as above.
    unsafe { close_range(kept.saturating_add(1).max(first), u32::MAX) };
}

/// close_range(2), which not every libc has; system calls only.
///
/// # Safety
///
/// No owner of a descriptor in that range is left that would close it again.
pub(super) unsafe fn close_range(first: u32, last: u32) {
    // SAFETY: takes plain numbers; the caller vouches for the descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}
