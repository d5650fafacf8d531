//! A machine that is a pod's node and the pod in one: `testbed` as the mounter of some volumes, and `hostmount-pod` for their
//! programs.
//!
//! Runs in the tests' process, as root.

use super::Place;
use super::programs::{POD, TESTBED};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use testbed::machine::{Machine, Network, Process, Recipe, Room};

/// The emptyDir, where a program sees it.
pub const DIRECTORY: &str = "/run/hostmount";
/// Where programs mount.
pub const MOUNT_POINT: &str = "/run/hostmount/volume";
/// Where the volume shows.
pub const SHOWN: &str = "/mnt/volume";
/// Where `fusermount3`, and its other names, are ours.
pub const OURS: &str = "/opt/pod";

/// The machine.
pub struct PodVolume {
    /// Where everything happens.
    pub place: Place,
    lines: Mutex<Receiver<String>>,
    _mounter: Process,
    _machine: Machine,
}

impl PodVolume {
    /// Starts it with the volume `volume`, and one more for each of these names, shown at /mnt/NAME.
    pub fn start(others: &[&str]) -> Self {
        let recipe = Recipe::userland()
            .fuse()
            .writable(["/run", "/tmp", "/mnt", "/opt", "/var/tmp"])
            .bind(&*POD, format!("{OURS}/hostmount-pod"))
            .bind(&*POD, format!("{OURS}/fusermount3"))
            .bind(&*POD, format!("{OURS}/fusermount"))
            .bind(&*TESTBED, "/usr/local/bin/pod-mounter");
        let machine = Machine::start(&Network::new().unwrap(), recipe).unwrap();
        let place = Place(machine.node().clone());
        let mut command = Room::command("/usr/local/bin/pod-mounter");
        command.arg(DIRECTORY).arg(format!("volume={SHOWN}"));
        command.args(others.iter().map(|name| format!("{name}=/mnt/{name}")));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut mounter = place.spawn(command);
        let said = BufReader::new(mounter.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || said.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let test = Self { place, lines: Mutex::new(lines), _mounter: mounter, _machine: machine };
        assert_eq!(test.asked(), "ready");
        test
    }

    /// The next thing that the mounter was asked for, in a line: waits for it.
    #[track_caller]
    pub fn asked(&self) -> String {
        self.lines.lock().unwrap().recv_timeout(std::time::Duration::from_secs(60)).expect("nothing was asked for")
    }

    /// What it was asked for and nobody has taken yet.
    pub fn was_asked(&self) -> Vec<String> {
        self.lines.lock().unwrap().try_iter().collect()
    }

    /// The PID of the one process that runs `program`: waits for it.
    pub fn pid_of(&self, program: &str) -> u32 {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        loop {
            let processes = self.place.processes();
            let runs = |line: &str| line.split(' ').next().is_some_and(|first| first.ends_with(program));
            let pids: Vec<_> = processes.iter().filter(|(_, line)| runs(line)).map(|(pid, _)| *pid).collect();
            if let [pid] = pids[..] {
                return pid;
            }
            assert!(std::time::Instant::now() < deadline, "not one {program}: {processes:?}");
            std::thread::yield_now();
        }
    }
}
