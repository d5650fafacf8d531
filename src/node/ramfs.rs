//! A directory in memory that is never swapped out, and that stays when the mounter's container goes: a ramfs, mounted on the node in a
//! directory of the mounter's. A tmpfs may be swapped out, and what is mounted in the container alone goes with it.
//!
//! Runs in the mounter; what is mounted and opened is so on a visit to the node's mount namespace.

use linux::mount_namespace::MountNamespace;
use linux::mount_table::{Device, Mount};
use linux::processes::{OWN, Process};
use linux::statx::{cached, identity, mount_root};
use rustix::fs::{Mode, OFlags, fstatfs, mkdirat, open, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What statfs(2) calls it.
const RAMFS: i64 = 0x8584_58f6;
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A place for one.
#[derive(Debug)]
pub struct Place {
    node: MountNamespace,
    /// Where the node may have our directory: each is compared with it.
    paths: Vec<PathBuf>,
    directory: (Device, u64),
    name: &'static str,
}

impl Place {
    /// The place `name` in `directory`, which is the calling thread's; it is the node's as well. `host_proc` is a proc filesystem that
    /// shows the node's processes.
    pub fn find(directory: &Path, name: &'static str, host_proc: &Path) -> io::Result<Self> {
        let directory = open(directory, DIRECTORY, Mode::empty())?;
        let path = std::fs::read_link(format!("{OWN}/self/fd/{}", directory.as_raw_fd()))?;
        let id = cached(directory.as_fd())?.stx_mnt_id;
        let ours = Process::at(Path::new(OWN), rustix::thread::gettid()).mounts()?;
        let ours = ours.into_iter().find(|mount| mount.id == id).ok_or(Errno::STALE)?;
        let below = path.strip_prefix(&ours.target).map_err(|_| Errno::STALE)?;
        let paths = paths_in(&Process::first(host_proc).mounts()?, ours.device, &ours.root.join(below));
        let directory = identity(directory.as_fd())?;
        let node = MountNamespace::of_node(host_proc).map_err(io::Error::other)?;
        Ok(Self { node, paths, directory, name })
    }

    /// The ramfs that is there, if there is one.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        self.visit(|directory| Ok(there(directory, self.name).ok()))
    }

    /// The ramfs that is there, or a fresh one, which root alone may enter.
    pub fn open_or_mount(&self) -> io::Result<OwnedFd> {
        self.visit(|directory| {
            if let Ok(there) = there(directory, self.name) {
                return Ok(there);
            }
            match mkdirat(directory, self.name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let on = openat(directory, self.name, DIRECTORY, Mode::empty())?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            // On a visit the working directory is our own /proc.
            mount(c"hostmount", format!("self/fd/{}", on.as_raw_fd()), c"ramfs", flags, c"mode=0700")?;
            drop(on);
            there(directory, self.name)
        })
    }

    /// Does something in our directory, as the node has it.
    fn visit<T: Send>(&self, work: impl Fn(BorrowedFd<'_>) -> io::Result<T> + Sync) -> io::Result<T> {
        let at_one_of_them = || {
            let opened = self.paths.iter().filter_map(|path| open(path, DIRECTORY, Mode::empty()).ok());
            let mut ours = opened.filter(|opened| identity(opened.as_fd()).is_ok_and(|found| found == self.directory));
            let ours = ours.next().ok_or_else(|| io::Error::other("the node has the directory at no path"))?;
            work(ours.as_fd())
        };
        self.node.visit(at_one_of_them).map_err(io::Error::other)?
    }
}

/// The paths in this mount table at which it may have `directory`, a path of the filesystem itself.
fn paths_in(table: &[Mount], device: Device, directory: &Path) -> Vec<PathBuf> {
    let below = |mount: &Mount| directory.strip_prefix(&mount.root).ok().map(|below| mount.target.join(below));
    table.iter().filter(|mount| mount.device == device).filter_map(below).collect()
}

/// The ramfs that is mounted there.
fn there(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let root = openat(directory, name, DIRECTORY, Mode::empty())?;
    let is_ramfs = fstatfs(&root)?.f_type == RAMFS && mount_root(root.as_fd())?.is_some();
    if is_ramfs { Ok(root) } else { Err(Errno::NOENT.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux::mount_table::parse;

    #[test]
    fn where_the_node_has_a_directory_of_the_containers() {
        let table = parse(
            b"20 1 0:5 / / rw - ext4 x rw\n21 20 0:9 / /run rw - tmpfs x rw\n22 20 0:9 /hostmount /srv/h rw - tmpfs x rw\n\
              23 20 0:9 /hostmountain /srv/m rw - tmpfs x rw\n",
        );
        let device = Device { major: 0, minor: 9 };
        let paths = |directory| paths_in(&table, device, Path::new(directory));
        assert_eq!(paths("/hostmount"), [Path::new("/run/hostmount"), Path::new("/srv/h")]);
        assert_eq!(paths("/other"), [Path::new("/run/other")]);
        assert!(paths_in(&table, Device { major: 0, minor: 8 }, Path::new("/hostmount")).is_empty());
    }
}
