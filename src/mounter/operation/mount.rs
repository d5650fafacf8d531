//! One volume from request to graft, in a straight line.
//!
//! Runs in the mounter, on a thread of the request's own; the node's namespace is only ever visited.

use super::bring_up::{BringUpError, FreshFilesystem, bring_up};
use crate::mounter::Mounter;
use crate::mounter::connection::Connection;
use crate::mounter::target_locks::TargetBusy;
use crate::mounter::volume::Volume;
use crate::node::target::{MadeDirectory, Target, TargetError};
use crate::node::tree::Tree;
use crate::observe::events;
use crate::policy::{Denied, authorize, authorize_place};
use crate::policy::{Plan, PlanError};
use api::message::{Mount, Mounted};
use api::origin::Origin;
use api::request::Request;
use linux::mount_namespace::NamespaceError;
use std::io;
use tracing::{info, warn};

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
    Target(#[from] TargetError),
    /// As mount(8) says it.
    #[error("{source_name} already mounted on {target}")]
    AlreadyMounted {
        /// What is mounted.
        source_name: String,
        /// Where.
        target: String,
    },
    /// Something else is there, and the caller did not want to cover it.
    #[error("something else is mounted on {target}; unmount it first")]
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
    let plan = admit(mounter, caller.origin(), asked.request)?;
    let _lock = mounter.target_locks.take(&plan.target)?;
    let (target, made) = open_target(mounter, &plan, asked.make_target)?;
    let mounted = match what_is_there(mounter, &plan, &target) {
        There::Nothing => mount_at(mounter, plan, target, caller),
        There::Same if asked.unless_mounted => Ok(already()),
        There::Same => Err(already_mounted(&plan)),
        There::Other if asked.unless_mounted => Err(MountError::Occupied { target: plan.request.target }),
        // On top of it, as with mount(8).
        There::Other => mount_at(mounter, plan, target, caller),
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

/// Understands a request from `origin`, if it may be had.
pub fn admit(mounter: &Mounter, origin: Origin, request: Request) -> Result<Plan, MountError> {
    let plan = Plan::new(&mounter.config, origin, request)?;
    authorize(origin, &plan, &mounter.config)?;
    authorize_place(&plan.target, &mounter.own_paths)?;
    Ok(plan)
}

/// Opens the target on the node, and makes its directory first if that is wanted.
fn open_target(mounter: &Mounter, plan: &Plan, make: bool) -> Result<(Target, Option<MadeDirectory>), MountError> {
    let kubelet_dir = &mounter.config.kubelet_dir;
    let patience = mounter.patience();
    let (target, made, path) = mounter.node.visit(|| {
        let (target, made) = match Target::open(&plan.target, kubelet_dir, patience) {
            Err(TargetError::Missing) if make => {
                Target::make(&plan.target, kubelet_dir, patience).map(|(at, made)| (at, Some(made)))?
            }
            opened => (opened?, None),
        };
        let path = target.path().map_err(TargetError::Open)?;
        Ok::<_, TargetError>((target, made, path))
    })??;
    // A link may have led anywhere.
    match authorize_place(&path, &mounter.own_paths) {
        Ok(()) => Ok((target, made)),
        Err(denied) => {
            take_away(mounter, made);
            Err(denied.into())
        }
    }
}

fn take_away(mounter: &Mounter, made: Option<MadeDirectory>) {
    if let Some(made) = made
        && let Ok(Err(error)) = mounter.node.visit(|| made.remove())
    {
        warn!("cannot remove the target, which was made for the mount: {error}");
    }
}

/// What is at a target already.
enum There {
    Nothing,
    /// A volume with the same type and source.
    Same,
    Other,
}

fn what_is_there(mounter: &Mounter, plan: &Plan, target: &Target) -> There {
    match target.mounted {
        None => There::Nothing,
        Some(device) if mounter.registry.has(mounter.connections.identify(device), &plan.request) => There::Same,
        Some(_) => There::Other,
    }
}

/// Brings the filesystem up and shows it at the target.
fn mount_at(mounter: &Mounter, plan: Plan, target: Target, caller: &Connection) -> Result<Mounted, MountError> {
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
