//! The program while it runs: signals are passed on to it, what it writes to standard error is passed on and its end kept, and
//! whatever has ended is collected, as PID 1 must.

use super::by_signal;
use super::command_line::Start;
use super::last_words::LastWords;
use super::signals::Signals;
use crate::asking::{Volume, timespec};
use api::exit::Exit;
use linux::sys::signals::{send, unblock_for_child};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::{ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

/// What is written to a pipe that has room for something is written without a wait up to this length (PIPE_BUF).
const AT_ONCE: usize = 4096;

/// How long a program has that was told to end.
const TO_END: Duration = Duration::from_secs(10);

/// How long what a program has written before its end may take to be passed on.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the first question takes to come whether the program serves, and how long the others at most.
const FIRST_QUESTION: Duration = Duration::from_millis(50);
const LAST_QUESTIONS: Duration = Duration::from_secs(1);

/// How the program has ended.
pub(super) struct Ended {
    /// As a shell has it.
    pub(super) code: u8,
    /// What it said last.
    pub(super) words: Vec<String>,
}

/// The program's process.
pub(super) struct Child {
    pid: Pid,
    stderr: Option<ChildStderr>,
}

impl Child {
    pub(super) fn start(mut command: Command) -> io::Result<Self> {
        unblock_for_child(&mut command);
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        Ok(Self { pid: Pid::from_raw(child.id().cast_signed()), stderr: child.stderr.take() })
    }

    fn signal(&self, number: i32) {
        // It has not been collected yet, so the number is its own; it may have ended.
        let _ = send(self.pid.as_raw(), number);
    }
}

/// Whether the program serves in time, where that is asked for.
enum Readiness {
    /// It does, or nobody asks.
    Settled,
    /// It has until `deadline`; the next question is at `next`, and then after `pause`.
    Awaited { deadline: Instant, next: Instant, pause: Duration },
    /// It did not, and was told to end; at this time it is killed.
    Ending(Instant),
    /// It was killed.
    Killed,
}

/// Stays with the program until it has ended.
pub(super) fn supervise(mut child: Child, signals: &Signals, volume: &Volume, start: &Start) -> Ended {
    let mut words = LastWords::default();
    let mut unwritten = Vec::new();
    let now = Instant::now();
    let mut readiness = match start.ready {
        true => Readiness::Awaited { deadline: now + start.wait, next: now + FIRST_QUESTION, pause: FIRST_QUESTION },
        false => Readiness::Settled,
    };
    let code = loop {
        wait(&child, signals, !unwritten.is_empty(), readiness.next());
        pass_on(&mut child, &mut words, &mut unwritten);
        let mut code = None;
        while let Some(number) = signals.pending() {
            if number == Signal::SIGCHLD as i32 {
                code = code.or(collect(child.pid));
            } else {
                child.signal(number);
            }
        }
        if let Some(code) = code {
            break code;
        }
        readiness = readiness.go_on(&child, volume, start, &mut words);
    };
    // What it has written before its end. Others may have the pipe still, and go on writing; or nobody reads what we write.
    let until = Instant::now() + LAST_WORDS;
    while (is_readable(&child) || !unwritten.is_empty()) && Instant::now() < until {
        if !unwritten.is_empty() {
            wait(&child, signals, true, Some(until));
        }
        pass_on(&mut child, &mut words, &mut unwritten);
    }
    let in_time = matches!(readiness, Readiness::Settled | Readiness::Awaited { .. });
    Ended { code: if in_time { code } else { Exit::MountFailure as u8 }, words: words.lines() }
}

/// Waits until there is something to be done.
fn wait(child: &Child, signals: &Signals, unwritten: bool, until: Option<Instant>) {
    let stderr = io::stderr();
    let mut waiting = vec![PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
    match &child.stderr {
        // One thing after the other: what is not written yet keeps the program from writing more, as it would without us.
        _ if unwritten => waiting.push(PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::OUT)),
        Some(said) => waiting.push(PollFd::new(said, PollFlags::IN)),
        None => {}
    }
    let time = until.map(|until| timespec(until.saturating_duration_since(Instant::now())));
    // It cannot fail; if it did, what follows finds nothing to do and comes back.
    let _ = poll(&mut waiting, time.as_ref());
}

fn is_readable(child: &Child) -> bool {
    let Some(said) = &child.stderr else { return false };
    poll(&mut [PollFd::new(said, PollFlags::IN)], Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Writes what is not written yet, or else reads what the program has written.
fn pass_on(child: &mut Child, words: &mut LastWords, unwritten: &mut Vec<u8>) {
    if unwritten.is_empty() && is_readable(child) {
        let mut bytes = [0; AT_ONCE];
        let Some(said) = &child.stderr else { return };
        match rustix::io::retry_on_intr(|| rustix::io::read(said, &mut bytes)) {
            Ok(0) | Err(_) => child.stderr = None,
            Ok(length) => {
                words.take(&bytes[..length]);
                unwritten.extend(&bytes[..length]);
            }
        }
    }
    let stderr = io::stderr();
    let room = || poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&Timespec::default()));
    if !unwritten.is_empty() && room().is_ok_and(|ready| ready > 0) {
        // A reader that has gone, or a disk that is full, is nothing to end the program for.
        let _ = io::stderr().lock().write_all(unwritten);
        unwritten.clear();
    }
}

/// Collects all that have ended; the exit status of the program, if it is among them.
fn collect(program: Pid) -> Option<u8> {
    let mut code = None;
    loop {
        let (pid, ended) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, u8::try_from(code).unwrap_or(u8::MAX)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, by_signal(signal as i32)),
            Ok(WaitStatus::StillAlive) | Err(_) => return code,
            Ok(_) => continue,
        };
        if pid == program {
            code = Some(ended);
        }
    }
}

impl Readiness {
    /// When something is to be done about it.
    fn next(&self) -> Option<Instant> {
        match self {
            Self::Settled | Self::Killed => None,
            Self::Awaited { next, .. } => Some(*next),
            Self::Ending(at) => Some(*at),
        }
    }

    fn go_on(self, child: &Child, volume: &Volume, start: &Start, words: &mut LastWords) -> Self {
        let now = Instant::now();
        match self {
            Self::Awaited { deadline, next, pause } if next <= now => {
                if volume.is_served(LAST_QUESTIONS).unwrap_or(false) {
                    return Self::Settled;
                }
                if now >= deadline {
                    let late =
                        format!("the program does not serve the volume after {} s: it is ended", start.wait.as_secs());
                    linux::complain!("hostmount-pod start: {late}");
                    words.take(format!("{late}\n").as_bytes());
                    child.signal(Signal::SIGTERM as i32);
                    return Self::Ending(now + TO_END);
                }
                let pause = (2 * pause).min(LAST_QUESTIONS);
                Self::Awaited { deadline, next: (now + pause).min(deadline), pause }
            }
            Self::Ending(at) if at <= now => {
                child.signal(Signal::SIGKILL as i32);
                Self::Killed
            }
            same => same,
        }
    }
}
