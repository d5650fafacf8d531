//! One volume from request to graft, in a straight line.
//!
//! Runs in the mounter, on a thread of the request's own. [`Place::prepare`] moves that thread into a mount namespace
//! that it shares with the helper alone; the node's is only ever visited.

use super::Mounter;
use super::caller::Caller;
use super::ready::{NotReady, Watched, until_ready};
use super::registry::{TargetBusy, Volume};
use crate::engine::broker::{Broker, Grant, Progress};
use crate::helper::arguments::arguments;
use crate::helper::find::{self, NoHelper};
use crate::helper::launch::{Helper, LaunchError, launch};
use crate::helper::place::{Place, PlaceError, in_words_of_the_node};
use crate::node::mounts::Device;
use crate::node::namespace::NamespaceError;
use crate::node::target::{Target, TargetError};
use crate::node::tree::Tree;
use crate::policy::{Admitted, Refusal, admit};
use crate::request::Request;
use std::io;
use std::os::fd::AsFd;
use std::time::SystemTime;
use tracing::{info, warn};

/// Why a volume is not on the node. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The request's words.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No program for the type.
    #[error(transparent)]
    NoHelper(#[from] NoHelper),
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
    /// Another request for this target is not through yet.
    #[error(transparent)]
    Busy(#[from] TargetBusy),
    /// The helper's namespace.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The helper does not run.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The helper ran, and no filesystem came of it.
    #[error("{helper} could not mount {source_name}")]
    Helper {
        /// The program.
        helper: String,
        /// What it should have mounted.
        source_name: String,
        /// What happened.
        #[source]
        reason: NotReady,
        /// What it said.
        output: Vec<String>,
        /// What was refused to it.
        objections: Vec<String>,
    },
    /// The filesystem stood, and the kernel did not attach it.
    #[error("cannot attach the filesystem at the target")]
    Graft(#[source] io::Error),
}

/// Mounts a volume on the node. The answer is what the helper said meanwhile.
pub fn mount(mounter: &Mounter, request: Request, caller: &Caller) -> Result<Vec<String>, MountError> {
    let settings = mounter.config.filesystem(&request);
    let admitted = admit(settings.complete(request))?;
    let program = find::helper(&admitted.request.fstype, settings.command.as_ref())?;
    let _turn = mounter.registry.take_turn(&admitted.target)?;
    let target = mounter.node.visit(|| Target::open(&admitted.target, &mounter.config.kubelet_dir))??;
    refuse_double(mounter, &admitted, &target)?;

    // From here on this thread is in the helper's mount namespace.
    let place = Place::prepare(&mounter.state, &admitted.target, &settings.writable)?;
    let arguments = arguments(&program.style, &program.name(), &admitted.request, place.path());
    let mut helper = launch(&mounter.reaper, &program, &arguments, &settings)?;
    let grant = Grant { family: admitted.family, place, flags: admitted.flags, allow_other: admitted.allow_other };
    let mut broker = Broker::new(grant);
    let allowed = mounter.config.ready_timeout(&settings);
    let watched = Watched { caller: caller.as_fd(), stopping: mounter.stopping.as_fd(), allowed };
    match show(mounter, &admitted, watched, target, &mut helper, &mut broker) {
        Ok(device) => {
            let words = in_words_of_the_node(&mounter.state, &helper.output.lines());
            let (listener, output) = helper.release();
            let volume = Volume {
                target: admitted.target,
                fstype: admitted.request.fstype,
                source: admitted.request.source,
                helper: program.name(),
                device,
                since: SystemTime::now(),
            };
            info!(%device, helper = volume.helper, "mounted on the node");
            mounter.registry.adopt(volume, listener, output);
            Ok(words)
        }
        Err(failure) => {
            let objections = broker.objections().to_vec();
            // The filesystem first: a helper that waits for its own filesystem could not end before it.
            drop(broker);
            let output = in_words_of_the_node(&mounter.state, &helper.end().lines());
            mounter.registry.remember_failed(&admitted, program.name(), output.clone());
            Err(match failure {
                Failure::NotReady(reason) => MountError::Helper {
                    helper: program.name(),
                    source_name: admitted.request.source,
                    reason,
                    output,
                    objections,
                },
                Failure::Other(error) => error,
            })
        }
    }
}

/// What went wrong between launch and graft.
enum Failure {
    NotReady(NotReady),
    Other(MountError),
}

/// Waits for the helper, and attaches its filesystem on the node, all of it at once.
fn show(
    mounter: &Mounter,
    admitted: &Admitted,
    watched: Watched<'_>,
    target: Target,
    helper: &mut Helper,
    broker: &mut Broker,
) -> Result<Device, Failure> {
    until_ready(helper, broker, admitted.family, watched).map_err(Failure::NotReady)?;
    let Progress::Mounted(device) = broker.progress() else {
        return Err(Failure::NotReady(NotReady::Withdrawn));
    };
    let graft = |error| Failure::Other(MountError::Graft(error));
    let tree = Tree::copy_of(broker.place().path()).map_err(graft)?;
    // The target's descriptor goes with the visit: held any longer, it would keep the node's directory busy.
    let grafted = mounter.node.visit(move || tree.graft(&target));
    grafted.map_err(|error| Failure::Other(error.into()))?.map_err(graft)?;
    if let Err(error) = broker.let_go() {
        warn!("cannot let go of the helper's own copy; `umount` on the node will not end the helper: {error}");
    }
    Ok(device)
}

/// The kernel refuses to mount the same filesystem on itself, and mount(8) reports that; as every helper makes a new
/// filesystem, it would not notice here.
fn refuse_double(mounter: &Mounter, admitted: &Admitted, target: &Target) -> Result<(), MountError> {
    let request = &admitted.request;
    match target.mounted {
        Some(device) if mounter.registry.has(device, &request.fstype, &request.source) => {
            Err(MountError::AlreadyMounted { source_name: request.source.clone(), target: request.target.clone() })
        }
        _ => Ok(()),
    }
}
