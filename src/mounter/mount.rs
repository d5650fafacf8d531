//! One volume from request to graft, in a straight line.
//!
//! Runs in the mounter, on a thread of the request's own; the node's namespace is only ever visited.

use super::Mounter;
use super::caller::Caller;
use super::raise::{MountError, Raised, raise};
use super::volume::Volume;
use crate::node::target::Target;
use crate::node::tree::Tree;
use crate::policy::{Origin, Plan, authorize};
use api::request::Request;
use tracing::info;

/// Mounts a volume on the node. The answer is what the helper said meanwhile.
pub fn mount(mounter: &Mounter, request: Request, caller: &Caller) -> Result<Vec<String>, MountError> {
    let plan = Plan::new(&mounter.config, request)?;
    authorize(Origin::RootSocket, &plan)?;
    let _turn = mounter.turns.take(&plan.target)?;
    let target = mounter.node.visit(|| Target::open(&plan.target, &mounter.config.kubelet_dir))??;
    refuse_double(mounter, &plan, &target)?;
    let raised = raise(mounter, &plan, Some(caller))?;
    if let Err(error) = graft(mounter, &raised, target) {
        raised.fall();
        return Err(error);
    }
    let volume = Volume::new(plan, raised.program.clone(), raised.identity, raised.family());
    let standing = raised.stand(&mounter.state);
    info!(device = %volume.identity.device, "mounted on the node");
    if volume.identity.connection.is_some() {
        mounter.registry.adopt(volume, standing.serving);
    } else {
        info!("the kernel serves it by itself: its helper is through, and the node's mount table alone knows it");
    }
    Ok(standing.words)
}

/// Attaches the filesystem on the node, all of it at once.
fn graft(mounter: &Mounter, raised: &Raised, target: Target) -> Result<(), MountError> {
    let tree = Tree::copy_of(raised.path()).map_err(MountError::Graft)?;
    raised.ids().map_or(Ok(()), |ids| tree.map_ids(ids)).map_err(MountError::NoIdMap)?;
    // The target's descriptor goes with the visit: held any longer, it would keep the node's directory busy.
    mounter.node.visit(move || tree.graft(&target))?.map_err(MountError::Graft)
}

/// The kernel refuses to mount the same filesystem on itself, and mount(8) reports that; as every helper makes a new
/// filesystem, it would not notice here.
fn refuse_double(mounter: &Mounter, plan: &Plan, target: &Target) -> Result<(), MountError> {
    let request = &plan.request;
    match target.mounted {
        Some(device) if mounter.registry.has(mounter.connections.identify(device), request) => {
            Err(MountError::AlreadyMounted { source_name: request.source.clone(), target: request.target.clone() })
        }
        _ => Ok(()),
    }
}
