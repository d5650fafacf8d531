//! Reading the arguments of a stopped call from the memory and the descriptor table of the thread that made it.
//!
//! Runs in the mounter, which may do so as it holds CAP_SYS_PTRACE over its helpers. What is read counts only if the call is
//! still valid *afterwards*: else the thread may have exited and its id may be another's. [`StoppedThread`] checks that after
//! each read.

use linux::processes::{self, Process};
use linux::strangers::{let_go, waits_when_closed};
use linux::sys::seccomp;
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdGetfdFlags, pidfd_getfd};
use std::cell::OnceCell;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The longest string that mount(2) takes: a page.
const LIMIT: usize = 4096;

/// The thread that waits for the answer to one call.
pub(super) struct StoppedThread<'a> {
    pub(super) listener: BorrowedFd<'a>,
    pub(super) call: seccomp::Notification,
    /// Its memory, once something of it was read: that of one process, whose id it may have been since.
    memory: OnceCell<File>,
}

impl<'a> StoppedThread<'a> {
    /// The thread that waits for the answer to `call`, which `listener` has told of.
    pub(super) fn new(listener: BorrowedFd<'a>, call: seccomp::Notification) -> Self {
        Self { listener, call, memory: OnceCell::new() }
    }

    /// The C string at `address`; an empty one for a null pointer, as the kernel takes it.
    pub(super) fn string(&self, address: u64) -> Result<CString, Errno> {
        if address == 0 {
            return Ok(CString::default());
        }
        let memory = self.memory()?;
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

    /// The file that a path names for the thread. Our own thread is in its mount namespace already, and helpers cannot change
    /// their root; so only the working directory must be the stopped thread's.
    pub(super) fn open_path(&self, address: u64, follow: bool) -> Result<OwnedFd, Errno> {
        let path = self.string(address)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let cwd = open(self.in_proc()?.file("cwd"), flags | OFlags::DIRECTORY, Mode::empty())?;
        self.valid(Ok(()))?;
        let nofollow = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        openat(cwd, path, flags | nofollow, Mode::empty())
    }

    /// A copy of the thread's descriptor `number`, unless it is something that closing may wait for.
    pub(super) fn descriptor(&self, number: i32) -> Result<Option<OwnedFd>, Errno> {
        let process = self.in_proc()?.thread_group().and_then(|leader| leader.pidfd()).map_err(gone)?;
        // The id may be a later process's: what the descriptor gives counts only if the call is still valid.
        let copy = pidfd_getfd(process, number, PidfdGetfdFlags::empty());
        let copy = copy.map(|copy| match waits_when_closed(copy.as_fd()) {
            true => {
                let_go(copy);
                None
            }
            false => Some(copy),
        });
        self.valid(copy)
    }

    fn memory(&self) -> Result<&File, Errno> {
        if let Some(memory) = self.memory.get() {
            return Ok(memory);
        }
        let opened = File::open(self.in_proc()?.file("mem")).map_err(gone)?;
        Ok(self.memory.get_or_init(|| opened))
    }

    /// The thread, as /proc shows it.
    fn in_proc(&self) -> Result<Process, Errno> {
        let tid = i32::try_from(self.call.tid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        Ok(Process::at(Path::new(processes::OWN), tid))
    }

    fn valid<T>(&self, read: Result<T, Errno>) -> Result<T, Errno> {
        if seccomp::is_valid(self.listener, self.call.id) { read } else { Err(Errno::SRCH) }
    }
}

fn gone(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::SRCH)
}
