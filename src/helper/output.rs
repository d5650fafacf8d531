//! What a helper writes to its standard output and error.
//!
//! They go to the log line by line; the last lines are kept for the caller. Runs in the mounter. Reading never waits,
//! and what is kept and what is logged is bounded, so that a helper that writes without end fills nothing.

use crate::observe::events;
use linux::processes::Process;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::pipe::fcntl_setpipe_size;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How many lines are kept, and how many bytes of each.
const LINES: usize = 64;
const LINE: usize = 1024;
/// How many lines go to the log in how long.
const LOGGED: u64 = 200;
const PERIOD: Duration = Duration::from_secs(60);
/// How much fits into the pipe while the mounter is busy, or away.
const PIPE: usize = 1 << 20;
/// How much is read at one go, so that one helper cannot keep the mounter from its other work.
const PORTION: usize = 64 << 10;

/// The reading end and the last lines.
#[derive(Debug)]
pub struct HelperOutput {
    pipe: PipeReader,
    ended: bool,
    partial: Vec<u8>,
    lines: VecDeque<String>,
    /// The period that counts for the log, and the lines in it.
    period: (Instant, u64),
}

impl HelperOutput {
    /// The reading end for us, and an end for a helper, which both reads and writes: as long as the helper lives the pipe
    /// has a reader, so that SIGPIPE does not kill it when the mounter exits. A full pipe makes it wait, as any pipe does
    /// (programs give up when they get EAGAIN instead): while the mounter is away it may write a megabyte.
    pub fn new() -> io::Result<(Self, File)> {
        let (pipe, _writer) = io::pipe()?;
        ioctl_fionbio(&pipe, true)?;
        fcntl_setpipe_size(&pipe, PIPE)?;
        let file = format!("/proc/self/fd/{}", pipe.as_raw_fd());
        let writer = OpenOptions::new().read(true).write(true).open(file)?;
        Ok((Self::reading(pipe), writer))
    }

    /// What these processes write, which an earlier mounter started: from the same pipe, if one of them still has it.
    pub fn of_processes(processes: &[Process]) -> Option<Self> {
        let files = processes.iter().flat_map(|process| ["fd/1", "fd/2"].map(|name| process.file(name)));
        let pipe = files.into_iter().find_map(|file| {
            std::fs::read_link(&file).ok().filter(|leads_to| leads_to.as_os_str().as_bytes().starts_with(b"pipe:"))?;
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(file).ok()
        })?;
        Some(Self::reading(OwnedFd::from(pipe).into()))
    }

    fn reading(pipe: PipeReader) -> Self {
        Self { pipe, ended: false, partial: Vec::new(), lines: VecDeque::new(), period: (Instant::now(), 0) }
    }

    /// Reads what is there now.
    pub fn drain(&mut self) {
        let mut buffer = [0; 8192];
        let mut taken = 0;
        while taken < PORTION && !self.ended {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    taken += length;
                    self.take(&buffer[..length]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.ended = true,
            }
        }
        if self.ended && !self.partial.is_empty() {
            self.end_line();
        }
    }

    /// Whether no process can write to it any more.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The last lines, and what was written of one more.
    pub fn lines(&self) -> Vec<String> {
        let partial = (!self.partial.is_empty()).then(|| String::from_utf8_lossy(&self.partial).into_owned());
        self.lines.iter().cloned().chain(partial).collect()
    }

    fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                _ if self.partial.len() < LINE => self.partial.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.partial).trim_end().to_owned();
        self.partial.clear();
        if line.is_empty() {
            return;
        }
        self.log(&line);
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn log(&mut self, line: &str) {
        let (since, lines) = &mut self.period;
        if since.elapsed() > PERIOD {
            if let Some(more @ 1..) = lines.checked_sub(LOGGED) {
                warn!("{more} lines of the helper's were not logged");
            }
            self.period = (Instant::now(), 0);
            return self.log(line);
        }
        match *lines {
            0..LOGGED => info!(event = events::HELPER_LINE, helper = line, "helper says"),
            LOGGED => {
                warn!(event = events::HELPER_QUIETED, "further lines of the helper's are not logged for a minute")
            }
            _ => {}
        }
        *lines += 1;
    }
}

impl AsFd for HelperOutput {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::io::Write;

    #[test]
    fn the_last_lines_are_kept_and_long_ones_cut() {
        let (mut output, mut writer) = HelperOutput::new().unwrap();
        for number in 0..100 {
            writeln!(writer, "line {number}").unwrap();
        }
        write!(writer, "{}\r\n\nno end", "x".repeat(3000)).unwrap();
        output.drain();
        let lines = output.lines();
        assert_eq!(lines.len(), LINES + 1);
        assert_eq!(lines[0], "line 37");
        assert_eq!(lines[LINES - 1].len(), LINE);
        assert_eq!(lines[LINES], "no end");
        assert!(!output.has_ended());
        drop(writer);
        // A process that another test is just starting may hold a copy for a moment.
        while !output.has_ended() {
            poll(&mut [PollFd::new(&output, PollFlags::IN)], None).unwrap();
            output.drain();
        }
    }
}
