//! Threads that wait for a FUSE filesystem in the kernel, and whether what they have asked for may be done twice.
//!
//! Runs in the mounter. It reads /proc, and touches no filesystem.

use super::dying::{Life, life_of};
use linux::namespace::NamespaceId;
use linux::processes::{self, Process};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

/// Those that live in some mount namespaces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Waiters {
    /// The ids of those that were killed.
    pub killed: HashSet<i32>,
    /// Whether one that lives waits in a call whose request must not be done twice.
    pub once: bool,
}

/// Those that live in `namespaces` just now; killed are those of processes that live no longer than `until`. `write_again`: the helper stores
/// at a place what is written there, however often it comes.
pub fn waiting_in(
    namespaces: &HashSet<NamespaceId>,
    until: Life,
    host_proc: &Path,
    write_again: bool,
) -> io::Result<Waiters> {
    let mut waiters = Waiters::default();
    let populated = processes::mount_namespaces(host_proc)?.into_iter();
    for process in populated.filter(|each| namespaces.contains(&each.id)).flat_map(|each| each.processes) {
        let mut waits = process.threads().filter(|thread| waits(thread)).peekable();
        if waits.peek().is_none() {
            continue;
        }
        let killed = life_of(&process) <= until;
        for thread in waits {
            match thread.file_name().and_then(|name| name.to_str()?.parse().ok()) {
                Some(id) if killed => _ = waiters.killed.insert(id),
                _ => waiters.once |= !killed && !may_be_repeated(&process, &thread, write_again),
            }
        }
    }
    Ok(waiters)
}

/// Whether a thread sleeps where the kernel's FUSE waits for an answer (proc_pid_wchan(5)).
fn waits(thread: &Path) -> bool {
    let place = fs::read_to_string(thread.join("wchan")).unwrap_or_default();
    // The compiler may have made one function of it and those that call it. What reads /dev/fuse waits for requests.
    place == "request_wait_answer" || place.contains("fuse") && !place.contains("fuse_dev")
}

fn may_be_repeated(process: &Process, thread: &Path, write_again: bool) -> bool {
    let call = fs::read_to_string(thread.join("syscall")).unwrap_or_default();
    let stat = fs::read_to_string(thread.join("stat")).unwrap_or_default();
    let writes_once = |file: u64| {
        if !write_again {
            return true;
        }
        let told = process.read(&format!("fdinfo/{file}")).unwrap_or_default();
        let flags = told.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
        flags.is_none_or(|flags| flags & libc::O_APPEND != 0)
    };
    !is_for_io_uring(&stat) && is_repeatable(&call, writes_once)
}

/// Whether a thread is the kernel's, which works for a process that used io_uring(7): its call says nothing.
fn is_for_io_uring(stat: &str) -> bool {
    const PF_IO_WORKER: u64 = 0x10;
    // The name may hold anything.
    let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_none_or(|flags| flags & PF_IO_WORKER != 0)
}

/// The same of a call, as proc_pid_syscall(5) shows it; and whether what is written to a descriptor must be `written_once`.
fn is_repeatable(call: &str, written_once: impl Fn(u64) -> bool) -> bool {
    let words: Vec<_> = call.split_whitespace().collect();
    let hexadecimal = |word: &&str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let Some(number) = words.first().and_then(|number| number.parse::<i64>().ok()) else { return false };
    // The stack pointer is the last but one. A program of 32 bits has other numbers for its calls.
    if words.iter().rev().nth(1).and_then(hexadecimal).is_none_or(|stack| stack <= u64::from(u32::MAX)) {
        return false;
    }
    let argument = |nth: usize| words.get(1 + nth).and_then(hexadecimal);
    let opens = |flags: Option<u64>| flags.is_some_and(|flags| flags & (libc::O_CREAT | libc::O_TRUNC) as u64 == 0);
    match number {
        // None: it touches a page of a file that it has mapped.
        -1 => true,
        libc::SYS_openat => opens(argument(2)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => opens(argument(1)),
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_pwritev => {
            argument(0).is_some_and(|file| !written_once(file))
        }
        number => READS.contains(&number) || OLDER_READS.contains(&number),
    }
}

/// Calls that change nothing, and those that store what is written.
const READS: [i64; 29] = [
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_close,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_lseek,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_inotify_add_watch,
];

/// Those that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLDER_READS: [i64; 5] =
    [libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink, libc::SYS_getdents];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_READS: [i64; 0] = [];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_may_be_repeated() {
        let of = |number: i64, third: i32| {
            let call = format!("{number} 0x3 0x7f00 {third:#x} 0x0 0x0 0x0 0x7ffcbccf8ef0 0x7f1d210b9910\n");
            is_repeatable(&call, |file| file != 3)
        };
        assert!(of(libc::SYS_read, 0) && of(libc::SYS_newfstatat, 0) && of(libc::SYS_write, 0));
        assert!(of(libc::SYS_openat, libc::O_RDWR) && !of(libc::SYS_openat, libc::O_CREAT));
        for number in [libc::SYS_mkdirat, libc::SYS_renameat2, libc::SYS_unlinkat, libc::SYS_fallocate, 9999] {
            assert!(!of(number, 0), "{number}");
        }
        assert!(!is_repeatable(&format!("{} 0x3 0x0 0x0 0x0 0x0 0x0 0x7ffcbccf8ef0 0x7f\n", libc::SYS_write), |_| {
            true
        }));
        // A page of a mapped file; a program of 32 bits; one that does not wait any more.
        assert!(is_repeatable("-1 0x7ffcbccf8ef0 0x7f1d210b9910\n", |_| true));
        assert!(!is_repeatable("4 0x3 0x0 0x0 0x0 0x0 0x0 0xffcbc0f0 0xf7f1d210\n", |_| false));
        assert!(!is_repeatable("running\n", |_| false) && !is_repeatable("", |_| false));
    }

    #[test]
    fn threads_of_the_kernels() {
        let stat = |flags: u64| format!("7 (a) b) S 1 7 7 0 -1 {flags} 0\n");
        assert!(is_for_io_uring(&stat(0x40_0010)) && is_for_io_uring("") && !is_for_io_uring(&stat(0x40_0040)));
    }

    #[test]
    fn this_process_waits_for_no_filesystem() {
        let own = HashSet::from([NamespaceId::of_this_threads_mounts().unwrap()]);
        assert_eq!(waiting_in(&own, Life::Killed, Path::new(processes::OWN), true).unwrap(), Waiters::default());
    }
}
