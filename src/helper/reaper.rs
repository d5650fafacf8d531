//! Collecting every process that exits below the mounter: helpers it started, and daemons that they left behind.
//!
//! The mounter is a child subreaper (prctl(2)): a helper that goes into the background becomes its child. Only the
//! main thread waits, for all; the thread that started a process gets its exit status through a pipe, which can be polled.

use linux::sys::spawn::{Program, SpawnError, spawn};
use rustix::process::{WaitOptions, wait};
use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};

/// Where the exit status of each process is to be written.
#[derive(Debug, Default)]
pub struct Reaper {
    waiting: Mutex<HashMap<i32, PipeWriter>>,
}

/// Readable when a process has exited: then it holds its exit status.
#[derive(Debug)]
pub struct Ending(PipeReader);

impl Reaper {
    /// Starts a program; returns its process, and where its exit status will be.
    ///
    /// The lock is held meanwhile, and by [`reap`](Self::reap) before it collects: no process is collected before it is
    /// entered.
    pub fn spawn(&self, program: &Program<'_>) -> Result<(OwnedFd, Ending), SpawnError> {
        let (reader, writer) = io::pipe()?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (pid, process) = spawn(program)?;
        waiting.insert(pid.as_raw_nonzero().get(), writer);
        Ok((process, Ending(reader)))
    }

    /// Collects all that have exited. The main thread calls it upon SIGCHLD. Whether a process is among them that a helper left
    /// behind: it may have been the one that served.
    pub fn reap(&self) -> bool {
        let mut left_behind = false;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let writer = waiting.remove(&pid.as_raw_nonzero().get());
            // Four bytes always fit a pipe. Its reader has gone when the volume is mounted: the program went on serving.
            left_behind |= writer.is_none_or(|mut writer| writer.write_all(&status.as_raw().to_ne_bytes()).is_err());
        }
        left_behind
    }
}

impl Ending {
    /// The exit status; waits for it unless the pipe was readable.
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        let mut raw = [0; 4];
        self.0.read_exact(&mut raw)?;
        Ok(ExitStatus::from_raw(i32::from_ne_bytes(raw)))
    }
}

impl std::os::fd::AsFd for Ending {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
