//! The cgroups of a machine: a directory of its own in each of the real hierarchies, shown where the real one is, and
//! the top of it to everybody there: a cgroup namespace.
//!
//! Runs in the process that makes the machine, as root. Where cgroups cannot be made a machine has none of its own. In
//! version 2 threads cannot be moved: there a machine's processes stay where this process is, until they move themselves.

use super::{Error, open_namespace, step};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::getpid;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where cgroup filesystems are mounted: version 2 itself, or a directory for each hierarchy of version 1.
const MOUNTED: &str = "/sys/fs/cgroup";
const NAME: &str = "hostmount-machine-";

/// Dropped, they are removed: nobody may be in them any more.
#[derive(Debug)]
pub(super) struct Cgroups {
    /// The directories, and where each is to be shown.
    shown: Vec<(PathBuf, PathBuf)>,
    /// Version 1: moves the thread that writes to it.
    entrances: Vec<File>,
    namespace: OnceLock<OwnedFd>,
}

impl Cgroups {
    /// Makes a directory in each hierarchy.
    pub(super) fn make() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        remove_those_of_the_dead();
        let name = format!("{NAME}{}-{}", getpid(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let make = |hierarchy: PathBuf| {
            let own = hierarchy.join(&name);
            fs::create_dir(&own).ok()?;
            // The cpuset hierarchy lets nobody in before it has been told these.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let _ = fs::read(hierarchy.join(file)).and_then(|all| fs::write(own.join(file), all));
            }
            Some((own, hierarchy))
        };
        let shown: Vec<_> = hierarchies().into_iter().filter_map(make).collect();
        let entrance = |(own, _): &(PathBuf, PathBuf)| File::options().write(true).open(own.join("tasks")).ok();
        Self { entrances: shown.iter().filter_map(entrance).collect(), shown, namespace: OnceLock::new() }
    }

    /// The directories, and where each is to be shown.
    pub(super) fn shown(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.shown.iter().map(|(own, at)| (own.as_path(), at.as_path()))
    }

    /// Moves the calling thread there. The first one makes the namespace.
    pub(super) fn enter(&self) -> Result<(), Error> {
        for mut entrance in &self.entrances {
            entrance.write_all(b"0").map_err(step("enter the machine's cgroups"))?;
        }
        match self.namespace.get() {
            Some(namespace) => {
                setns(namespace, CloneFlags::CLONE_NEWCGROUP).map_err(step("enter the machine's cgroup namespace"))
            }
            None => {
                unshare(CloneFlags::CLONE_NEWCGROUP).map_err(step("make a cgroup namespace"))?;
                let _ = self.namespace.set(open_namespace("/proc/thread-self/ns/cgroup")?);
                Ok(())
            }
        }
    }
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

fn hierarchies() -> Vec<PathBuf> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let table = linux::mount_table::parse(&table);
    let cgroups = table.into_iter().filter(|mount| mount.fstype == "cgroup" || mount.fstype == "cgroup2");
    cgroups.map(|mount| mount.target).filter(|target| target.starts_with(MOUNTED)).collect()
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

/// Whoever made them was killed. Those of the living are not touched, and those with processes cannot be removed.
fn remove_those_of_the_dead() {
    for hierarchy in hierarchies() {
        for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let maker = name.to_str().and_then(|name| name.strip_prefix(NAME)).and_then(|rest| rest.split('-').next());
            if maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists()) {
                let _ = remove(&entry.path());
            }
        }
    }
}
