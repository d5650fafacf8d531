//! The mount point a helper is given, in a mount namespace that only it and its volume's thread live in.
//!
//! Runs in the mounter, on the volume's own thread, with CAP_SYS_ADMIN.

use crate::config::handover::Filled;
use crate::node::mounts::Device;
use crate::node::target::identity;
use crate::node::tree::Tree;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_remount};
use std::ffi::CStr;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Below the state directory; in the container itself it stays empty.
const DIRECTORY: &str = "mnt";
/// The same for the files that a helper is given.
const FILES: &str = "files";
/// What a helper may write to shall not fill the node's memory.
const WRITABLE: &CStr = c"size=64m,mode=1777";

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
#[error("preparing the helper's mount namespace: cannot {step} {path}", path = path.display())]
pub struct PlaceError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// What mount tables show as the source of the tmpfs that places are on: it marks a helper's mount namespace.
pub const SOURCE: &str = "hostmount";

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
    /// Moves the **calling thread** into a mount namespace of its own and makes the mount point there, an empty tmpfs
    /// on each of the `writable` directories, and the `files`.
    ///
    /// The namespace is a slave of the container's: what is unmounted there goes here as well, so that no volume is
    /// kept alive by a copy in another volume's namespace; nothing goes the other way.
    pub fn prepare(
        state: &Path,
        target: &Path,
        writable: &[PathBuf],
        files: &[(String, Filled)],
    ) -> Result<Self, PlaceError> {
        let root = state.join(DIRECTORY);
        let path = path(state, target);
        unshare(CloneFlags::CLONE_NEWNS).map_err(|e| failed("unshare", Path::new("/"))(e.into()))?;
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", slave).map_err(|e| failed("make a slave of", Path::new("/"))(e.into()))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let tmpfs = |path: &Path, flags, options: &CStr| {
            mount(SOURCE, path, c"tmpfs", flags, options).map_err(|e| failed("mount a tmpfs on", path)(e.into()))?;
            mount_change(path, MountPropagationFlags::PRIVATE).map_err(|e| failed("make private", path)(e.into()))
        };
        for path in writable {
            tmpfs(path, MountFlags::NOSUID | MountFlags::NODEV, WRITABLE)?;
        }
        // One of them may be the state directory, or above it.
        fs::create_dir_all(&root).map_err(failed("create", &root))?;
        tmpfs(&root, flags, c"size=64k,mode=0755")?;
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
        let failed = |step| move |source| PlaceError { step, path: self.root.join(".log"), source };
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
    move |source| PlaceError { step, path, source }
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
    mount_change(directory, MountPropagationFlags::PRIVATE).map_err(|e| failed("make private", directory)(e.into()))?;
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
