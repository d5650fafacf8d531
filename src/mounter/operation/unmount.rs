//! Taking a volume away from one place, and from no other where it shows.
//!
//! Runs in the mounter, on a thread of the request's own. Once it shows nowhere any more its helper ends by itself, as with any umount.
//! Neither a heal nor a swap hinders it: they expect that places go.

use super::place::{PlaceError, mounts_of};
use crate::mounter::Mounter;
use crate::mounter::target_locks::TargetBusy;
use crate::node::connections::Identity;
use crate::node::placeholder;
use crate::node::target::{self, Target, TargetError};
use crate::observe::events;
use crate::policy::{GrantedTypes, PlanError, authorize_place, normal};
use api::message::Unmounted;
use linux::mount_table::{Device, Mount};
use linux::sys::ask::{self, Patience};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use tracing::{info, warn};

/// How long a filesystem may take to write what it has not written yet. It goes on after that by itself.
const LAST_WRITES: Duration = Duration::from_secs(30);
/// How many mounts on top of each other are taken away.
const DEEPEST: usize = 8;

/// Why a place is not left.
#[derive(Debug, thiserror::Error)]
pub enum UnmountError {
    /// A path that is none.
    #[error(transparent)]
    Path(#[from] PlanError),
    /// A mount at this target is not finished yet.
    #[error(transparent)]
    Busy(#[from] TargetBusy),
    /// The place.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// What is mounted there is not hostmount's business.
    #[error("what is mounted at {0} is no volume of hostmount's; use umount")]
    Foreign(String),
    /// The node's mount table.
    #[error("cannot read the node's mount table")]
    Table(#[source] io::Error),
    /// umount2(2).
    #[error("cannot unmount {0}")]
    Unmount(String, #[source] io::Error),
    /// rmdir(2).
    #[error("the directory {0} cannot be removed")]
    Remove(String, #[source] io::Error),
}

/// Takes what is mounted at `asked` away. That nothing is there is no error.
pub fn unmount(mounter: &Mounter, asked: &str, remove_target: bool) -> Result<Unmounted, UnmountError> {
    let place = normal(asked)?;
    authorize_place(&place, &mounter.own_paths).map_err(PlaceError::from)?;
    let _lock = mounter.places.take(&place)?;
    let mut was_mounted = false;
    for _ in 0..DEEPEST {
        let Some(mounted) = look(mounter, &place)? else { return Ok(Unmounted { was_mounted }) };
        match mounted {
            Some(device) => {
                let filesystem = mounter.connections.identify(device);
                let mounts = mounts_of(mounter, device).map_err(UnmountError::Table)?;
                if !is_ours(mounter, filesystem, &place, &mounts)? {
                    if look(mounter, &place)?.flatten().map(|now| mounter.connections.identify(now)) == Some(filesystem)
                    {
                        return Err(UnmountError::Foreign(asked.to_owned()));
                    }
                    // A swap was quicker: the filesystem that was looked at is no more.
                    continue;
                }
                if mounts.len() == 1 {
                    end_if_hung(mounter, filesystem, &place)?;
                }
                take_away(mounter, &place).map_err(|error| match error {
                    Failed::Place(error) => error.into(),
                    Failed::Kernel(error) => UnmountError::Unmount(asked.to_owned(), error),
                })?;
                was_mounted = true;
                info!(event = events::TAKEN_AWAY, %device, "the volume does not show here any more");
            }
            None if remove_target && place.starts_with(&mounter.kubelet_dir) => {
                match remove(mounter, &place) {
                    Ok(()) => return Ok(Unmounted { was_mounted }),
                    // A heal was quicker: there is a mount again.
                    Err(Failed::Kernel(error)) if error.raw_os_error() == Some(libc::EBUSY) => {}
                    Err(Failed::Kernel(error)) => return Err(UnmountError::Remove(asked.to_owned(), error)),
                    Err(Failed::Place(error)) => return Err(error.into()),
                }
            }
            None => return Ok(Unmounted { was_mounted }),
        }
    }
    Err(UnmountError::Unmount(asked.to_owned(), io::Error::from_raw_os_error(libc::EBUSY)))
}

/// What is mounted at a place, if there is such a place.
fn look(mounter: &Mounter, place: &Path) -> Result<Option<Option<Device>>, PlaceError> {
    let open = || Target::open(place, &mounter.kubelet_dir, mounter.patience()).map(|target| target.mounted);
    match mounter.node.visit(open)? {
        Err(TargetError::Missing) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

/// Whether it is one of hostmount's. The kernel's own are known by the mount table alone; and one that is dead may have been ours before
/// a mounter lost its records, and is of use to nobody.
fn is_ours(mounter: &Mounter, filesystem: Identity, place: &Path, mounts: &[Mount]) -> Result<bool, PlaceError> {
    if mounter.registry.knows(filesystem) || mounter.pods.knows(filesystem) {
        return Ok(true);
    }
    match mounts.iter().rfind(|mount| mount.target == place) {
        // Its process lets go of the volume when it shows nowhere any more.
        Some(mount) if placeholder::volume_of(mount).is_some() => Ok(true),
        Some(mount) if mount.is_fuse() => {
            let dead = answer_of(mounter, place)?.err().and_then(|error| error.raw_os_error());
            Ok([libc::ENOTCONN, libc::ECONNABORTED].map(Some).contains(&dead))
        }
        Some(mount) => Ok(GrantedTypes::is_kernels(&mount.fstype.to_string_lossy())),
        // Not to be seen there any more: it has gone by itself.
        None => Ok(true),
    }
}

/// Ends a filesystem that does not answer, whose last place on the node this is: a process that waits for it would hold it for ever.
fn end_if_hung(mounter: &Mounter, filesystem: Identity, place: &Path) -> Result<(), PlaceError> {
    if filesystem.connection.is_some()
        && (mounter.registry.is_held(filesystem)
            || mounter.placeholders.is_dead(filesystem)
            || answer_of(mounter, place)?.is_err())
        && let Err(error) = mounter.connections.abort(filesystem)
    {
        warn!("cannot abort the connection of a volume that does not answer: {error}");
    }
    Ok(())
}

/// Whether what is mounted at a place answers.
fn answer_of(mounter: &Mounter, place: &Path) -> Result<io::Result<()>, PlaceError> {
    let ask = || {
        let root = Target::open(place, &mounter.kubelet_dir, mounter.patience())?;
        Ok::<_, TargetError>(ask::answers_at(root.as_fd(), mounter.patience()))
    };
    Ok(mounter.node.visit(ask)??)
}

enum Failed {
    Place(PlaceError),
    Kernel(io::Error),
}

/// Has something done to the last name of a place, in the directory that it is in.
fn in_its_directory(
    mounter: &Mounter,
    place: &Path,
    work: impl FnOnce(&target::Directory) -> io::Result<()> + Send,
) -> Result<(), Failed> {
    let patience = mounter.patience();
    let kubelet_dir = &mounter.kubelet_dir;
    let open = move || target::Directory::of(place, kubelet_dir, patience).map(|directory| work(&directory));
    let done = mounter.node.visit(open).map_err(|error| Failed::Place(error.into()))?;
    done.map_err(|error| Failed::Place(error.into()))?.map_err(Failed::Kernel)
}

fn take_away(mounter: &Mounter, place: &Path) -> Result<(), Failed> {
    let patience = Patience { limit: LAST_WRITES, ..mounter.patience() };
    in_its_directory(mounter, place, |directory| match ask::unmount(directory.as_fd(), directory.name(), patience) {
        Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => {
            warn!("the filesystem has not written everything yet, and goes on with it");
            Ok(())
        }
        // Nothing is mounted there any more.
        Err(error) if [libc::EINVAL, libc::ENOENT].map(Some).contains(&error.raw_os_error()) => Ok(()),
        done => done,
    })
}

fn remove(mounter: &Mounter, place: &Path) -> Result<(), Failed> {
    in_its_directory(mounter, place, |directory| match directory.remove() {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        done => done,
    })
}
