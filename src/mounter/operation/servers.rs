//! Helpers of which processes are left, and none that serves: sshfs is gone, and the ssh that it started is not. The kernel
//! would have ended their connections; a copy of the descriptor that the mounter [keeps](crate::node::fuse_device) hinders it.
//!
//! Runs in the mounter, on a thread of its own, when a process of a helper's has ended.

use crate::mounter::Mounter;
use crate::mounter::volume::{Volume, VolumeId};
use crate::node::fuse_device::may_serve;
use linux::processes;
use rustix::process::{Signal, pidfd_send_signal};
use std::collections::HashMap;
use std::path::Path;
use tracing::warn;

/// Kills what is left of such helpers: their volumes are dead then, and healed like any other.
pub fn look(mounter: &Mounter) {
    let kept = mounter.registry.kept();
    if kept.is_empty() {
        return;
    }
    let namespaces = match processes::mount_namespaces(Path::new(processes::OWN)) {
        Ok(namespaces) => namespaces,
        Err(error) => return warn!("cannot look for the processes of helpers: {error}"),
    };
    let homes: HashMap<_, _> = namespaces.iter().map(|home| (home.id, home)).collect();
    for (id, volume) in kept {
        // Of one without any process the engine hears by itself.
        let Some(home) = homes.get(&volume.processes.namespace()) else { continue };
        if !home.processes.iter().any(may_serve) {
            let _span = volume.span().entered();
            kill_what_is_left(mounter, id, &volume);
        }
    }
}

fn kill_what_is_left(mounter: &Mounter, id: VolumeId, volume: &Volume) {
    let Ok(left) = volume.processes.list() else { return };
    // Asked after they are held: the number of the namespace of a helper that has ended may be the next one's by now.
    if left.is_empty() || left.iter().any(|(process, _)| may_serve(process)) || !mounter.registry.is_kept_by_helper(id)
    {
        return;
    }
    warn!("the process that served the volume has ended: what is left of its helper is killed");
    mounter.registry.expect_end(id);
    for (_, process) in left {
        // It may have exited by itself by now. What it has started meanwhile is seen when its end is.
        let _ = pidfd_send_signal(process, Signal::KILL);
    }
}
