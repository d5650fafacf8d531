//! Which processes have the descriptor that the program of a pod serves its volume by.
//!
//! Runs in the mounter, on a thread of a task or of a program's call.

use super::PodVolumeId;
use super::holders::{holders, possible_holders};
use super::task::Task;
use crate::mounter::Mounter;
use crate::node::target::Target;
use linux::sys::ask::answers_at;
use std::os::fd::AsFd;
use std::sync::PoisonError;
use tracing::warn;

/// Looks which processes have the descriptor of the volume's program. If none has, calls wait for the next one from now on.
///
/// Not while another filesystem takes the places of the program's: it ends by that.
pub(super) fn look(mounter: &Mounter, id: PodVolumeId) {
    let Some(turn) = mounter.pods.turn(id) else { return };
    let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
    look_now(mounter, id);
}

/// The same for who has the volume's turn.
pub(super) fn look_now(mounter: &Mounter, id: PodVolumeId) {
    let Some(volume) = mounter.pods.volume(id) else { return };
    let _span = volume.span().entered();
    let Some((filesystem, device)) = mounter.pods.device(id) else { return };
    if !mounter.connections.has(filesystem) {
        // It was unmounted, and the program has ended for that.
        return;
    }
    let found = match &device {
        Some(device) => holders(&volume.pod, device),
        // Who it is cannot be told, but whether it answers.
        None => possible_holders(&volume.pod).map(|found| if answers(mounter, id) { found } else { Vec::new() }),
    };
    match found {
        Ok(found) if found.is_empty() => mounter.pods.has_ended(id, filesystem),
        Ok(found) => mounter.pods.is_held_by(id, filesystem, found),
        Err(error) => {
            warn!("cannot look for the volume's program: {error}");
            mounter.pods.again(Some(Task::Look(id)));
        }
    }
}

/// Whether anybody serves what is at the volume's target.
fn answers(mounter: &Mounter, id: PodVolumeId) -> bool {
    let Some(volume) = mounter.pods.volume(id) else { return false };
    let ask = || {
        let root = Target::open(&volume.target, &mounter.kubelet_dir, mounter.patience()).ok()?;
        answers_at(root.as_fd(), mounter.patience()).err().and_then(|error| error.raw_os_error())
    };
    // One that hangs has a program.
    let dead = [libc::ENOTCONN, libc::ECONNABORTED].map(Some);
    mounter.node.visit(ask).is_ok_and(|error| !dead.contains(&error))
}
