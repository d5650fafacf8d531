//! Everything that a helper started: the processes that live in its mount namespace.
//!
//! A helper has no capability and cannot leave that namespace; it may fork, make sessions and go into the background
//! as it likes. Runs in the mounter.

use linux::mount_table::{self, Mount};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The processes of one helper, named by the mount namespace they live in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Family {
    namespace: (u64, u64),
}

impl Family {
    /// The family that will live in the calling thread's mount namespace.
    pub fn of_this_thread() -> io::Result<Self> {
        Ok(Self { namespace: namespace_at(Path::new("/proc/thread-self/ns/mnt"))? })
    }

    /// The family that lives, or lived, in this mount namespace.
    pub fn of_namespace(namespace: (u64, u64)) -> Self {
        Self { namespace }
    }

    /// The device and inode number of its mount namespace.
    pub fn namespace(&self) -> (u64, u64) {
        self.namespace
    }

    /// Its mount namespace, if the process is still a member.
    pub fn open_namespace(&self, member: Pid) -> Option<File> {
        let file = File::open(format!("/proc/{}/ns/mnt", member.as_raw_nonzero())).ok()?;
        let found = file.metadata().ok()?;
        ((found.dev(), found.ino()) == self.namespace).then_some(file)
    }

    /// The processes that are members just now.
    pub fn members(&self) -> io::Result<Vec<(Pid, OwnedFd)>> {
        let mut members = Vec::new();
        for (pid, directory) in processes()? {
            // The descriptor first, then the look: it is the very process that was looked at.
            let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            if namespace_at(&directory.join("ns/mnt")).is_ok_and(|namespace| namespace == self.namespace) {
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

/// A mount namespace that somebody lives in, seen through one of its processes.
#[derive(Debug)]
pub struct Home {
    /// Who lives there.
    pub family: Family,
    /// Its processes; there is at least one.
    pub processes: Vec<Pid>,
    table: Vec<Mount>,
}

/// Every mount namespace that processes live in, as our own /proc shows them.
pub fn homes() -> io::Result<Vec<Home>> {
    let mut homes: Vec<Home> = Vec::new();
    for (pid, directory) in processes()? {
        let Ok(namespace) = namespace_at(&directory.join("ns/mnt")) else { continue };
        let family = Family { namespace };
        match homes.iter_mut().find(|home| home.family == family) {
            Some(home) => home.processes.push(pid),
            None => {
                let table = fs::read(directory.join("mountinfo")).unwrap_or_default();
                homes.push(Home { family, processes: vec![pid], table: mount_table::parse(&table) });
            }
        }
    }
    Ok(homes)
}

impl Home {
    /// Its mount table.
    pub fn mounts(&self) -> &[Mount] {
        &self.table
    }

    /// A path in it, as we can reach it: of a directory on a filesystem of ours, never of a helper's.
    pub fn file(&self, path: &Path) -> PathBuf {
        self.file_below_proc("root").join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A file of one of its processes' in /proc.
    pub fn file_below_proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.processes[0].as_raw_nonzero()))
    }

    /// Whether there is a helper's place at `path`. What is mounted on it is not asked.
    pub fn shows(&self, path: &Path) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open(self.file(path), flags, Mode::empty()).is_ok()
    }

    /// The name of the process that it is seen through.
    pub fn name(&self) -> String {
        fs::read_to_string(self.file_below_proc("comm")).unwrap_or_default().trim().to_owned()
    }

    /// Whether one of its processes has /dev/fuse open.
    pub fn may_serve(&self) -> bool {
        let holds = |pid: &Pid| {
            let files = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero()));
            files
                .into_iter()
                .flatten()
                .flatten()
                .any(|file| fs::read_link(file.path()).is_ok_and(|leads_to| leads_to == Path::new("/dev/fuse")))
        };
        self.processes.iter().any(holds)
    }
}

/// Every process that our own /proc shows, and its directory there.
fn processes() -> io::Result<Vec<(Pid, PathBuf)>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) {
            processes.push((pid, entry.path()));
        }
    }
    Ok(processes)
}

fn namespace_at(link: &Path) -> io::Result<(u64, u64)> {
    let file = fs::metadata(link)?;
    Ok((file.dev(), file.ino()))
}
