//! Killing the helper of a volume that is to get a fresh one: it is dead then, and healed like any other.
//!
//! Runs in the mounter, on the thread that decides it. Neither call touches the filesystem.

use crate::mounter::Mounter;
use crate::mounter::volume::{Volume, VolumeId};
use tracing::warn;

/// Kills everything that the helper of volume `id` started. Requests wait for the next one, if they are to.
pub fn kill_helper(mounter: &Mounter, id: VolumeId, volume: &Volume) {
    if mounter.registry.expect_end(id) {
        kill(volume);
    } else {
        end(mounter, volume);
    }
}

/// The same, but no request waits for the next helper.
pub fn end(mounter: &Mounter, volume: &Volume) {
    // First of all the processes that wait are let go, the helper itself perhaps.
    if let Err(error) = mounter.connections.abort(volume.identity) {
        warn!("cannot abort the connection of a volume: {error}");
    }
    kill(volume);
}

fn kill(volume: &Volume) {
    if let Err(error) = volume.processes.kill() {
        warn!("cannot kill the helper of a volume: {error}");
    }
}
