//! The command line of `start`. Pure.

use super::PLACE;
use api::program::{DEFAULT_DIRECTORY, DEFAULT_NAME};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the socket, and with `--ready` the program, may take.
const WAIT: Duration = Duration::from_secs(60);

const USAGE: &str = "usage: hostmount-pod start [--at PATH] [-o OPTIONS] [--wait SECONDS] [--ready] -- CMD ... {} ...";

/// What is to be started.
#[derive(Debug, PartialEq, Eq)]
pub struct Start {
    /// The volume's mount point.
    pub at: PathBuf,
    /// All of `-o`.
    pub options: String,
    /// How long the socket, and with `ready` the program, may take.
    pub wait: Duration,
    /// The program is ended if it does not serve in time.
    pub ready: bool,
    /// What is run.
    pub program: OsString,
    /// Its arguments, with the place that its mount point is put into.
    pub arguments: Vec<OsString>,
}

impl Start {
    /// Reads the arguments that follow `start`. An error is in words.
    pub fn parse(arguments: &[OsString]) -> Result<Self, String> {
        let mut at = Path::new(DEFAULT_DIRECTORY).join(DEFAULT_NAME);
        let (mut options, mut wait, mut ready) = (String::new(), WAIT, false);
        let mut rest = arguments.iter();
        let mut command = loop {
            let word = rest.next().ok_or(USAGE)?;
            let text = word.to_str().ok_or(USAGE)?;
            let (name, joined) = match text.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(OsString::from(value))),
                _ => (text, None),
            };
            let mut value =
                || joined.clone().or_else(|| rest.next().cloned()).ok_or(format!("{name} needs a value; {USAGE}"));
            match name {
                "--" => break rest,
                "--at" => at = value()?.into(),
                "--wait" => wait = seconds(&value()?)?,
                "--ready" if joined.is_none() => ready = true,
                "-o" => {
                    let more = value()?.into_string().map_err(|_| "the value of -o is no text")?;
                    options = if options.is_empty() { more } else { format!("{options},{more}") };
                }
                _ => return Err(format!("unknown argument {}; {USAGE}", api::shown::shown(text))),
            }
        };
        let program = command.next().ok_or(USAGE)?.clone();
        let arguments: Vec<_> = command.cloned().collect();
        let has_place = |word: &OsString| word.as_bytes().windows(PLACE.len()).any(|part| part == PLACE.as_bytes());
        if !arguments.iter().any(has_place) {
            return Err(format!("the command has no {PLACE}, which stands for its mount point; {USAGE}"));
        }
        Ok(Self { at, options, wait, ready, program, arguments })
    }
}

fn seconds(value: &OsString) -> Result<Duration, String> {
    let number = value.to_str().and_then(|text| text.parse().ok());
    let wrong = || format!("--wait {}: not a number of seconds", api::shown::shown(&value.to_string_lossy()));
    number.map(|number: u32| Duration::from_secs(number.into())).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Start, String> {
        Start::parse(&line.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        let start = parse("-- s {}").unwrap();
        assert_eq!((&*start.at, start.wait, start.ready), (Path::new("/run/hostmount/volume"), WAIT, false));
        let start = parse("--at /v -o ro --ready --wait=5 -o noexec -- sh -o x --at={}").unwrap();
        assert_eq!((&*start.at, start.wait, start.ready), (Path::new("/v"), Duration::from_secs(5), true));
        assert_eq!((&*start.options, start.arguments.len()), ("ro,noexec", 3));
    }

    #[test]
    fn what_is_wrong_has_words() {
        for (line, words) in [
            ("", "usage"),
            ("--", "usage"),
            ("-- s", "no {}"),
            ("s {}", "unknown argument s"),
            ("--wait x -- s {}", "not a number"),
            ("--at", "--at needs a value"),
            ("--ready=1 -- s {}", "unknown argument --ready=1"),
        ] {
            assert!(parse(line).unwrap_err().contains(words), "{line}");
        }
    }
}
