//! A place on the node where a volume is, or is to be shown.
//!
//! Runs in the mounter, on the thread of an operation; the node's namespace is only ever visited.

use crate::mounter::Mounter;
use crate::node::placeholder;
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

/// How often a swap may come in between.
const TRIES: usize = 5;

/// Opens a place on the node, and makes its directory first if that is wanted.
pub fn open_place(mounter: &Mounter, target: &Path, make: bool) -> Result<Place, PlaceError> {
    let kubelet_dir = &mounter.kubelet_dir;
    let patience = mounter.patience();
    let open = || {
        let (target, made) = match Target::open(target, kubelet_dir, patience) {
            Err(TargetError::Missing) if make => {
                Target::make(target, kubelet_dir, patience).map(|(at, made)| (at, Some(made)))?
            }
            opened => (opened?, None),
        };
        Ok::<_, TargetError>(Place { target, made })
    };
    authorize_place(target, &mounter.own_paths)?;
    for _ in 0..TRIES {
        let (place, elsewhere) = mounter.node.visit_on_this_thread(|| {
            let place = open()?;
            let elsewhere = place.target.path_unless(target, patience);
            Ok::<_, TargetError>((place, elsewhere))
        })??;
        // A link may have led anywhere.
        let done = match elsewhere {
            Ok(None) => Ok(()),
            Ok(Some(path)) => authorize_place(&path, &mounter.own_paths).map_err(PlaceError::from),
            Err(error) => Err(error.into()),
        };
        match done {
            Ok(()) => return Ok(place),
            Err(PlaceError::Target(TargetError::Gone)) => take_away(mounter, place.made),
            Err(error) => {
                take_away(mounter, place.made);
                return Err(error);
            }
        }
    }
    Err(TargetError::Gone.into())
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

/// The node's mounts of placeholders of the volume that was mounted at `volume`.
pub fn placeholders_of(mounter: &Mounter, volume: &Path) -> io::Result<Vec<Mount>> {
    let table = mount_table::parse(&std::fs::read(mounter.host_proc.join("1/mountinfo"))?);
    Ok(table.into_iter().filter(|mount| placeholder::volume_of(mount) == Some(volume)).collect())
}
