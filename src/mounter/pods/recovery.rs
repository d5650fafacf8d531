//! Finding the volumes of an earlier mounter again that programs of pods serve.
//!
//! Runs in the mounter, on the main thread, before it takes requests: what may take long becomes a task.

use super::entry::State;
use super::holders::{find_device, holders, possible_holders};
use super::record::Recorded;
use super::registry::New;
use super::task::Task;
use crate::mounter::Mounter;
use crate::node::connections::Identity;
use crate::node::fuse_device::FuseDevice;
use crate::node::placeholder;
use crate::observe::events;
use linux::mount_table::Mount;
use linux::processes::Process;
use std::time::Instant;
use tracing::{info, warn};

/// Takes in every volume that is there.
pub fn recover(mounter: &Mounter) {
    let recorded = mounter.pods.records().read();
    if recorded.is_empty() {
        return;
    }
    let table = Process::first(&mounter.host_proc).mounts().unwrap_or_default();
    for one in &recorded {
        let Recorded { volume, since, .. } = one;
        let _span = volume.span().entered();
        let Some(filesystem) = still_there(mounter, one, &table) else {
            info!(event = events::UNMOUNTED, "unmounted while no mounter ran");
            mounter.pods.records().drop(volume);
            continue;
        };
        let only = recorded.iter().filter(|other| other.volume.pod == volume.pod).count() == 1;
        let state = who_serves(mounter, one, filesystem, only);
        let revive = matches!(state, State::Waiting { .. });
        let device = filesystem.device;
        // An earlier mounter may have ended while it put one in the place of another.
        let others = [Some(one.filesystem), one.successor].into_iter().flatten().filter(|other| other.device != device);
        let left = others.chain(one.left.iter().copied()).collect();
        let new = New { volume: volume.clone(), since: *since, filesystem, left, state, door: None };
        let id = mounter.pods.add(new);
        info!(event = events::ADOPTED, %device, "an earlier mounter's volume is taken in");
        mounter.pods.to_do(Task::Open(id));
        if revive {
            mounter.pods.to_do(Task::Revive(id));
        }
    }
}

/// What shows at the volume's target, if that is the volume still. The kernel numbers connections anew when nobody has had the list of
/// them mounted.
fn still_there(mounter: &Mounter, one: &Recorded, table: &[Mount]) -> Option<Identity> {
    let there = table.iter().rfind(|mount| mount.target == one.volume.target).filter(|mount| mount.is_fuse())?;
    if placeholder::volume_of(there) == Some(&*one.volume.target) {
        // What is behind it shows where it lives. If that is nowhere, it has ended.
        let all: Vec<_> = one.successor.into_iter().chain([one.filesystem]).collect();
        let visible = mounter.search.find_all(&all, &mounter.connections).unwrap_or_default();
        let shown = all.iter().zip(visible).find(|(_, visible)| visible.is_some()).map(|(filesystem, _)| *filesystem);
        return Some(shown.unwrap_or(one.filesystem));
    }
    let known = [Some(one.filesystem), one.successor].into_iter().flatten().any(|known| known.device == there.device);
    known.then(|| mounter.connections.identify(there.device))
}

/// The program that serves it: the earlier mounter's copy of its descriptor is taken once more.
fn who_serves(mounter: &Mounter, one: &Recorded, filesystem: Identity, only: bool) -> State {
    let pod = &one.volume.pod;
    let of = |process: &Process| FuseDevice::of_pods(process, filesystem, only, &mounter.connections);
    let found = find_device(pod, of).and_then(|device| {
        let found = match &device {
            Some(device) => holders(pod, device)?,
            None => possible_holders(pod)?,
        };
        Ok((device, found))
    });
    let (device, found) = found.unwrap_or_else(|error| {
        warn!("cannot look for the volume's program: {error}");
        (None, Vec::new())
    });
    let Some(first) = found.first() else { return State::Waiting { connection: None, since: Instant::now() } };
    let program = first.program.clone();
    State::Served { program, device, holders: found.into_iter().map(|holder| holder.held).collect() }
}
