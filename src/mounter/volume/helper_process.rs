//! A helper as /proc and its cgroup show it. No filesystem is asked, so one that hangs does not matter.
//!
//! Runs in the mounter, on the thread of a request.

use crate::engine::helper_processes::HelperProcesses;
use api::volume::HelperProcess;
use linux::processes::Process;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// How many descriptors are counted: a helper may have as many as its limit allows in each process.
const COUNTED: u64 = 100_000;
/// Hundredths of a second, which /proc counts in on every machine that Linux runs on (USER_HZ).
const HUNDREDTHS: u64 = 100;

/// What a helper is just now. None: no process of it is left.
pub fn look(processes: &HelperProcesses) -> Option<HelperProcess> {
    let all = processes.list().ok()?;
    let all: Vec<&Process> = all.iter().map(|(process, _)| process).collect();
    let serving = all.iter().find(|process| process.has_open(Path::new("/dev/fuse"))).or(all.first())?;
    let status = serving.read("status").unwrap_or_default();
    let memory = all.iter().map(|process| resident(&process.read("status").unwrap_or_default())).sum();
    let descriptors = all.iter().fold(0, |count, process| {
        let there = fs::read_dir(process.file("fd")).into_iter().flatten();
        count + there.take((COUNTED - count) as usize).count() as u64
    });
    Some(HelperProcess {
        pid: serving.pid().as_raw_nonzero().get().unsigned_abs(),
        uid: numbers(&status, "Uid:").nth(1).and_then(|uid| uid.try_into().ok()).unwrap_or_default(),
        program: fs::read_link(serving.file("exe")).ok().map(|path| path.to_string_lossy().into_owned()),
        package: None,
        processes: all.len() as u64,
        descriptors,
        memory,
        memory_limit: None,
        cgroup: None,
        started: started(serving).unwrap_or_default(),
    })
}

/// In bytes.
pub fn resident(status: &str) -> u64 {
    numbers(status, "VmRSS:").next().unwrap_or_default().saturating_mul(1024)
}

fn numbers<'a>(status: &'a str, name: &str) -> impl Iterator<Item = u64> + use<'a> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().map_while(|word| word.parse().ok())
}

/// In seconds since 1970.
fn started(process: &Process) -> Option<u64> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let age = uptime as u64 - (process.start().ok()? / HUNDREDTHS).min(uptime as u64);
    Some(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs() - age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_among_others() {
        let this = look(&HelperProcesses::of_this_thread().unwrap()).unwrap();
        assert!(this.processes >= 1 && this.descriptors >= 3 && this.memory > 0, "{this:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!((1..=now + 1).contains(&this.started), "{this:?}");
        assert_eq!(resident("Name:\tx\nVmRSS:\t    12 kB\n"), 12 << 10);
        assert_eq!(numbers("Uid:\t1\t2\t3\t4\n", "Uid:").nth(1), Some(2));
    }
}
