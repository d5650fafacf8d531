//! Killing the helper of a volume that is to get a fresh one: it is dead then, and healed like any other.
//!
//! Runs in the mounter, on the thread that decides it. Neither call touches the filesystem.

use crate::mounter::Mounter;
use crate::mounter::volume::{Volume, VolumeId};
use tracing::warn;

/// Kills everything that the helper of volume `id` started.
pub fn kill_helper(mounter: &Mounter, id: VolumeId, volume: &Volume) {
    // First of all the processes that wait are let go, the helper itself perhaps; unless they are to wait for the next one.
    if !mounter.registry.expect_end(id)
        && let Err(error) = mounter.connections.abort(volume.identity)
    {
        warn!("cannot abort the connection of a volume: {error}");
    }
    if let Err(error) = volume.processes.kill() {
        warn!("cannot kill the helper of a volume: {error}");
    }
}
