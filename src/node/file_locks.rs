//! Threads that wait for a file lock: such a request to a filesystem waits for as long as another process holds the lock,
//! which is no fault of the helper.
//!
//! Runs in the mounter. It reads /proc, and does not touch the filesystem.

use linux::mount_table::Device;
use linux::processes::{self, Process};
use linux::statx::identity;
use rustix::fs::{Mode, OFlags, open};
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

/// How many threads of the node's wait for a lock on a file of this filesystem; fcntl(2) with F_SETLKW and its kind, and
/// flock(2).
pub fn waiting(filesystem: Device, host_proc: &Path) -> u64 {
    let waits = |process: &Process, thread: &Path| {
        let call = fs::read_to_string(thread.join("syscall")).unwrap_or_default();
        let Some(number) = locked_file(&call) else { return false };
        let file = open(process.file(format!("fd/{number}")), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        file.is_ok_and(|file| identity(file.as_fd()).is_ok_and(|(device, _)| device == filesystem))
    };
    let of_process = |process: &Process| process.threads().filter(|thread| waits(process, thread)).count() as u64;
    processes::all(host_proc).unwrap_or_default().iter().map(of_process).sum()
}

/// The descriptor that a call is about which waits for a lock; the call as proc_pid_syscall(5) shows it.
fn locked_file(call: &str) -> Option<u64> {
    let mut words = call.split_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (file, how) = (argument()?, argument()?);
    let waits = match number {
        libc::SYS_fcntl => [libc::F_SETLKW, libc::F_OFD_SETLKW].iter().any(|command| *command as u64 == how),
        libc::SYS_flock => how & libc::LOCK_NB as u64 == 0,
        _ => false,
    };
    waits.then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_wait_for_locks() {
        let call = |number: i64, how: i32| format!("{number} 0x3 {how:#x} 0x7ffd 0x0 0x0 0x0 0x7ffe 0x7f00\n");
        assert_eq!(locked_file(&call(libc::SYS_fcntl, libc::F_SETLKW)), Some(3));
        assert_eq!(locked_file(&call(libc::SYS_fcntl, libc::F_GETFD)), None);
        assert_eq!(locked_file(&call(libc::SYS_flock, libc::LOCK_EX)), Some(3));
        assert_eq!(locked_file(&call(libc::SYS_flock, libc::LOCK_EX | libc::LOCK_NB)), None);
        assert_eq!(locked_file(&call(libc::SYS_read, libc::F_SETLKW)), None);
        assert_eq!((locked_file("running\n"), locked_file("")), (None, None));
    }
}
