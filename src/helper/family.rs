//! Everything that a helper started: the processes that live in its mount namespace.
//!
//! A helper has no capability and cannot leave that namespace; it may fork, make sessions and go into the background
//! as it likes. Runs in the mounter.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The processes of one helper, named by the mount namespace they live in.
#[derive(Debug, Clone)]
pub struct Family {
    namespace: (u64, u64),
}

impl Family {
    /// The family that will live in the calling thread's mount namespace.
    pub fn of_this_thread() -> io::Result<Self> {
        Ok(Self { namespace: namespace_at(Path::new("/proc/thread-self/ns/mnt"))? })
    }

    /// The processes that are members just now.
    pub fn members(&self) -> io::Result<Vec<(Pid, OwnedFd)>> {
        let mut members = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
            else {
                continue;
            };
            // The descriptor first, then the look: it is the very process that was looked at.
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            if namespace_at(&entry.path().join("ns/mnt")).is_ok_and(|namespace| namespace == self.namespace) {
                members.push((pid, process));
            }
        }
        Ok(members)
    }

    /// Sends SIGKILL to every member, those too that are started meanwhile. They may take a moment to go.
    pub fn kill(&self) -> io::Result<()> {
        // A process with SIGKILL pending cannot fork any more: when a round finds nobody new, there is nobody else.
        let mut killed = HashSet::new();
        loop {
            let mut others = self.members()?;
            others.retain(|(pid, _)| killed.insert(*pid));
            if others.is_empty() {
                return Ok(());
            }
            for (_, process) in others {
                // It may have ended by itself by now.
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
        }
    }
}

fn namespace_at(link: &Path) -> io::Result<(u64, u64)> {
    let file = fs::metadata(link)?;
    Ok((file.dev(), file.ino()))
}
