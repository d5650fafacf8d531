//! The cgroup of one helper: killing what is in it, and whether it ran out of memory.
//!
//! Runs in the mounter.

use super::hierarchy::{self, CgroupVersion, open_directory, read_file};
use super::{Cgroups, LEAVING};
use linux::processes::{OWN, Process};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, PoisonError};

/// A helper's own cgroup. Dropped, it is removed as soon as it is empty.
#[derive(Debug)]
pub struct Cgroup {
    pub(super) name: String,
    pub(super) all: Arc<Cgroups>,
}

impl Cgroup {
    /// Kills whatever is in it: of a helper that is over, in case that a process has left its mount namespace.
    pub fn kill(&self) {
        let Some(parent) = &self.all.parent else { return };
        let Ok(cgroup) = open_directory(parent.directory.as_fd(), self.name.as_ref()) else { return };
        // Version 2, Linux 5.14.
        if hierarchy::set(cgroup.as_fd(), "cgroup.kill", "1").is_ok() {
            return;
        }
        // A process with SIGKILL pending cannot fork any more: when a round finds no new one, there is no other. The mounter
        // itself is listed for as long as the thread that entered the cgroup to launch the helper is there.
        let mut killed = BTreeSet::from([getpid().as_raw_nonzero()]);
        loop {
            let listed = read_file(cgroup.as_fd(), Path::new("cgroup.procs")).unwrap_or_default();
            let listed = listed.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
            let new: Vec<_> = listed.filter(|pid| killed.insert(pid.as_raw_nonzero())).collect();
            if new.is_empty() {
                return;
            }
            for pid in new {
                let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
                // Another look, now that it is held: so it is the very process that was listed.
                let again = read_file(cgroup.as_fd(), Path::new("cgroup.procs")).unwrap_or_default();
                if again.lines().any(|line| line.parse() == Ok(pid.as_raw_nonzero().get())) {
                    // It may have exited by itself by now.
                    let _ = pidfd_send_signal(held, Signal::KILL);
                }
            }
        }
    }

    /// The processes that are in it.
    pub fn processes(&self) -> Vec<Process> {
        let Some(parent) = &self.all.parent else { return Vec::new() };
        let listed =
            read_file(parent.directory.as_fd(), &Path::new(&self.name).join("cgroup.procs")).unwrap_or_default();
        let pids = listed.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
        pids.map(|pid| Process::at(Path::new(OWN), pid)).collect()
    }

    /// What its processes use of memory, in bytes, if that is counted.
    pub fn memory(&self) -> Option<u64> {
        self.number("memory.usage_in_bytes", "memory.current")
    }

    /// The limit of that, in bytes, if it has one. Without one version 1 shows a number that no machine has.
    pub fn memory_limit(&self) -> Option<u64> {
        self.number("memory.limit_in_bytes", "memory.max").filter(|limit| *limit < 1 << 50)
    }

    /// Its path below the node's top, in the hierarchy that counts memory.
    pub fn path(&self) -> String {
        format!("{}/{}", self.all.directory, self.name)
    }

    /// The number in one of its files, which has these names in version 1 and 2.
    fn number(&self, version_1: &str, version_2: &str) -> Option<u64> {
        let parent = self.all.parent.as_ref()?;
        let file = match parent.version {
            CgroupVersion::V1 => version_1,
            CgroupVersion::V2 => version_2,
        };
        read_file(parent.directory.as_fd(), &Path::new(&self.name).join(file)).ok()?.trim().parse().ok()
    }

    /// A message for the caller, if the kernel has killed a process in it because memory ran out.
    pub fn ran_out_of_memory(&self) -> Option<String> {
        let parent = self.all.parent.as_ref()?;
        let events = match parent.version {
            CgroupVersion::V1 => "memory.oom_control",
            CgroupVersion::V2 => "memory.events",
        };
        let events = read_file(parent.directory.as_fd(), &Path::new(&self.name).join(events)).unwrap_or_default();
        let killed = |line: &str| line.strip_prefix("oom_kill ").is_some_and(|count| count != "0");
        if !events.lines().any(killed) {
            return None;
        }
        Some(self.memory_limit().map(|limit| limit >> 20).map_or_else(
            || {
                "the node has run out of memory, or all helpers together have hit their limit ([helpers] memory_limit)"
                    .to_owned()
            },
            |limit| format!("it hit its memory limit of {limit} MiB (memory_limit in the configuration)"),
        ))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let mut leaving = self.all.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        // One that a helper keeps busy for good is tried again by the next mounter.
        if leaving.len() < LEAVING {
            leaving.insert(std::mem::take(&mut self.name));
        }
        drop(leaving);
        self.all.sweep();
    }
}
