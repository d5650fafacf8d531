//! Where a filesystem shows: in the node's mount table and in those of its pods; and putting another in its place.
//!
//! Runs in the mounter. A look goes through the node's processes once; putting in place is done on a visit to each
//! mount namespace.

use super::connections::{Connections, Identity};
use super::target::{Target, TargetError};
use super::tree::Tree;
use linux::mount_namespace::{MountNamespace, NamespaceError};
use linux::mount_table::{Device, Mount};
use linux::processes;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a filesystem shows.
#[derive(Debug)]
pub struct Showings {
    /// Those in the node's own namespace first, as pods may get theirs from there.
    pub places: Vec<Showing>,
    /// A copy that is in nobody's way. As long as it is held the filesystem is not gone, and no other gets its number.
    /// None if every place is covered by another mount.
    pub hold: Option<Tree>,
}

/// One mount of a filesystem, somewhere on the node.
#[derive(Debug)]
pub struct Showing {
    /// The mount namespace it is in; many showings may share one.
    namespace: Arc<MountNamespace>,
    /// The mount itself.
    pub mount: Mount,
    /// If it shows other owners than are stored: the user namespace that says which, as far as can be told.
    user_namespace: Option<File>,
    /// What is mounted on it: `target`s below its own.
    children: Vec<PathBuf>,
    /// What covers it.
    covered_by: Option<Device>,
}

/// A place where the new filesystem could not be shown.
#[derive(Debug, thiserror::Error)]
#[error("cannot show it at {path} of {namespace}", path = path.display())]
pub struct ShowError {
    path: PathBuf,
    namespace: String,
    #[source]
    source: ShowProblem,
}

#[derive(Debug, thiserror::Error)]
enum ShowProblem {
    #[error("the new filesystem has no such directory")]
    NoDirectory(#[source] io::Error),
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
    #[error("what was mounted on it, at {path}, is lost", path = path.display())]
    Child {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Where a filesystem shows; `None`: nowhere.
pub fn of(filesystem: Identity, connections: &Connections, host_proc: &Path) -> io::Result<Option<Showings>> {
    // Most are asked for when they have just been unmounted.
    if !connections.has(filesystem) {
        return Ok(None);
    }
    let places = with_device(filesystem.device, host_proc)?;
    let hold = places.iter().find_map(|showing| showing.hold().ok());
    // What had its number was the filesystem itself, if that is there even now.
    let found = !places.is_empty() && connections.has(filesystem);
    Ok(found.then_some(Showings { places, hold }))
}

/// All mounts with this device number.
///
/// A process that ends meanwhile takes nothing with it that matters: its namespace lives on only if another process of it
/// is found.
fn with_device(device: Device, host_proc: &Path) -> io::Result<Vec<Showing>> {
    let mut found = Vec::new();
    for inhabited in processes::mount_namespaces(host_proc)? {
        let table = inhabited.mounts();
        let mut mounts = table.iter().filter(|mount| mount.device == device).peekable();
        if mounts.peek().is_none() {
            continue;
        }
        let Some(namespace) = inhabited.open().map(Arc::new) else { continue };
        for mount in mounts {
            // A container runtime that maps a volume's ids does it as it maps those of the container's processes.
            let user_namespace = if mount.maps_ids() { inhabited.open_user_namespace() } else { None };
            let children = table.iter().filter(|child| child.parent == mount.id && child.id != mount.id);
            let covered_by = children.clone().find(|child| child.target == mount.target).map(|child| child.device);
            found.push(Showing {
                namespace: Arc::clone(&namespace),
                mount: mount.clone(),
                user_namespace,
                children: children.map(|child| child.target.clone()).collect(),
                covered_by,
            });
        }
    }
    Ok(found)
}

impl Showing {
    /// A copy of what `master` shows since it was replaced, down to this one's directory, if that is the filesystem of
    /// `new`: made a slave, it follows where it was copied.
    fn copy_of(&self, master: &Self, new: &Tree) -> Option<Tree> {
        let path = master.mount.target.join(self.mount.root.strip_prefix(&master.mount.root).ok()?);
        let copy = master.namespace.visit(|| Tree::copy_of(&path)).ok()?.ok()?;
        (copy.device().ok()? == new.device().ok()?).then_some(copy)
    }

    fn hold(&self) -> io::Result<Tree> {
        let copy = || {
            Target::of_mount(&self.mount)?;
            Tree::copy_of(&self.mount.target).map_err(TargetError::Open)
        };
        self.namespace.visit(copy).map_err(io::Error::other)?.map_err(io::Error::other)
    }

    /// Whether this filesystem is on top of it: a mount that could not be detached has been replaced so.
    pub fn is_covered_by(&self, filesystem: Identity) -> bool {
        self.covered_by == Some(filesystem.device)
    }

    /// Whether what is mounted on the other is mounted on this one as well, by the kernel (mount_namespaces(7)).
    pub fn follows(&self, other: &Self) -> bool {
        self.mount.master.is_some() && self.mount.master == other.mount.shared
    }

    /// Puts the filesystem that is mounted at `new` (in the calling thread's mount namespace) in the place of this
    /// showing: the same directory of it, with the same options. `ids` is the mapping of ids that all of the volume has, if
    /// it has one. If this showing follows another that has been replaced already, `master`, it goes on following it.
    pub fn replace_by(&self, new: &Path, ids: Option<BorrowedFd<'_>>, master: Option<&Self>) -> Result<(), ShowError> {
        self.try_replace(new, ids, master).map_err(|source| ShowError {
            path: self.mount.target.clone(),
            namespace: self.namespace.to_string(),
            source,
        })
    }

    fn try_replace(&self, new: &Path, ids: Option<BorrowedFd<'_>>, master: Option<&Self>) -> Result<(), ShowProblem> {
        let directory = new.join(self.mount.root.strip_prefix("/").unwrap_or(&self.mount.root));
        let tree = Tree::copy_of(&directory).map_err(ShowProblem::NoDirectory)?;
        let tree = master.and_then(|master| self.copy_of(master, &tree)).unwrap_or(tree);
        if self.mount.maps_ids() {
            let ids = ids.or(self.user_namespace.as_ref().map(AsFd::as_fd));
            ids.map_or(Err(Errno::SRCH.into()), |ids| tree.map_ids(ids)).map_err(ShowProblem::Ids)?;
        }
        let tree = tree.resemble(&self.mount, &directory).map_err(ShowProblem::Options)?;
        let path = &self.mount.target;
        self.namespace.visit(|| {
            let old = Target::of_mount(&self.mount)?;
            let kept: Vec<_> = self.children.iter().map(|child| (child, Tree::whole_copy_of(child))).collect();
            tree.replace(old, path).map_err(ShowProblem::Replace)?;
            for (child, copy) in kept {
                let lost = |source| ShowProblem::Child { path: child.clone(), source };
                copy.and_then(|copy| copy.graft_at(child)).map_err(lost)?;
            }
            Ok(())
        })?
    }
}
