//! The directories that a helper writes to: each is a small tmpfs of its own, so that it can go on writing when the
//! container, and with it what could be written to in its root, is gone.
//!
//! Only its helper lives among them: what is root's in the container belongs to the helper's own account there.
//!
//! Runs in the mounter: the table of what is to be covered is kept by all volumes' threads, the covering itself is done on
//! the volume's own thread, in the helper's mount namespace, with CAP_SYS_ADMIN.

use super::account::Account;
use super::world::SOURCE;
use crate::node::tree::Tree;
use linux::mount_table::{self, Mount};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Mode, Uid, chmod, chown};
use rustix::mount::{MountFlags, mount};
use std::ffi::CString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where programs write without being asked to.
const USUAL: [&str; 4] = ["/tmp", "/run", "/var/tmp", "/var/log"];
/// What helpers may write to shall not fill the node's memory.
const SIZE: &str = "64m";
/// Of the directories in a directory, so many are there in the tmpfs too.
const DIRECTORIES: usize = 64;

/// What is to be covered in every helper's mount namespace, as the container is now.
#[derive(Debug)]
pub struct Scratch {
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    /// The mounter's own mount table, which can be polled for changes (proc_pid_mounts(5)).
    table: File,
    usual: Arc<[Covering]>,
    mounts: Arc<[PathBuf]>,
}

/// One directory, and what shall be seen in it all the same.
#[derive(Debug)]
struct Covering {
    path: PathBuf,
    mode: u32,
    owner: (u32, u32),
    /// The directories in it, which programs may expect: outer ones first.
    directories: Vec<(PathBuf, Metadata)>,
    /// What is mounted in it: secrets, the state directory.
    mounts: Vec<PathBuf>,
}

/// What went wrong with a directory.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {path}", path = path.display())]
pub struct ScratchError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Scratch {
    /// What is to be covered in copies of the calling process's mount namespace.
    pub fn new() -> io::Result<Self> {
        let table = File::open("/proc/self/mountinfo")?;
        let mut known = Known { table, usual: Arc::default(), mounts: Arc::default() };
        known.learn()?;
        Ok(Self { known: Mutex::new(known) })
    }

    /// Covers the usual directories and `others` in the calling thread's mount namespace. Of the usual ones those are left
    /// alone that are on a mount of their own: it stays for as long as the helper does.
    pub fn cover(&self, others: &[PathBuf], account: &Account<'_>) -> Result<(), ScratchError> {
        let (usual, mounts) = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.learn_again().map_err(failed("read", Path::new("/proc/self/mountinfo")))?;
            (Arc::clone(&known.usual), Arc::clone(&known.mounts))
        };
        for covering in usual.iter().filter(|covering| !others.contains(&covering.path)) {
            covering.cover(account)?;
        }
        for path in others {
            Covering::new(path, &mounts).cover(account)?;
        }
        Ok(())
    }
}

impl Known {
    /// Reads the table again if it has changed since it was read.
    fn learn_again(&mut self) -> io::Result<()> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if poll(&mut [PollFd::new(&self.table, PollFlags::PRI)], Some(&now))? > 0 { self.learn() } else { Ok(()) }
    }

    fn learn(&mut self) -> io::Result<()> {
        let mut table = Vec::new();
        self.table.rewind()?;
        self.table.read_to_end(&mut table)?;
        let table = mount_table::parse(&table);
        self.mounts = outermost(&table).into();
        let on_root = |path: &Path| table.iter().filter(|mount| path.starts_with(&mount.target)).all(is_root);
        let usual = USUAL.iter().filter_map(|path| fs::canonicalize(path).ok()).filter(|path| on_root(path));
        self.usual = usual.map(|path| Covering::like(&path, &self.mounts)).collect::<io::Result<_>>()?;
        Ok(())
    }
}

fn is_root(mount: &Mount) -> bool {
    mount.target == Path::new("/")
}

/// The mount points that are on the root itself: what is mounted below them goes with them.
fn outermost(table: &[Mount]) -> Vec<PathBuf> {
    let others = || table.iter().map(|mount| &mount.target).filter(|target| *target != Path::new("/"));
    let mut paths: Vec<PathBuf> =
        others().filter(|path| !others().any(|other| other != *path && path.starts_with(other))).cloned().collect();
    // What is mounted on top of another mount has the same path.
    paths.sort();
    paths.dedup();
    paths
}

impl Covering {
    fn new(path: &Path, mounts: &[PathBuf]) -> Self {
        let below = mounts.iter().filter(|mount| mount.starts_with(path) && *mount != path);
        let (directories, mounts) = (Vec::new(), below.cloned().collect());
        Self { path: path.to_owned(), mode: 0o1777, owner: (0, 0), directories, mounts }
    }

    /// With the owner, the mode and the directories of what it covers.
    fn like(path: &Path, mounts: &[PathBuf]) -> io::Result<Self> {
        let like = fs::metadata(path)?;
        let mut directories = Vec::new();
        collect_directories(path, mounts, &mut directories);
        let (mode, owner) = (like.mode() & 0o7777, (like.uid(), like.gid()));
        Ok(Self { mode, owner, directories, ..Self::new(path, mounts) })
    }

    fn cover(&self, account: &Account<'_>) -> Result<(), ScratchError> {
        let mut kept = Vec::new();
        for path in &self.mounts {
            match Tree::whole_copy_of(path) {
                Ok(tree) => kept.push((path, tree)),
                // Unmounted and removed since the table was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("copy the mount at", path)(error)),
            }
        }
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let (uid, gid) = owner_for(self.owner, account);
        let options = format!("size={SIZE},mode={:o},uid={uid},gid={gid}", self.mode);
        mount(SOURCE, &self.path, c"tmpfs", flags, CString::new(options).unwrap_or_default().as_c_str())
            .map_err(|errno| failed("mount a tmpfs on", &self.path)(errno.into()))?;
        for (path, like) in &self.directories {
            make_directory(path, like, account).map_err(failed("create", path))?;
        }
        for (path, tree) in kept {
            make_mount_point(path, &tree).map_err(failed("create", path))?;
            tree.graft_at(path).map_err(failed("attach again what was mounted at", path))?;
        }
        Ok(())
    }
}

fn make_mount_point(path: &Path, tree: &Tree) -> io::Result<()> {
    if tree.is_directory()? {
        return fs::create_dir_all(path);
    }
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    File::create(path).map(drop)
}

/// No mount point's: what is in there is not the root's.
fn collect_directories(path: &Path, mounts: &[PathBuf], found: &mut Vec<(PathBuf, Metadata)>) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let path = entry.path();
        if metadata.is_dir() && !mounts.contains(&path) && found.len() < DIRECTORIES {
            found.push((path.clone(), metadata));
            collect_directories(&path, mounts, found);
        }
    }
}

fn make_directory(path: &Path, like: &Metadata, account: &Account<'_>) -> io::Result<()> {
    fs::create_dir(path)?;
    // As it is for uid 0 and our umask already?
    if like.mode() & 0o7777 != 0o755 {
        chmod(path, Mode::from_raw_mode(like.mode() & 0o7777))?;
    }
    let (uid, gid) = owner_for((like.uid(), like.gid()), account);
    if (uid, gid) != (0, 0) {
        chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}

/// What root has is the helper's.
fn owner_for(owner: (u32, u32), account: &Account<'_>) -> (u32, u32) {
    if owner.0 == 0 { (account.uid.as_raw(), account.gid.as_raw()) } else { owner }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ScratchError {
    let path = path.to_owned();
    move |source| ScratchError { step, path, source }
}
