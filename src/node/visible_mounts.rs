//! The mounts by which a filesystem is visible, on the node and in its pods; and putting another filesystem in their place.
//!
//! Runs in the mounter. A search goes through the node's processes once. A mount is replaced on a visit to its mount namespace.

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
    namespace: Arc<MountNamespace>,
    /// The mount itself.
    pub mount: Mount,
    /// If it shows other owners than are stored: the user namespace with the mapping, as far as it is known.
    user_namespace: Option<File>,
    /// What is mounted on it: `target`s below its own.
    children: Vec<PathBuf>,
    /// What covers it.
    covered_by: Option<Device>,
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
    for inhabited in processes::mount_namespaces(host_proc)? {
        let table = inhabited.mounts();
        if table.iter().any(|mount| mount.device == device)
            && let Some(namespace) = inhabited.open()
        {
            // A container runtime that maps a volume's ids does it as it maps those of the container's processes.
            let user_namespace = |mount: &Mount| mount.maps_ids().then(|| inhabited.open_user_namespace()).flatten();
            found.extend(in_table(&table, device, namespace, user_namespace));
        }
    }
    Ok(found)
}

/// Those of one mount namespace.
fn in_table(
    table: &[Mount],
    device: Device,
    namespace: MountNamespace,
    user_namespace: impl Fn(&Mount) -> Option<File>,
) -> impl Iterator<Item = VisibleMount> {
    let namespace = Arc::new(namespace);
    table.iter().filter(move |mount| mount.device == device).map(move |mount| {
        let children = table.iter().filter(|child| child.parent == mount.id && child.id != mount.id);
        let covered_by = children.clone().find(|child| child.target == mount.target).map(|child| child.device);
        VisibleMount {
            namespace: Arc::clone(&namespace),
            mount: mount.clone(),
            user_namespace: user_namespace(mount),
            children: children.map(|child| child.target.clone()).collect(),
            covered_by,
        }
    })
}

impl VisibleMount {
    /// A copy of what is mounted at `master` since that was replaced, down to this mount's directory, if it is the filesystem
    /// of `new`. The copy is in the same peer group, and made a slave it follows that group.
    fn copy_of(&self, master: &Self, new: &Tree) -> Option<Tree> {
        let path = master.mount.target.join(self.mount.root.strip_prefix(&master.mount.root).ok()?);
        let copy = master.namespace.visit(|| Tree::copy_of(&path)).ok()?.ok()?;
        (copy.device().ok()? == new.device().ok()?).then_some(copy)
    }

    fn pin(&self) -> io::Result<Tree> {
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
        // As a slave of its peer group, or as a member of it.
        let group = other.mount.shared;
        group.is_some() && (self.mount.master == group || self.mount.shared == group)
    }

    /// Puts the filesystem that is mounted at `new` (in the calling thread's mount namespace) in the place of this mount: the
    /// same directory of it, with the same options. `ids` is the mapping of ids that all of the volume has, if it has one. If
    /// this mount follows another that has been replaced already, `master`, it goes on following it.
    pub fn replace_by(
        &self,
        new: &Path,
        ids: Option<BorrowedFd<'_>>,
        master: Option<&Self>,
    ) -> Result<(), ReplaceMountError> {
        self.try_replace(new, ids, master).map_err(|source| ReplaceMountError {
            path: self.mount.target.clone(),
            namespace: self.namespace.to_string(),
            source,
        })
    }

    fn try_replace(
        &self,
        new: &Path,
        ids: Option<BorrowedFd<'_>>,
        master: Option<&Self>,
    ) -> Result<(), ReplaceMountStep> {
        let directory = new.join(self.mount.root.strip_prefix("/").unwrap_or(&self.mount.root));
        let tree = Tree::copy_of(&directory).map_err(ReplaceMountStep::NoDirectory)?;
        let tree = master.and_then(|master| self.copy_of(master, &tree)).unwrap_or(tree);
        if self.mount.maps_ids() {
            let ids = ids.or(self.user_namespace.as_ref().map(AsFd::as_fd));
            ids.map_or(Err(Errno::SRCH.into()), |ids| tree.map_ids(ids)).map_err(ReplaceMountStep::Ids)?;
        }
        let tree = tree.resemble(&self.mount, &directory).map_err(ReplaceMountStep::Options)?;
        self.namespace.visit(|| {
            let old = Target::of_mount(&self.mount)?;
            let kept: Vec<_> = self.children.iter().map(|child| (child, Tree::whole_copy_of(child))).collect();
            tree.replace(old, &self.mount).map_err(ReplaceMountStep::Replace)?;
            for (child, copy) in kept {
                let lost = |source| ReplaceMountStep::Child { path: child.clone(), source };
                copy.and_then(|copy| copy.graft_at(child)).map_err(lost)?;
            }
            Ok(())
        })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::own_mounts::{in_own_mounts, mounted_at, new_tmpfs, own_table};
    use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
    use std::fs;

    /// All mounts of a filesystem in the calling thread's namespace.
    fn mounts_of(device: Device) -> Vec<VisibleMount> {
        in_table(&own_table(), device, MountNamespace::of_this_thread().unwrap(), |_| None).collect()
    }

    /// Puts the filesystem at `new` in the place of all mounts of the one at `old`.
    fn replace_all(old: &str, new: &str) {
        let mut replaced: Vec<VisibleMount> = Vec::new();
        for mount in mounts_of(mounted_at(old).device) {
            let master = replaced.iter().find(|other| mount.follows(other));
            mount.replace_by(Path::new(new), None, master).unwrap();
            replaced.push(mount);
        }
    }

    /// What a pod mounts in a `Bidirectional` volume shows on the node, and it must do so after healing as well.
    #[test]
    fn mounts_that_propagate_to_each_other_still_do() {
        in_own_mounts(|| {
            use MountPropagationFlags as P;
            new_tmpfs("/mnt/volume");
            mount_change("/mnt/volume", P::SHARED).unwrap();
            new_tmpfs("/mnt/pods");
            let pods: [(&str, &[P]); 3] =
                [("bidirectional", &[]), ("slave", &[P::DOWNSTREAM]), ("nested", &[P::DOWNSTREAM, P::SHARED])];
            for (pod, changes) in pods {
                let path = format!("/mnt/pods/{pod}");
                fs::create_dir(&path).unwrap();
                mount_bind("/mnt/volume", &*path).unwrap();
                changes.iter().for_each(|change| mount_change(&*path, *change).unwrap());
            }
            new_tmpfs("/mnt/fresh");
            replace_all("/mnt/volume", "/mnt/fresh");
            let fresh = mounted_at("/mnt/fresh").device;
            let [volume, bidirectional, slave, nested] = ["volume", "pods/bidirectional", "pods/slave", "pods/nested"]
                .map(|path| mounted_at(&format!("/mnt/{path}")));
            for mount in [&volume, &bidirectional, &slave, &nested] {
                assert_eq!(mount.device, fresh, "{mount:?}");
            }
            let group = volume.shared;
            assert!(group.is_some(), "{volume:?}");
            assert_eq!((slave.master, slave.shared), (group, None));
            assert_eq!((nested.master, nested.shared.is_some()), (group, true));
            assert_eq!((bidirectional.master, bidirectional.shared), (None, group));
        });
    }
}
