//! `hostmount-pod start … -- CMD … {}`: gives a FUSE program the descriptor of its filesystem, for those that take `/dev/fd/N` as
//! their mount point: libfuse from 3.3 on, jacobsa's library for Go, mountpoint-s3.
//!
//! Runs in the pod, as a container's main process (PID 1) or below one. It has no thread: one loop passes on signals and what the
//! program says, and collects what ends.

pub mod command_line;
mod last_words;
mod signals;
mod supervise;

use crate::asking::{AskError, Volume};
use crate::options;
use api::exit::Exit;
use command_line::Start;
use signals::Signals;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::Command;
use std::time::Instant;
use supervise::Ended;

/// What stands in the command line for the mount point.
const PLACE: &str = "{}";

/// The exit statuses of a shell for a program that cannot be executed, and for one that is not there.
const NOT_EXECUTED: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Runs it with its arguments; returns the program's exit status, or that of mount(8) for what fails before it runs.
pub(crate) fn main(arguments: &[OsString]) -> u8 {
    match run(arguments) {
        Ok(code) => code,
        Err((exit, words)) => {
            linux::complain!("hostmount-pod start: {words}");
            exit as u8
        }
    }
}

fn run(arguments: &[OsString]) -> Result<u8, (Exit, String)> {
    let usage = |words: String| (Exit::Usage, words);
    let start = Start::parse(arguments).map_err(usage)?;
    let warn = |words: &dyn std::fmt::Display| linux::complain!("hostmount-pod start: {words}");
    let options = options::read(&start.options, warn).map_err(usage)?;
    if options.auto_unmount {
        return Err(usage("option auto_unmount is for fusermount3: here it is always so".to_owned()));
    }
    // From here on a signal is passed on, or ends the wait. For PID 1 there is no other way: the kernel drops what it does not handle.
    let signals = Signals::take().map_err(|errno| (Exit::System, format!("cannot take signals: {errno}")))?;
    let failed = |error: AskError| (Exit::MountFailure, error.to_string());
    let volume = Volume::at(&start.at).map_err(failed)?;
    let until = Instant::now() + start.wait;
    let descriptor = loop {
        let left = until.saturating_duration_since(Instant::now());
        match volume.mount(&options.for_mounter, left, Some(signals.as_fd())) {
            Ok((_, descriptor)) => break descriptor,
            Err(AskError::Interrupted) => {
                if let Some(number) = signals.pending().filter(|number| signals::ends(*number)) {
                    return Ok(by_signal(number));
                }
            }
            Err(error) => return Err(failed(error)),
        }
    };
    let ended = match start_program(&start, descriptor) {
        Ok(child) => supervise::supervise(child, &signals, &volume, &start),
        Err((code, words)) => Ended { code, words: vec![words] },
    };
    let code = ended.code;
    if let Err(error) = volume.has_ended(code.into(), ended.words) {
        linux::complain!("hostmount-pod start: the mounter does not know that the program has ended: {error}");
    }
    Ok(code)
}

/// The exit status of what a signal has killed, as a shell has it.
fn by_signal(number: i32) -> u8 {
    u8::try_from(128 + number).unwrap_or(u8::MAX)
}

/// Starts the program with the descriptor, which it alone has then. An error is an exit status and words, said already.
fn start_program(start: &Start, descriptor: OwnedFd) -> Result<supervise::Child, (u8, String)> {
    let place = format!("/dev/fd/{}", descriptor.as_raw_fd());
    let mut command = Command::new(&start.program);
    command.args(start.arguments.iter().map(|word| with_place(word, &place)));
    let inherited = rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::empty());
    inherited.map_err(std::io::Error::from).and_then(|()| supervise::Child::start(command)).map_err(|error| {
        let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTED };
        let words = format!("cannot start {}: {error}", api::shown::shown(&start.program.to_string_lossy()));
        linux::complain!("hostmount-pod start: {words}");
        (code, words)
    })
}

/// Puts the place in for each [`PLACE`].
fn with_place(word: &OsStr, place: &str) -> OsString {
    let (mut rest, mut whole) = (word.as_bytes(), Vec::new());
    while let Some(at) = rest.windows(PLACE.len()).position(|part| part == PLACE.as_bytes()) {
        whole.extend(&rest[..at]);
        whole.extend(place.as_bytes());
        rest = &rest[at + PLACE.len()..];
    }
    whole.extend(rest);
    OsString::from_vec(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_stands_wherever_it_is_wanted() {
        for (word, with) in [("{}", "/dev/fd/3"), ("--at={}", "--at=/dev/fd/3"), ("{}{", "/dev/fd/3{"), ("x", "x")] {
            assert_eq!(with_place(word.as_ref(), "/dev/fd/3"), with);
        }
    }
}
