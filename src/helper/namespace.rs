//! The mount namespace that a helper is given, which only it and its volume's thread live in: with a mount point, with its
//! files, and with directories that it can write to.
//!
//! Runs in the mounter, on the volume's own thread, with CAP_SYS_ADMIN: [`prepare`] moves that thread there.

use super::account::{Account, Shown};
use super::readable::{Copies, ReadableError};
use super::scratch::{Scratch, ScratchError};
use super::world::{SOURCE, World, WorldError};
use crate::config::handover::Filled;
use crate::config::user::Readable;
use crate::engine::mount_point::MountPoint;
use crate::node::tree::Tree;
use linux::mount_table::Mount;
use rustix::fs::{FsWord, Gid, Mode, OFlags, Uid, chown, fchown, fstat, fstatfs, open, openat, renameat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_remount};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Below the state directory: helpers have their mount points in it. In the container itself it stays empty.
const MOUNT_POINTS: &str = "mnt";
/// The same for the files that a helper is given.
const FILES: &str = "files";
/// The same for the container's files that it is shown copies of.
const READABLE: &str = "readable";
/// Before a helper's target, as the source of what its mount point is on.
const MARK: &str = "hostmount:";
/// The owner of what its helper shall not change: nobody's uid.
const NOT_A_HELPER: u32 = 65534;
/// RAMFS_MAGIC of linux/magic.h.
const RAMFS: FsWord = 0x8584_58f6;
/// Of every filesystem that is mounted here.
const OWN_FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// A step of the preparation that failed.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// At a path.
    #[error("preparing the helper's mount namespace: cannot {step} {path}", path = path.display())]
    At {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A copy of what all of them see.
    #[error(transparent)]
    World(#[from] WorldError),
    /// With one of the directories that it may write to.
    #[error("preparing the helper's mount namespace")]
    Scratch(#[from] ScratchError),
    /// With a file of the container that it may read.
    #[error(transparent)]
    Readable(#[from] ReadableError),
}

/// What a helper needs in its mount namespace.
#[allow(missing_debug_implementations, reason = "it holds secrets")]
pub struct Needs<'a> {
    /// The volume's target.
    pub target: &'a Path,
    /// What it runs as.
    pub account: &'a Account<'a>,
    /// Whether it is to see /sys.
    pub sysfs: bool,
    /// Directories to write to, beside the usual ones.
    pub writable: &'a [PathBuf],
    /// Files of the container to read.
    pub readable: Readable,
    /// Files of its own.
    pub files: &'a [(String, Filled)],
}

/// Where, in its mount namespace, the helper of a volume at `target` has its mount point: `<state>/mnt` followed by the
/// target's path, so that a process list shows which volume a helper serves.
pub fn mount_point(state: &Path, target: &Path) -> PathBuf {
    state.join(MOUNT_POINTS).join(target.strip_prefix("/").unwrap_or(target))
}

/// What mount tables show as the source of the filesystem that the mount point is on. By it a later mounter knows the mount
/// namespace, and whose it is, without going where the helper may have led it.
fn marked_with(target: &Path) -> OsString {
    let mut source = OsString::from(MARK);
    source.push(target);
    source
}

/// The target of the helper whose mount namespace has this mount table, if it is one of this state directory's.
pub fn target_of(table: &[Mount], state: &Path) -> Option<PathBuf> {
    let root = state.join(MOUNT_POINTS);
    let mark = table.iter().find_map(|mount| {
        let target = mount.source.as_encoded_bytes().strip_prefix(MARK.as_bytes());
        target.filter(|_| mount.target == root && mount.fstype == "tmpfs")
    })?;
    Some(OsStr::from_bytes(mark).into())
}

/// Whether a mount namespace with this mount table is that of the helper for `target`.
pub fn is_home_of(table: &[Mount], state: &Path, target: &Path) -> bool {
    let root = state.join(MOUNT_POINTS);
    // Version 0.1.0 said no more than this.
    let marked_before = |mount: &Mount| mount.target == root && mount.fstype == "tmpfs" && mount.source == "hostmount";
    target_of(table, state).as_deref() == Some(target) || table.iter().any(marked_before)
}

/// What the mount point of such a helper is on.
pub fn place_in<'a>(table: &'a [Mount], state: &Path) -> Option<&'a Mount> {
    let root = state.join(MOUNT_POINTS);
    table.iter().rfind(|mount| mount.target == root && mount.fstype == "tmpfs")
}

/// What is mounted on the mount point of such a helper.
pub fn mounted_in<'a>(table: &'a [Mount], state: &Path) -> Option<&'a Mount> {
    let home = place_in(table, state)?;
    let is_place = |id: u64| table.iter().any(|mount| mount.id == id && mount.parent == home.id);
    table.iter().rfind(|mount| mount.is_fuse() && (mount.parent == home.id || is_place(mount.parent)))
}

/// Where a helper finds its files: in its mount namespace, and nowhere else.
pub fn files_directory(state: &Path) -> PathBuf {
    state.join(FILES)
}

/// Makes the directories that helpers' namespaces are mounted over. Once, when the mounter starts.
pub fn create_directories(state: &Path) -> io::Result<()> {
    fs::create_dir_all(state.join(MOUNT_POINTS))?;
    fs::create_dir_all(files_directory(state))
}

/// Moves the **calling thread** into a mount namespace of its own, a copy of the `world`, and makes there what the helper
/// `needs`: its mount point, directories that it can write to, its files. Returns the mount point, and how the helper's account
/// is shown, if it is not root.
///
/// The namespace is a slave of the container's: what is unmounted there goes here as well, so that no volume is
/// kept alive by a copy in another volume's namespace; nothing goes the other way. What is mounted here is private.
pub fn prepare(
    state: &Path,
    world: &World,
    scratch: &Scratch,
    needs: Needs<'_>,
) -> Result<(MountPoint, Option<Shown>), PrepareError> {
    let Needs { target, account, sysfs, writable, readable, files } = needs;
    let root = state.join(MOUNT_POINTS);
    let path = mount_point(state, target);
    world.enter_copy(sysfs)?;
    scratch.cover(writable, account)?;
    cover_state_directory(state)?;
    let copies = Copies::of(readable, account, state.join(READABLE))?;
    let shown = account.show(state).map_err(failed("show the helper's account in", state))?;
    copies.show(shown.as_ref().filter(|shown| shown.home_is_empty).map(|shown| &*shown.home))?;
    fs::create_dir(&root).map_err(failed("create", &root))?;
    mount(marked_with(target), &root, c"tmpfs", OWN_FLAGS, c"size=64k,mode=0755")
        .map_err(failed("mount a tmpfs on", &root))?;
    make_way(&root, &path)?;
    write_files(&files_directory(state), files, account)?;
    if !account.is_root() {
        account.own(&path).map_err(failed("change the owner of", &path))?;
    }
    let place = MountPoint::at(&path).map_err(failed("open", &path))?;
    Ok((place, shown))
}

/// Makes the mount point at `path` in `root`, which is a fresh filesystem.
///
/// A helper writes to its mount point, if it likes (cryfs and fusermount3 try whether it can), but does not rename what is above:
/// it has no capability to change what is another's. A mount of its own would do as well, but rclone refuses a mount point
/// where something is mounted.
fn make_way(root: &Path, path: &Path) -> Result<(), PrepareError> {
    let mut above = root.to_owned();
    for name in path.strip_prefix(root).unwrap_or(path) {
        chown(&above, Some(Uid::from_raw(NOT_A_HELPER)), None).map_err(failed("change the owner of", &above))?;
        above.push(name);
        fs::create_dir(&above).map_err(failed("create", &above))?;
    }
    Ok(())
}

/// The socket, the lock and the records are nothing to helpers: nothing of the state directory is seen but their own mount
/// point and files.
fn cover_state_directory(state: &Path) -> Result<(), PrepareError> {
    let cover = || mount(SOURCE, state, c"tmpfs", OWN_FLAGS, c"size=1m,mode=0755");
    let covered = match cover() {
        // It may be below one of the directories that were covered.
        Err(Errno::NOENT) => {
            fs::create_dir_all(state).map_err(failed("create", state))?;
            cover()
        }
        covered => covered,
    };
    covered.map_err(failed("mount a tmpfs on", state))
}

/// Where a file of the node's can be shown to the helper.
fn log_file(state: &Path) -> PathBuf {
    state.join(MOUNT_POINTS).join(".log")
}

/// Where a helper's `/dev/log` leads to: in its mount namespace, and nowhere else. No target has that name.
pub fn syslog_socket(state: &Path) -> PathBuf {
    state.join(MOUNT_POINTS).join(".syslog")
}

/// Shows the helper a file of the node's, in the calling thread's mount namespace. Returns its path; no target has that name.
pub fn show_log_file(state: &Path, tree: Tree) -> Result<PathBuf, PrepareError> {
    let path = log_file(state);
    fs::File::create(&path).map_err(failed("create", &path))?;
    chown(&path, Some(Uid::from_raw(NOT_A_HELPER)), None).map_err(failed("change the owner of", &path))?;
    tree.graft_at(&path).map_err(failed("attach the node's log file at", &path))?;
    Ok(path)
}

fn failed<E: Into<io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> PrepareError + use<E> {
    let path = path.to_owned();
    move |source| PrepareError::At { step, path, source: source.into() }
}

/// Writes a helper's files. They are on a ramfs, which unlike a tmpfs is never swapped out to disk. It has no limit of its
/// own: its mount is read-only for the helper.
fn write_files(directory: &Path, files: &[(String, Filled)], account: &Account<'_>) -> Result<(), PrepareError> {
    if files.is_empty() {
        return Ok(());
    }
    fs::create_dir_all(directory).map_err(failed("create", directory))?;
    mount(c"hostmount-files", directory, c"ramfs", OWN_FLAGS, c"mode=0700")
        .map_err(failed("mount a ramfs on", directory))?;
    for (name, content) in files {
        let path = directory.join(name);
        let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(content)).map_err(failed("write", &path))?;
        account.own(&path).map_err(failed("change the owner of", &path))?;
    }
    account.own(directory).map_err(failed("change the owner of", directory))?;
    // The mount alone: see `replace_files`.
    mount_remount(directory, OWN_FLAGS | MountFlags::BIND | MountFlags::RDONLY, c"")
        .map_err(failed("make read-only", directory))
}

/// Replaces files of a helper, in whose mount namespace the calling thread is on a visit: each at once, so that the helper reads the
/// old one or the new one. Kernel: mount_setattr(2), 5.12.
pub fn replace_files(state: &Path, files: &[(&str, &[u8])]) -> io::Result<()> {
    let directory = files_directory(state);
    let opened =
        open(&directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if fstatfs(&opened)?.f_type != RAMFS {
        return Err(io::ErrorKind::NotFound.into());
    }
    // A mount of it that nobody else has, and that can be written to.
    let writable = Tree::copy_at(opened.as_fd())?;
    writable.make_writable()?;
    let root = openat(&writable, c".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for (name, content) in files {
        let owner = fstat(openat(&root, *name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)?;
        // No file of a configuration has such a name.
        let fresh = format!("{name}~");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = fs::File::from(openat(&root, &*fresh, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(content)?;
        fchown(&file, Some(Uid::from_raw(owner.st_uid)), Some(Gid::from_raw(owner.st_gid)))?;
        renameat(&root, &*fresh, &root, *name)?;
    }
    Ok(())
}

/// A helper's output as it would read had it mounted at the target itself.
pub fn in_words_of_the_node(state: &Path, lines: &[String]) -> Vec<String> {
    let root = state.join(MOUNT_POINTS);
    lines.iter().map(|line| line.replace(&*root.to_string_lossy(), "")).collect()
}
