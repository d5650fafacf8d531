//! What becomes of a volume whose helper has ended: forgotten, if it shows nowhere any more; healed, if it does.
//!
//! Runs in the mounter, each on a thread of its own: it goes through the node's processes, and starts helpers.

use super::Mounter;
use super::replace::{ReplaceError, Replaced, replace};
use super::volume::Volume;
use crate::node::tree::Tree;
use crate::node::visible_mounts::{self, VisibleMounts};
use crate::observe::metrics::What;
use api::exit::chain;
use api::message::Changes;
use tracing::{error, info, info_span, warn};

/// Sees what is left of a volume whose helper is gone.
pub fn settle(mounter: &Mounter, id: u64) {
    let Some(volume) = mounter.registry.volume(id) else { return };
    let _span = info_span!("volume", target = %volume.admitted.target.display()).entered();
    match visible_mounts::find(volume.identity, &mounter.connections, &mounter.host_proc) {
        Ok(None) => mounter.registry.forget_unless_replaced(id),
        Ok(Some(VisibleMounts { pin: Some(pin), .. })) => bury(mounter, id, pin),
        Ok(Some(_)) => warn!("the volume's helper has ended, and its mounts are covered by others"),
        Err(error) => warn!("cannot look for the places where the volume shows: {error}"),
    }
}

/// It is dead, and still shown.
fn bury(mounter: &Mounter, id: u64, hold: Tree) {
    // Only the first time: changes of the mount table bring us here again.
    let Some((wait, true)) = mounter.registry.bury(id, hold) else { return };
    error!("the helper has ended, its mount has not: every access answers \"Transport endpoint is not connected\"");
    let now = wait.is_zero() || mounter.registry.volume(id).is_none_or(|volume| obstacle(mounter, &volume).is_some());
    if now {
        heal(mounter, id);
    } else {
        warn!("it has not served for long; next try in {} s", mounter.registry.retry_later(id).as_secs_f32());
    }
}

/// Heals a dead volume, or sees to it that it is tried again; if that is of any use.
pub fn heal(mounter: &Mounter, id: u64) {
    let Some(volume) = mounter.registry.volume(id) else { return };
    if let Some(obstacle) = obstacle(mounter, &volume) {
        return warn!("it is not healed: {obstacle}");
    }
    let result = replace(mounter, id, Changes::default());
    mounter.metrics.count(What::heal, &result);
    match result {
        Ok(Replaced::Shown { places, .. }) => info!(places, "healed"),
        Ok(Replaced::Gone) | Err(ReplaceError::NoVolume) => {}
        Err(error) => {
            let wait = mounter.registry.retry_later(id);
            error!("cannot heal the volume: {}; next try in {} s", chain(&error), wait.as_secs_f32());
        }
    }
}

/// Why a dead volume is not healed, and what to do then.
pub fn obstacle(mounter: &Mounter, volume: &Volume) -> Option<&'static str> {
    let settings = mounter.config.filesystem(&volume.admitted.request);
    let off = "healing is off: use `hostmount heal`, or unmount it and mount it again";
    volume.lost.note().or((!mounter.config.heal(&settings)).then_some(off))
}
