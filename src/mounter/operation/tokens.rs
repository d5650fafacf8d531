//! Service-account tokens, which kubelet renews while a volume is mounted: it repeats the request with fresh ones.
//!
//! Runs in the mounter, on the thread of such a request, for a volume that is there already. Nothing is mounted or unmounted, and
//! nothing fails: a helper whose files cannot be replaced has the old ones, and the next helper gets the new.

use crate::helper::namespace::{files_directory, replace_files};
use crate::mounter::Mounter;
use crate::mounter::volume::{Known, Volume};
use crate::node::connections::Identity;
use crate::observe::events;
use crate::policy::Plan;
use api::exit::chain;
use api::secret::{Secret, TOKEN};
use std::io;
use tracing::{info, warn};

/// Why a helper keeps its old tokens.
#[derive(Debug, thiserror::Error)]
enum NotRenewed {
    /// The request's secrets do not fit any more.
    #[error(transparent)]
    Secrets(#[from] crate::config::handover::SecretsError),
    /// The helper's mount namespace.
    #[error(transparent)]
    Namespace(#[from] linux::mount_namespace::NamespaceError),
    /// A system call.
    #[error("cannot replace the helper's files")]
    Files(#[from] io::Error),
}

/// Gives the helper of a mounted volume the tokens of a request that has come again.
pub fn renew(mounter: &Mounter, plan: &Plan, filesystem: Identity) {
    if plan.settings.handover.files_of_tokens().next().is_none() {
        return;
    }
    let Some(volume) = mounter.registry.of(filesystem) else { return };
    fn tokens(plan: &Plan) -> impl Iterator<Item = (&String, &Secret)> {
        plan.request.secrets.iter().filter(|(key, _)| key.starts_with(TOKEN))
    }
    if volume.known == Known::All && tokens(&volume.plan).eq(tokens(plan)) {
        return;
    }
    match replace(mounter, plan, &volume) {
        Ok(()) => {
            mounter.registry.renew_secrets(filesystem, &plan.request.secrets);
            info!(event = events::TOKENS_RENEWED, "the helper has fresh service-account tokens");
        }
        Err(error) => warn!(event = events::TOKENS_NOT_RENEWED, "the helper keeps its tokens: {}", chain(&error)),
    }
}

fn replace(mounter: &Mounter, plan: &Plan, volume: &Volume) -> Result<(), NotRenewed> {
    let handover = &plan.settings.handover;
    let filled = handover.hand_over(&plan.request.secrets, &files_directory(&mounter.state))?;
    let with_tokens = |name: &str| handover.files_of_tokens().any(|file| file == name);
    let fresh = filled.files.iter().filter(|(name, _)| with_tokens(name));
    let fresh: Vec<_> = fresh.map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    let home = volume.processes.list()?.into_iter().find_map(|(process, _)| volume.processes.open_namespace(&process));
    // Without a helper there is nothing to replace: the next one gets the fresh ones.
    if let Some(home) = home {
        home.visit(|| replace_files(&mounter.state, &fresh))??;
    }
    Ok(())
}
