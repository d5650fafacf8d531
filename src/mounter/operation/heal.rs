//! Healing: what becomes of a volume whose helper has ended.
//!
//! Runs in the mounter, each on a thread of its own: it searches the mount tables of the node's processes, and starts
//! helpers. When is decided by the volume's [state](crate::mounter::volume::state).

use super::kill::kill_helper;
use super::replace::{Cause, ReplaceError, Replaced, has_placeholder, replace};
use super::upgrade::upgrade;
use crate::mounter::Mounter;
use crate::mounter::to_do::Task;
use crate::mounter::volume::keep::keep_new;
use crate::mounter::volume::state::{Effect, Event, State, Where};
use crate::mounter::volume::{Volume, VolumeId};
use crate::node::mount_search::VisibleMounts;
use crate::observe::events;
use crate::observe::metrics::Operation;
use api::exit::chain;
use std::path::Path;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// Does what is to be done about volumes without a helper, or with one of an earlier image.
pub fn carry_out(mounter: &Mounter, task: &Task) {
    match task {
        Task::Search(ids) => search(mounter, ids),
        Task::Heal(id) => heal_dead(mounter, *id),
        Task::Upgrade(id) => upgrade(mounter, *id),
    }
}

/// Finds out which of these volumes' filesystems are still mounted, and what follows from that.
fn search(mounter: &Mounter, ids: &[VolumeId]) {
    let volumes: Vec<_> = ids.iter().filter_map(|id| Some((*id, mounter.registry.volume(*id)?))).collect();
    let filesystems: Vec<_> = volumes.iter().map(|(_, volume)| volume.identity).collect();
    match mounter.search.find_all(&filesystems, &mounter.connections) {
        Ok(found) => {
            volumes.iter().zip(found).for_each(|((id, volume), visible)| take_in(mounter, *id, volume, visible));
        }
        Err(error) => {
            warn!("cannot search the mount tables for volumes whose helpers have ended: {error}");
            mounter.to_do.search_again(ids.iter().copied());
        }
    }
}

/// What was found of a volume without a helper.
fn take_in(mounter: &Mounter, id: VolumeId, volume: &Volume, visible: Option<VisibleMounts>) {
    let _span = volume.span().entered();
    let (found, pin) = match visible {
        // It has ended with its placeholder's process, and is to be had there again.
        None if !volume.plan.host_users
            && !mounter.registry.another_serves(&volume.plan.target, id)
            && has_placeholder(mounter, &volume.plan.target).unwrap_or(true) =>
        {
            (Where::Mounted, None)
        }
        None => (Where::Nowhere, None),
        Some(VisibleMounts { pin: Some(pin), .. }) => (Where::Mounted, Some(pin)),
        Some(_) => (Where::Covered, None),
    };
    if found == Where::Covered {
        warn!("the volume's helper has ended, and its mounts are covered by others");
    }
    let effect = mounter.registry.report_found(id, found, pin);
    if let Some(effect @ (Effect::Heal | Effect::HealLater(_))) = effect {
        let held = mounter.registry.is_held(volume.identity);
        let access = if held { "waits" } else { "answers \"Transport endpoint is not connected\"" };
        error!(event = events::DEAD, "the helper has ended, its mount has not: every access {access}");
        match effect {
            Effect::HealLater(wait) if volume.not_healed().is_none() => heals_later(wait),
            _ => mounter.to_do.heal(id),
        }
    }
}

fn heals_later(wait: Duration) {
    let next_try_seconds = wait.as_secs_f64();
    warn!(event = events::HEAL_LATER, next_try_seconds, "it has not served for long; it is tried again later");
}

/// Heals a dead volume, or sees to it that it is tried again; if that is of any use.
fn heal_dead(mounter: &Mounter, id: VolumeId) {
    let Some(volume) = mounter.registry.volume(id) else { return };
    let _span = volume.span().entered();
    if let Some(why) = volume.not_healed() {
        mounter.registry.report(id, Event::LeftDead);
        return warn!(event = events::NOT_HEALED, "it is not healed: {why}");
    }
    let began = Instant::now();
    let result = replace(mounter, id, Cause::Heal);
    keep_new(mounter);
    mounter.metrics.count(Operation::heal, began, &result);
    match result {
        Ok(Replaced::Shown { places, .. }) => {
            let seconds = began.elapsed().as_secs_f64();
            info!(event = events::HEALED, places, seconds, "healed");
        }
        Ok(Replaced::Gone) | Err(ReplaceError::NoVolume) => {}
        Err(error) => {
            let error = chain(&error);
            match mounter.registry.report(id, Event::HealingFailed) {
                Some(Effect::HealLater(wait)) => {
                    let next_try_seconds = wait.as_secs_f64();
                    error!(event = events::HEAL_FAILED, next_try_seconds, "cannot heal the volume: {error}");
                }
                _ => error!(event = events::HEAL_FAILED, "cannot heal the volume: {error}"),
            }
        }
    }
}

/// A caller wants the volume at `target` healed. `None`: it is neither dead nor does it hang.
pub fn heal_for_caller(mounter: &Mounter, target: &Path) -> Result<Option<Replaced>, ReplaceError> {
    let began = Instant::now();
    let _span = mounter.registry.at(target).and_then(|(id, _)| Some(mounter.registry.volume(id)?.span().entered()));
    let result = heal(mounter, target);
    let seconds = began.elapsed().as_secs_f64();
    match &result {
        Ok(Some(Replaced::Shown { places, .. })) => {
            info!(event = events::HEALED, places, seconds, "healed, as a caller wanted");
        }
        Ok(_) | Err(ReplaceError::NoVolume) => {}
        Err(error) => error!(event = events::HEAL_FAILED, seconds, "cannot heal the volume: {}", chain(error)),
    }
    result
}

fn heal(mounter: &Mounter, target: &Path) -> Result<Option<Replaced>, ReplaceError> {
    let (id, state) = mounter.registry.at(target).ok_or(ReplaceError::NoVolume)?;
    if matches!(state, State::Dead { .. }) {
        return replace(mounter, id, Cause::Heal).map(Some);
    }
    let hung = mounter.hangs.since(id).and_then(|_| mounter.registry.volume(id));
    let Some(volume) = hung else { return Ok(None) };
    if let Some(note) = volume.known.note() {
        return Err(ReplaceError::NotKnown(note));
    }
    // Its helper's end is expected from here on: nobody else is to heal it.
    mounter.registry.report(id, Event::ReplacementBegun);
    kill_helper(mounter, id, &volume);
    let replaced = replace(mounter, id, Cause::Heal);
    if replaced.is_err() {
        mounter.registry.report(id, Event::ReplacementFailed);
    }
    replaced.map(Some)
}
