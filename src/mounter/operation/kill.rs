//! Killing the helper of a volume that hangs: it is dead then, and healed like any other.
//!
//! Runs in the mounter, on the thread that decides it. Neither call touches the filesystem.

use crate::mounter::Mounter;
use crate::mounter::volume::Volume;
use tracing::warn;

/// Kills everything that the volume's helper started.
pub fn kill_helper(mounter: &Mounter, volume: &Volume) {
    // First of all the processes that wait are let go, the helper itself perhaps.
    if let Err(error) = mounter.connections.abort(volume.identity) {
        warn!("cannot abort the connection of a volume that hangs: {error}");
    }
    if let Err(error) = volume.processes.kill() {
        warn!("cannot kill the helper of a volume that hangs: {error}");
    }
}
