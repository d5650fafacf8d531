//! What a helper begins with, beside its arguments: its environment and its standard input.
//!
//! Runs in the mounter, on the volume's own thread.

use super::account::{Account, Shown};
use super::find::search_path;
use crate::config::handover::Handover;
use rustix::fs::{Mode, OFlags, fchown, open};
use rustix::io::ioctl_fionbio;
use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

/// Variables that make a program say by syslog(3) what it would say to nobody once it is in the background, by the name it is called by. With one of
/// the words behind them, in another variable or an argument, it says so elsewhere, and ends if it is to do both.
const SPEAK: [(&str, &str, [&str; 3]); 1] =
    [("mount.rclone", "RCLONE_SYSLOG", ["RCLONE_LOG_FILE", "log-file", "log_file"])];

/// The variable that a program of this name is told by to say why it fails. `None`: it needs none, or is told so otherwise, in an argument or in a
/// variable that is set.
pub fn told_to_speak(
    program: &str,
    arguments: &[impl AsRef<OsStr>],
    is_set: impl Fn(&str) -> bool,
) -> Option<&'static str> {
    let (_, variable, elsewhere) = SPEAK.iter().find(|(called, ..)| *called == program)?;
    let argument = |word: &str| arguments.iter().any(|argument| argument.as_ref().to_string_lossy().contains(word));
    let otherwise = elsewhere.iter().any(|word| is_set(word) || argument(word));
    (!otherwise && !is_set(variable)).then_some(variable)
}

/// Our own environment, without the variables that lead to the mounter, and with those of its account and those configured for
/// the type; for a program of this name and these arguments.
pub fn environment(
    (program, arguments): (&str, &[OsString]),
    handover: &Handover,
    shown: Option<Shown>,
) -> BTreeMap<OsString, OsString> {
    let ours = env::vars_os().filter(|(name, _)| name != api::client::SOCKET_VARIABLE && name != "HOSTPROCPATH");
    let mut environment: BTreeMap<_, _> = ours.collect();
    environment.insert("PATH".into(), search_path().into());
    if let Some(Shown { name, home, .. }) = shown {
        environment.extend(
            [("HOME", home.into()), ("USER", name.clone().into()), ("LOGNAME", name.into())]
                .map(|(variable, value): (&str, OsString)| (variable.into(), value)),
        );
    }
    let configured = handover.environment.iter();
    environment.extend(configured.map(|(name, value)| (name.into(), OsStr::from_bytes(value).to_owned())));
    if let Some(variable) = told_to_speak(program, arguments, |name| environment.contains_key(OsStr::new(name))) {
        environment.insert(variable.into(), "true".into());
    }
    environment
}

/// What is written is in the pipe before the helper starts, and is gone from there once it has read it.
pub fn stdin(handover: &Handover, account: &Account<'_>) -> io::Result<OwnedFd> {
    let Some(text) = &handover.stdin else {
        return Ok(open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    };
    let (reader, mut writer) = io::pipe()?;
    // No process reads yet: what does not fit must be an error and not a wait.
    ioctl_fionbio(&writer, true)?;
    writer.write_all(text)?;
    // So that it may open /dev/stdin.
    fchown(&reader, Some(account.uid), Some(account.gid))?;
    Ok(reader.into())
}
