//! The mounter sets up its node: this program, put where kubelet will run it, before the socket is there.
//!
//! Runs in the mounter's main thread, and on a visit thread in the node's mount namespace.

use crate::exit::chain;
use crate::node::namespace::{MountNamespace, NamespaceError};
use crate::node::programs::{Places, ProgramError, Version};
use std::collections::BTreeSet;
use std::io;
use tracing::{error, info};

/// Why the node has no program of ours.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Of what it would be a copy.
    #[error("cannot read this program")]
    Program(#[source] io::Error),
    /// The node cannot be reached.
    #[error(transparent)]
    Node(#[from] NamespaceError),
    /// It cannot be put there.
    #[error(transparent)]
    Put(#[from] ProgramError),
}

/// Puts this program into `places` on the node, with the types that it shall know to be served. A node that has an
/// earlier version there can go on with it, and its volumes need the mounter: that is logged, and no error.
pub fn install(node: &MountNamespace, places: &Places, types: BTreeSet<String>) -> Result<(), InstallError> {
    if !places.any() {
        return Ok(());
    }
    let version = Version::of_this_program(types).map_err(InstallError::Program)?;
    let (installed, filled) = node.visit(|| (places.install(&version), places.are_filled()))?;
    match installed {
        Ok(installed) => installed.iter().for_each(|path| info!(path = %path.display(), "installed on the node")),
        Err(error) if filled => error!("the node keeps the version that it has: {}", chain(&error)),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}
