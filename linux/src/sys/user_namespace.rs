//! User namespaces: one without processes, which mount_setattr(2) takes a mapping of ids from; which one another namespace belongs to; and
//! entering one.
//!
//! Runs in the mounter, with CAP_SETUID and CAP_SETGID; and entering one, in a process that the mounter or a placeholder has forked.

use super::fork::{fork_held, live_until_closed};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::ffi::c_long;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// NS_GET_USERNS of linux/nsfs.h.
const GET_USER_NAMESPACE: libc::Ioctl = 0xb701;

/// Enters one, and becomes its root, with all capabilities there. What the kernel said: 0 or -1 (errno). For a process with one thread,
/// between fork and `_exit`: system calls only.
pub(super) fn enter_as_root(namespace: RawFd) -> c_long {
    // SAFETY: changes this process's own user namespace.
    if unsafe { libc::setns(namespace, libc::CLONE_NEWUSER) } != 0 {
        return -1;
    }
    // By system calls: libc's functions would have all threads do the same.
    // SAFETY: changes this process's credentials, and touches no memory.
    if unsafe { libc::syscall(libc::SYS_setresgid, 0, 0, 0) } != 0 {
        return -1;
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_setresuid, 0, 0, 0) }
}

/// Makes one with these maps, in the format of /proc/PID/uid_map (user_namespaces(7)).
///
/// A namespace is made for a process, which ends as soon as the namespace is held. Kernel: clone3(2) with a pidfd, 5.3.
pub fn new_user_namespace(uid_map: &str, gid_map: &str) -> io::Result<OwnedFd> {
    let (life, lifeline) = io::pipe()?;
    // SAFETY: `live_until_closed` makes system calls only.
    let (pid, process) = unsafe { fork_held(libc::CLONE_NEWUSER, None, || live_until_closed(life.as_raw_fd())) }?;
    let file = |name: &str| format!("/proc/{pid}/{name}");
    let held = fs::write(file("uid_map"), uid_map)
        .and_then(|()| fs::write(file("gid_map"), gid_map))
        .and_then(|()| File::open(file("ns/user")));
    drop(lifeline);
    // The mounter collects every child that has exited: it may have been quicker.
    let _ = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
    held.map(OwnedFd::from)
}

/// The user namespace that a namespace belongs to: that of the process which has made it (ioctl_nsfs(2), Linux 4.9). EPERM: it is neither
/// ours nor below that.
pub fn owner_of(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the call has no argument, and touches no memory.
    let owner = unsafe { libc::ioctl(namespace.as_raw_fd(), GET_USER_NAMESPACE) };
    if owner < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made it, and nothing else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(owner) })
}
