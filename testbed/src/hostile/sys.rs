//! System calls as a hostile program makes them: by number, with whatever arguments.
//!
//! Runs in the hostile helper, in a process for each attempt.
#![expect(unsafe_code, reason = "it tries what no safe interface offers; it is never shipped")]

use rustix::io::Errno;
use std::ffi::{CStr, c_long};

/// Calls the kernel. What the arguments point to must live until then: the callers pass what they own.
pub(super) fn call(number: c_long, arguments: &[u64]) -> Result<i64, Errno> {
    let argument = |nth: usize| arguments.get(nth).copied().unwrap_or_default();
    let [a, b, c, d, e, f] = [0, 1, 2, 3, 4, 5].map(argument);
    // SAFETY: no attempt lets the kernel write anywhere but into memory that it passes for that; none of them comes back
    // in another process but `clone`, which is below.
    let done = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if done < 0 { Err(last_error()) } else { Ok(done) }
}

/// Starts a process with these flags, which exits at once.
pub(super) fn clone(flags: libc::c_int) -> Result<(), Errno> {
    // SAFETY: without CLONE_VM the child has a copy of everything, and its own stack.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags | libc::SIGCHLD, 0, 0, 0, 0) };
    match child {
        // SAFETY: it only exits.
        0 => unsafe { libc::_exit(0) },
        // SAFETY: waits for the child; no status is asked for.
        1.. => _ = unsafe { libc::waitpid(child as libc::pid_t, std::ptr::null_mut(), 0) },
        _ => return Err(last_error()),
    }
    Ok(())
}

/// getpid(2) as programs for i386 call it.
#[cfg(target_arch = "x86_64")]
pub(super) fn call_as_i386() -> Result<(), Errno> {
    let mut result: i32 = 20;
    // SAFETY: the call takes no arguments; the kernel keeps all other registers but these.
    unsafe {
        std::arch::asm!("int 0x80", inout("eax") result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    if result < 0 { Err(Errno::from_raw_os_error(-result)) } else { Ok(()) }
}

/// SIGALRM in so many seconds, which ends this process.
pub(super) fn alarm(seconds: i64) -> Result<(), Errno> {
    let timer = libc::itimerval {
        it_interval: libc::timeval { tv_sec: 0, tv_usec: 0 },
        it_value: libc::timeval { tv_sec: seconds, tv_usec: 0 },
    };
    call(libc::SYS_setitimer, &[libc::ITIMER_REAL as u64, address(&timer), 0]).map(|_| ())
}

/// The address of something, for an argument.
pub(super) fn address<T: ?Sized>(of: &T) -> u64 {
    std::ptr::from_ref(of).cast::<u8>() as u64
}

/// The address of something that the kernel writes to.
pub(super) fn place<T: ?Sized>(of: &mut T) -> u64 {
    std::ptr::from_mut(of).cast::<u8>() as u64
}

/// The address of a string.
pub(super) fn text(text: &CStr) -> u64 {
    text.as_ptr() as u64
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
