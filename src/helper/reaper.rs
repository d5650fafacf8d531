//! Collecting every process that exits below the mounter: helpers it started, and daemons that they left behind.
//!
//! The mounter is a child subreaper (prctl(2)): a helper that goes into the background becomes its child. Only the
//! main thread collects, all of them; the thread that started a process sees its end by a pidfd at once, and gets the exit status
//! from the kernel, or through a pipe if it has been collected already.

use linux::sys::spawn::{Program, SpawnError, spawn};
use rustix::process::{WaitId, WaitIdOptions, WaitOptions, wait, waitid};
use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};

/// Where the exit status of each process is to be written.
#[derive(Debug, Default)]
pub struct Reaper {
    waiting: Mutex<HashMap<i32, PipeWriter>>,
}

/// Readable when a process has exited.
#[derive(Debug)]
pub struct Ending {
    process: OwnedFd,
    /// Where its exit status will be when it is collected.
    collected: PipeReader,
}

impl Reaper {
    /// Starts a program; returns how its end will be seen.
    ///
    /// The lock is held meanwhile, and by [`reap`](Self::reap) before it collects: no process is collected before it is
    /// entered.
    pub fn spawn(&self, program: &Program<'_>) -> Result<Ending, SpawnError> {
        let (collected, writer) = io::pipe()?;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (pid, process) = spawn(program)?;
        waiting.insert(pid.as_raw_nonzero().get(), writer);
        Ok(Ending { process, collected })
    }

    /// Collects all that have exited. The main thread calls it upon SIGCHLD. Whether a process is among them that a helper left
    /// behind: it may have been the one that served.
    pub fn reap(&self) -> bool {
        let mut left_behind = false;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            // A helper that is held still for a moment (engine::standstill) has not ended.
            if status.stopped() {
                continue;
            }
            let writer = waiting.remove(&pid.as_raw_nonzero().get());
            // Four bytes always fit a pipe. Its reader has gone when the volume is mounted: the program went on serving.
            left_behind |= writer.is_none_or(|mut writer| writer.write_all(&status.as_raw().to_ne_bytes()).is_err());
        }
        left_behind
    }
}

impl Ending {
    /// A descriptor of the process.
    pub fn process(&self) -> io::Result<OwnedFd> {
        self.process.try_clone()
    }

    /// The exit status; waits for it unless it was readable.
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if let Ok(Some(status)) = waitid(WaitId::PidFd(self.process.as_fd()), look) {
            // As wait(2) has it.
            let exited = status.exit_status().map(|code| (code & 0xff) << 8);
            if let Some(raw) = exited.or(status.terminating_signal()) {
                return Ok(ExitStatus::from_raw(raw));
            }
        }
        let mut raw = [0; 4];
        self.collected.read_exact(&mut raw)?;
        Ok(ExitStatus::from_raw(i32::from_ne_bytes(raw)))
    }
}

impl AsFd for Ending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}
