//! A user namespace with nobody in it: what mount_setattr(2) takes a mapping of ids from.
//!
//! Runs in the mounter, with CAP_SETUID and CAP_SETGID.

use super::fork::live_until_closed;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Makes one with these maps, in the words of /proc/PID/uid_map (user_namespaces(7)).
///
/// A namespace is made for a process, which ends as soon as the namespace is held. Kernel: clone3(2) with a pidfd, 5.3.
pub fn new_user_namespace(uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    let (life, lifeline) = io::pipe()?;
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero bytes are a valid value of this plain C structure.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_PIDFD | libc::CLONE_NEWUSER) as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: `args` has the size that is stated, and its `pidfd` points to a live RawFd. Without CLONE_VM the child has
    // a copy of our memory and this thread's stack. Other threads may have held locks at that moment: the child calls
    // nothing but `live_until_closed`, which takes none and never returns.
    let pid = match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) } {
        -1 => return Err(io::Error::last_os_error()),
        0 => live_until_closed(life.as_raw_fd()),
        pid => pid,
    };
    // SAFETY: a successful clone3 with CLONE_PIDFD stored a new descriptor there that nobody else owns.
    let process = unsafe { OwnedFd::from_raw_fd(pidfd) };
    let file = |name: &str| format!("/proc/{pid}/{name}");
    let held = fs::write(file("uid_map"), uid_map)
        .and_then(|()| fs::write(file("gid_map"), gid_map))
        .and_then(|()| File::open(file("ns/user")));
    drop(lifeline);
    // The mounter collects every child that has ended: it may have been quicker.
    let _ = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
    held.map(OwnedFd::from)
}
