//! The mounter under test: `hostmount serve`, running in the container.
//!
//! Runs in the tests' process, as root.

use super::Place;
use hostmount::demo::machine::{Process, Room};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::process::{PidfdFlags, pidfd_open};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

/// The directory that the container and the node share.
const DIRECTORY: &str = "/run/hostmount";
/// Where the mounter listens.
pub const SOCKET: &str = "/run/hostmount/hostmount.sock";

/// Longer than anything in a test takes: only a failing test waits for it.
const FAR_TOO_LONG: Duration = Duration::from_secs(30);
/// Longer than any start takes: only a mounter that neither answers nor ends makes a test wait for it.
const TOO_LONG: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// A mounter that takes connections. Dropped, it is killed; if the test failed, it shows what the mounter said.
#[derive(Debug)]
pub struct Mounter {
    process: Process,
    said: Arc<Said>,
}

/// Its stderr so far.
#[derive(Debug, Default)]
struct Said {
    text: Mutex<String>,
    more: Condvar,
}

impl Mounter {
    /// Starts it in `container`; returns when its socket takes connections.
    pub fn start(container: &Place, extra_args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Room::command("/usr/local/bin/hostmount");
        command.arg("serve").args(extra_args).envs(env.iter().copied());
        Self::start_as(container, command)
    }

    /// Starts it in `container`, a room that sees its socket's directory, as `command` does it.
    pub fn start_as(container: &Place, mut command: Command) -> Self {
        // Before it starts, so that nothing it does there is missed.
        let changes = watch(container);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = container.spawn(command);
        let said = Arc::new(Said::default());
        if let Some(stderr) = process.stderr.take() {
            let said = Arc::clone(&said);
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    said.text.lock().unwrap().push_str(&(line + "\n"));
                    said.more.notify_all();
                }
            });
        }
        let mut mounter = Self { process, said };
        mounter.wait_for_socket(container, &changes);
        mounter
    }

    /// Everything it has written to stderr so far.
    pub fn said(&self) -> String {
        self.said.text.lock().unwrap().clone()
    }

    /// Waits until `words` have been in its stderr for so many times in all.
    #[track_caller]
    pub fn wait_until_said(&self, words: &str, times: usize) {
        let text = self.said.text.lock().unwrap();
        let unsaid = |text: &mut String| text.matches(words).count() < times;
        let waited = self.said.more.wait_timeout_while(text, FAR_TOO_LONG, unsaid).unwrap();
        let in_time = !waited.1.timed_out();
        // Before a panic: what it said is shown then.
        drop(waited);
        assert!(in_time, "the mounter has not said {words:?} {times} times");
    }

    /// Its PID as the machine sees it.
    pub fn pid(&self) -> u32 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
        ids.split_whitespace().next_back().unwrap().parse().unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }

    fn wait_for_socket(&mut self, container: &Place, changes: &OwnedFd) {
        let pid = rustix::process::Pid::from_raw(self.process.id().try_into().unwrap()).unwrap();
        let end = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        while container.visit(|| UnixStream::connect(SOCKET)).is_err() {
            let mut events = [PollFd::new(changes, PollFlags::IN), PollFd::new(&end, PollFlags::IN)];
            let ready = poll(&mut events, Some(&TOO_LONG)).unwrap();
            assert!(ready > 0, "the mounter does not listen on {SOCKET}");
            assert!(events[1].revents().is_empty(), "the mounter ended: {:?}", self.process.wait());
            // Only that something has changed matters, not what.
            rustix::io::read(changes, &mut [0; 4096]).unwrap();
        }
    }
}

/// A descriptor that becomes readable when something appears or changes its mode where the socket will be.
fn watch(container: &Place) -> OwnedFd {
    let changes = inotify::init(CreateFlags::CLOEXEC).unwrap();
    let appears = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ATTRIB;
    container.visit(|| inotify::add_watch(&changes, DIRECTORY, appears)).unwrap();
    changes
}

impl Drop for Mounter {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the mounter said:\n{}---", self.said());
        }
    }
}
