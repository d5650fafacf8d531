//! `hostile`: a helper that was taken over. It tries to get more than its one mount, before it and after it, and says what
//! came of it. What it gets it does not use: a file is opened and not written, a process is sent signal 0.
//!
//! Runs as helpers do, in a process for each attempt: one that is killed says so too. A script calls it, so that it can be a
//! static program with either engine. tests/integration/hostile_helper.rs knows what each attempt may get, which is nothing
//! for almost all of them, and writes docs/hostile-helper.md.

mod files;
mod kernel;
mod limits;
mod mounts;
mod network;
mod paths;
mod preload_socket;
mod processes;
mod sys;

use linux::sys::fork::{Role, fork_into_background};
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use std::ffi::OsString;
use std::io::{PipeReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::ExitCode;

/// The abstract socket of a process that is not a helper.
const BYSTANDERS_SOCKET: &str = "hostmount-bystander";
/// What each line of outcomes begins with.
pub const OUTCOMES: &str = "outcomes:";
/// The attempt got what it was for.
pub const GOT: i32 = 0;
/// It got nothing, without an error: there is nothing, or it had no effect.
pub const NOTHING: i32 = 250;
/// A signal killed it.
pub const KILLED: i32 = 251;

/// Something that a helper may try.
pub struct Attempt {
    /// What it does.
    pub name: String,
    /// What it would be good for.
    pub gives: &'static str,
    run: Box<dyn Fn(&Around) -> Tried>,
}

/// Whether it was got.
type Tried = Result<(), Outcome>;

/// How nothing was got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Refused(Errno),
    Nothing,
}

impl From<Errno> for Outcome {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

impl From<std::io::Error> for Outcome {
    fn from(error: std::io::Error) -> Self {
        Errno::from_io_error(&error).map_or(Self::Nothing, Self::Refused)
    }
}

/// `Ok` if it is so.
fn got(it: bool) -> Tried {
    if it { Ok(()) } else { Err(Outcome::Nothing) }
}

/// Who and what is around the helper.
struct Around {
    mount_point: String,
    mounter: u32,
    /// A helper of another volume.
    victim: u32,
    /// A process of the node's, of uid 0, that is not confined.
    bystander: u32,
}

/// Collects attempts.
#[derive(Default)]
struct Attempts(Vec<Attempt>);

impl Attempts {
    fn add(&mut self, name: impl Into<String>, gives: &'static str, run: impl Fn(&Around) -> Tried + 'static) {
        self.0.push(Attempt { name: name.into(), gives, run: Box::new(run) });
    }

    /// A system call with these arguments.
    fn call(&mut self, name: impl Into<String>, gives: &'static str, number: libc::c_long, arguments: &[u64]) {
        let arguments = arguments.to_vec();
        self.add(name, gives, move |_| Ok(sys::call(number, &arguments).map(|_| ())?));
    }
}

/// All of them, in the order of the table.
pub fn attempts() -> Vec<Attempt> {
    let mut attempts = Attempts::default();
    mounts::list(&mut attempts);
    processes::list(&mut attempts);
    kernel::list(&mut attempts);
    network::list(&mut attempts);
    files::list(&mut attempts);
    paths::list(&mut attempts);
    limits::list(&mut attempts);
    preload_socket::list(&mut attempts);
    attempts.0
}

/// `hostile try PHASE MOUNT-POINT MOUNTER VICTIM BYSTANDER` or `hostile stand-by`.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<String> = arguments.filter_map(|word| word.into_string().ok()).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse().ok();
    match words[..] {
        ["stand-by"] => stand_by(),
        ["try", phase, mount_point, mounter, victim, bystander] => {
            let numbers = (number(mounter), number(victim), number(bystander));
            let (Some(mounter), Some(victim), Some(bystander)) = numbers else { return ExitCode::FAILURE };
            try_all(phase, &Around { mount_point: mount_point.to_owned(), mounter, victim, bystander })
        }
        _ => ExitCode::FAILURE,
    }
}

/// A process that helpers may try to reach.
fn stand_by() -> ExitCode {
    let Ok(address) = SocketAddr::from_abstract_name(BYSTANDERS_SOCKET) else { return ExitCode::FAILURE };
    let Ok(_listener) = UnixListener::bind_addr(&address) else { return ExitCode::FAILURE };
    loop {
        std::thread::park();
    }
}

/// Each attempt in a process of its own, which tells its outcome by its exit code.
fn try_all(phase: &str, around: &Around) -> ExitCode {
    let attempts = attempts();
    let mut line = String::new();
    for (number, attempt) in attempts.iter().enumerate() {
        line.push_str(&format!(" {number}={}", try_one(attempt, around)));
        // Longer ones are cut by the mounter.
        if line.len() > 800 {
            println!("{OUTCOMES} {phase}{line}");
            line.clear();
        }
    }
    println!("{OUTCOMES} {phase}{line}");
    println!("{OUTCOMES} {phase} end");
    let _ = std::io::stdout().flush();
    ExitCode::SUCCESS
}

/// The errno of one attempt, or one of [`GOT`], [`NOTHING`] and [`KILLED`].
fn try_one(attempt: &Attempt, around: &Around) -> i32 {
    let writer = match fork_into_background() {
        Ok(Role::Background(writer)) => writer,
        Ok(Role::Foreground(reader)) => return told(reader),
        Err(error) => return error.raw_os_error().unwrap_or(NOTHING),
    };
    // One that waits for ever is killed, and says so.
    let _ = sys::alarm(20);
    let outcome = match (attempt.run)(around) {
        Ok(()) => GOT,
        Err(Outcome::Refused(errno)) => errno.raw_os_error(),
        Err(Outcome::Nothing) => NOTHING,
    };
    let _ = (&writer).write_all(&outcome.to_ne_bytes());
    std::process::exit(0)
}

/// What the process of an attempt has said before its end.
fn told(mut reader: PipeReader) -> i32 {
    let mut outcome = [0; 4];
    let told = reader.read_exact(&mut outcome);
    // It would count as one of the helper's processes.
    let _ = wait(WaitOptions::empty());
    told.map_or(KILLED, |()| i32::from_ne_bytes(outcome))
}
