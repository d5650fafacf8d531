//! The signals of a process that passes them on to a child.
//!
//! Runs in `hostmount-pod`.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Lets `command` start with no signal blocked, whatever this thread blocks: a child inherits that, and would never notice.
pub fn unblock_for_child(command: &mut Command) {
    let unblock = || {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set lives in this frame.
        unsafe { libc::sigemptyset(&raw mut none) };
        // SAFETY: as above; the old set is not asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) } {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    };
    // SAFETY: between fork and exec it makes one system call and allocates nothing.
    unsafe { command.pre_exec(unblock) };
}

/// Sends the signal of this number, which may be one of the real-time signals.
pub fn send(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: takes plain numbers.
    if unsafe { libc::kill(pid, number) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
