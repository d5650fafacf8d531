//! Showing a mounted volume at another place as well, as `mount --bind` does.
//!
//! Runs in the mounter, on a thread of the request's own. The other place is a mount of the same filesystem: healing and swapping
//! find it as they find every mount of it, and the helper serves until the last of them is gone.

use super::place::{PlaceError, mounts_of, open_place, placeholders_of, take_away};
use super::placeholder::{Behind, PlaceholderError, for_users_of_pods, volume_behind};
use crate::mounter::Mounter;
use crate::mounter::target_locks::TargetBusy;
use crate::node::target::{Target, TargetError};
use crate::node::tree::{self, Tree};
use crate::observe::events;
use crate::policy::{GrantedTypes, PlanError, authorize_place, normal};
use api::message::{Bind, Mounted};
use linux::mount_table::{Device, Mount};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use tracing::{info, warn};

/// How often a fresh helper may come in between.
const TRIES: usize = 5;

/// Why a volume does not show at the other place. Nothing is left there then.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A path that is none.
    #[error(transparent)]
    Path(#[from] PlanError),
    /// Another operation at the target is not finished yet.
    #[error(transparent)]
    Busy(#[from] TargetBusy),
    /// The volume is given a fresh helper just now.
    #[error("the volume at {source_place} is given a fresh helper just now; try again", source_place = .0.display())]
    Replaced(PathBuf),
    /// One of the two places.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// There is nothing to show.
    #[error("no volume is mounted at {0}")]
    NotMounted(String),
    /// What is mounted there is not hostmount's business.
    #[error("what is mounted at {0} is no volume of hostmount's")]
    Foreign(String),
    /// Something else is there.
    #[error("something else is mounted on {0}; unmount it first")]
    Occupied(String),
    /// It is there, but not as it is asked for.
    #[error("the volume shows at {0} already, {now}; unmount it there first", now = if *.1 { "and read-only" } else { "and not read-only" })]
    Otherwise(String, bool),
    /// It was to be alone.
    #[error("the volume is to be used at one place alone, and shows at {0} already")]
    InUse(String),
    /// The node's mount table.
    #[error("cannot read the node's mount table")]
    Table(#[source] io::Error),
    /// Pods with a user namespace cannot have it.
    #[error(transparent)]
    Placeholder(#[from] PlaceholderError),
    /// The kernel.
    #[error("cannot show the volume at the target")]
    Graft(#[source] io::Error),
}

/// Shows what is mounted at `source` at `target` as well.
pub fn bind(mounter: &Mounter, asked: &Bind) -> Result<Mounted, BindError> {
    let (source, target) = (normal(&asked.source)?, normal(&asked.target)?);
    authorize_place(&target, &mounter.own_paths).map_err(PlaceError::from)?;
    if source == target {
        return Err(BindError::Occupied(asked.target.clone()));
    }
    let _target_lock = mounter.places.take(&target)?;
    // Two that are to be alone would not see each other.
    let _source_lock = asked.alone.then(|| mounter.places.take(&source)).transpose()?;
    for tries in 0..TRIES {
        let place = open_place(mounter, &target, asked.make_target)?;
        let mounted_there = place.target.mounted;
        let made = place.made;
        let done = match mounted_there {
            Some(there) => is_shown(mounter, asked, &source, there).map(|()| Some(true)),
            None => show(mounter, asked, &source, place.target).map(|shown| shown.then_some(false)),
        };
        match done {
            Ok(Some(already)) => return Ok(Mounted { output: Vec::new(), already }),
            // The source is another filesystem by now.
            Ok(None) => take_away(mounter, made),
            // As it may have been when the target was looked at.
            Err(BindError::Occupied(_)) if tries == 0 => take_away(mounter, made),
            Err(error) => {
                take_away(mounter, made);
                return Err(error);
            }
        }
    }
    Err(BindError::Replaced(source))
}

/// Whether the filesystem that is mounted at the target already is what is to be shown there.
fn is_shown(mounter: &Mounter, asked: &Bind, source: &Path, there: Device) -> Result<(), BindError> {
    let wanted = device_at(mounter, source)?.ok_or_else(|| BindError::NotMounted(asked.source.clone()))?;
    let [here, wanted_there] = [there, wanted].map(|device| mounter.connections.identify(device));
    let mounts = mounts_of(mounter, there).map_err(BindError::Table)?;
    let target = Path::new(&asked.target).components().collect::<PathBuf>();
    let is_it = there == wanted
        || volume_behind(&mounts, &target) == Some(source)
        || mounter.registry.are_one_volumes(here, wanted_there);
    if !is_it {
        return Err(BindError::Occupied(asked.target.clone()));
    }
    match mounts.iter().rfind(|mount| mount.target == target) {
        Some(mount) if is_read_only(mount) != asked.read_only && !source_is_read_only(&mounts, source) => {
            Err(BindError::Otherwise(asked.target.clone(), is_read_only(mount)))
        }
        _ => Ok(()),
    }
}

/// A volume that is read-only itself shows so everywhere.
fn source_is_read_only(mounts: &[Mount], source: &Path) -> bool {
    mounts.iter().rfind(|mount| mount.target == source).is_some_and(is_read_only)
}

fn is_read_only(mount: &Mount) -> bool {
    mount.options.split(',').any(|word| word == "ro")
}

fn device_at(mounter: &Mounter, place: &Path) -> Result<Option<Device>, BindError> {
    let open = || Target::open(place, &mounter.kubelet_dir, mounter.patience()).map(|target| target.mounted);
    match mounter.node.visit(open).map_err(PlaceError::from)? {
        Err(TargetError::Missing) => Ok(None),
        opened => Ok(opened.map_err(PlaceError::from)?),
    }
}

/// Shows the source at the target, where nothing is mounted. `false`: the source has become another filesystem meanwhile, and
/// nothing shows.
fn show(mounter: &Mounter, asked: &Bind, source: &Path, target: Target) -> Result<bool, BindError> {
    let not_mounted = || BindError::NotMounted(asked.source.clone());
    let kubelet_dir = &mounter.kubelet_dir;
    let patience = mounter.patience();
    let copied = mounter.node.visit(|| {
        let source = Target::open(source, kubelet_dir, patience)?;
        let Some(device) = source.mounted else { return Ok(None) };
        Ok::<_, TargetError>(Some((device, Tree::copy_at(source.as_fd()).map_err(TargetError::Open)?)))
    });
    let (device, tree) = match copied.map_err(PlaceError::from)? {
        Err(TargetError::Missing) | Ok(None) => return Err(not_mounted()),
        copied => copied.map_err(PlaceError::from)?.ok_or_else(not_mounted)?,
    };
    let mounts = mounts_of(mounter, device).map_err(BindError::Table)?;
    let Some(here) = mounts.iter().rfind(|mount| mount.target == source) else {
        // A fresh helper, or an unmount, was quicker.
        return device_at(mounter, source)?.map(|_| false).ok_or_else(not_mounted);
    };
    // A volume that is being mounted is known a moment after it is there. Asked before: it is known before this ends.
    let mounting = !asked.alone && mounter.places.is_taken(source);
    if !is_ours(mounter, here) {
        return Err(if mounting { TargetBusy.into() } else { BindError::Foreign(asked.source.clone()) });
    }
    if asked.alone
        && let Some(other) = mounts.iter().find(|mount| mount.target != source)
    {
        return Err(BindError::InUse(other.target.display().to_string()));
    }
    if asked.alone
        && let Some(other) = placeholders_of(mounter, source).map_err(BindError::Table)?.first()
    {
        return Err(BindError::InUse(other.target.display().to_string()));
    }
    // Before 5.12 only what is attached can be changed.
    let later = match asked.read_only.then(|| tree.make_read_only()).transpose() {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => true,
        done => {
            done.map_err(BindError::Graft)?;
            false
        }
    };
    let read_only = asked.read_only || is_read_only(here);
    let path = normal(&asked.target)?;
    let volume = mounter.registry.of(mounter.connections.identify(device));
    let tree = if volume.is_some_and(|volume| !volume.plan.host_users) {
        for_users_of_pods(mounter, tree, Behind { volume: source, target: &path, read_only })?
    } else {
        tree
    };
    let shown = tree.device().map_err(BindError::Graft)?;
    mounter.node.visit(move || tree.graft(&target)).map_err(PlaceError::from)?.map_err(BindError::Graft)?;
    let target = path;
    if later && let Err(error) = on_mount(mounter, &target, |root| tree::remount_read_only(root.as_fd(), here)) {
        let _ = on_mount(mounter, &target, Target::detach);
        return Err(error);
    }
    if device_at(mounter, source)? == Some(device) && device_at(mounter, &target)? == Some(shown) {
        info!(event = events::SHOWN, source = %source.display(), read_only = asked.read_only, "the volume shows here as well");
        return Ok(true);
    }
    // A fresh helper, or an unmount, was quicker.
    if let Err(error) = on_mount(mounter, &target, Target::detach) {
        warn!("cannot take the volume away again: {}", api::exit::chain(&error));
    }
    Ok(false)
}

/// Does something with the root of what is mounted at a place.
fn on_mount(
    mounter: &Mounter,
    place: &Path,
    work: impl FnOnce(&Target) -> io::Result<()> + Send,
) -> Result<(), BindError> {
    let kubelet_dir = &mounter.kubelet_dir;
    let patience = mounter.patience();
    let open = move || match Target::open(place, kubelet_dir, patience)? {
        root if root.mounted.is_some() => Ok::<_, TargetError>(work(&root)),
        _ => Ok(Ok(())),
    };
    let done = mounter.node.visit(open).map_err(PlaceError::from)?.map_err(PlaceError::from)?;
    done.map_err(BindError::Graft)
}

/// Whether a mount is a volume's: one that the mounter knows, or that the kernel serves by itself.
fn is_ours(mounter: &Mounter, mount: &Mount) -> bool {
    let filesystem = mounter.connections.identify(mount.device);
    mounter.registry.knows(filesystem)
        || mounter.pods.knows(filesystem)
        || GrantedTypes::is_kernels(&mount.fstype.to_string_lossy())
}
