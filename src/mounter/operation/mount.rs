//! One volume from request to graft, in a straight line.
//!
//! Runs in the mounter, on a thread of the request's own; the node's namespace is only ever visited.

use super::bring_up::{BringUpError, FreshFilesystem, bring_up};
use super::place::{Place, PlaceError, open_place, take_away};
use crate::mounter::Mounter;
use crate::mounter::connection::Connection;
use crate::mounter::target_locks::TargetBusy;
use crate::mounter::volume::Volume;
use crate::node::target::Target;
use crate::node::tree::Tree;
use crate::observe::events;
use crate::policy::{Denied, authorize, authorize_place};
use crate::policy::{Plan, PlanError};
use api::message::{Mount, Mounted};
use linux::mount_namespace::NamespaceError;
use std::io;
use tracing::info;

/// Why a volume is not on the node. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The request makes no sense.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The request is not to be had from where it came.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Another operation at this target is not finished yet.
    #[error(transparent)]
    Busy(#[from] TargetBusy),
    /// The node's namespace.
    #[error(transparent)]
    Node(#[from] NamespaceError),
    /// The place on the node.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// As mount(8) says it.
    #[error("{source_name} already mounted on {target}")]
    AlreadyMounted {
        /// What is mounted.
        source_name: String,
        /// Where.
        target: String,
    },
    /// Something else is there, and the caller did not want to cover it.
    #[error("something else is mounted on {target}, or the same with other options; unmount it first")]
    Occupied {
        /// Where.
        target: String,
    },
    /// No filesystem that answers.
    #[error(transparent)]
    BringUp(#[from] BringUpError),
    /// The filesystem answered, and shows no owners but its own.
    #[error(
        "this filesystem does not allow X-mount.idmap (FUSE does from Linux 6.12 on, and if the helper asks for it); use the \
         helper's own options for owners, like uid=, gid=, umask=, idmap= or map="
    )]
    NoIdMap(#[source] io::Error),
    /// The filesystem answered, and the kernel did not attach it.
    #[error("cannot attach the filesystem at the target")]
    Graft(#[source] io::Error),
}

/// Mounts a volume on the node, for the process at the other end of `caller`.
pub fn mount(mounter: &Mounter, asked: Mount, caller: &Connection) -> Result<Mounted, MountError> {
    let plan = Plan::new(&mounter.config, asked.request)?;
    authorize(caller.origin(), &plan)?;
    authorize_place(&plan.target, &mounter.own_paths)?;
    let _place = mounter.places.take(&plan.target)?;
    let Place { target, made } = open_place(mounter, &plan.target, asked.make_target)?;
    let mounted = match what_is_there(mounter, &plan, &target) {
        There::Nothing => mount_at(mounter, plan, target, caller),
        There::Same { flags: true } if asked.unless_mounted => Ok(already()),
        There::Same { .. } if !asked.unless_mounted => Err(already_mounted(&plan)),
        There::Other if !asked.unless_mounted => {
            // On top of it, as with mount(8).
            mount_at(mounter, plan, target, caller)
        }
        There::Same { .. } | There::Other => Err(MountError::Occupied { target: plan.request.target }),
    };
    match mounted {
        Err(MountError::AlreadyMounted { .. }) if asked.unless_mounted => Ok(already()),
        Err(error) => {
            take_away(mounter, made);
            Err(error)
        }
        mounted => mounted,
    }
}

/// What is at a target already.
enum There {
    Nothing,
    /// A volume with the same type and source.
    Same {
        /// And with the same flags.
        flags: bool,
    },
    Other,
}

fn what_is_there(mounter: &Mounter, plan: &Plan, target: &Target) -> There {
    let Some(device) = target.mounted else { return There::Nothing };
    let filesystem = mounter.connections.identify(device);
    match mounter.registry.of(filesystem).map(|volume| volume.plan) {
        Some(Plan { request, grant, .. })
            if request.fstype == plan.request.fstype && request.source == plan.request.source =>
        {
            There::Same { flags: grant.flags == plan.grant.flags }
        }
        _ => There::Other,
    }
}

/// Brings the filesystem up and shows it at the target.
fn mount_at(mounter: &Mounter, plan: Plan, target: Target, caller: &Connection) -> Result<Mounted, MountError> {
    let _lock = mounter.target_locks.take(&plan.target)?;
    let fresh = bring_up(mounter, &plan, Some(caller))?;
    // The kernel refuses to mount a filesystem on itself, and mount(8) reports that. One of the kernel's own (NFS) is the
    // same whenever its export is mounted; a helper's is new each time.
    if target.mounted == Some(fresh.identity.device) {
        fresh.discard();
        return Err(already_mounted(&plan));
    }
    if let Err(error) = graft(mounter, &fresh, target) {
        fresh.discard();
        return Err(error);
    }
    let volume = Volume::new(plan, fresh.program.clone(), fresh.identity, fresh.processes());
    let released = fresh.release(&mounter.state);
    info!(event = events::MOUNTED, device = %volume.identity.device, "mounted on the node");
    if volume.identity.connection.is_some() {
        mounter.registry.add(volume, released.serving);
    } else {
        info!(
            event = events::SERVED_BY_KERNEL,
            "the kernel serves it by itself: its helper is finished, and the node's mount table alone knows it"
        );
    }
    Ok(Mounted { output: released.words, already: false })
}

/// Attaches the filesystem on the node, all of it at once.
fn graft(mounter: &Mounter, fresh: &FreshFilesystem, target: Target) -> Result<(), MountError> {
    let tree = fresh.root().and_then(Tree::copy_at).map_err(MountError::Graft)?;
    fresh.ids().map_or(Ok(()), |ids| tree.map_ids(ids)).map_err(MountError::NoIdMap)?;
    // The target's descriptor goes with the visit: held any longer, it would keep the node's directory busy.
    mounter.node.visit(move || tree.graft(&target))?.map_err(MountError::Graft)
}

fn already() -> Mounted {
    Mounted { output: Vec::new(), already: true }
}

fn already_mounted(plan: &Plan) -> MountError {
    MountError::AlreadyMounted { source_name: plan.request.source.clone(), target: plan.request.target.clone() }
}
