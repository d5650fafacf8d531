//! Collecting every process that ends below the mounter: helpers it started, and daemons that they left behind.
//!
//! The mounter is a child subreaper (prctl(2)): a helper that goes into the background becomes its child. Only the
//! main thread waits, for all; who started a process gets its exit status through a pipe, which can be polled.

use linux::sys::spawn::{Command, spawn};
use rustix::process::{WaitOptions, wait};
use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};

/// Who waits for which process.
#[derive(Debug, Default)]
pub struct Reaper {
    waiting: Mutex<HashMap<i32, PipeWriter>>,
}

/// A process's end, to come: readable once it has ended.
#[derive(Debug)]
pub struct Ending(PipeReader);

impl Reaper {
    /// Starts a program; returns its process, and where its end can be learned.
    ///
    /// The lock is held meanwhile, and by [`reap`](Self::reap) before it collects: nobody collects a process that is
    /// not entered yet.
    pub fn spawn(&self, command: Command<'_>) -> io::Result<(OwnedFd, Ending)> {
        let (reader, writer) = io::pipe()?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (pid, process) = spawn(command)?;
        waiting.insert(pid.as_raw_nonzero().get(), writer);
        Ok((process, Ending(reader)))
    }

    /// Collects all that have ended. The main thread calls it upon SIGCHLD.
    pub fn reap(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if let Some(mut writer) = waiting.remove(&pid.as_raw_nonzero().get()) {
                // Four bytes always fit a pipe; a reader that has gone does not care.
                let _ = writer.write_all(&status.as_raw().to_ne_bytes());
            }
        }
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
