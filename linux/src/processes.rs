//! The one door to processes: which there are, which mount namespace each lives in, and the mount table it sees there.
//!
//! Runs in the mounter, as root. It reads whichever proc filesystem it is given: [`OWN`], or one that shows the node's
//! processes. It never asks a mounted filesystem, so one that is dead or hangs does not matter.

use crate::mount_namespace::{MountNamespace, NamespaceError};
use crate::mount_table::{self, Mount};
use crate::namespace::NamespaceId;
use crate::sys::user_namespace::owner_of;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The proc filesystem of the calling process's own PID namespace.
pub const OWN: &str = "/proc";

/// A process, named as a proc filesystem shows it. It may have exited since.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    pid: Pid,
    directory: PathBuf,
}

/// The text of a file of /proc's, most of which are short: read at one go, where the standard library begins with 32 bytes and
/// asks for a length that none of them has.
pub fn read_short(file: &Path) -> io::Result<String> {
    const ROOM: usize = 4096;
    let file = open(file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = vec![0; ROOM];
    let mut length = 0;
    loop {
        if length == text.len() {
            text.resize(2 * length, 0);
        }
        match rustix::io::read(&file, &mut text[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    text.truncate(length);
    String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Every process that `proc` shows, in the order of their ids.
pub fn all(proc: &Path) -> io::Result<Vec<Process>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir(proc)? {
        let entry = entry?;
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) {
            processes.push(Process { pid, directory: entry.path() });
        }
    }
    processes.sort_by_key(|process| process.pid.as_raw_nonzero());
    Ok(processes)
}

impl Process {
    /// The process that `proc` shows under this id.
    pub fn at(proc: &Path, pid: Pid) -> Self {
        Self { pid, directory: proc.join(pid.as_raw_nonzero().to_string()) }
    }

    /// The first process of the PID namespace that `proc` shows: the node's, with a proc filesystem of the node's.
    pub fn first(proc: &Path) -> Self {
        Self::at(proc, Pid::INIT)
    }

    /// Its id. In another proc filesystem than [`OWN`] it may be one of another PID namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// A file of its in /proc: `ns/mnt`, `mountinfo`, `fd/1`.
    pub fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.join(name)
    }

    /// The text of such a file.
    pub fn read(&self, name: &str) -> io::Result<String> {
        read_short(&self.file(name))
    }

    /// The name of its program, as far as the kernel keeps it (proc_pid_comm(5)).
    pub fn name(&self) -> String {
        self.read("comm").unwrap_or_default().trim().to_owned()
    }

    /// When it was started, in hundredths of a second since the machine was (proc_pid_stat(5)). No two processes that have
    /// the same id one after the other were started at the same time.
    pub fn start(&self) -> io::Result<u64> {
        let stat = self.read("stat")?;
        // Its name may hold blanks and parentheses.
        let after_name = stat.rsplit_once(')').map(|(_, rest)| rest);
        let start = after_name.and_then(|rest| rest.split_whitespace().nth(19)?.parse().ok());
        start.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The mount namespace it lives in.
    pub fn mount_namespace(&self) -> io::Result<NamespaceId> {
        NamespaceId::at(&self.file("ns/mnt"))
    }

    /// A handle on that namespace.
    pub fn open_mount_namespace(&self) -> Result<MountNamespace, NamespaceError> {
        MountNamespace::at(self.file("ns/mnt"))
    }

    /// Its user namespace, if that is not the caller's.
    pub fn other_user_namespace(&self) -> io::Result<Option<File>> {
        let its = File::open(self.file("ns/user"))?;
        let ours = NamespaceId::at(&Path::new(OWN).join("self/ns/user"))?;
        Ok((NamespaceId::of(&its)? != ours).then_some(its))
    }

    /// The mount table it sees.
    pub fn mounts(&self) -> io::Result<Vec<Mount>> {
        Ok(mount_table::parse(&fs::read(self.file("mountinfo"))?))
    }

    /// The process that a thread belongs to: /proc shows a thread under its own id as well, if it is asked for by name.
    pub fn thread_group(&self) -> io::Result<Self> {
        let status = self.read("status")?;
        let leader = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
        let leader = leader.and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { directory: self.directory.with_file_name(leader.as_raw_nonzero().to_string()), pid: leader })
    }

    /// A descriptor of the process, which is readable when it has exited. Only of a process of [`OWN`]: the kernel takes the
    /// id for one of the caller's PID namespace.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        Ok(pidfd_open(self.pid, PidfdFlags::empty())?)
    }

    /// The directories of its threads in /proc, its own first.
    pub fn threads(&self) -> impl Iterator<Item = PathBuf> {
        fs::read_dir(self.file("task")).into_iter().flatten().flatten().map(|thread| thread.path())
    }

    /// Links to all that it has open, its working directory and its root among them.
    pub fn open_files(&self) -> impl Iterator<Item = PathBuf> {
        let descriptors = fs::read_dir(self.file("fd")).into_iter().flatten().flatten();
        let directories = ["cwd", "root"].map(|name| self.file(name));
        directories.into_iter().chain(descriptors.map(|descriptor| descriptor.path()))
    }

    /// Whether it has this file open: `/dev/fuse`.
    pub fn has_open(&self, file: &Path) -> bool {
        self.open_files().map(fs::read_link).any(|leads_to| leads_to.is_ok_and(|leads_to| leads_to == file))
    }
}

/// Whether the process behind a pidfd has ended. Does not wait.
pub fn has_ended(process: impl AsFd) -> io::Result<bool> {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&at_once))? > 0)
}

/// A name for one of our descriptors, for system calls that take a path only: the kernel goes to what it names, and looks
/// nothing up.
pub fn name_of(descriptor: BorrowedFd<'_>) -> String {
    format!("{OWN}/thread-self/fd/{}", descriptor.as_raw_fd())
}

/// A mount namespace that processes live in.
#[derive(Debug)]
pub struct PopulatedNamespace {
    /// Which one it is.
    pub id: NamespaceId,
    /// The processes that lived there when they were looked for, in the order of their ids; there is at least one.
    pub processes: Vec<Process>,
}

/// Every mount namespace that processes of `proc` live in; that of its first process comes first.
///
/// It costs one stat(2) for each process. Mount tables are long, so each is read when it is [asked for](PopulatedNamespace::mounts):
/// a caller that goes through them has one in memory at a time.
pub fn mount_namespaces(proc: &Path) -> io::Result<Vec<PopulatedNamespace>> {
    let mut found: Vec<PopulatedNamespace> = Vec::new();
    let mut known: HashMap<NamespaceId, usize> = HashMap::new();
    for process in all(proc)? {
        // A process that has exited meanwhile lives nowhere.
        let Ok(id) = process.mount_namespace() else { continue };
        match known.entry(id) {
            Entry::Occupied(at) => found[*at.get()].processes.push(process),
            Entry::Vacant(new) => {
                new.insert(found.len());
                found.push(PopulatedNamespace { id, processes: vec![process] });
            }
        }
    }
    Ok(found)
}

impl PopulatedNamespace {
    /// Its mount table, read once for each call; empty if no process lives there any more.
    pub fn mounts(&self) -> Vec<Mount> {
        self.ask(|process| process.mounts().ok()).unwrap_or_default()
    }

    /// A handle on it, unless no process lives there any more.
    pub fn open(&self) -> Option<MountNamespace> {
        self.ask(|process| process.open_mount_namespace().ok())
    }

    /// Whether it was made with the privilege that this process has. A process that has none on the node makes
    /// mount namespaces in a user namespace of its own only, and mounts there what it likes.
    pub fn is_of_own_user_namespace(&self) -> bool {
        let is_ours = |handle: MountNamespace| -> io::Result<bool> {
            let ours = NamespaceId::at(&Path::new(OWN).join("self/ns/user"))?;
            Ok(NamespaceId::of(owner_of(handle.as_fd())?)? == ours)
        };
        self.open().is_some_and(|handle| is_ours(handle).unwrap_or(false))
    }

    /// The file that it is, below /proc/PID/ns.
    pub fn open_file(&self) -> Option<File> {
        self.ask(|process| File::open(process.file("ns/mnt")).ok())
    }

    /// The user namespace of one of its processes.
    pub fn open_user_namespace(&self) -> Option<File> {
        self.ask(|process| File::open(process.file("ns/user")).ok())
    }

    /// Asks one of its processes. If that one has exited, or lives elsewhere by now, the next is asked.
    fn ask<T>(&self, question: impl Fn(&Process) -> Option<T>) -> Option<T> {
        self.processes.iter().find_map(|process| {
            let answer = question(process)?;
            // Checked afterwards: the id may be another process's by now, and then the answer is void.
            (process.mount_namespace().ok()? == self.id).then_some(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_where_it_lives() {
        let this = Process::at(Path::new(OWN), rustix::process::getpid());
        assert!(all(Path::new(OWN)).unwrap().contains(&this));
        let namespaces = mount_namespaces(Path::new(OWN)).unwrap();
        let ours: Vec<_> = namespaces.iter().filter(|namespace| namespace.processes.contains(&this)).collect();
        let [ours] = ours[..] else { panic!("it lives in {} namespaces", ours.len()) };
        assert_eq!(ours.id, NamespaceId::of_this_threads_mounts().unwrap());
        assert_eq!(ours.open().unwrap().id().unwrap(), ours.id);
        assert_eq!(ours.mounts().len(), this.mounts().unwrap().len());
    }

    #[test]
    fn a_process_that_has_gone_is_not_asked() {
        let living = Process::at(Path::new(OWN), rustix::process::getpid());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let gone = Process::at(Path::new(OWN), Pid::from_child(&child));
        child.wait().unwrap();
        let id = living.mount_namespace().unwrap();
        let namespace = PopulatedNamespace { id, processes: vec![gone.clone(), living] };
        assert!(!namespace.mounts().is_empty());
        let nobodys = PopulatedNamespace { id, processes: vec![gone] };
        assert!(nobodys.mounts().is_empty() && nobodys.open().is_none());
    }

    #[test]
    fn what_a_process_has_open() {
        let this = Process::at(Path::new(OWN), rustix::process::getpid());
        let file = std::env::current_exe().unwrap();
        assert!(!this.has_open(&file));
        let _open = File::open(&file).unwrap();
        assert!(this.has_open(&file));
        assert!(this.threads().any(|thread| thread.ends_with(this.pid().as_raw_nonzero().to_string())));
        assert!(!this.name().is_empty());
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!((1..=(uptime * 100.0) as u64 + 1).contains(&this.start().unwrap()));
        let thread =
            std::thread::spawn(|| Process::at(Path::new(OWN), rustix::thread::gettid()).thread_group().unwrap());
        assert_eq!(thread.join().unwrap(), this);
    }
}
