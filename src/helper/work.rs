//! How much a helper's processes have done: enough to distinguish one that works, however slowly, from one that stands still.
//!
//! Runs in the mounter. It reads /proc, and neither asks nor stops any process.

use crate::engine::helper_processes::HelperProcesses;
use linux::processes::Process;
use rustix::process::Pid;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::Sub;
use std::time::Duration;

/// What the processes of a helper had done up to now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// Each of them, by its id.
    processes: HashMap<Pid, Done>,
}

/// What was done by one process, or by several between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Calls of read(2), write(2) and their kind (proc_pid_io(5)). send(2), recv(2) and splice(2) are not among them.
    pub calls: u64,
    /// How often its threads were put on a processor.
    pub turns: u64,
    /// Time on a processor, in hundredths of a second.
    pub time: u64,
}

impl Work {
    /// What all of them had done just now.
    pub fn of(helper: &HelperProcesses) -> io::Result<Self> {
        let processes: Vec<_> = helper.list()?.into_iter().map(|(process, _)| process).collect();
        Ok(Self::of_processes(&processes))
    }

    /// The same of processes that are known to be its own.
    pub fn of_processes(processes: &[Process]) -> Self {
        // A process that exits meanwhile is left out.
        let processes = processes.iter().filter_map(|process| Some((process.pid(), done(process)?))).collect();
        Self { processes }
    }

    /// Whether there is no process that could do anything.
    pub fn has_no_process(&self) -> bool {
        self.processes.is_empty()
    }

    /// What was done since `earlier`.
    pub fn since(&self, earlier: &Self) -> Done {
        let each = self.processes.iter().map(|(pid, now)| {
            // A process that is new has done all it did since.
            *now - earlier.processes.get(pid).copied().unwrap_or_default()
        });
        each.fold(Done::default(), |sum, one| Done {
            calls: sum.calls + one.calls,
            turns: sum.turns + one.turns,
            time: sum.time + one.time,
        })
    }
}

impl Done {
    /// Whether this, in this `time`, is more than a helper does by itself that has nothing to do (timers, keeping a connection alive),
    /// and with `more` requests that have come meanwhile. For short times: a helper may do by itself what it does rarely.
    pub fn is_work(&self, time: Duration, more: u64) -> bool {
        // As in `operation::hang`, whose times are long.
        let by_itself = |per_second: f64, once: u64, per_request: u64| {
            (per_second * time.as_secs_f64()) as u64 + once + per_request * more
        };
        self.calls > by_itself(0.4, 4, 16) || self.turns > by_itself(10.0, 10, 16) || self.time > by_itself(1.0, 1, 1)
    }
}

impl Sub for Done {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(earlier.calls),
            // The turns of threads that have exited are not counted any more.
            turns: self.turns.saturating_sub(earlier.turns),
            time: self.time.saturating_sub(earlier.time),
        }
    }
}

fn done(process: &Process) -> Option<Done> {
    let calls = sum_of(&process.read("io").ok()?, &["syscr:", "syscw:"]);
    let time = time_of(&process.read("stat").ok()?)?;
    let status = process.threads().filter_map(|thread| fs::read_to_string(thread.join("status")).ok());
    let turns = status.map(|status| sum_of(&status, &["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"]));
    Some(Done { calls, turns: turns.sum(), time })
}

/// The sum of the numbers on the lines that begin with these words.
fn sum_of(text: &str, words: &[&str]) -> u64 {
    let number = |line: &str| words.iter().find_map(|word| line.strip_prefix(word)?.trim().parse::<u64>().ok());
    text.lines().filter_map(number).sum()
}

/// proc_pid_stat(5): utime and stime, after the name, which may hold anything.
/// The time on a processor, of the process and of all its threads, in hundredths of a second: from /proc/PID/stat.
pub fn time_of(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11).map(|field| field.parse::<u64>().ok());
    Some(fields.next()?? + fields.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_works() {
        let this = HelperProcesses::of_this_thread().unwrap();
        let before = Work::of(&this).unwrap();
        for _ in 0..100 {
            fs::read("/proc/self/comm").unwrap();
        }
        let now = Work::of(&this).unwrap();
        assert!(now.since(&before).calls >= 100 && !now.has_no_process());
        assert_eq!(now.since(&now), Done::default());
    }

    #[test]
    fn fields_are_found() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 20 22 0 0 20 0 1 0 99 0 0";
        assert_eq!(time_of(stat), Some(42));
        assert_eq!(time_of("nonsense"), None);
        assert_eq!(sum_of("syscr: 3\nrchar: 9\nsyscw: 4\n", &["syscr:", "syscw:"]), 7);
    }
}
