//! A place on the node where a volume is, or is to be shown.
//!
//! Runs in the mounter, on the thread of an operation; the node's namespace is only ever visited.

use crate::mounter::Mounter;
use crate::node::target::{MadeDirectory, Target, TargetError};
use crate::policy::{Denied, authorize_place};
use linux::mount_namespace::NamespaceError;
use linux::mount_table::{self, Device, Mount};
use std::io;
use std::path::Path;
use tracing::warn;

/// Why a place is none.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Nothing is mounted there for anybody.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The node's namespace.
    #[error(transparent)]
    Node(#[from] NamespaceError),
    /// The path.
    #[error(transparent)]
    Target(#[from] TargetError),
}

/// A place that was opened.
#[derive(Debug)]
pub struct Place {
    /// Its directory.
    pub target: Target,
    /// The directory, if it was made for this.
    pub made: Option<MadeDirectory>,
}

/// Opens a place on the node, and makes its directory first if that is wanted.
pub fn open_place(mounter: &Mounter, target: &Path, make: bool) -> Result<Place, PlaceError> {
    let kubelet_dir = &mounter.config.kubelet_dir;
    let patience = mounter.patience();
    let (place, path) = mounter.node.visit(|| {
        let (target, made) = match Target::open(target, kubelet_dir, patience) {
            Err(TargetError::Missing) if make => {
                Target::make(target, kubelet_dir, patience).map(|(at, made)| (at, Some(made)))?
            }
            opened => (opened?, None),
        };
        let path = target.path().map_err(TargetError::Open)?;
        Ok::<_, TargetError>((Place { target, made }, path))
    })??;
    // A link may have led anywhere.
    match authorize_place(&path, &mounter.own_paths) {
        Ok(()) => Ok(place),
        Err(denied) => {
            take_away(mounter, place.made);
            Err(denied.into())
        }
    }
}

/// Removes a directory that was made for a mount which was not to be.
pub fn take_away(mounter: &Mounter, made: Option<MadeDirectory>) {
    if let Some(made) = made
        && let Ok(Err(error)) = mounter.node.visit(|| made.remove())
    {
        warn!("cannot remove the target, which was made for the mount: {error}");
    }
}

/// The node's mounts of one filesystem.
pub fn mounts_of(mounter: &Mounter, device: Device) -> io::Result<Vec<Mount>> {
    let table = mount_table::parse(&std::fs::read(mounter.host_proc.join("1/mountinfo"))?);
    Ok(table.into_iter().filter(|mount| mount.device == device).collect())
}
