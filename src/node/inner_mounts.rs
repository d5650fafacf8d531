//! What is mounted inside a filesystem, like a pod's emptyDir inside a volume: it is copied before another filesystem takes
//! the place of the outer one, and attached again on that.
//!
//! Runs in the mounter; copies are made and attached on visits to the mount namespace that the outer mount is in, or to the
//! node's.
//!
//! **A dead filesystem must not be walked.** The kernel asks it about each name whose time has run out, and gets no answer.
//! With `default_permissions` the walk ends there. Without, the kernel takes the name for invalid and detaches what is mounted
//! on it, in every mount namespace and in every copy. So an inner mount is copied by its path only while the kernel knows the
//! whole path by itself, or while the outer filesystem answers. Else another way to the same files is looked for: a process that
//! has a directory of the inner mount open, or another mount of the same filesystem, as the node has one of each of kubelet's
//! volumes. If there is none, the inner mount is lost, and that is reported. docs/failures.md says what else was tried.

use super::connections::Dead;
use super::target::{self, Target};
use super::tree::Tree;
use linux::mount_namespace::MountNamespace;
use linux::mount_table::{Device, Mount};
use linux::processes::{PopulatedNamespace, Process};
use linux::statx;
use linux::sys::ask::{self, Patience};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat, openat2};
use rustix::io::Errno;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How many mounts on others are looked after in one mount namespace, and how many on top of each other: a pod makes as many as it likes in
/// one of its own.
const MOST: usize = 256;
const DEEPEST: usize = 32;
/// How many open files are looked at for one that is in an inner mount, how many directories upwards, and how many other mounts that may
/// show the same.
const FILES: usize = 4096;
const UPWARDS: usize = 256;
const ELSEWHERE: usize = 16;

/// A mount that is on another, and what is mounted on it in turn.
#[derive(Debug)]
pub(super) struct InnerMount {
    mount: Mount,
    inner: Vec<InnerMount>,
}

/// The mounts of a table by what each is mounted on.
#[derive(Debug)]
pub(super) struct MountedOn<'a> {
    by_parent: HashMap<u64, Vec<&'a Mount>>,
    /// How many more are looked after, of each filesystem's.
    left: HashMap<Device, usize>,
}

impl<'a> MountedOn<'a> {
    pub(super) fn of(table: &'a [Mount]) -> Self {
        let mut by_parent: HashMap<u64, Vec<&Mount>> = HashMap::new();
        for mount in table.iter().filter(|mount| mount.id != mount.parent) {
            by_parent.entry(mount.parent).or_default().push(mount);
        }
        Self { by_parent, left: HashMap::new() }
    }

    /// All that is mounted on `outer`; none if that is more than is looked after.
    pub(super) fn all_on(&mut self, outer: &Mount) -> Option<Vec<InnerMount>> {
        let left = self.left.entry(outer.device).or_insert(MOST);
        down_from(&self.by_parent, outer, DEEPEST, left)
    }
}

/// An inner mount that is lost.
#[derive(Debug, thiserror::Error)]
#[error("what was mounted inside the volume at {path} of {namespace} is lost", path = path.display())]
pub struct LostMount {
    path: PathBuf,
    namespace: String,
    #[source]
    source: io::Error,
}

/// A copy of an inner mount, with where it is to be attached; or why there is none.
#[derive(Debug)]
pub(super) struct InnerCopy {
    target: PathBuf,
    device: Device,
    tree: io::Result<Tree>,
}

/// A mount that is to be replaced, and what its inner mounts may be found by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outer<'a> {
    /// The mount.
    pub(super) mount: &'a Mount,
    /// Its mount namespace.
    pub(super) namespace: &'a MountNamespace,
    /// The processes that live there.
    pub(super) populated: &'a PopulatedNamespace,
    /// The node's proc filesystem.
    pub(super) host_proc: &'a Path,
    pub(super) fresh: Fresh<'a>,
}

/// The filesystem that takes the old one's place.
#[derive(Debug, Clone, Copy)]
pub struct Fresh<'a> {
    /// Its root, in a mount namespace that only a helper and the calling thread live in.
    pub root: BorrowedFd<'a>,
    /// How long an answer may take: its helper's, and that of any filesystem on the way to a place.
    pub patience: Patience<'a>,
    /// The old one, if its helper is gone.
    pub dead: Option<Dead<'a>>,
    /// Whether an old mount is covered that cannot be detached. The kernel locks its root meanwhile, and so may a process that waits for
    /// the old filesystem: not for who serves that.
    pub cover: bool,
}

fn down_from(
    by_parent: &HashMap<u64, Vec<&Mount>>,
    outer: &Mount,
    deep: usize,
    left: &mut usize,
) -> Option<Vec<InnerMount>> {
    let Some(on_it) = by_parent.get(&outer.id) else { return Some(Vec::new()) };
    *left = left.checked_sub(on_it.len()).filter(|_| deep > 0)?;
    let down = |mount: &&Mount| {
        Some(InnerMount { mount: Mount::clone(mount), inner: down_from(by_parent, mount, deep - 1, left)? })
    };
    on_it.iter().map(down).collect()
}

impl InnerMount {
    /// The mount itself.
    pub(super) fn mount(&self) -> &Mount {
        &self.mount
    }

    /// Copies of it and of what is on it, each behind the one that it is on.
    pub(super) fn copy(&self, outer: Outer<'_>) -> Vec<InnerCopy> {
        let whole = outer.visit(|| self.whole_by_known_path()).or_else(|_| self.whole_by_process(outer));
        if whole.is_ok() {
            return vec![self.as_copy(whole)];
        }
        match self.alone_from_elsewhere(outer) {
            Ok(alone) => {
                let on_it = self.inner.iter().flat_map(|inner| inner.copy(outer));
                [self.as_copy(Ok(alone))].into_iter().chain(on_it).collect()
            }
            Err(_) => vec![self.as_copy(outer.visit(|| self.whole_by_asking(outer.mount, outer.fresh)))],
        }
    }

    fn as_copy(&self, tree: io::Result<Tree>) -> InnerCopy {
        InnerCopy { target: self.mount.target.clone(), device: self.mount.device, tree }
    }

    /// By its path, if the kernel need not ask any filesystem about it (openat2(2), RESOLVE_CACHED: 5.12).
    fn whole_by_known_path(&self) -> io::Result<Tree> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat2(CWD, &self.mount.target, flags, Mode::empty(), ResolveFlags::CACHED)?;
        if !is_root_of(root.as_fd(), &self.mount)? {
            return Err(Errno::NOENT.into());
        }
        Tree::whole_copy_at(root.as_fd())
    }

    /// By its path, unless the filesystem that it is in is dead.
    fn whole_by_asking(&self, outer: &Mount, Fresh { patience, dead, .. }: Fresh<'_>) -> io::Result<Tree> {
        if dead.is_some() {
            return Err(Errno::NOTCONN.into());
        }
        let old = Target::of_mount(outer, patience).map_err(io::Error::other)?;
        ask::answers_at(old.as_fd(), patience)?;
        let root = Target::of_mount(&self.mount, patience).map_err(io::Error::other)?;
        Tree::whole_copy_at(root.as_fd())
    }

    /// By a process that has a directory of it open.
    fn whole_by_process(&self, outer: Outer<'_>) -> io::Result<Tree> {
        // To go upwards in a filesystem of FUSE may need an answer of its helper.
        let files = outer.populated.processes.iter().flat_map(Process::open_files).filter(|_| !self.mount.is_fuse());
        let root = files.into_iter().take(FILES).find_map(|file| self.root_above(&file)).ok_or(Errno::NOENT)?;
        outer.visit(|| Tree::whole_copy_at(root.as_fd()))
    }

    /// Its root, if an open file is a directory in it. On the way up the kernel asks no filesystem.
    fn root_above(&self, file: &Path) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let in_it = |fd: &OwnedFd| mount_id(fd.as_fd()).is_ok_and(|id| id == self.mount.id);
        let mut directory = open(file, flags, Mode::empty()).ok().filter(in_it)?;
        for _ in 0..UPWARDS {
            let above = openat(&directory, "..", flags | OFlags::DIRECTORY, Mode::empty()).ok()?;
            if !in_it(&above) {
                return is_root_of(directory.as_fd(), &self.mount).ok()?.then_some(directory);
            }
            directory = above;
        }
        None
    }

    /// The same directory of the same filesystem, by another mount of it: in this mount namespace, or in the node's.
    fn alone_from_elsewhere(&self, outer: Outer<'_>) -> io::Result<Tree> {
        let search = |namespace: &MountNamespace, table: &[Mount]| {
            let others = table.iter().filter(|other| self.may_be_shown_by(other, outer.mount)).take(ELSEWHERE);
            let mut others = others.filter(|other| !self.asks_on_the_way_to(other, table));
            others.find_map(|other| namespace.visit(|| self.directory_in(other)).ok()?.ok())
        };
        let found = search(outer.namespace, &outer.populated.mounts()).or_else(|| {
            let node = MountNamespace::of_node(outer.host_proc).ok()?;
            search(&node, &Process::first(outer.host_proc).mounts().ok()?)
        });
        let tree = found.ok_or(Errno::NOENT)?;
        if self.mount.maps_ids() {
            tree.map_ids(outer.populated.open_user_namespace().ok_or(Errno::SRCH)?.as_fd())?;
        }
        tree.resemble(&self.mount, outer.fresh.root)
    }

    /// Whether another mount shows this one's directory.
    fn may_be_shown_by(&self, other: &Mount, outer: &Mount) -> bool {
        // The root of what was deleted names something else.
        let named = !self.mount.is_deleted() && !other.is_deleted() && self.mount.root.starts_with(&other.root);
        other.device == self.mount.device && named && !other.maps_ids() && other.id != outer.id
    }

    /// Whether a helper need be asked on the way to this one's directory by another mount in a table.
    fn asks_on_the_way_to(&self, other: &Mount, table: &[Mount]) -> bool {
        let is_above = |mount: &&Mount| mount.id != other.id && other.target.starts_with(&mount.target);
        (other.is_fuse() && other.root != self.mount.root) || table.iter().filter(is_above).any(Mount::is_fuse)
    }

    /// Its directory, seen through another mount of its filesystem. Runs in that one's mount namespace.
    fn directory_in(&self, other: &Mount) -> io::Result<Tree> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = open(&other.target, flags, Mode::empty())?;
        if !is_root_of(root.as_fd(), other)? {
            return Err(Errno::NOENT.into());
        }
        match self.mount.root.strip_prefix(&other.root) {
            Ok(below) if !below.as_os_str().is_empty() => {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
                Tree::copy_at(openat2(&root, below, flags, Mode::empty(), resolve)?.as_fd())
            }
            _ => Tree::copy_at(root.as_fd()),
        }
    }
}

impl InnerCopy {
    /// Attaches it at its old path, in the filesystem whose root is `root` now and was `outer` before, in `namespace`.
    pub(super) fn attach(
        self,
        root: BorrowedFd<'_>,
        outer: &Path,
        namespace: &MountNamespace,
        patience: Patience<'_>,
    ) -> Result<(), LostMount> {
        let Self { target, device, tree } = self;
        let attach = || {
            let below = target.strip_prefix(outer).map_err(io::Error::other)?;
            // A link there could lead anywhere.
            let at = target::open_inside(root, below, patience)?;
            // It is there already if it came with the copy of a peer.
            if statx::mount_root(at.as_fd())? == Some(device) { Ok(()) } else { tree?.graft(at) }
        };
        attach().map_err(|source| LostMount { path: target.clone(), namespace: namespace.to_string(), source })
    }
}

impl Outer<'_> {
    fn visit<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        self.namespace.visit(work).map_err(io::Error::other)?
    }
}

/// Whether a descriptor names the root of this very mount. Asks no filesystem.
fn is_root_of(fd: BorrowedFd<'_>, mount: &Mount) -> io::Result<bool> {
    // A btrfs shows another device number for each subvolume than its mount table entry has.
    let device = statx::mount_root(fd)?;
    let same = device.is_some_and(|device| device == mount.device || mount.fstype == "btrfs");
    Ok(same && mount_id(fd)? == mount.id)
}

fn mount_id(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(statx::cached(fd)?.stx_mnt_id)
}
