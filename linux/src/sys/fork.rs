//! The forks that no exec follows: the first process of a throw-away machine, one that a user namespace is made for, and
//! a helper going to the background.
//!
//! Runs in whatever process makes a machine (a demo, a test: root, many threads), in the mounter, and in the demo's
//! filesystem (uid 0 without capabilities, one thread).

use super::descriptor::close_range;
use nix::errno::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::ffi::{CStr, c_int, c_long};
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

/// The first process (PID 1) of a PID namespace. When it ends, the kernel ends every other process in there.
///
/// It lives as long as the write end of a pipe that only its creator holds: it ends when this value is dropped, and
/// just so when the creator dies, in whatever way.
#[derive(Debug)]
pub struct Init {
    lifeline: Mutex<Option<PipeWriter>>,
    pidfd: OwnedFd,
}

impl Init {
    /// Forks it. The calling thread must have unshared its children's PID namespace, with no process in it yet, and must
    /// stand in the root that is to be PID 1's.
    ///
    /// The new process mounts `/proc` at `proc_at` before this returns: a proc filesystem shows the PID namespace of
    /// the process that mounts it, so no process outside could. Kernel: clone3(2) with a pidfd, 5.3; waitid(2) on it, 5.4;
    /// close_range(2), 5.9.
    pub fn fork(proc_at: &CStr) -> io::Result<Self> {
        let (life, lifeline) = io::pipe()?;
        let (mut report, verdict) = io::pipe()?;
        let child = || live_as_init(life.as_raw_fd(), verdict.as_raw_fd(), proc_at);
        // SAFETY: `live_as_init` makes system calls only.
        let (_, pidfd) = unsafe { fork_held(0, None, child) }?;
        let init = Self { lifeline: Mutex::new(Some(lifeline)), pidfd };
        drop(verdict);
        let mut errno = [0; 4];
        // A child that was killed before it could report shows as the end of the pipe.
        report.read_exact(&mut errno)?;
        match i32::from_ne_bytes(errno) {
            0 => Ok(init),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    /// Makes it exit, and does not wait for it.
    pub fn end(&self) {
        self.lifeline.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Init {
    /// Ends it and waits until every process of its namespace is gone: the kernel lets PID 1 be reaped last.
    fn drop(&mut self) {
        self.end();
        // The only failure is that it has been reaped already, which is what we want.
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// Forks a process, in new namespaces as `flags` say (clone(2)), and in `cgroup`, the directory of one of version 2;
/// returns its id, and a descriptor that holds it. It ends when `child` returns. Kernel: a cgroup, 5.7.
///
/// # Safety
///
/// `child` makes system calls only: other threads may have held locks at that moment, which no thread in the new process
/// will release.
pub(super) unsafe fn fork_held(
    flags: c_int,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce(),
) -> io::Result<(c_long, OwnedFd)> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero bytes are a valid value of this plain C structure.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = (libc::CLONE_PIDFD | flags) as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` has the size that is stated, and its `pidfd` points to a live RawFd. Without CLONE_VM the child has
    // a copy of our memory and this thread's stack, as after fork(2), and the caller vouches for what it does with them.
    let pid = match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            child();
            // SAFETY: ends the process without running anything of the creator's.
            unsafe { libc::_exit(0) }
        }
        pid => pid,
    };
    // SAFETY: a successful clone3 with CLONE_PIDFD stored a new descriptor there that has no other owner.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Of `libc`, where its type is too small for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// All of PID 1's life. Between fork and `_exit`: system calls only, no allocation, no panic.
fn live_as_init(life: RawFd, verdict: RawFd, proc_at: &CStr) -> ! {
    let no_more_than_proc_needs = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: the name is a C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"init".as_ptr()) };
    // Orphans become PID 1's children: with SIGCHLD ignored the kernel reaps them itself.
    // SAFETY: ignoring a signal installs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    // Out of the creator's session: a Ctrl-C at its terminal reaches us through the lifeline only.
    // SAFETY: takes no argument and touches no memory.
    unsafe { libc::setsid() };
    // SAFETY: three C strings that outlive the call, and no data.
    let mounted = unsafe {
        libc::mount(c"proc".as_ptr(), proc_at.as_ptr(), c"proc".as_ptr(), no_more_than_proc_needs, std::ptr::null())
    };
    let errno = if mounted == 0 { 0 } else { Errno::last_raw() };
    // SAFETY: the buffer is the four bytes of `errno`, which lives in this frame.
    unsafe { libc::write(verdict, (&raw const errno).cast(), size_of_val(&errno)) };
    live_until_closed(life)
}

/// All that is left of a new process's life: it ends when no process holds the other end of the pipe `life` any more.
/// System calls only.
pub(super) fn live_until_closed(life: RawFd) -> ! {
    // Everything of the creator's goes, other machines' lifelines above all: `life` is kept by closing what is below
    // and above it.
    let life_number = life.cast_unsigned();
    if life_number > 0 {
        // SAFETY: closes this process's own table only; nothing here owns a descriptor any more.
        unsafe { close_range(0, life_number - 1) };
    }
    // SAFETY: as above.
    unsafe { close_range(life_number + 1, u32::MAX) };
    let mut nothing = 0_u8;
    loop {
        // SAFETY: the buffer is one byte long and lives in this frame.
        let read = unsafe { libc::read(life, (&raw mut nothing).cast(), 1) };
        if read != -1 || Errno::last_raw() != libc::EINTR {
            // SAFETY: ends the process without running anything of the creator's.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Which of the two processes [`fork_into_background`] returned in.
#[derive(Debug)]
pub enum Role {
    /// The one that was called: it reads the other's report to its end, and exits accordingly.
    Foreground(PipeReader),
    /// The new one, in a session of its own: it reports how its start went, drops the writer, and goes on.
    Background(PipeWriter),
}

/// Splits off a process that goes on in the background. Refuses (EINVAL) when the caller has more than one thread.
pub fn fork_into_background() -> io::Result<Role> {
    // The kernel's own test, and no more than a test: unsharing the thread group is refused to a process with
    // threads and does nothing to one without.
    nix::sched::unshare(nix::sched::CloneFlags::from_bits_retain(libc::CLONE_THREAD))?;
    let (reader, writer) = io::pipe()?;
    // SAFETY: there is no other thread, as was just tested, hence none that could have left a lock taken or a
    // structure half written: the child may run any code.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // Fails only for the leader of a process group, which a new process never is; and an error returned from
            // here would be handled twice, once in each process.
            let _ = nix::unistd::setsid();
            Ok(Role::Background(writer))
        }
        _ => Ok(Role::Foreground(reader)),
    }
}
