//! The mounter under test: `hostmount serve`, running in the container.
//!
//! Runs in the tests' process, as root.

use super::Place;
use super::notes::note;
use hostmount::observe::events;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;
use testbed::machine::{Process, Room};

/// Where the mounter listens.
pub const SOCKET: &str = "/run/hostmount/hostmount.sock";

/// Longer than anything in a test takes: only a failing test waits for it.
const FAR_TOO_LONG: Duration = Duration::from_secs(60);

/// A mounter that accepts connections. Dropped, it is killed; if the test failed, its log is printed.
#[derive(Debug)]
pub struct Mounter {
    process: Process,
    said: Arc<Said>,
}

/// Its stderr.
#[derive(Debug, Default)]
struct Said {
    so_far: Mutex<Text>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    text: String,
    ended: bool,
}

impl Mounter {
    /// Starts it in `container`; returns when it takes connections.
    pub fn start(container: &Place, extra_args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = Room::command("/usr/local/bin/hostmount");
        command.arg("serve").args(extra_args).envs(env.iter().copied());
        Self::start_as(container, command)
    }

    /// Starts it in `container` as `command` does it.
    pub fn start_as(container: &Place, command: Command) -> Self {
        Self::start_program(container, command, events::READY)
    }

    /// Starts another program that logs as it does; returns when it has logged the event `ready`.
    pub fn start_program(container: &Place, mut command: Command, ready: &str) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = container.spawn(command);
        let said = Arc::new(Said::default());
        if let Some(stderr) = process.stderr.take() {
            let said = Arc::clone(&said);
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    said.so_far.lock().unwrap().text.push_str(&(line + "\n"));
                    said.more.notify_all();
                }
                said.so_far.lock().unwrap().ended = true;
                said.more.notify_all();
            });
        }
        let mounter = Self { process, said };
        // Not when a process takes connections: an earlier mounter's helper may hold its socket until it is started.
        mounter.wait_for(ready, 1);
        mounter
    }

    /// Everything it has written to stderr so far.
    pub fn said(&self) -> String {
        self.said.so_far.lock().unwrap().text.clone()
    }

    /// How often it has logged this event (api/src/log_events.rs) so far.
    pub fn count(&self, event: &str) -> usize {
        self.said().matches(&field(event)).count()
    }

    /// Waits until it has logged this event so many times in all.
    #[track_caller]
    pub fn wait_for(&self, event: &str, times: usize) {
        self.wait_until_said(&field(event), times, |_| true);
    }

    /// Waits until a helper has written these words so many times in all.
    #[track_caller]
    pub fn wait_for_helper(&self, words: &str, times: usize) {
        let of_helpers = field(events::HELPER_LINE);
        self.wait_until_said(words, times, |line| line.contains(&of_helpers));
    }

    #[track_caller]
    fn wait_until_said(&self, words: &str, times: usize, counts: impl Fn(&str) -> bool) {
        let so_far = self.said.so_far.lock().unwrap();
        let said = |line: &str| if counts(line) { line.matches(words).count() } else { 0 };
        let unsaid = |so_far: &Text| so_far.text.lines().map(said).sum::<usize>() < times;
        let wait = |so_far: &mut Text| unsaid(so_far) && !so_far.ended;
        let (so_far, _) = self.said.more.wait_timeout_while(so_far, FAR_TOO_LONG, wait).unwrap();
        let missing = unsaid(&so_far);
        // Before a panic: its log is printed then.
        drop(so_far);
        assert!(!missing, "the mounter has not said {words:?} {times} times");
    }

    /// Its PID as the machine sees it.
    pub fn pid(&self) -> u32 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
        ids.split_whitespace().next_back().unwrap().parse().unwrap()
    }

    /// Its PID as the tests see it.
    pub fn outer_pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}

/// An event as its log has it.
fn field(event: &str) -> String {
    format!("\"event\":\"{event}\"")
}

impl Drop for Mounter {
    fn drop(&mut self) {
        if thread::panicking() {
            note(format!("--- the mounter said:\n{}---", self.said()));
        }
    }
}
