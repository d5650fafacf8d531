//! `fusermount3`, as programs run it that mount without privilege: libfuse 2 and 3, bazil's, jacobsa's and hanwen's libraries for
//! Go, fuser and others. Same command line, same words, same exit status as libfuse's own; where that one mounts or unmounts, this
//! one asks the mounter.
//!
//! The caller names a socket of its own by `--comm-fd`, or in `_FUSE_COMMFD`: the descriptor of the new filesystem goes there, with
//! one byte. docs/fusermount3.md has the differences from libfuse's own; `tests/integration/fusermount3.rs` holds them side by side.

mod caller;
pub mod command_line;
mod mount_point;

use crate::asking::{AskError, Volume};
use crate::options;
use api::message::Reason;
use api::program::Granted;
use caller::Caller;
use command_line::{Arguments, Parsed, Work};
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The exit status for everything that fails.
const FAILED: u8 = 1;

/// The version of libfuse's fusermount3 whose command line this one has.
const VERSION: &str = "3.19.0";

/// What it can do beyond mounting and unmounting, as a number (`--features`) and in words: the two features that libfuse knows.
const FEATURES: &str = "0000000000000003";
const FEATURES_IN_WORDS: &str = "FUSERMOUNT_FEATURE_NEW_MOUNT_API FUSERMOUNT_FEATURE_SYNC_INIT";

/// How long a socket that nobody listens at may take: its mounter is being replaced.
const PATIENCE: Duration = Duration::from_secs(10);

/// Says that something failed, under the name that the program was called by.
struct Voice<'a> {
    name: &'a OsStr,
}

impl Voice<'_> {
    fn say(&self, words: impl Display) {
        linux::complain!("{}: {words}", self.name.display());
    }

    fn failed(&self, words: impl Display) -> u8 {
        self.say(words);
        FAILED
    }
}

/// Runs it, called by `name`, with its `arguments`; returns its exit status.
pub fn main(name: &OsStr, arguments: &[OsString]) -> u8 {
    let voice = Voice { name };
    let Arguments { work, options, comm_fd, mount_point } = match command_line::parse(arguments) {
        Ok(Parsed::Work(arguments)) => arguments,
        Ok(Parsed::Help) => {
            linux::say!("{}: {HELP}", name.display());
            return FAILED;
        }
        Ok(Parsed::Version) => {
            linux::say!("fusermount3 version: {VERSION} (hostmount {})", env!("CARGO_PKG_VERSION"));
            return 0;
        }
        Ok(Parsed::Features { in_words }) => {
            linux::say!("{}", if in_words { FEATURES_IN_WORDS } else { FEATURES });
            return 0;
        }
        Err(words) => return voice.failed(words),
    };
    let mount_point = match mount_point::resolve(&mount_point) {
        Ok(path) => path,
        Err(words) => return voice.failed(words),
    };
    // As long as it stays, it keeps no directory in use.
    if let Err(errno) = rustix::process::chdir("/") {
        return voice.failed(format_args!("failed to chdir to '/': {errno}"));
    }
    let place = Place { voice, mount_point };
    let done = match work {
        Work::Unmount { lazy, quiet } => place.unmount(lazy, quiet),
        Work::AutoUnmount => place.caller(comm_fd).and_then(|caller| place.unmount_after(caller, None)),
        Work::Mount { sync_init } => place.caller(comm_fd).and_then(|caller| place.mount(caller, &options, sync_init)),
    };
    match done {
        Ok(()) => 0,
        Err(Told) => FAILED,
    }
}

/// What is wrong has been said already.
struct Told;

/// A place where a filesystem is, or is to be.
struct Place<'a> {
    voice: Voice<'a>,
    mount_point: PathBuf,
}

impl Place<'_> {
    fn tell(&self, words: impl Display) -> Told {
        self.voice.say(words);
        Told
    }

    fn caller(&self, comm_fd: Option<OsString>) -> Result<Caller, Told> {
        Caller::find(comm_fd).map_err(|words| self.tell(words))
    }

    fn volume(&self) -> Result<Volume, AskError> {
        Volume::at(&self.mount_point)
    }

    fn mount(&self, caller: Caller, options: &str, sync_init: bool) -> Result<(), Told> {
        mount_point::check(&self.mount_point).map_err(|words| self.tell(words))?;
        let options = options::read(options, |words| self.voice.say(words)).map_err(|words| self.tell(words))?;
        let failed = |error: AskError| self.tell(format_args!("mount failed: {error}"));
        let volume = self.volume().map_err(failed)?;
        let (granted, descriptor) = volume.mount(&options.for_mounter, PATIENCE, None).map_err(failed)?;
        let sent = caller.send(descriptor).and_then(|()| if sync_init { caller.wait_and_answer() } else { Ok(()) });
        if let Err(words) = sent {
            // The descriptor that was sent may be gone with its receiver, or serve nobody.
            let _ = volume.unmount(true, Some(granted));
            return Err(self.tell(words));
        }
        if options.auto_unmount { self.unmount_after(caller, Some(granted)) } else { Ok(()) }
    }

    fn unmount(&self, lazy: bool, quiet: bool) -> Result<(), Told> {
        let Err(error) = self.volume().and_then(|volume| volume.unmount(lazy, None)) else { return Ok(()) };
        if quiet {
            return Err(Told);
        }
        let mount_point = self.mount_point.display();
        Err(match &error {
            AskError::Failed(failure) if failure.reason == Reason::NotMounted => {
                self.tell(format_args!("entry for {mount_point} not found in /etc/mtab"))
            }
            error => self.tell(format_args!("failed to unmount {mount_point}: {error}")),
        })
    }

    /// Waits for the caller's end, and unmounts what was granted to it, or what is there; not what a program serves by then.
    fn unmount_after(&self, caller: Caller, granted: Option<Granted>) -> Result<(), Told> {
        caller.wait_for_its_end().map_err(|words| self.tell(words))?;
        let Ok(volume) = self.volume() else { return Err(Told) };
        // There is nobody left to be told that the mounter is away.
        match volume.is_served(PATIENCE) {
            Ok(false) => match volume.unmount(true, granted) {
                // The mounter has seen the program's end before.
                Err(AskError::Failed(failure)) if failure.reason == Reason::NotMounted => Ok(()),
                done => done.map_err(|_| Told),
            },
            _ => Ok(()),
        }
    }
}

const HELP: &str = "[options] mountpoint
Options:
 -h\t\t    print help
 -V\t\t    print version
 -o opt[,opt...]    mount options
 -u\t\t    unmount
 -q\t\t    quiet
 -z\t\t    lazy unmount
 --features\t    print supported features in hexadecimal
 --features=text    print supported feature names";

/// A path in words, for a message.
fn shown(path: &Path) -> String {
    api::shown::shown_path(path)
}
