//! The mount point a helper is given, in a mount namespace that only it and its volume's thread live in.
//!
//! Runs in the mounter, on the volume's own thread, with CAP_SYS_ADMIN.

use super::scratch::{SOURCE, Scratch, ScratchError};
use crate::config::handover::Filled;
use crate::node::tree::Tree;
use linux::mount_table::Device;
use linux::statx::identity;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount};
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Below the state directory; in the container itself it stays empty.
const DIRECTORY: &str = "mnt";
/// The same for the files that a helper is given.
const FILES: &str = "files";

/// A helper's mount point: `<state>/mnt` followed by the target's path, so that a process list tells which volume a
/// helper serves. It exists in the helper's mount namespace only and needs no tidying up.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    root: PathBuf,
    identity: (Device, u64),
}

/// A step of the preparation that failed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// At a path.
    #[error("preparing the helper's mount namespace: cannot {step} {path}", path = path.display())]
    At {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// With one of the directories that it may write to.
    #[error("preparing the helper's mount namespace")]
    Scratch(#[from] ScratchError),
}

/// Where, in its mount namespace, the helper of a volume at `target` has its mount point.
pub fn path(state: &Path, target: &Path) -> PathBuf {
    state.join(DIRECTORY).join(target.strip_prefix("/").unwrap_or(target))
}

/// Where a helper finds its files: in its mount namespace, and nowhere else.
pub fn files_directory(state: &Path) -> PathBuf {
    state.join(FILES)
}

/// Makes the directories that places are mounted on. Once, when the mounter starts.
pub fn create_directory(state: &Path) -> io::Result<()> {
    fs::create_dir_all(state.join(DIRECTORY))?;
    fs::create_dir_all(files_directory(state))
}

impl Place {
    /// Moves the **calling thread** into a mount namespace of its own and makes the mount point there, directories that
    /// the helper can write to (the usual ones and `writable`), and the `files`.
    ///
    /// The namespace is a slave of the container's: what is unmounted there goes here as well, so that no volume is
    /// kept alive by a copy in another volume's namespace; nothing goes the other way. What is mounted here is private.
    pub fn prepare(
        state: &Path,
        target: &Path,
        scratch: &Scratch,
        writable: &[PathBuf],
        files: &[(String, Filled)],
    ) -> Result<Self, PlaceError> {
        let root = state.join(DIRECTORY);
        let path = path(state, target);
        unshare(CloneFlags::CLONE_NEWNS).map_err(|e| failed("unshare", Path::new("/"))(e.into()))?;
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", slave).map_err(|e| failed("make a slave of", Path::new("/"))(e.into()))?;
        scratch.cover(writable)?;
        // The state directory may be below one of them.
        fs::create_dir_all(&root).map_err(failed("create", &root))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(SOURCE, &root, c"tmpfs", flags, c"size=64k,mode=0755")
            .map_err(|e| failed("mount a tmpfs on", &root)(e.into()))?;
        fs::create_dir_all(&path).map_err(failed("create", &path))?;
        let fd = open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| failed("open", &path)(e.into()))?;
        write_files(&files_directory(state), files)?;
        let identity = identity(fd.as_fd()).map_err(failed("stat", &path))?;
        Ok(Self { path, root, identity })
    }

    /// The path that the helper is told.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Shows the helper a file of the node's. Says where; no target is called that.
    pub fn show_log_file(&self, tree: Tree) -> Result<PathBuf, PlaceError> {
        let path = self.root.join(".log");
        let failed = |step| failed(step, &path);
        fs::File::create(&path).map_err(failed("create"))?;
        tree.graft_at(&path).map_err(failed("attach the node's log file at"))?;
        Ok(path)
    }

    /// Whether a descriptor names this very directory.
    pub fn is(&self, fd: BorrowedFd<'_>) -> bool {
        identity(fd).is_ok_and(|identity| identity == self.identity)
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PlaceError {
    let path = path.to_owned();
    move |source| PlaceError::At { step, path, source }
}

/// Writes a helper's files. They are on a ramfs, which unlike a tmpfs is never swapped out to disk. It has no limit of its
/// own: it is read-only for the helper.
fn write_files(directory: &Path, files: &[(String, Filled)]) -> Result<(), PlaceError> {
    if files.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(directory).map_err(failed("create", directory))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(c"hostmount-files", directory, c"ramfs", flags, c"mode=0700")
        .map_err(|e| failed("mount a ramfs on", directory)(e.into()))?;
    for (name, content) in files {
        let path = directory.join(name);
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(content)).map_err(failed("write", &path))?;
    }
    mount_remount(directory, flags | MountFlags::RDONLY, c"").map_err(|e| failed("make read-only", directory)(e.into()))
}

/// A helper's words as they would read had it mounted at the target itself.
pub fn in_words_of_the_node(state: &Path, lines: &[String]) -> Vec<String> {
    let root = state.join(DIRECTORY);
    lines.iter().map(|line| line.replace(&*root.to_string_lossy(), "")).collect()
}
