//! The mounts by which a filesystem is visible, on the node and in its pods; and putting another filesystem in their place.
//!
//! Runs in the mounter. A search goes through the node's processes once. A mount is replaced on a visit to its mount namespace.

use super::connections::{Connections, Identity};
pub use super::inner_mounts::Fresh;
use super::inner_mounts::{InnerCopy, InnerMount, LostMount, Outer};
use super::target::{Target, TargetError, open_in_filesystem};
use super::tree::Tree;
use linux::mount_namespace::{MountNamespace, NamespaceError};
use linux::mount_table::{Device, Mount};
use linux::processes::{self, PopulatedNamespace};
use linux::statx;
use linux::sys::ask::{self, Patience};
use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The mounts of one filesystem, attached in any mount namespace.
#[derive(Debug)]
pub struct VisibleMounts {
    /// Those in the node's own namespace first, as pods may get theirs from there.
    pub mounts: Vec<VisibleMount>,
    /// A detached copy, which hinders no umount(2). While it is held the filesystem lives, and no other gets its device
    /// number. None if every mount is covered by another.
    pub pin: Option<Tree>,
}

/// One mount of a filesystem, and the namespace that it is attached in.
#[derive(Debug)]
pub struct VisibleMount {
    /// Its mount namespace; several mounts may share one.
    namespace: Arc<Namespace>,
    /// The mount itself.
    pub mount: Mount,
    /// What is mounted on it.
    inner: Vec<InnerMount>,
    /// Copies of that, once they are made.
    copies: Option<Vec<InnerCopy>>,
}

/// A mount namespace in which the filesystem is visible.
#[derive(Debug)]
struct Namespace {
    handle: MountNamespace,
    populated: PopulatedNamespace,
    /// The proc filesystem that it was found in.
    host_proc: PathBuf,
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

/// Finds all mounts of a filesystem. `None`: it has none that is visible.
pub fn find(filesystem: Identity, connections: &Connections, host_proc: &Path) -> io::Result<Option<VisibleMounts>> {
    // In most cases it has just been unmounted, and no search is needed.
    if !connections.has(filesystem) {
        return Ok(None);
    }
    let mounts = with_device(filesystem.device, host_proc)?;
    let pin = mounts.iter().find_map(|mount| mount.pin().ok());
    // What had its device number was the filesystem itself, if that is there even now.
    let found = !mounts.is_empty() && connections.has(filesystem);
    Ok(found.then_some(VisibleMounts { mounts, pin }))
}

/// All mounts with this device number.
///
/// A process that exits meanwhile does not matter: its namespace lives on only if it has another process, which is asked then.
fn with_device(device: Device, host_proc: &Path) -> io::Result<Vec<VisibleMount>> {
    let mut found = Vec::new();
    for populated in processes::mount_namespaces(host_proc)? {
        let table = populated.mounts();
        if table.iter().any(|mount| mount.device == device)
            && let Some(handle) = populated.open()
        {
            found.extend(in_table(&table, device, Namespace { handle, populated, host_proc: host_proc.to_owned() }));
        }
    }
    Ok(found)
}

/// Those of one mount namespace.
fn in_table(table: &[Mount], device: Device, namespace: Namespace) -> impl Iterator<Item = VisibleMount> {
    let namespace = Arc::new(namespace);
    table.iter().filter(move |mount| mount.device == device).map(move |mount| VisibleMount {
        namespace: Arc::clone(&namespace),
        mount: mount.clone(),
        inner: InnerMount::all_on(mount, table),
        copies: None,
    })
}

impl VisibleMount {
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

    fn pin(&self) -> io::Result<Tree> {
        let copy = || Tree::copy_at(Target::of_mount(&self.mount, Patience::USUAL)?.as_fd()).map_err(TargetError::Open);
        self.namespace.handle.visit(copy).map_err(io::Error::other)?.map_err(io::Error::other)
    }

    /// Whether this filesystem is on top of it: a mount that could not be detached has been replaced so.
    pub fn is_covered_by(&self, filesystem: Identity) -> bool {
        self.covered_by().is_some_and(|cover| cover.device == filesystem.device)
    }

    fn covered_by(&self) -> Option<&Mount> {
        self.inner.iter().map(InnerMount::mount).find(|inner| inner.target == self.mount.target)
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
        self.copies = Some(self.inner.iter().flat_map(|inner| inner.copy(outer)).collect());
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
        if self.covered_by().is_some() {
            return Err(TargetError::Gone.into());
        }
        if self.mount.is_deleted() {
            return Err(ReplaceMountStep::Deleted);
        }
        // Who uses the volume may have made a link of it since.
        let directory =
            open_in_filesystem(new.root, &self.mount.root, new.patience).map_err(ReplaceMountStep::NoDirectory)?;
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
        namespace.visit(|| {
            let old = Target::of_mount(&self.mount, new.patience)?;
            let root = tree.replace(old, &self.mount).map_err(ReplaceMountStep::Replace)?;
            let attached =
                copies.into_iter().map(|copy| copy.attach(root.as_fd(), &self.mount.target, namespace, new.patience));
            Ok(attached.filter_map(Result::err).collect())
        })?
    }
}

#[cfg(test)]
mod tests;
