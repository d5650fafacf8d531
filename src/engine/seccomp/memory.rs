//! Reading the arguments of a stopped call from the caller's memory and descriptor table.
//!
//! The mounter may, as it holds CAP_SYS_PTRACE over its helpers. Whatever is read counts only if the call is still
//! valid *afterwards*: else the thread may have ended and its id may be another's. [`Caller`] looks after each read.

use linux::sys::seccomp;
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// The longest string that mount(2) takes: a page.
const LIMIT: usize = 4096;

/// The thread that waits for the answer to one call.
pub(super) struct Caller<'a> {
    pub(super) listener: BorrowedFd<'a>,
    pub(super) call: seccomp::Notification,
}

impl Caller<'_> {
    /// The C string at `address`; an empty one for a null pointer, as the kernel takes it.
    pub(super) fn string(&self, address: u64) -> Result<CString, Errno> {
        if address == 0 {
            return Ok(CString::default());
        }
        let memory = File::open(format!("/proc/{}/mem", self.call.tid)).map_err(gone)?;
        let mut bytes = vec![0; LIMIT];
        let mut have = 0;
        // The string may end just before a page that is not mapped: read to the end of one page at a time.
        while have < LIMIT && !bytes[..have].contains(&0) {
            let at = address.checked_add(have as u64).ok_or(Errno::FAULT)?;
            let page = LIMIT - (at as usize % LIMIT);
            let end = LIMIT.min(have + page);
            match memory.read_at(&mut bytes[have..end], at) {
                Ok(0) | Err(_) => return self.valid(Err(Errno::FAULT)),
                Ok(more) => have += more,
            }
        }
        self.valid(match CStr::from_bytes_until_nul(&bytes) {
            Ok(string) => Ok(string.to_owned()),
            Err(_) => Err(Errno::INVAL),
        })
    }

    /// The same as text. Types and options that are not UTF-8 do not exist.
    pub(super) fn text(&self, address: u64) -> Result<String, Errno> {
        self.string(address)?.into_string().map_err(|_| Errno::INVAL)
    }

    /// The place that a path names for the caller. Our thread is in the caller's mount namespace already, and helpers
    /// cannot change their root; so only the working directory is the caller's own.
    pub(super) fn place(&self, address: u64, follow: bool) -> Result<OwnedFd, Errno> {
        let path = self.string(address)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let cwd = open(format!("/proc/{}/cwd", self.call.tid), flags | OFlags::DIRECTORY, Mode::empty())?;
        self.valid(Ok(()))?;
        let nofollow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        openat(cwd, path, flags | nofollow, Mode::empty())
    }

    /// A copy of the caller's descriptor `number`.
    pub(super) fn descriptor(&self, number: i32) -> Result<OwnedFd, Errno> {
        let process = pidfd_open(self.process()?, PidfdFlags::empty())?;
        // The pidfd may be a later process's: what it gives counts only if the call is still valid.
        let copy = pidfd_getfd(process, number, PidfdGetfdFlags::empty());
        self.valid(copy)
    }

    /// The process that the calling thread belongs to: pidfd_open(2) wants the leader.
    fn process(&self) -> Result<Pid, Errno> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.call.tid)).map_err(gone)?;
        let leader = status.lines().find_map(|line| line.strip_prefix("Tgid:")).and_then(|id| id.trim().parse().ok());
        leader.and_then(Pid::from_raw).ok_or(Errno::SRCH)
    }

    fn valid<T>(&self, read: Result<T, Errno>) -> Result<T, Errno> {
        if seccomp::is_valid(self.listener, self.call.id) { read } else { Err(Errno::SRCH) }
    }
}

fn gone(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::SRCH)
}
