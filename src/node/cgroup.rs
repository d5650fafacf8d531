//! The node's cgroups: helpers live there, outside of the container's, and so do not end with it (cgroups(7)).
//!
//! Runs in the mounter. The node's cgroup filesystems are reached in the node's mount namespace, once, and held by
//! descriptors after that; a copy of our own, mounted with fsopen(2), would reset the options of the node's (nsdelegate).
//!
//! A helper gets a cgroup of its own, `hostmount/TARGET.NUMBER` below the node's root, where memory is counted: in version 2,
//! or in the memory hierarchy of version 1. In version 1 all helpers are in one cgroup, `hostmount`, where processes are counted, and in
//! each other hierarchy at the top, as the node's own programs are. A caller
//! that runs in a systemd scope of its own (`systemd-run --scope`, as kubelet does) has its helper there instead.

mod helpers;
mod hierarchy;
mod names;

pub use helpers::Cgroup;
pub use names::Resident;

use hierarchy::{CgroupVersion, Hierarchy, ParentCgroup, failed, open_directory, open_to_write};
use linux::mount_namespace::{MountNamespace, NamespaceError};
use linux::namespace::NamespaceId;
use linux::processes::Process;
use names::{is_placeholders, name};
use rustix::fs::{AtFlags, Dir, Mode, mkdirat, unlinkat};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the mounter's directory is called: below the node's root, in the hierarchy that counts memory.
pub const DIRECTORY: &str = "hostmount";
/// A process that writes 0 to `cgroup.procs` moves itself, and a thread that writes it to `tasks`.
const MYSELF: &[u8] = b"0";
/// How many cgroups of helpers that have ended are tried again and again, as something is in them still.
const LEAVING: usize = 1000;

/// The node's cgroups, as far as they can be used.
#[derive(Debug)]
pub struct Cgroups {
    /// What our directory is called.
    directory: &'static str,
    /// A proc filesystem of the node's.
    host_proc: PathBuf,
    hierarchies: Vec<Hierarchy>,
    /// Below it each helper has a cgroup of its own.
    parent: Option<ParentCgroup>,
    /// Version 1: the cgroup that counts the processes of all helpers.
    processes: Option<OwnedFd>,
    /// Cgroups that are to be removed, and may still have a process.
    leaving: Mutex<BTreeSet<String>>,
    last: AtomicU32,
}

/// Why helpers end with the container, or may do so, instead of outliving it.
#[derive(Debug, thiserror::Error)]
pub enum EndsWithContainer {
    /// The kernel kills all processes of a PID namespace when its first one exits.
    #[error("the container has a PID namespace of its own; start it with the node's (hostPID)")]
    PidNamespace,
    /// setns(2) to the node's cgroup namespace.
    #[error("cannot enter the node's cgroup namespace")]
    Namespace(#[source] io::Error),
    /// No cgroup filesystem is mounted on the node.
    #[error("the node has no cgroup filesystem mounted")]
    None,
    /// The node's mount namespace.
    #[error(transparent)]
    Node(#[from] NamespaceError),
    /// A file of the node's.
    #[error("cannot use {path}", path = path.display())]
    File {
        /// What was to be read, opened, made or written.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

/// The cgroups that a helper is to be in: one in each hierarchy.
#[derive(Debug, Default)]
pub struct Placement<'a> {
    /// Files of version 1 that move the thread which writes to them: those of the top, and those of other cgroups.
    entrances: Vec<BorrowedFd<'a>>,
    opened: Vec<OwnedFd>,
    /// The cgroup of version 2, and its path on the node.
    version_2: Option<(OwnedFd, PathBuf)>,
    /// The cgroup that is the helper's own.
    pub own: Option<Cgroup>,
}

impl Placement<'_> {
    /// Moves the **calling thread** in the hierarchies of version 1; what it starts begins there. Moving a thread costs
    /// microseconds there, moving a process milliseconds; version 2 knows no threads.
    ///
    /// Every hierarchy is tried; the error is the last one's.
    pub fn enter(&self) -> io::Result<()> {
        let mut done = Ok(());
        for entrance in self.entrances.iter().copied().chain(self.opened.iter().map(AsFd::as_fd)) {
            if let Err(errno) = rustix::io::write(entrance, MYSELF) {
                done = Err(errno.into());
            }
        }
        done
    }

    /// The cgroup of version 2 that the helper is to be started in, and its path on the node.
    pub fn version_2(&self) -> Option<(BorrowedFd<'_>, &Path)> {
        self.version_2.as_ref().map(|(cgroup, path)| (cgroup.as_fd(), path.as_path()))
    }

    /// The kernel does not let the helper start in that cgroup: it will be where the mounter is. Its own is given up, if it
    /// had it there.
    pub fn give_up_version_2(&mut self) {
        self.version_2 = None;
        self.own.take_if(|own| own.all.parent.as_ref().is_some_and(|parent| parent.version == CgroupVersion::V2));
    }

    /// As one that the kernel lets no process into.
    #[cfg(test)]
    pub fn refused_at(path: &Path) -> Self {
        let no_cgroup = File::open("/").unwrap().into();
        Self { version_2: Some((no_cgroup, path.to_owned())), ..Self::default() }
    }
}

impl Cgroups {
    /// Looks for the node's cgroups, and makes `directory` among them. The second value is the reason if volumes end with the
    /// container; nothing else depends on it.
    ///
    /// Moves the **calling thread** to the node's cgroup namespace, and so all threads that it starts: paths in
    /// /proc/PID/cgroup are the node's there, and version 2 lets nobody move a process beyond its own (nsdelegate).
    pub fn find(node: &MountNamespace, host_proc: &Path, directory: &'static str) -> (Self, Option<EndsWithContainer>) {
        let mut cgroups = Self {
            directory,
            host_proc: host_proc.to_owned(),
            hierarchies: Vec::new(),
            parent: None,
            processes: None,
            leaving: Mutex::default(),
            last: AtomicU32::new(0),
        };
        let own_pid_namespace = || has_own_pid_namespace(host_proc).then_some(EndsWithContainer::PidNamespace);
        let ends_with_container = cgroups.open(node).err().or_else(own_pid_namespace);
        (cgroups, ends_with_container)
    }

    fn open(&mut self, node: &MountNamespace) -> Result<(), EndsWithContainer> {
        let first = Process::first(&self.host_proc);
        enter_namespace(&first.file("ns/cgroup")).map_err(EndsWithContainer::Namespace)?;
        let path = first.file("mountinfo");
        let table = fs::read(&path).map_err(|source| EndsWithContainer::File { path, source })?;
        let found = hierarchy::parse(&table);
        let opened: Vec<_> = node.visit(|| found.into_iter().map(Hierarchy::open).collect())?;
        let mut problem = if opened.is_empty() { Err(EndsWithContainer::None) } else { Ok(()) };
        for hierarchy in opened {
            match hierarchy {
                Ok(hierarchy) => self.hierarchies.push(hierarchy),
                Err(error) => problem = problem.and(Err(error)),
            }
        }
        // In the hierarchy that counts memory, else in version 2: a cgroup there shows which processes are a volume's.
        let counts = |hierarchy: &&Hierarchy| hierarchy.counts_memory();
        let chosen = self.hierarchies.iter().find(counts);
        let chosen =
            chosen.or_else(|| self.hierarchies.iter().find(|hierarchy| hierarchy.version == CgroupVersion::V2));
        match chosen.map(|hierarchy| hierarchy.make_parent(self.directory)).transpose() {
            Ok(parent) => self.parent = parent,
            Err(error) => problem = problem.and(Err(error)),
        }
        let only_processes = |hierarchy: &&mut Hierarchy| {
            hierarchy.version == CgroupVersion::V1 && hierarchy.has("pids") && !hierarchy.counts_memory()
        };
        let directory = self.directory;
        let counting = self.hierarchies.iter_mut().find(only_processes);
        // Without it they are at the top, as in the others.
        self.processes = counting.and_then(|hierarchy| hierarchy.make_entrance(directory).ok());
        problem
    }

    /// Limits the memory of all helpers together, in bytes, and their processes and threads, where that is counted.
    pub fn limit_all(&self, memory: u64, processes: u64) -> Result<(), EndsWithContainer> {
        let counts_memory = self.parent.as_ref().filter(|parent| parent.counts_memory);
        counts_memory.map_or(Ok(()), |parent| parent.limit_memory(memory))?;
        self.counting().map_or(Ok(()), |cgroup| hierarchy::set(cgroup, "pids.max", &processes.to_string()))
    }

    /// Whether the memory of all helpers is counted, and whether their processes are.
    pub fn counted(&self) -> (bool, bool) {
        (self.can_limit(), self.counting().is_some())
    }

    /// The cgroup that counts the processes of all helpers.
    fn counting(&self) -> Option<BorrowedFd<'_>> {
        let parent = self.parent.as_ref().filter(|parent| parent.counts_processes);
        parent.map(|parent| parent.directory.as_fd()).or(self.processes.as_ref().map(AsFd::as_fd))
    }

    /// Whether a memory limit can be set.
    pub fn can_limit(&self) -> bool {
        self.parent.as_ref().is_some_and(|parent| parent.counts_memory)
    }

    /// A cgroup in each hierarchy for the helper of a volume at `target`, which the process `caller` has asked for; `limit` is
    /// in bytes.
    pub fn placement(
        self: &Arc<Self>,
        resident: Resident,
        target: &Path,
        caller: Option<Pid>,
        limit: Option<u64>,
    ) -> Result<Placement<'_>, EndsWithContainer> {
        let mut scopes = caller.map(|caller| self.paths_of(caller)).unwrap_or_default();
        scopes.retain(|(_, path)| is_scope_of_its_own(path));
        let mut placement = Placement::default();
        for hierarchy in &self.hierarchies {
            let has_parent = self.parent.as_ref().is_some_and(|parent| parent.is_in(hierarchy));
            let scope = scopes.iter().find(|(named, _)| *named == hierarchy.name);
            // A scope that is gone by now belonged to a caller that is gone.
            let scope =
                scope.and_then(|(_, path)| Some((open_directory(hierarchy.top.as_fd(), path).ok()?, path.clone())));
            let below_top = match (scope, &self.parent) {
                (Some(scope), _) => Some(scope),
                (None, Some(parent)) if has_parent => {
                    let name: &Path = placement.own.insert(self.make(parent, resident, target)?).name.as_ref();
                    let own = open_directory(parent.directory.as_fd(), name).map_err(failed(name))?;
                    Some((own, Path::new(self.directory).join(name)))
                }
                _ => None,
            };
            if let (Some((cgroup, _)), Some(limit), true) = (&below_top, limit, has_parent) {
                hierarchy.version.limit(cgroup.as_fd(), limit)?;
            }
            match (hierarchy.version, below_top) {
                (CgroupVersion::V2, Some((cgroup, path))) => {
                    placement.version_2 = Some((cgroup, hierarchy.path.join(path)));
                }
                (CgroupVersion::V2, None) => {
                    let top = hierarchy.top.try_clone();
                    let path = hierarchy.path.clone();
                    let top = top.map_err(|source| EndsWithContainer::File { path: path.clone(), source })?;
                    placement.version_2 = Some((top, path));
                }
                (CgroupVersion::V1, Some((cgroup, _))) => {
                    placement.opened.push(open_to_write(cgroup.as_fd(), "tasks")?)
                }
                (CgroupVersion::V1, None) => placement.entrances.extend(hierarchy.entrance.as_ref().map(AsFd::as_fd)),
            }
        }
        Ok(placement)
    }

    /// The cgroups of a process: for each hierarchy its name, and the path below the top.
    fn paths_of(&self, process: Pid) -> Vec<(String, PathBuf)> {
        let text = Process::at(&self.host_proc, process).read("cgroup").unwrap_or_default();
        let path = |line: &str| {
            let (_, line) = line.split_once(':')?;
            let (name, path) = line.split_once(':')?;
            let hierarchy = self.hierarchies.iter().find(|hierarchy| hierarchy.name == name)?;
            Some((name.to_owned(), Path::new(path).strip_prefix(&hierarchy.root).ok()?.to_owned()))
        };
        text.lines().filter_map(path).collect()
    }

    fn make(
        self: &Arc<Self>,
        parent: &ParentCgroup,
        resident: Resident,
        target: &Path,
    ) -> Result<Cgroup, EndsWithContainer> {
        loop {
            let name = name(resident, target, self.last.fetch_add(1, Ordering::Relaxed));
            match mkdirat(&parent.directory, &name, Mode::from_raw_mode(0o755)) {
                Ok(()) => return Ok(Cgroup { name, all: Arc::clone(self) }),
                // A helper that an earlier mounter started is in it.
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(name.as_ref())(errno)),
            }
        }
    }

    /// The cgroup of a helper that an earlier mounter has started, if it has one of its own.
    pub fn of(self: &Arc<Self>, process: Pid) -> Option<Cgroup> {
        self.own_cgroup_of(process).map(|name| Cgroup { name, all: Arc::clone(self) })
    }

    /// Whether a process lives in a cgroup that helpers have.
    pub fn is_helper(&self, process: Pid) -> bool {
        self.own_cgroup_of(process).is_some_and(|name| !is_placeholders(&name))
    }

    /// Whether a process lives in the cgroup of a placeholder.
    pub fn is_placeholder(&self, process: Pid) -> bool {
        self.own_cgroup_of(process).is_some_and(|name| is_placeholders(&name))
    }

    fn own_cgroup_of(&self, process: Pid) -> Option<String> {
        let parent = self.parent.as_ref()?;
        let hierarchy = self.hierarchies.iter().find(|hierarchy| parent.is_in(hierarchy))?;
        let (_, path) = self.paths_of(process).into_iter().find(|(name, _)| *name == hierarchy.name)?;
        let name = path.strip_prefix(self.directory).ok()?.to_str()?;
        (!name.is_empty() && !name.contains('/')).then(|| name.to_owned())
    }

    /// Removes the cgroups that are to be removed and are empty by now. To be called after every event: the end of a helper is
    /// seen a moment before its last process is out of its cgroup.
    pub fn sweep(&self) {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(parent) = &self.parent else { return leaving.clear() };
        leaving.retain(|name| unlinkat(&parent.directory, name, AtFlags::REMOVEDIR) == Err(Errno::BUSY));
    }

    /// Removes all cgroups of ours but those of helpers that live. To be called when the mounter stops.
    pub fn close(&self) {
        self.remove_empty();
        for hierarchy in &self.hierarchies {
            let has_ours = self.parent.as_ref().is_some_and(|parent| parent.is_in(hierarchy));
            if has_ours || self.processes.is_some() && hierarchy.has("pids") {
                // Busy while a helper lives.
                let _ = unlinkat(&hierarchy.top, self.directory, AtFlags::REMOVEDIR);
            }
        }
    }

    /// Removes what an earlier mounter left behind. To be called when no helper is being started.
    pub fn remove_empty(&self) {
        let Some(parent) = &self.parent else { return };
        for entry in Dir::read_from(&parent.directory).into_iter().flatten().flatten() {
            // It fails for files, and for a cgroup that has a process.
            let _ = unlinkat(&parent.directory, entry.file_name(), AtFlags::REMOVEDIR);
        }
    }
}

/// Whether `systemd-run --scope` has made it: it is not a login session's scope, and not a user's, which ends with the session.
fn is_scope_of_its_own(path: &Path) -> bool {
    let named = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
    let ordinary = path.components().all(|part| matches!(part, Component::Normal(name) if name != "user.slice"));
    ordinary && named.starts_with(b"run-") && named.ends_with(b".scope")
}

/// A kernel without cgroup namespaces (before 4.6) has nothing to enter.
fn enter_namespace(file: &Path) -> io::Result<()> {
    match File::open(file) {
        Ok(namespace) => Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::ControlGroup))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether this process lives in another PID namespace than the first one that `host_proc` shows.
pub fn has_own_pid_namespace(host_proc: &Path) -> bool {
    let namespace = |link: &Path| NamespaceId::at(link).ok();
    namespace(&Process::first(host_proc).file("ns/pid")) != namespace(Path::new("/proc/self/ns/pid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_of_its_own_is_system_ds_alone() {
        for (path, own) in [
            ("system.slice/run-r5c0ffee.scope", true),
            ("run-123.scope", true),
            ("user.slice/user-0.slice/session-3.scope", false),
            ("user.slice/user-0.slice/user@0.service/app.slice/run-r1.scope", false),
            ("system.slice/kubelet.service", false),
            ("../run-1.scope", false),
            ("", false),
        ] {
            assert_eq!(is_scope_of_its_own(Path::new(path)), own, "{path}");
        }
    }
}
