//! The mounter sets up its node: hostmount's programs, put where kubelet will run it, before the socket is there.
//!
//! Runs in the mounter's main thread, and on a visit thread in the node's mount namespace.

use crate::node::programs::{Places, ProgramError, Programs};
use crate::observe::events;
use api::exit::chain;
use linux::mount_namespace::{MountNamespace, NamespaceError};
use std::collections::BTreeSet;
use tracing::{error, info};

/// Why the node has no program of ours.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The node cannot be reached.
    #[error(transparent)]
    Node(#[from] NamespaceError),
    /// It cannot be put there.
    #[error(transparent)]
    Put(#[from] ProgramError),
}

/// Puts the programs into `places` on the node, with the types that it shall know to be served. A node that has an
/// earlier version there can go on with it, and its volumes need the mounter: that is logged, and no error.
pub(super) fn install(node: &MountNamespace, places: &Places, types: BTreeSet<String>) -> Result<(), InstallError> {
    if !places.any() {
        return Ok(());
    }
    let programs = Programs::of_this_container(types)?;
    let (installed, filled) = node.visit(|| (places.install(&programs), places.are_filled()))?;
    match installed {
        Ok(installed) => installed
            .iter()
            .for_each(|path| info!(event = events::INSTALLED, path = %path.display(), "installed on the node")),
        Err(error) if filled => {
            error!(event = events::NOT_INSTALLED, "the node keeps the version that it has: {}", chain(&error))
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
