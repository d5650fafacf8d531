//! What an operation costs, counted: the system calls of the program that asks and of the mounter, threads, processes, bytes
//! of mount tables. Not judged by the clock: the numbers are the same on a busy machine.
//!
//! Runs in the tests' process. strace(1) does the counting, of all threads of the mounter, and of what they start; which of
//! these is the helper's is told by how it was made: without CLONE_THREAD.

use super::Place;
use super::mounter::Mounter;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use testbed::machine::Room;

/// Where the traces are, in a room; what is not a pid is the client's.
const TRACES: &str = "/tmp/traces";

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// System calls of the program that asks.
    pub client_calls: u64,
    /// System calls of the mounter, on all of its threads.
    pub mounter_calls: u64,
    /// Threads that the mounter started.
    pub threads: u64,
    /// Processes that the mounter started, without those that these started.
    pub processes: u64,
    /// Bytes of mount tables that both read.
    pub table_bytes: u64,
}

impl Counts {
    /// Whether none is more than the other's.
    pub fn is_within(self, limits: Self) -> bool {
        self.least(limits) == self
    }

    /// The smaller of each: what comes in between, a signal or a wait that is over early, can only add to it.
    pub fn least(self, other: Self) -> Self {
        Self {
            client_calls: self.client_calls.min(other.client_calls),
            mounter_calls: self.mounter_calls.min(other.mounter_calls),
            threads: self.threads.min(other.threads),
            processes: self.processes.min(other.processes),
            table_bytes: self.table_bytes.min(other.table_bytes),
        }
    }
}

/// Runs a line of shell on the node that begins with the client's program, and counts until `done` returns.
#[track_caller]
pub fn count(container: &Place, node: &Place, mounter: &Mounter, client: &str, done: impl FnOnce()) -> Counts {
    container.sh_ok(&format!("rm -rf {TRACES} && mkdir {TRACES}"));
    let mut strace = Room::command("strace");
    strace.args(["-ff", "-y", "-s", "0", "-e", "signal=none", "-o"]);
    strace.arg(format!("{TRACES}/t")).arg("-p").arg(mounter.pid().to_string());
    strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let threads: BTreeSet<u64> = tasks(mounter);
    let mut strace = container.spawn(strace);
    let mut words = BufReader::new(strace.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("attached") {
        line.clear();
        assert!(words.read_line(&mut line).unwrap() > 0, "strace does not attach");
    }
    // What it says further must not fill the pipe.
    let rest = std::thread::spawn(move || words.lines().count());
    let trace =
        node.sh_ok(&format!("strace -f -y -s 0 -e signal=none -qq -o {TRACES}.client {client}; cat {TRACES}.client"));
    done();
    let pid = nix::unistd::Pid::from_raw(strace.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    strace.wait().unwrap();
    rest.join().unwrap();
    let traces: BTreeMap<u64, String> = container.visit(|| {
        let file = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry.unwrap().path();
            let thread = path.extension()?.to_str()?.parse().ok()?;
            Some((thread, fs::read_to_string(path).unwrap()))
        };
        fs::read_dir(TRACES).unwrap().filter_map(file).collect()
    });
    if std::env::var_os("HOSTMOUNT_SHOW_TRACES").is_some() {
        println!("{trace}");
        traces.iter().for_each(|(thread, trace)| println!("--- {thread}\n{trace}"));
    }
    evaluate(threads, &traces, &trace)
}

/// The mounter's threads, as its machine numbers them.
fn tasks(mounter: &Mounter) -> BTreeSet<u64> {
    let tasks = fs::read_dir(format!("/proc/{}/task", mounter.outer_pid())).unwrap();
    let inner = |task: std::io::Result<fs::DirEntry>| {
        let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().next_back()?.parse().ok()
    };
    tasks.filter_map(inner).collect()
}

fn evaluate(mut threads: BTreeSet<u64>, traces: &BTreeMap<u64, String>, client: &str) -> Counts {
    let mut counts = Counts {
        client_calls: calls(client).count() as u64,
        mounter_calls: 0,
        threads: 0,
        processes: 0,
        table_bytes: table_bytes(client),
    };
    let mut left: Vec<u64> = threads.iter().copied().collect();
    while let Some(thread) = left.pop() {
        let Some(trace) = traces.get(&thread) else { continue };
        counts.mounter_calls += calls(trace).count() as u64;
        counts.table_bytes += table_bytes(trace);
        for line in calls(trace).filter(|line| line.starts_with("clone") || line.starts_with("vfork")) {
            let Some(made) = result(line) else { continue };
            if !line.contains("CLONE_THREAD") {
                counts.processes += 1;
            } else if threads.insert(made) {
                counts.threads += 1;
                left.push(made);
            }
        }
    }
    counts
}

/// The lines that are system calls, but for those about the node's cgroups, of which one node has more than another, and what a
/// debug build asks before it closes a descriptor.
fn calls(trace: &str) -> impl Iterator<Item = &str> {
    trace.lines().map(|line| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ')).filter(|line| {
        line.contains('(') && !line.starts_with("+++") && !line.contains("/cgroup") && !line.contains("F_GETFD")
    })
}

fn result(line: &str) -> Option<u64> {
    line.rsplit_once(" = ")?.1.split_whitespace().next()?.parse().ok()
}

/// What read(2) and its kind returned of files called `mountinfo` and `mounts`.
fn table_bytes(trace: &str) -> u64 {
    let of_a_table = |line: &&str| {
        let file = line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or("", |(file, _)| file);
        (line.starts_with("read") || line.starts_with("pread"))
            && (file.ends_with("/mountinfo") || file.ends_with("/mounts"))
    };
    calls(trace).filter(of_a_table).filter_map(result).sum()
}
