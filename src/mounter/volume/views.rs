//! What callers are shown of volumes: those that are there, and the last ones that were.
//!
//! Runs in the mounter, on the threads of those who ask.

use super::registry::Entry;
use super::{VolumeId, seconds};
use crate::helper::namespace::in_words_of_the_node;
use crate::mounter::Mounter;
use crate::node::connections::Identity;
use api::volume::{Stats, VolumeDetail, VolumeState, VolumeView};
use linux::mount_table::{self, Device};
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

/// All volumes, as the node's mount table shows them just now (read once).
pub fn views(mounter: &Mounter) -> io::Result<Vec<VolumeView>> {
    let on_node = on_node(mounter)?;
    let mut views = mounter.pods.views(mounter);
    let volumes = mounter.registry.locked();
    let current = volumes.by_id.iter().filter(|(_, entry)| entry.state.is_current());
    views.extend(current.map(|(id, entry)| view_now(mounter, *id, entry, &on_node)));
    Ok(views)
}

/// The volume at `target`: the topmost that is there, or else the last one that was or should have been.
pub fn detail(mounter: &Mounter, target: &Path) -> io::Result<Option<VolumeDetail>> {
    if let Some(detail) = mounter.pods.detail(mounter, target) {
        return Ok(Some(detail));
    }
    let on_node = on_node(mounter)?;
    let volumes = mounter.registry.locked();
    let here = |entry: &Entry| entry.state.is_current() && entry.volume.plan.target == target;
    let there = volumes.by_id.iter().rfind(|(_, entry)| here(entry)).map(|(id, entry)| {
        let view = view_now(mounter, *id, entry, &on_node);
        VolumeDetail { view, ended: None, lines: entry.lines() }
    });
    let found = there.or_else(|| volumes.past.at(target).cloned());
    Ok(found.map(|found| VolumeDetail { lines: in_words_of_the_node(&mounter.state, &found.lines), ..found }))
}

/// How the volume is that is this filesystem. Of one that the kernel serves, or that is not known, nothing but that it is there.
pub fn condition(mounter: &Mounter, filesystem: Identity) -> Stats {
    if let Some(stats) = mounter.pods.condition(mounter, filesystem) {
        return stats;
    }
    let volumes = mounter.registry.locked();
    let volume = volumes.by_id.iter().find(|(_, entry)| entry.is(filesystem));
    let view = volume.map(|(id, entry)| {
        // It has been seen where it was asked for.
        let here = HashSet::from([(entry.volume.plan.target.clone(), entry.volume.identity.device)]);
        view_now(mounter, *id, entry, &here)
    });
    let Some(view) = view else {
        let waiting = mounter.connections.waiting(filesystem).ok();
        return Stats { state: VolumeState::Mounted, waiting, hung_since: None, note: None, space: None };
    };
    let VolumeView { state, waiting, hung_since, note, .. } = view;
    Stats { state, waiting, hung_since, note, space: None }
}

/// What is mounted where on the node.
fn on_node(mounter: &Mounter) -> io::Result<HashSet<(PathBuf, Device)>> {
    let table = mount_table::parse(&std::fs::read(mounter.host_proc.join("1/mountinfo"))?);
    Ok(table.into_iter().map(|mount| (mount.target, mount.device)).collect())
}

/// As it is now, by its state, the node's mount table and the kernel's counters.
fn view_now(mounter: &Mounter, id: VolumeId, entry: &Entry, on_node: &HashSet<(PathBuf, Device)>) -> VolumeView {
    let volume = &entry.volume;
    let shows = |one: Identity| on_node.contains(&(volume.plan.target.clone(), one.device));
    // It is there before it is the volume's, and the old one's helper may have ended by then.
    let fresh_shows = entry.successor.is_some_and(shows);
    if !entry.state.has_helper() && !fresh_shows {
        let note = volume.not_healed().map(|why| format!("not healed: {why}"));
        return VolumeView { note, ..volume.view(VolumeState::Dead) };
    }
    let waiting = mounter.connections.waiting(volume.identity).ok();
    if let Some(since) = mounter.hangs.since(id).map(seconds) {
        let note = "no request is answered; `hostmount heal` kills its helper and starts a fresh one".to_owned();
        return VolumeView { waiting, hung_since: Some(since), note: Some(note), ..volume.view(VolumeState::Hung) };
    }
    let state = if fresh_shows || shows(volume.identity) { VolumeState::Mounted } else { VolumeState::Detached };
    VolumeView { waiting, note: volume.note().map(str::to_owned), ..volume.view(state) }
}
