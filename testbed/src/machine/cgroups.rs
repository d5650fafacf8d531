//! The cgroups of a machine: a directory of its own in each of the real hierarchies, shown where the real one is, and
//! the top of it to every process there: a cgroup namespace.
//!
//! Runs in the process that makes the machine, as root. Where cgroups cannot be made a machine has none of its own.
//!
//! In version 1 the thread that starts a process moves there first. In version 2 threads cannot be moved, and moving a
//! process is slow: it is done only where it makes a difference, which is where namespaces are boundaries
//! (`nsdelegate`, as systemd mounts it). There no process can leave a cgroup that is outside of its namespace, a
//! mounter's helpers included.

use super::{Error, step};
use linux::mount_table::{self, Mount};
use linux::sys::cgroup::{new_cgroup_namespace, start_in};
use nix::sched::{CloneFlags, setns};
use nix::unistd::getpid;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where cgroup filesystems are mounted: version 2 itself, or a directory for each hierarchy of version 1.
const MOUNTED: &str = "/sys/fs/cgroup";
const NAME: &str = "hostmount-machine-";
/// Below the machine's own in version 2, as a cgroup whose children have controllers may not have processes itself.
const PROCESSES: &str = "processes";

/// Dropped, they are removed: no process may be in them any more.
#[derive(Debug)]
pub(super) struct Cgroups {
    /// The directories, and where each is to be shown.
    shown: Vec<(PathBuf, PathBuf)>,
    /// Version 1: moves the thread that writes to it.
    entrances: Vec<File>,
    /// Version 2, where namespaces are boundaries: moves the process that writes to it.
    procs: Option<File>,
    namespace: OwnedFd,
}

impl Cgroups {
    /// Makes a directory in each hierarchy, and moves the **calling thread** there in hierarchies of version 1.
    pub(super) fn make() -> Result<Self, Error> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        remove_those_of_the_dead();
        let name = format!("{NAME}{}-{}", getpid(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let hierarchies = hierarchies();
        let shown: Vec<_> = hierarchies.iter().filter_map(|mount| make_one(&mount.target, &name)).collect();
        let entrance = |(own, _): &(PathBuf, PathBuf)| File::options().write(true).open(own.join("tasks")).ok();
        let entrances: Vec<_> = shown.iter().filter_map(entrance).collect();
        move_this_thread(&entrances)?;
        let delegated = hierarchies.iter().find(|mount| is_delegated(mount)).map(|mount| mount.target.join(&name));
        let (procs, namespace) = match delegated.filter(|own| own.exists()) {
            Some(own) => below(&own).map_err(step("make the machine's cgroup namespace"))?,
            None => (None, new_cgroup_namespace(None).map_err(step("make a cgroup namespace"))?),
        };
        Ok(Self { shown, entrances, procs, namespace })
    }

    /// The directories, and where each is to be shown.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.shown.iter().map(|(own, at)| (own.as_path(), at.as_path()))
    }

    /// Moves the calling thread into the namespace, and there as far as a thread can be moved by itself.
    pub(super) fn enter(&self) -> Result<(), Error> {
        move_this_thread(&self.entrances)?;
        setns(&self.namespace, CloneFlags::CLONE_NEWCGROUP).map_err(step("enter the machine's cgroup namespace"))
    }

    /// Makes `command`, which the calling thread is about to start, start there.
    pub(super) fn start_in(&self, command: &mut Command) -> Result<(), Error> {
        self.enter()?;
        if let Some(procs) = &self.procs {
            start_in(command, procs.try_clone().map_err(step("copy a descriptor"))?.into());
        }
        Ok(())
    }
}

fn make_one(hierarchy: &Path, name: &str) -> Option<(PathBuf, PathBuf)> {
    let own = hierarchy.join(name);
    fs::create_dir(&own).ok()?;
    // The cpuset hierarchy accepts no process before these are set.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let _ = fs::read(hierarchy.join(file)).and_then(|all| fs::write(own.join(file), all));
    }
    Some((own, hierarchy.to_owned()))
}

fn move_this_thread(entrances: &[File]) -> Result<(), Error> {
    entrances.iter().try_for_each(|mut entrance| entrance.write_all(b"0")).map_err(step("enter the machine's cgroups"))
}

/// A namespace with its root at the cgroup `own` of version 2, and the way into a cgroup below it.
fn below(own: &Path) -> io::Result<(Option<File>, OwnedFd)> {
    let processes = own.join(PROCESSES);
    fs::create_dir(&processes)?;
    let procs = File::options().write(true).open(processes.join("cgroup.procs"))?;
    Ok((Some(procs), new_cgroup_namespace(Some(File::open(own)?.as_fd()))?))
}

/// Whether namespaces are boundaries in it.
fn is_delegated(hierarchy: &Mount) -> bool {
    hierarchy.fstype == "cgroup2" && hierarchy.super_options.split(',').any(|option| option == "nsdelegate")
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for (own, _) in &self.shown {
            if let Err(error) = remove(own) {
                eprintln!("cannot remove the cgroup {}: {error}", own.display());
            }
        }
    }
}

fn hierarchies() -> Vec<Mount> {
    let table = mount_table::parse(&fs::read("/proc/self/mountinfo").unwrap_or_default());
    let is_cgroups = |mount: &Mount| mount.fstype == "cgroup" || mount.fstype == "cgroup2";
    table.into_iter().filter(|mount| is_cgroups(mount) && mount.target.starts_with(MOUNTED)).collect()
}

/// A cgroup's files are the kernel's; its directories go from the innermost.
fn remove(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(directory)
}

/// Removes cgroups whose maker was killed. Cgroups of live makers are not touched; cgroups with processes cannot be
/// removed.
fn remove_those_of_the_dead() {
    for hierarchy in hierarchies() {
        for entry in fs::read_dir(hierarchy.target).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let maker = name.to_str().and_then(|name| name.strip_prefix(NAME)).and_then(|rest| rest.split('-').next());
            if maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists()) {
                let _ = remove(&entry.path());
            }
        }
    }
}
