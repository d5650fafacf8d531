//! A fresh filesystem takes the place of a volume's, wherever that shows, on the node and in its pod: the movement of a heal.
//!
//! Runs in the mounter, on the thread that the fresh one was mounted on.

use super::PodVolumeId;
use super::entry::Next;
use super::fresh::Fresh;
use super::look::look_now;
use crate::mounter::Mounter;
use crate::mounter::operation::replace::{Places, ReplaceError, Replaced, Replacement, show_everywhere};
use crate::mounter::placeholders::renew_all_of;
use crate::node::tree::Tree;
use crate::observe::events;
use std::sync::PoisonError;
use tracing::{info, warn};

/// Why the volume keeps the filesystem that it has. The fresh one has ended then.
#[derive(Debug, thiserror::Error)]
pub(super) enum PutError {
    /// It was unmounted meanwhile.
    #[error("the volume was unmounted")]
    NoVolume,
    /// Another was quicker.
    #[error("another filesystem has taken the volume's places since")]
    NotWanted,
    /// At no single place.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
}

/// On which condition a fresh filesystem is still wanted when it is its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// A program serves the volume, by this connection if one is named.
    ServedBy(Option<u64>),
    /// The connection of the one before has ended, so that every call fails.
    Dead,
    /// The program that has asked for it is the last that did.
    AskedLast,
}

/// Puts `fresh` in the places of the volume's filesystem, and of those before it that show somewhere still.
pub(super) fn put(mounter: &Mounter, id: PodVolumeId, fresh: Fresh, next: Next, when: When) -> Result<(), PutError> {
    let Some(turn) = mounter.pods.turn(id) else { return Err(discard(fresh, PutError::NoVolume)) };
    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = match when {
        When::ServedBy(connection) => mounter.pods.is_served_by(id, connection),
        When::Dead => mounter.pods.is_dead(id),
        When::AskedLast => mounter.pods.has_asked_last(id, fresh.identity),
    };
    if !wanted {
        return Err(discard(fresh, PutError::NotWanted));
    }
    // The program before may have ended just now: then what waits for it is to look again.
    look_now(mounter, id);
    let Some((before, nobody_serves)) = mounter.pods.expect(id, fresh.identity) else {
        return Err(discard(fresh, PutError::NoVolume));
    };
    let has_program = matches!(next, Next::Program(_));
    let new = Replacement {
        root: fresh.root(),
        identity: fresh.identity,
        ids: None,
        // There is nothing in it yet that is shown, or mounted on, elsewhere: those places keep what they have for now.
        empty: !has_program,
        at: Places::All,
    };
    let (mut places, mut failed) = (0, None);
    for (at, old) in before.iter().enumerate() {
        match show_everywhere(mounter, *old, nobody_serves || at > 0, new) {
            Ok((Replaced::Gone, _)) => {}
            Ok((Replaced::Shown { places: shown, .. }, _)) => places += shown,
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if places == 0
        && let Some(volume) = mounter.pods.volume(id).filter(|volume| !volume.host_users)
    {
        // It showed by a placeholder alone, and has ended with the process of that.
        places = renew_all_of(mounter, &volume.target, || Tree::copy_at(fresh.root()));
    }
    if places == 0 {
        mounter.pods.do_not_expect(id);
        return Err(discard(fresh, failed.map_or(PutError::NoVolume, PutError::Replace)));
    }
    let identity = fresh.identity;
    // Those too that nothing was found of, as long as they are there: a container that was just being started may show one.
    let left = before.into_iter().filter(|old| mounter.connections.has(*old)).collect();
    if let Err(device) = mounter.pods.take_over(id, identity, fresh.release(), next, left) {
        device.end();
        return Err(PutError::NoVolume);
    }
    if let Some(error) = failed {
        warn!("an earlier filesystem of the volume's shows somewhere still: {}", api::exit::chain(&error));
    }
    if has_program {
        info!(event = events::PROGRAM_SERVES, places, device = %identity.device, "a program serves the volume");
    } else {
        info!(event = events::PROGRAM_AWAITED, places, device = %identity.device, "calls wait for the volume's program");
    }
    Ok(())
}

fn discard(fresh: Fresh, error: PutError) -> PutError {
    fresh.discard();
    error
}
