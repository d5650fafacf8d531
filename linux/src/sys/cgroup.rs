//! Starting programs below a cgroup of version 2, in a cgroup namespace that has its root there (cgroup_namespaces(7)).
//!
//! Runs in the process that makes a throw-away machine, as root. Where the node's cgroup2 is mounted with `nsdelegate`, a
//! process can be moved only by one that sees both cgroups: the kernel takes the namespace, and the identity, of the process that opened
//! `cgroup.procs`, not of the one that writes to it.

use super::fork::{fork_held, live_until_closed};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes a cgroup namespace whose root is where the calling thread is in the hierarchies of version 1, and in version 2 the
/// cgroup whose directory is `cgroup`. Kernel: CLONE_INTO_CGROUP, 5.7.
pub fn new_cgroup_namespace(cgroup: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let (life, lifeline) = io::pipe()?;
    let (mut report, verdict) = io::pipe()?;
    // SAFETY: `unshare_and_live` makes system calls only.
    let (pid, process) = unsafe { fork_held(0, cgroup, || unshare_and_live(life.as_raw_fd(), verdict.as_raw_fd())) }?;
    drop(verdict);
    let mut done = [0; 1];
    // A child that could not shows as the end of the pipe.
    let held = report.read_exact(&mut done).and_then(|()| File::open(format!("/proc/{pid}/ns/cgroup")));
    drop(lifeline);
    // It may have been collected by another thread.
    let _ = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
    held.map(OwnedFd::from)
}

/// All of the process's life: system calls only, no allocation, no panic.
fn unshare_and_live(life: RawFd, verdict: RawFd) -> ! {
    // SAFETY: takes a plain number.
    if unsafe { libc::unshare(libc::CLONE_NEWCGROUP) } == 0 {
        // SAFETY: the buffer is one byte long and a constant.
        unsafe { libc::write(verdict, c"1".as_ptr().cast(), 1) };
    }
    live_until_closed(life)
}

/// Has `command` start in the cgroup whose `cgroup.procs` is open for writing. With a uid of its own, too, which it has by then.
///
/// The kernel stops every fork on the machine for milliseconds for it, and the program is started by fork(2).
pub fn start_in(command: &mut Command, procs: OwnedFd) {
    let go_there = move || {
        rustix::io::write(&procs, b"0")?;
        Ok(())
    };
    // SAFETY: the closure makes one system call on a descriptor that it owns, and allocates nothing.
    unsafe { command.pre_exec(go_there) };
}
