//! A mount by which a filesystem is visible, on the node or in a pod; and putting another filesystem in its place.
//!
//! Runs in the mounter. A mount is replaced on a visit to its mount namespace.

use super::connections::Identity;
pub use super::inner_mounts::Fresh;
use super::inner_mounts::{InnerCopy, InnerMount, LostMount, MountedOn, Outer};
use super::target::{Target, TargetError, open_in_filesystem};
use super::tree::{Cover, Tree};
use linux::mount_namespace::{MountNamespace, NamespaceError};
use linux::mount_table::{Device, IDMAPPED, Mount};
use linux::namespace::NamespaceId;
use linux::processes::{PopulatedNamespace, Process};
use linux::statx;
use linux::sys::ask::{self, Patience};
use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One mount of a filesystem, and the namespace that it is attached in.
#[derive(Debug)]
pub struct VisibleMount {
    /// Its mount namespace; several mounts may share one.
    namespace: Arc<Namespace>,
    /// The mount itself.
    pub mount: Mount,
    /// What is mounted on it; none: more than is looked after.
    inner: Option<Vec<InnerMount>>,
    /// Copies of that, once they are made.
    copies: Option<Vec<InnerCopy>>,
    /// The number of it that no other mount is ever given, once it has been replaced and detached, where the kernel has such numbers.
    detached: Option<u64>,
}

/// A mount that was replaced, and that is visible nowhere any more: what was opened by it is open still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachedMount {
    /// A number that no other mount is ever given.
    pub number: u64,
    /// The directory of its filesystem that it showed.
    pub root: PathBuf,
    /// The mount namespace that it was attached in.
    pub namespace: NamespaceId,
}

/// A mount namespace in which the filesystem is visible.
#[derive(Debug)]
pub(super) struct Namespace {
    pub(super) handle: MountNamespace,
    pub(super) populated: PopulatedNamespace,
    /// The proc filesystem that it was found in.
    pub(super) host_proc: PathBuf,
}

/// A mount that could not be replaced.
#[derive(Debug, thiserror::Error)]
#[error("cannot show it at {path} of {namespace}", path = path.display())]
pub struct ReplaceMountError {
    path: PathBuf,
    namespace: String,
    #[source]
    source: ReplaceMountStep,
}

#[derive(Debug, thiserror::Error)]
enum ReplaceMountStep {
    #[error("the new filesystem has no such directory")]
    NoDirectory(#[source] io::Error),
    #[error("the directory that it shows was deleted: only the old filesystem has it")]
    Deleted,
    #[error("more is mounted on it than is looked after")]
    TooMuchInside,
    #[error("cannot give it the old mount's options")]
    Options(#[source] io::Error),
    #[error("cannot give it the old mount's mapping of ids")]
    Ids(#[source] io::Error),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("the kernel did not let it take the old mount's place")]
    Replace(#[source] io::Error),
}

/// How many mounts of one filesystem are looked after in one mount namespace at a time.
pub(super) const MOST: usize = 2048;

/// The first of the mounts in a table of each filesystem that is `wanted`, and how many more it has there than are looked after.
pub(super) fn in_table(
    table: &[Mount],
    namespace: &Arc<Namespace>,
    wanted: impl Fn(Device) -> bool,
) -> HashMap<Device, (Vec<VisibleMount>, usize)> {
    let mut found: HashMap<Device, (Vec<VisibleMount>, usize)> = HashMap::new();
    let mut on = MountedOn::of(table);
    for mount in table.iter().filter(|mount| wanted(mount.device)) {
        let (mounts, more) = found.entry(mount.device).or_default();
        if mounts.len() >= MOST {
            *more += 1;
            continue;
        }
        mounts.push(VisibleMount {
            namespace: Arc::clone(namespace),
            mount: mount.clone(),
            inner: on.all_on(mount),
            copies: None,
            detached: None,
        });
    }
    found
}

/// The mounts of the filesystem `device` that a process sees; none if it is gone.
pub fn mounts_seen_by(process: Process, host_proc: &Path, device: Device) -> Vec<VisibleMount> {
    let Ok(id) = process.mount_namespace() else { return Vec::new() };
    let populated = PopulatedNamespace { id, processes: vec![process] };
    let table = populated.mounts();
    if !table.iter().any(|mount| mount.device == device) {
        return Vec::new();
    }
    let Some(handle) = populated.open() else { return Vec::new() };
    let namespace = Arc::new(Namespace { handle, populated, host_proc: host_proc.to_owned() });
    in_table(&table, &namespace, |of| of == device).remove(&device).unwrap_or_default().0
}

impl VisibleMount {
    /// Whether it is attached in this mount namespace.
    pub fn is_in(&self, namespace: NamespaceId) -> bool {
        self.namespace.populated.id == namespace
    }

    /// The mount namespace that it is attached in.
    pub fn namespace(&self) -> NamespaceId {
        self.namespace.populated.id
    }

    /// The processes that lived in its mount namespace when it was found.
    pub fn processes(&self) -> &[Process] {
        &self.namespace.populated.processes
    }

    /// A copy of what is mounted at `master` since that was replaced, down to this mount's directory, if it is the filesystem
    /// of `new`. The copy is in the same peer group, and made a slave it follows that group.
    fn copy_of(&self, master: &Self, new: &Tree, patience: Patience<'_>) -> Option<Tree> {
        let (below, device) = (self.mount.root.strip_prefix(&master.mount.root).ok()?, new.device().ok()?);
        // With a peer it shares what is mounted on it.
        let copy = if self.is_peer_of(master) { Tree::whole_copy_at } else { Tree::copy_at };
        let copy = || -> io::Result<Tree> {
            let root = ask::open(CWD, &master.mount.target, OFlags::NOFOLLOW, None, patience)?;
            if statx::mount_root(root.as_fd())? != Some(device) {
                return Err(Errno::XDEV.into());
            }
            copy(open_in_filesystem(root.as_fd(), below, patience)?.as_fd())
        };
        master.namespace.handle.visit(copy).ok()?.ok()
    }

    /// A detached copy of it.
    pub(super) fn pin(&self) -> io::Result<Tree> {
        let copy = || Tree::copy_at(Target::of_mount(&self.mount, Patience::USUAL)?.as_fd()).map_err(TargetError::Open);
        self.namespace.handle.visit(copy).map_err(io::Error::other)?.map_err(io::Error::other)
    }

    /// Whether this filesystem is on top of it: a mount that could not be detached has been replaced so.
    pub fn is_covered_by(&self, filesystem: Identity) -> bool {
        self.covered_by().is_some_and(|cover| cover.device == filesystem.device)
    }

    /// Whether anything is on top of it, or more on it than is looked after.
    pub fn is_covered(&self) -> bool {
        self.inner.is_none() || self.covered_by().is_some()
    }

    /// What takes its place is to show owners as they are stored, whatever this mount does.
    pub fn show_stored_owners(&mut self) {
        let others: Vec<_> = self.mount.options.split(',').filter(|word| *word != IDMAPPED).collect();
        self.mount.options = others.join(",");
    }

    /// Whether what takes its place must have a directory beside its root: it shows one, or something is mounted on one.
    pub fn needs_a_directory(&self) -> bool {
        self.mount.root != Path::new("/") || self.inner.as_ref().is_none_or(|inner| !inner.is_empty())
    }

    fn covered_by(&self) -> Option<&Mount> {
        self.inner.iter().flatten().map(InnerMount::mount).find(|inner| inner.target == self.mount.target)
    }

    /// Whether mounts on either are mounted on the other.
    fn is_peer_of(&self, other: &Self) -> bool {
        other.mount.shared.is_some() && self.mount.shared == other.mount.shared
    }

    /// Whether what is mounted on the other is mounted on this one as well, by the kernel (mount_namespaces(7)).
    pub fn follows(&self, other: &Self) -> bool {
        self.is_peer_of(other) || (other.mount.shared.is_some() && self.mount.master == other.mount.shared)
    }

    /// Copies what is mounted on this mount. To be done for all mounts of a filesystem before the first is replaced: the kernel
    /// detaches what is mounted on that one from its peers and slaves as well. `new` is as with [`replace_by`](Self::replace_by).
    pub fn copy_inner_mounts(&mut self, new: Fresh<'_>) {
        let Namespace { handle, populated, host_proc } = &*self.namespace;
        let outer = Outer { mount: &self.mount, namespace: handle, populated, host_proc, fresh: new };
        self.copies = Some(self.inner.iter().flatten().flat_map(|inner| inner.copy(outer)).collect());
    }

    /// Puts the filesystem `new` in the place of this mount: the
    /// same directory of it, with the same options. `ids` is the mapping of ids that all of the volume has, if it has one. If
    /// this mount follows another that has been replaced already, `master`, it goes on following it.
    ///
    /// What is mounted on this mount is attached to the new one. Returns what is lost of that: the mount is replaced all the
    /// same.
    pub fn replace_by(
        &mut self,
        new: Fresh<'_>,
        ids: Option<BorrowedFd<'_>>,
        master: Option<&Self>,
    ) -> Result<Vec<LostMount>, ReplaceMountError> {
        self.try_replace(new, ids, master).map_err(|source| ReplaceMountError {
            path: self.mount.target.clone(),
            namespace: self.namespace.handle.to_string(),
            source,
        })
    }

    fn try_replace(
        &mut self,
        new: Fresh<'_>,
        ids: Option<BorrowedFd<'_>>,
        master: Option<&Self>,
    ) -> Result<Vec<LostMount>, ReplaceMountStep> {
        if self.inner.is_none() {
            return Err(ReplaceMountStep::TooMuchInside);
        }
        if self.covered_by().is_some() {
            return Err(TargetError::Gone.into());
        }
        if self.mount.is_deleted() {
            return Err(ReplaceMountStep::Deleted);
        }
        // Who uses the volume may have made a link of it since.
        let users = self.users_of(new.root);
        let inside = Patience { users: users.as_ref().map(AsFd::as_fd), ..new.patience };
        let directory =
            open_in_filesystem(new.root, &self.mount.root, inside).map_err(ReplaceMountStep::NoDirectory)?;
        let tree = Tree::copy_at(directory.as_fd()).map_err(ReplaceMountStep::NoDirectory)?;
        let tree = master.and_then(|master| self.copy_of(master, &tree, new.patience)).unwrap_or(tree);
        if self.mount.maps_ids() {
            // A container runtime that maps a volume's ids does it as it maps those of the container's processes.
            let own = if ids.is_none() { self.namespace.populated.open_user_namespace() } else { None };
            let ids = ids.or(own.as_ref().map(AsFd::as_fd));
            ids.map_or(Err(Errno::SRCH.into()), |ids| tree.map_ids(ids)).map_err(ReplaceMountStep::Ids)?;
        }
        let tree = tree.resemble(&self.mount, directory.as_fd()).map_err(ReplaceMountStep::Options)?;
        if self.copies.is_none() {
            self.copy_inner_mounts(new);
        }
        let copies = self.copies.take().unwrap_or_default();
        let namespace = &self.namespace.handle;
        let (lost, detached) = namespace.visit(|| {
            let old = Target::of_mount(&self.mount, new.patience)?;
            let number = statx::unique_mount(old.as_fd()).ok().flatten();
            let cover = new.cover.then_some(Cover { dead: new.dead });
            let (root, detached) = tree.replace(old, &self.mount, cover).map_err(ReplaceMountStep::Replace)?;
            let attached =
                copies.into_iter().map(|copy| copy.attach(root.as_fd(), &self.mount.target, namespace, inside));
            Ok::<_, ReplaceMountStep>((attached.filter_map(Result::err).collect(), number.filter(|_| detached)))
        })??;
        self.detached = detached;
        Ok(lost)
    }

    /// Who may look into a filesystem that is closed to us, as it is a pod's own: the users of the processes that are to see it here.
    fn users_of(&self, root: BorrowedFd<'_>) -> Option<File> {
        if statx::is_closed(root) { self.namespace.populated.open_user_namespace() } else { None }
    }

    /// What it is once it has been replaced, where the kernel can tell it from others.
    pub fn detached(&self) -> Option<DetachedMount> {
        let (root, namespace) = (self.mount.root.clone(), self.namespace.populated.id);
        self.detached.map(|number| DetachedMount { number, root, namespace })
    }
}

#[cfg(test)]
mod tests;
