//! Unmounting a volume for a caller that cannot do it by itself.
//!
//! Runs in the mounter, on the request's own thread, and on a visit thread on the node. Whoever can unmount does not ask: the
//! mounter then learns of it from the mount table, as it does here.

use crate::mounter::Mounter;
use crate::mounter::target_locks::TargetBusy;
use crate::node::connections::Identity;
use crate::node::target::{Target, TargetError, remove_directory};
use crate::policy::{GrantedTypes, Plan, PlanError};
use api::message::Unmounted;
use linux::mount_namespace::NamespaceError;
use linux::mount_table;
use linux::sys::ask::answers_at;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use tracing::warn;

/// Why a volume is still there.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// The target makes no sense.
    #[error(transparent)]
    Target(#[from] PlanError),
    /// Another operation at this target is not finished yet.
    #[error(transparent)]
    Busy(#[from] TargetBusy),
    /// The node's namespace.
    #[error(transparent)]
    Node(#[from] NamespaceError),
    /// The place on the node.
    #[error(transparent)]
    Place(#[from] TargetError),
    /// It is none that the mounter knows.
    #[error("what is mounted on {target} is no volume of hostmount's; on the node, `umount {target}` unmounts it")]
    Foreign {
        /// Where.
        target: String,
    },
    /// The node's mount table.
    #[error("cannot read the node's mount table")]
    Table(#[source] io::Error),
    /// umount2(2).
    #[error("cannot unmount {target}")]
    Unmount {
        /// Where.
        target: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// unlinkat(2).
    #[error("the volume is unmounted, and its directory {target} cannot be removed")]
    Remove {
        /// Where.
        target: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Unmounts the volume at `target` on the node, if there is one, and removes the directory if that is wanted. What still uses the
/// volume keeps its filesystem: it is detached.
pub fn unmount(mounter: &Mounter, target: &str, remove_target: bool) -> Result<Unmounted, UnmountError> {
    let path = Plan::normal_target(target)?;
    let _lock = mounter.target_locks.take(&path)?;
    let kubelet_dir = &mounter.config.kubelet_dir;
    let open = || match Target::open(&path, kubelet_dir, mounter.patience()) {
        Err(TargetError::Missing) => Ok(None),
        opened => opened.map(Some),
    };
    let mut was_mounted = false;
    let Some(place) = mounter.node.visit(open)?? else { return Ok(Unmounted { was_mounted }) };
    if let Some(device) = place.mounted {
        let filesystem = mounter.connections.identify(device);
        if !is_ours(mounter, &path, filesystem).map_err(UnmountError::Table)? {
            return Err(UnmountError::Foreign { target: target.to_owned() });
        }
        let detached = detach(mounter, place, filesystem)?;
        detached.map_err(|source| UnmountError::Unmount { target: target.to_owned(), source })?;
        was_mounted = true;
    } else {
        drop(place);
    }
    if remove_target {
        let removed = mounter.node.visit(|| remove_directory(&path, kubelet_dir, mounter.patience()))??;
        removed.map_err(|source| UnmountError::Remove { target: target.to_owned(), source })?;
    }
    Ok(Unmounted { was_mounted })
}

/// Whether a filesystem at `target` is a volume's, or one of the kernel's own that a helper may have mounted: those are known
/// by the mount table alone.
fn is_ours(mounter: &Mounter, target: &Path, filesystem: Identity) -> io::Result<bool> {
    if mounter.registry.knows(filesystem) {
        return Ok(true);
    }
    let table = mount_table::parse(&std::fs::read(mounter.host_proc.join("1/mountinfo"))?);
    let there = table.iter().rfind(|mount| mount.target == target && mount.device == filesystem.device);
    Ok(there.is_some_and(|mount| mount.fstype.to_str().is_some_and(GrantedTypes::are_the_kernels)))
}

/// Detaches the mount. With its last mount a filesystem ends, which writes what it still has to: one that does not answer is
/// aborted, as nothing waits for it.
fn detach(mounter: &Mounter, place: Target, filesystem: Identity) -> Result<io::Result<()>, NamespaceError> {
    let abort = || {
        if let Err(error) = mounter.connections.abort(filesystem) {
            warn!("cannot abort the connection of a volume that does not answer: {error}");
        }
    };
    if filesystem.connection.is_some() && answers_at(place.as_fd(), mounter.patience()).is_err() {
        abort();
    }
    thread::scope(|scope| {
        let (done, waits) = mpsc::channel::<()>();
        let limit = mounter.patience().limit;
        scope.spawn(move || {
            if waits.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) && filesystem.connection.is_some() {
                abort();
            }
        });
        let detached = mounter.node.visit(move || place.detach());
        drop(done);
        detached
    })
}
