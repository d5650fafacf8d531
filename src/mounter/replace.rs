//! Healing a dead volume and swapping a live one: a fresh helper's filesystem takes the old one's place, wherever the
//! old one shows, on the node and in every running pod.
//!
//! Runs in the mounter, on a thread of its own. It is the movement of mounting, with other places to graft to.

use super::raise::{MountError, Raised, raise};
use super::volume::{Lost, Volume};
use super::{Mounter, hang};
use crate::node::connections::Identity;
use crate::node::visible_mounts::{self, VisibleMount, VisibleMounts};
use crate::policy::{Admitted, admit};
use api::exit::chain;
use api::message::Changes;
use api::request::Request;
use std::io;
use std::path::Path;
use tracing::{info, warn};

/// What came of a replacement.
#[derive(Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The new filesystem shows at so many places. At others, named with the reason, the old one is left, or a mount that was
    /// inside the old one is lost.
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
    /// A fresh helper could not be told what the old one was.
    #[error("{0}")]
    Unknown(&'static str),
    /// They belong to each place where the volume shows, and those are left as they are.
    #[error(
        "the new options change mount flags (ro, noexec, noatime and their like) or X-mount.idmap, which a swap leaves as they are: use \
         mount -o remount, or unmount the volume and mount it again"
    )]
    Flags,
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

/// Puts a fresh helper in the place of the one of the volume at `target`.
pub fn swap(mounter: &Mounter, target: &Path, changes: Changes) -> Result<Replaced, ReplaceError> {
    let (id, _) = mounter.registry.at(target).ok_or(ReplaceError::NoVolume)?;
    replace(mounter, id, changes)
}

/// The same if it is dead or hangs; `None`: it does not.
pub fn heal(mounter: &Mounter, target: &Path) -> Result<Option<Replaced>, ReplaceError> {
    let (id, dead) = mounter.registry.at(target).ok_or(ReplaceError::NoVolume)?;
    if dead {
        return replace(mounter, id, Changes::default()).map(Some);
    }
    let hangs = mounter.hangs.since(id).and_then(|_| mounter.registry.volume(id));
    let Some(volume) = hangs else { return Ok(None) };
    if let Some(note) = volume.lost.note() {
        return Err(ReplaceError::Unknown(note));
    }
    // Nobody else is to heal it meanwhile.
    mounter.registry.begin_to_replace(id);
    hang::end_helper(mounter, &volume);
    let replaced = replace(mounter, id, Changes::default());
    if replaced.is_err() {
        mounter.registry.give_up_replacing(id);
    }
    replaced.map(Some)
}

/// Puts a fresh helper in the place of volume `id`'s.
///
/// Files that are open stay with the old helper, which ends by itself when the last of them is closed.
pub fn replace(mounter: &Mounter, id: u64, changes: Changes) -> Result<Replaced, ReplaceError> {
    let volume = mounter.registry.volume(id).ok_or(ReplaceError::NoVolume)?;
    let _turn = mounter.turns.take(&volume.admitted.target).map_err(MountError::from)?;
    // Somebody may have replaced or unmounted it before it was our turn.
    let volume = mounter.registry.volume(id).ok_or(ReplaceError::NoVolume)?;
    let admitted = changed(mounter, &volume, changes)?;
    let raised = raise(mounter, &admitted, None)?;
    mounter.registry.begin_to_replace(id);
    match show_everywhere(mounter, volume.identity, &raised) {
        Ok(Replaced::Gone) => {
            raised.fall();
            mounter.registry.forget(id);
            Ok(Replaced::Gone)
        }
        Ok(shown) => {
            let (helper, identity, family) = (raised.program.clone(), raised.identity, raised.family());
            let next = Volume { admitted, helper, identity, family, since: volume.since, lost: Lost::Nothing };
            info!(old = %volume.identity.device, new = %next.identity.device, "a fresh helper serves the volume");
            let standing = raised.stand(&mounter.state);
            mounter.registry.succeed(id, next, standing.serving);
            Ok(shown)
        }
        Err(error) => {
            raised.fall();
            mounter.registry.give_up_replacing(id);
            Err(error)
        }
    }
}

/// What is asked of the fresh helper.
fn changed(mounter: &Mounter, volume: &Volume, changes: Changes) -> Result<Admitted, ReplaceError> {
    let given_anew = volume.lost == Lost::Secrets && !changes.secrets.is_empty();
    if let Some(note) = volume.lost.note().filter(|_| !given_anew) {
        return Err(ReplaceError::Unknown(note));
    }
    let mut request = volume.admitted.request.clone();
    request.secrets.extend(changes.secrets);
    if let Some(options) = changes.options {
        let settings = mounter.config.filesystem(&request);
        request = settings.complete(Request { options, ..request });
    }
    let admitted = admit(request).map_err(MountError::from)?;
    let same = |a: &Admitted, b: &Admitted| a.flags == b.flags && a.idmap == b.idmap;
    if same(&admitted, &volume.admitted) { Ok(admitted) } else { Err(ReplaceError::Flags) }
}

/// Goes from place to place, and looks again until there is nothing more to be done: what is put in place on the node
/// may show in pods by itself, and a pod may have started meanwhile.
fn show_everywhere(mounter: &Mounter, old: Identity, new: &Raised) -> Result<Replaced, ReplaceError> {
    let mut shown: Vec<VisibleMount> = Vec::new();
    let mut lost = Vec::new();
    let left = loop {
        let before = shown.len();
        let mut left = Vec::new();
        let visible =
            visible_mounts::find(old, &mounter.connections, &mounter.host_proc).map_err(ReplaceError::Look)?;
        let Some(VisibleMounts { mut mounts, pin: _pin }) = visible else { break left };
        mounts.retain(|mount| !mount.is_covered_by(new.identity));
        mounts.iter_mut().for_each(|mount| mount.copy_inner_mounts(new.path()));
        for mut mount in mounts {
            let master = shown.iter().find(|place| mount.follows(place));
            match mount.replace_by(new.path(), new.ids(), master) {
                Ok(inner) => {
                    lost.extend(inner.iter().map(|inner| chain(inner)));
                    shown.push(mount);
                }
                Err(error) => left.push(chain(&error)),
            }
        }
        if shown.len() == before {
            break left;
        }
    };
    let places = shown.len();
    for problem in &left {
        warn!("the old filesystem stays: {problem}");
    }
    for problem in &lost {
        warn!("{problem}");
    }
    match (places, left.is_empty()) {
        (0, true) => Ok(Replaced::Gone),
        (0, false) => Err(ReplaceError::Nowhere(left.join("; "))),
        _ => Ok(Replaced::Shown { places, left: left.into_iter().chain(lost).collect() }),
    }
}
