//! One `kubectl`, run with bounds: how long it may take or be silent, and how much it may say.
//!
//! Runs on the thread that asks. The child is killed when a bound is passed, or when what it was asked for is no longer wanted.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How much of standard error is kept.
const COMPLAINT: usize = 16 << 10;

/// Bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds<'a> {
    /// How long it may take in all, or with `silence` between two pieces of output. None: as long as it likes.
    pub(crate) time: Option<Duration>,
    /// Whether the time begins anew with each piece of output.
    pub(crate) silence: bool,
    /// How many bytes it may write to standard output, or none for any number.
    pub(crate) output: Option<usize>,
    /// It is killed when this descriptor hangs up.
    pub(crate) stop: Option<BorrowedFd<'a>>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Done {
    /// Its exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it wrote to standard error, or the first of it.
    pub(crate) complaint: String,
}

/// Why there is no exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// There is no kubectl, or it cannot be run.
    #[error("cannot run kubectl, which must be in the PATH")]
    Start(#[source] io::Error),
    /// Reading from it failed.
    #[error("cannot read what kubectl says")]
    Read(#[source] io::Error),
    /// It took too long.
    #[error("no answer within {}s; --timeout is how long it may take", .0.as_secs())]
    Late(Duration),
    /// It said too much.
    #[error("its answer is longer than {0} bytes, which is not hostmount's")]
    TooMuch(usize),
    /// Nobody wants it any more.
    #[error("stopped")]
    Stopped,
}

/// Runs a command; `take` gets each piece of its standard output. Standard error is the caller's own where the command has it so.
pub(crate) fn run(command: &mut Command, bounds: Bounds<'_>, take: impl FnMut(&[u8])) -> Result<Done, RunError> {
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(RunError::Start)?;
    let done = attend(&mut child, bounds, take);
    if done.is_err() {
        // It may have ended by itself; either way it is collected.
        let _ = child.kill();
        let _ = child.wait();
    }
    done
}

fn attend(child: &mut Child, bounds: Bounds<'_>, mut take: impl FnMut(&[u8])) -> Result<Done, RunError> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let ended = pid.ok_or(Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
    let ended = ended.map_err(|errno| RunError::Read(errno.into()))?;
    let (mut output, mut errors) = (child.stdout.take(), child.stderr.take());
    let (mut complaint, mut said, mut began) = (Vec::new(), 0, Instant::now());
    let mut buffer = [0; 16 << 10];
    while output.is_some() || errors.is_some() {
        let ready = [output.as_ref().map(AsFd::as_fd), errors.as_ref().map(AsFd::as_fd)];
        let [from_output, from_errors] = wait(ready, bounds, began)?;
        if from_output && let Some(pipe) = &mut output {
            let count = pipe.read(&mut buffer).map_err(RunError::Read)?;
            said += count;
            if let Some(most) = bounds.output.filter(|most| said > *most) {
                return Err(RunError::TooMuch(most));
            }
            take(&buffer[..count]);
            output = output.filter(|_| count > 0);
        }
        if from_errors && let Some(pipe) = &mut errors {
            let count = pipe.read(&mut buffer).map_err(RunError::Read)?;
            let room = COMPLAINT.saturating_sub(complaint.len());
            complaint.extend_from_slice(&buffer[..count.min(room)]);
            errors = errors.filter(|_| count > 0);
        }
        if bounds.silence {
            began = Instant::now();
        }
    }
    wait([Some(ended.as_fd()), None], bounds, began)?;
    let status = child.wait().map_err(RunError::Read)?;
    Ok(Done { code: status.code(), complaint: String::from_utf8_lossy(&complaint).into_owned() })
}

/// Waits until one of them can be read; says which.
fn wait(these: [Option<BorrowedFd<'_>>; 2], bounds: Bounds<'_>, began: Instant) -> Result<[bool; 2], RunError> {
    let mut polled: Vec<_> = these.iter().flatten().map(|one| PollFd::new(one, PollFlags::IN)).collect();
    let count = polled.len();
    polled.extend(bounds.stop.iter().map(|stop| PollFd::new(stop, PollFlags::IN)));
    loop {
        let left = bounds.time.map(|time| time.saturating_sub(began.elapsed()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut polled, timeout.as_ref()) {
            Ok(0) => return Err(RunError::Late(bounds.time.unwrap_or_default())),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(RunError::Read(errno.into())),
        }
    }
    let is_ready: Vec<_> = polled.iter().map(|one| !one.revents().is_empty()).collect();
    if is_ready.get(count).is_some_and(|stop| *stop) {
        return Err(RunError::Stopped);
    }
    let mut ready = is_ready.into_iter();
    Ok(these.map(|one| one.is_some() && ready.next().unwrap_or_default()))
}

/// Lines, from pieces of output. One that is too long is cut.
#[derive(Debug, Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    /// How long a line may be.
    const LONGEST: usize = 64 << 10;

    /// Takes a piece, and hands out the lines that are whole now.
    pub(crate) fn take(&mut self, piece: &[u8], mut line: impl FnMut(&str)) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            self.0.extend_from_slice(&text[..text.len().min(Self::LONGEST.saturating_sub(self.0.len()))]);
            if whole {
                line(&String::from_utf8_lossy(&self.0));
                self.0.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]).stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    const BOUNDS: Bounds<'_> =
        Bounds { time: Some(Duration::from_secs(60)), silence: false, output: Some(1000), stop: None };

    #[test]
    fn what_it_says_and_ends_with() {
        let mut said = Vec::new();
        let done = run(&mut shell("echo words; echo why >&2; exit 7"), BOUNDS, |piece| said.extend_from_slice(piece));
        let done = done.unwrap();
        assert_eq!((said.as_slice(), done.code, done.complaint.as_str()), (&b"words\n"[..], Some(7), "why\n"));
        let done = run(&mut shell("head -c 100000 /dev/zero >&2; kill -9 $$"), BOUNDS, |_| {}).unwrap();
        assert_eq!((done.code, done.complaint.len()), (None, COMPLAINT));
        let none = run(&mut Command::new("/nonexistent/kubectl"), BOUNDS, |_| {}).unwrap_err();
        assert!(api::exit::chain(&none).contains("must be in the PATH: No such file"), "{none}");
    }

    #[test]
    fn whatever_does_not_end_is_killed() {
        let bounds = Bounds { time: Some(Duration::from_millis(50)), ..BOUNDS };
        assert!(matches!(run(&mut shell("exec sleep 1000"), bounds, |_| {}), Err(RunError::Late(_))));
        // One that has closed its output.
        assert!(matches!(run(&mut shell("exec sleep 1000 >&- 2>&-"), bounds, |_| {}), Err(RunError::Late(_))));
        assert!(matches!(run(&mut shell("exec cat /dev/zero"), BOUNDS, |_| {}), Err(RunError::TooMuch(1000))));
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        let bounds = Bounds { time: None, stop: Some(reader.as_fd()), ..BOUNDS };
        assert!(matches!(run(&mut shell("exec sleep 1000"), bounds, |_| {}), Err(RunError::Stopped)));
    }

    #[test]
    fn lines_come_whole_and_not_without_end() {
        let (mut lines, mut got) = (Lines::default(), Vec::new());
        for piece in ["a", "b\nc\n\nd", "e"] {
            lines.take(piece.as_bytes(), |line| got.push(line.to_owned()));
        }
        assert_eq!(got, ["ab", "c", ""]);
        for _ in 0..3 {
            lines.take(&[b'x'; Lines::LONGEST], |_| panic!("it is not whole"));
        }
        lines.take(b"\n", |line| got.push(line.to_owned()));
        assert_eq!(got.last().unwrap().len(), Lines::LONGEST);
    }
}
