//! Keeping a copy of the descriptor that a helper serves by, so that its connection outlasts it.
//!
//! Runs in the mounter, on the thread that has brought the helper up, when the caller has its answer: nobody waits for it. Not
//! before the filesystem is on the node either: while it is coming up, the helper's end must be the connection's.

use crate::mounter::Mounter;
use crate::mounter::volume::VolumeId;
use crate::node::fuse_device::FuseDevice;
use linux::processes::Process;

/// Keeps those of all helpers that have been brought up and whose connections are to be held.
pub fn keep_new(mounter: &Mounter) {
    let unkept = mounter.registry.take_unkept();
    for (id, volume, processes) in unkept.into_iter().filter(|_| mounter.can_hold) {
        // Without a cgroup of the helper's own all processes are gone through.
        let all = || volume.processes.list().into_iter().flatten().map(|(process, _)| process).collect();
        keep(mounter, id, processes.unwrap_or_else(all));
    }
}

/// Keeps that of volume `id`, if one of these processes is its helper's and has it.
pub fn keep(mounter: &Mounter, id: VolumeId, processes: impl IntoIterator<Item = Process>) {
    let Some(volume) = mounter.registry.volume(id).filter(|volume| volume.hold_time().is_some()) else { return };
    let home = volume.processes.namespace();
    if let Some(device) = FuseDevice::of(processes, home, volume.identity, &mounter.connections) {
        mounter.registry.keep(id, device);
    }
}
