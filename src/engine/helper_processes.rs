//! Everything that a helper started: the processes that live in its mount namespace.
//!
//! A helper has no capability and cannot leave that namespace; it may fork, make sessions and go into the background as it
//! likes. Runs in the mounter, on any of its threads: each sees the same /proc, in whichever mount namespace it stands.

use linux::mount_namespace::MountNamespace;
use linux::namespace::NamespaceId;
use linux::processes::{self, Process};
use rustix::process::{Signal, pidfd_send_signal};
use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The processes of one helper, named by the mount namespace they live in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HelperProcesses {
    namespace: NamespaceId,
}

impl HelperProcesses {
    /// Those of the helper that is about to be started in the calling thread's mount namespace.
    pub fn of_this_thread() -> io::Result<Self> {
        Ok(Self { namespace: NamespaceId::of_this_threads_mounts()? })
    }

    /// Those of the helper that lives, or lived, in this mount namespace.
    pub fn of_namespace(namespace: NamespaceId) -> Self {
        Self { namespace }
    }

    /// The helper's mount namespace.
    pub fn namespace(&self) -> NamespaceId {
        self.namespace
    }

    /// A handle on that namespace, if `process` still lives there.
    pub fn open_namespace(&self, process: &Process) -> Option<MountNamespace> {
        let opened = process.open_mount_namespace().ok()?;
        opened.id().is_ok_and(|id| id == self.namespace).then_some(opened)
    }

    /// All that there are just now, each with a descriptor of it.
    pub fn list(&self) -> io::Result<Vec<(Process, OwnedFd)>> {
        let lives_here = |process: &Process| process.mount_namespace().is_ok_and(|id| id == self.namespace);
        let mut found = Vec::new();
        for process in processes::all(Path::new(processes::OWN))?.into_iter().filter(lives_here) {
            let Ok(descriptor) = process.pidfd() else { continue };
            // Another look, now that it is held: so it is the very process that was looked at.
            if lives_here(&process) {
                found.push((process, descriptor));
            }
        }
        Ok(found)
    }

    /// Sends SIGKILL to each, those too that are started meanwhile. They may take a moment to go.
    pub fn kill(&self) -> io::Result<()> {
        // A process with SIGKILL pending cannot fork any more: when a round finds no new one, there is no other.
        let mut killed = HashSet::new();
        loop {
            let mut others = self.list()?;
            others.retain(|(process, _)| killed.insert(process.pid()));
            if others.is_empty() {
                return Ok(());
            }
            for (_, process) in others {
                // It may have exited by itself by now.
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
        }
    }
}
