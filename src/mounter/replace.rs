//! Healing a dead volume and swapping a live one: a fresh helper's filesystem takes the old one's place, wherever the
//! old one shows, on the node and in every running pod.
//!
//! Runs in the mounter, on a thread of its own. It is the movement of mounting, with other places to graft to.

use super::Mounter;
use super::raise::{MountError, Raised, raise};
use super::volume::Volume;
use crate::exit::chain;
use crate::node::connections::Identity;
use crate::node::showings;
use std::io;
use std::path::Path;
use tracing::{info, warn};

/// What came of a replacement.
#[derive(Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The new filesystem shows at so many places; at the others, named with the reason, the old one is left.
    Shown {
        /// How many there are.
        places: usize,
        /// Where it did not work, and why.
        left: Vec<String>,
    },
    /// The old filesystem showed nowhere any more: there is nothing to replace, and the volume is forgotten.
    Gone,
}

/// Why a volume keeps its old helper, or none.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// Unmounted meanwhile.
    #[error("there is no such volume")]
    NoVolume,
    /// There is no record of what was asked for, or not of all.
    #[error(
        "an earlier mounter has mounted it, and how is not known any more (secrets are never recorded, and a record may \
         be lost); unmount it and mount it again"
    )]
    Unknown,
    /// No new helper.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// /proc cannot be read.
    #[error("cannot look for the places where the volume shows")]
    Look(#[source] io::Error),
    /// Not at a single place.
    #[error("the new filesystem could not be shown anywhere: {0}")]
    Nowhere(String),
}

/// Puts a fresh helper in the place of the one of the volume at `target`; `None`: it lives, and only a dead one was to
/// be replaced.
pub fn at(mounter: &Mounter, target: &Path, only_if_dead: bool) -> Result<Option<Replaced>, ReplaceError> {
    let (id, dead) = mounter.registry.at(target).ok_or(ReplaceError::NoVolume)?;
    if only_if_dead && !dead { Ok(None) } else { replace(mounter, id).map(Some) }
}

/// Puts a fresh helper in the place of volume `id`'s.
///
/// Files that are open stay with the old helper, which ends by itself when the last of them is closed.
pub fn replace(mounter: &Mounter, id: u64) -> Result<Replaced, ReplaceError> {
    let volume = mounter.registry.volume(id).ok_or(ReplaceError::NoVolume)?;
    let _turn = mounter.turns.take(&volume.admitted.target).map_err(MountError::from)?;
    // Somebody may have replaced or unmounted it before it was our turn.
    let volume = mounter.registry.volume(id).ok_or(ReplaceError::NoVolume)?;
    if !volume.known {
        return Err(ReplaceError::Unknown);
    }
    let raised = raise(mounter, &volume.admitted, None)?;
    mounter.registry.begin_to_replace(id);
    match show_everywhere(mounter, volume.identity, &raised) {
        Ok(Replaced::Gone) => {
            raised.fall();
            mounter.registry.forget(id);
            Ok(Replaced::Gone)
        }
        Ok(shown) => {
            let next = Volume { identity: raised.identity, family: raised.family(), ..volume.clone() };
            info!(old = %volume.identity.device, new = %next.identity.device, "a fresh helper serves the volume");
            let standing = raised.stand(&mounter.state);
            mounter.registry.succeed(id, next, standing.engine, standing.output);
            Ok(shown)
        }
        Err(error) => {
            raised.fall();
            mounter.registry.give_up_replacing(id);
            Err(error)
        }
    }
}

/// Goes from place to place, and looks again until there is nothing more to be done: what is put in place on the node
/// may show in pods by itself, and a pod may have started meanwhile.
fn show_everywhere(mounter: &Mounter, old: Identity, new: &Raised) -> Result<Replaced, ReplaceError> {
    let mut places = 0;
    let left = loop {
        let before = places;
        let mut left = Vec::new();
        let showings = showings::of(old, &mounter.connections, &mounter.host_proc).map_err(ReplaceError::Look)?;
        for showing in showings.iter().flat_map(|showings| &showings.places) {
            match showing.replace_by(new.path(), new.ids()) {
                Ok(()) => places += 1,
                Err(error) => left.push(chain(&error)),
            }
        }
        if places == before {
            break left;
        }
    };
    for problem in &left {
        warn!("the old filesystem stays: {problem}");
    }
    match (places, left.is_empty()) {
        (0, true) => Ok(Replaced::Gone),
        (0, false) => Err(ReplaceError::Nowhere(left.join("; "))),
        _ => Ok(Replaced::Shown { places, left }),
    }
}
