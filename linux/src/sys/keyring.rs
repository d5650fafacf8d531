//! keyctl(2), which neither nix nor rustix has: the one call that a helper's thread needs.

use std::io;

/// Gives the calling thread, and what it will start, a session keyring of its own, without a name (session-keyring(7)). ENOSYS
/// where the kernel has no keyrings.
pub fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let nameless = std::ptr::null::<libc::c_char>();
    // SAFETY: without a name there is nothing that the kernel reads.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, nameless) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
