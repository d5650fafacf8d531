//! Putting a volume at a place of a pod's that a program of that pod serves; and taking it away.
//!
//! Runs in the mounter, on a thread of the request's own. Kubelet asks for a volume again and again (`requiresRepublish`); then nothing
//! is changed, and now and then it is told that no program serves it, which shows in the pod's events.

use super::door::{self, Door, DoorError};
use super::empty_dir::wait_until_ready;
use super::entry::State;
use super::fresh::{Fresh, FreshError};
use super::registry::{Forgotten, New};
use super::view::Complaint;
use super::{PodVolume, PodVolumeId};
use crate::mounter::Mounter;
use crate::mounter::operation::place::{Place, PlaceError, open_place, take_away};
use crate::mounter::operation::placeholder::{Behind, PlaceholderError, filesystem_at, for_users_of_pods};
use crate::mounter::target_locks::TargetBusy;
use crate::node::fuse_waiting::Waiting;
use crate::node::tree::Tree;
use crate::observe::events;
use crate::policy::{Denied, PlanError, authorize_program, normal};
use api::message::Mounted;
use api::program::ProgramVolume;
use linux::mount_namespace::NamespaceError;
use std::io;
use std::os::fd::AsFd;
use std::path::{Component, Path};
use std::time::SystemTime;
use tracing::{info, warn};

/// Why a volume is not there, or not served.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A path that is none.
    #[error(transparent)]
    Path(#[from] PlanError),
    /// Not kubelet's for a CSI volume of a pod.
    #[error(
        "{0} is no place of a pod's: programs of pods serve volumes at <kubelet>/pods/UID/volumes/kubernetes.io~csi/NAME/mount"
    )]
    NoPod(String),
    /// An attribute.
    #[error("{0}")]
    Name(&'static str),
    /// A rule closes it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Another operation at the target is not finished yet.
    #[error(transparent)]
    Busy(#[from] TargetBusy),
    /// The place.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The node's namespace.
    #[error(transparent)]
    Node(#[from] NamespaceError),
    /// Something else is there.
    #[error("something else is mounted on {0}, or the same with other attributes; unmount it first")]
    Occupied(String),
    /// The emptyDir.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The filesystem.
    #[error(transparent)]
    Fresh(#[from] FreshError),
    /// A pod with a user namespace cannot have it.
    #[error(transparent)]
    Placeholder(#[from] PlaceholderError),
    /// The kernel.
    #[error("cannot show the volume at the target")]
    Graft(#[source] io::Error),
    /// It is there.
    #[error(transparent)]
    NotServed(#[from] Complaint),
}

/// How long a name in the emptyDir may be: the address of a socket is short.
const LONGEST_NAME: usize = 64;

/// Puts the volume at its target, unless it is there.
pub fn publish(mounter: &Mounter, asked: ProgramVolume) -> Result<Mounted, PublishError> {
    let said = asked.target.clone();
    let volume = understood(asked, &mounter.kubelet_dir)?;
    let _lock = mounter.places.take(&volume.target)?;
    let Place { target, made } = open_place(mounter, &volume.target, true)?;
    let there = target.mounted.map(|device| filesystem_at(mounter, &volume.target, device));
    match (mounter.pods.at(&volume.target), there) {
        (Some(id), Some(there)) if mounter.pods.is(id, &volume, there) => {
            mounter.pods.complaint(id, mounter.configuration.get().program_timeout).map_or(Ok(()), Err)?;
            return Ok(Mounted { output: Vec::new(), already: true });
        }
        (_, Some(_)) => return Err(PublishError::Occupied(said)),
        // It was unmounted by others.
        (Some(id), None) => forget(mounter, id),
        (None, None) => {}
    }
    // What is there stays, whatever rules there are now.
    let allowed = authorize_program(&volume.target, &mounter.configuration.get()).map_err(PublishError::from);
    let done = allowed.and_then(|()| publish_at(mounter, &volume, Place { target, made: None }));
    if done.is_err() {
        take_away(mounter, made);
    }
    done.map(|()| Mounted { output: Vec::new(), already: false })
}

fn publish_at(mounter: &Mounter, volume: &PodVolume, place: Place) -> Result<(), PublishError> {
    let kubelet_dir = &mounter.kubelet_dir;
    let door = mounter.node.visit(|| {
        if let Err(error) = wait_until_ready(volume, kubelet_dir, mounter.stopping.as_fd()) {
            // Not every kubelet may say so.
            info!("kubelet has not said that the emptyDir is ready: {error}");
        }
        Door::open(volume, kubelet_dir, mounter.patience())
    })??;
    let socket = Some(door.inode);
    let done = show(mounter, volume, place, door);
    if done.is_err() {
        remove(mounter, &Forgotten { volume: volume.clone().into(), socket });
    }
    done
}

fn show(mounter: &Mounter, volume: &PodVolume, place: Place, door: Door) -> Result<(), PublishError> {
    let fresh = Fresh::waiting(mounter, volume.read_only)?;
    let since = SystemTime::now();
    mounter.pods.records().announce(volume, since, fresh.identity);
    let grafted = Tree::copy_at(fresh.root()).map_err(PublishError::Graft).and_then(|tree| {
        let (at, read_only) = (&volume.target, volume.read_only);
        let tree = if volume.host_users {
            tree
        } else {
            for_users_of_pods(mounter, tree, Behind { volume: at, target: at, read_only })?
        };
        // The target's descriptor goes with the visit: held any longer, it would keep the node's directory busy.
        mounter.node.visit(move || tree.graft(&place.target))?.map_err(PublishError::Graft)
    });
    if let Err(error) = grafted {
        mounter.pods.records().drop(volume);
        fresh.discard();
        return Err(error);
    }
    let filesystem = fresh.identity;
    let state = State::waiting(Waiting::on(fresh.release()));
    let volume = volume.clone();
    mounter.pods.add(New { volume, since, filesystem, left: Vec::new(), state, door: Some(door) });
    info!(event = events::PROGRAM_AWAITED, device = %filesystem.device, "mounted on the node: calls wait for the volume's program");
    Ok(())
}

/// The volume at `target`, if there is one, does not show there any more: it is forgotten, and what was made for it removed.
pub fn unpublished(mounter: &Mounter, target: &Path) {
    if let Some(id) = mounter.pods.at(target) {
        forget(mounter, id);
    }
}

pub(super) fn forget(mounter: &Mounter, id: PodVolumeId) {
    if let Some(forgotten) = mounter.pods.forget(id) {
        let _span = forgotten.volume.span().entered();
        info!(event = events::UNMOUNTED, "unmounted");
        remove(mounter, &forgotten);
    }
}

/// Removes what was made in the pod's emptyDir.
fn remove(mounter: &Mounter, forgotten: &Forgotten) {
    let Forgotten { volume, socket } = forgotten;
    let remove = || door::remove(volume, *socket, &mounter.kubelet_dir, mounter.patience());
    if let Err(error) = mounter.node.visit(remove) {
        warn!("cannot remove the socket from the pod's emptyDir: {}", api::exit::chain(&error));
    }
}

/// What is asked for: whose pod it is, its target tells.
fn understood(asked: ProgramVolume, kubelet_dir: &Path) -> Result<PodVolume, PublishError> {
    let ProgramVolume { target: said, empty_dir, name, read_only, host_users } = asked;
    let target = normal(&said)?;
    let names: Vec<_> =
        target.strip_prefix(kubelet_dir).map_or_else(|_| Vec::new(), |below| below.components().collect());
    let names: Option<Vec<&str>> = names
        .iter()
        .map(|name| match name {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    let pod = match names.as_deref() {
        Some(["pods", uid, "volumes", "kubernetes.io~csi", _, "mount"]) => (*uid).to_owned(),
        _ => return Err(PublishError::NoPod(said)),
    };
    if !is_name(&empty_dir, 253) {
        return Err(PublishError::Name("the attribute 'emptyDir' must be the name of an emptyDir volume of the pod's"));
    }
    if !is_name(&name, LONGEST_NAME) {
        return Err(PublishError::Name(
            "the attribute 'name' must be at most 64 letters, digits, dots, dashes and underscores, and not begin with a dot or a dash",
        ));
    }
    Ok(PodVolume { target, pod, empty_dir, name, read_only, host_users })
}

/// One name of a directory, and nothing that means more to anybody.
fn is_name(name: &str, longest: usize) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= longest && name.chars().all(good) && !name.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "/var/lib/kubelet/pods/u-i-d/volumes/kubernetes.io~csi/v/mount";

    fn of(target: &str, empty_dir: &str, name: &str) -> Result<PodVolume, PublishError> {
        let (target, empty_dir, name) = (target.into(), empty_dir.into(), name.into());
        understood(
            ProgramVolume { target, empty_dir, name, read_only: false, host_users: true },
            Path::new("/var/lib/kubelet"),
        )
    }

    #[test]
    fn whose_pod_it_is_is_told_by_its_place() {
        let volume = of(TARGET, "fuse", "volume").unwrap();
        assert_eq!(volume.pod, "u-i-d");
        let kubelet = Path::new("/var/lib/kubelet");
        let in_pod = |rest: &str| Path::new("/var/lib/kubelet/pods/u-i-d").join(rest);
        assert_eq!(volume.directory(kubelet), in_pod("volumes/kubernetes.io~empty-dir/fuse"));
        assert_eq!(volume.ready_file(kubelet), in_pod("plugins/kubernetes.io~empty-dir/fuse/ready"));
        for target in [
            "/mnt/x",
            "/var/lib/kubelet/plugins/kubernetes.io/csi/d/x/globalmount",
            "/var/lib/kubelet/pods/u/volumes/x/v/mount",
        ] {
            assert!(matches!(of(target, "fuse", "volume"), Err(PublishError::NoPod(_))), "{target}");
        }
    }

    #[test]
    fn names_lead_nowhere() {
        for name in ["", ".", "..", "a/b", "-x", "a b", "a\0", &"x".repeat(300)] {
            assert!(of(TARGET, name, "volume").is_err() && of(TARGET, "fuse", name).is_err(), "{name:?}");
        }
    }
}
