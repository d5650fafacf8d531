//! What a helper writes to its standard output and error, and to syslog(3).
//!
//! They go to the log line by line; the last lines are kept for the caller. Runs in the mounter. Reading never waits,
//! and what is kept and what is logged is bounded, so that a helper that writes without end fills nothing.

use super::syslog::Syslog;
use crate::observe::events;
use crate::observe::ration::Ration;
use crate::policy::words_without_secrets_of;
use api::volume::Line;
use linux::processes::Process;
use linux::statx;
use linux::strangers::open_if;
use rustix::fs::OFlags;
use rustix::io::{Errno, ioctl_fionbio};
use rustix::pipe::fcntl_setpipe_size;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::{info, warn};

const LOST: &str = "what the helper says by syslog(3) is lost: cannot make its /dev/log";
/// How many lines are kept, and how many bytes of each.
const LINES: usize = 64;
const LINE: usize = 1024;
/// How many lines go to the log a minute.
const LOGGED: u64 = 200;
/// How much fits into the pipe while the mounter is busy, or away.
const PIPE: usize = 1 << 20;
/// How many messages are read at one go; the kernel holds fewer in most cases.
const MESSAGES: usize = 64;
/// How much is read at one go, so that one helper cannot keep the mounter from its other work.
const PORTION: usize = 64 << 10;

/// The reading ends and the last lines.
#[derive(Debug)]
pub struct HelperOutput {
    /// Gone when no process can write to it any more: a daemon closes it.
    pipe: Option<PipeReader>,
    syslog: Option<Syslog>,
    ended: bool,
    partial: Vec<u8>,
    lines: VecDeque<Line>,
    log: Ration,
    /// What the volume is of: of a URL with a password helpers repeat all of it.
    source: String,
}

impl HelperOutput {
    /// The reading end for us, and an end for a helper, which both reads and writes: as long as the helper lives the pipe
    /// has a reader, so that SIGPIPE does not kill it when the mounter exits. A full pipe makes it wait, as any pipe does
    /// (programs give up when they get EAGAIN instead): while the mounter is away it may write a megabyte.
    pub fn new(source: &str) -> io::Result<(Self, File)> {
        let (pipe, _writer) = io::pipe()?;
        ioctl_fionbio(&pipe, true)?;
        fcntl_setpipe_size(&pipe, PIPE)?;
        let file = format!("/proc/self/fd/{}", pipe.as_raw_fd());
        let writer = OpenOptions::new().read(true).write(true).open(file)?;
        Ok((Self::reading(Some(pipe), source), writer))
    }

    /// Hears what the helper says by syslog(3) as well. The calling thread is in its mount namespace.
    pub fn hear_syslog(&mut self, state: &Path) {
        match Syslog::listen(state) {
            Ok(syslog) => self.syslog = Some(syslog),
            Err(error) => warn!("{LOST}: {error}"),
        }
    }

    /// No process of the helper is left. Returns what is not to be watched any more.
    pub fn helper_gone(&mut self) -> Option<impl AsFd + use<>> {
        self.drain();
        self.syslog.take()
    }

    /// What is not to be watched any more, as no process can write to it.
    pub fn take_ended(&mut self) -> Option<impl AsFd + use<>> {
        self.pipe.take_if(|_| self.ended)
    }

    /// What a process of our own writes to its standard error, which an earlier mounter started.
    pub fn of_own_process(process: &Process) -> Option<Self> {
        let pipe = open_pipe(process.file("fd/2"))?;
        Some(Self::reading(Some(pipe.into()), ""))
    }

    /// What these processes write, which an earlier mounter started: to the same pipe, if one of them still has it, and by
    /// syslog(3). `None`: neither can be heard.
    pub fn of_processes(processes: &[Process], state: &Path, source: &str) -> Option<Self> {
        let files = processes.iter().flat_map(|process| ["fd/1", "fd/2"].map(|name| process.file(name)));
        let pipe = files.into_iter().find_map(open_pipe);
        let syslog = processes.first().and_then(|process| match Syslog::listen_again(process, state) {
            Ok(syslog) => Some(syslog),
            Err(error) => {
                warn!("{LOST}: {error}");
                None
            }
        });
        (pipe.is_some() || syslog.is_some()).then(|| {
            let pipe = pipe.map(OwnedFd::into);
            Self { ended: pipe.is_none(), syslog, ..Self::reading(pipe, source) }
        })
    }

    fn reading(pipe: Option<PipeReader>, source: &str) -> Self {
        Self {
            pipe,
            syslog: None,
            ended: false,
            partial: Vec::new(),
            lines: VecDeque::new(),
            log: Ration::new("lines of the helper's", LOGGED),
            source: source.to_owned(),
        }
    }

    /// What becomes readable when it writes.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let pipe = self.pipe.iter().filter(|_| !self.ended);
        pipe.map(AsFd::as_fd).chain(self.syslog.iter().map(AsFd::as_fd))
    }

    /// Reads what is there now.
    pub fn drain(&mut self) {
        self.read_pipe();
        for _ in 0..MESSAGES {
            let Some(message) = self.syslog.as_ref().and_then(Syslog::next) else { return };
            let unfinished = std::mem::take(&mut self.partial);
            self.take(&message);
            self.end_line();
            self.partial = unfinished;
        }
    }

    fn read_pipe(&mut self) {
        let mut buffer = [0; 8192];
        let mut taken = 0;
        while let Some(pipe) = self.pipe.as_ref().filter(|_| taken < PORTION && !self.ended) {
            match rustix::io::read(pipe, &mut buffer) {
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

    /// Whether nothing can be heard any more.
    pub fn has_ended(&self) -> bool {
        self.ended && self.syslog.is_none()
    }

    /// The last lines, and what was written of one more.
    pub fn lines(&self) -> Vec<Line> {
        let partial = (!self.partial.is_empty()).then(|| aside(self.written()));
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

    /// What is written of a line.
    fn written(&self) -> String {
        words_without_secrets_of(&self.source, &String::from_utf8_lossy(&self.partial))
    }

    fn end_line(&mut self) {
        let line = self.written().trim_end().to_owned();
        self.partial.clear();
        if line.is_empty() {
            return;
        }
        self.log.log(|| info!(event = events::HELPER_LINE, helper = line, "helper says"));
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(numbered(line));
    }
}

/// Another reading end of the pipe that a process has there. No other file that it may have put there is opened: it might never answer.
fn open_pipe(file: PathBuf) -> Option<OwnedFd> {
    // All of them are in one filesystem, the kernel's own.
    let (pipes, _) = io::pipe().and_then(|(pipe, _)| statx::identity(pipe.as_fd())).ok()?;
    let is_pipe = |file: BorrowedFd<'_>| Ok(statx::identity(file)?.0 == pipes);
    open_if(&file, OFlags::RDONLY | OFlags::NONBLOCK, is_pipe).ok()
}

/// A line, read just now. The next mounter's have greater numbers than ours: they are microseconds.
fn numbered(text: String) -> Line {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    let next = |last: u64| micros.max(last.saturating_add(1));
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
    Line { number: last.map_or_else(next, next), time: now.as_secs(), text }
}

/// A line that has no place among the others.
pub fn aside(text: String) -> Line {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Line { number: 0, time: now.as_secs(), text }
}

/// What lines say.
pub fn texts(lines: Vec<Line>) -> Vec<String> {
    lines.into_iter().map(|line| line.text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::io::Write;

    #[test]
    fn the_last_lines_are_kept_and_long_ones_cut() {
        let (mut output, mut writer) = HelperOutput::new("https://me:hunter2@host/").unwrap();
        writeln!(writer, "cannot reach https://me:hunter2@host/a").unwrap();
        output.drain();
        assert_eq!(texts(output.lines()), ["cannot reach https://me:***@host/a"]);
        for number in 0..100 {
            writeln!(writer, "line {number}").unwrap();
        }
        write!(writer, "{}\r\n\nno end", "x".repeat(3000)).unwrap();
        output.drain();
        let numbers: Vec<_> = output.lines().iter().map(|line| line.number).collect();
        assert!(numbers[..LINES].is_sorted_by(|one, next| one < next) && numbers[LINES] == 0, "{numbers:?}");
        let lines = texts(output.lines());
        assert_eq!(lines.len(), LINES + 1);
        assert_eq!(lines[0], "line 37");
        assert_eq!(lines[LINES - 1].len(), LINE);
        assert_eq!(lines[LINES], "no end");
        assert!(!output.has_ended());
        drop(writer);
        // A process that another test is just starting may hold a copy for a moment.
        while !output.has_ended() {
            poll(&mut [PollFd::from_borrowed_fd(output.descriptors().next().unwrap(), PollFlags::IN)], None).unwrap();
            output.drain();
        }
    }
}
