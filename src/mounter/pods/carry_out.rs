//! Carrying out what is done for volumes that programs of pods serve.
//!
//! Runs in the mounter, each task on a thread of its own, which the main thread starts.

use super::PodVolumeId;
use super::conversation::converse;
use super::door::{Door, remove};
use super::entry::Next;
use super::fresh::Fresh;
use super::look::look;
use super::put::{PutError, When, put};
use super::task::Task;
use crate::mounter::Mounter;
use api::exit::chain;
use tracing::warn;

/// Carries one out.
pub fn carry_out(mounter: &Mounter, task: Task) {
    match task {
        Task::Converse(conversation) => converse(mounter, &conversation),
        Task::Look(id) => look(mounter, id),
        Task::Revive(id) => revive(mounter, id),
        Task::Open(id) => open(mounter, id),
    }
}

/// Gives a volume a filesystem that no program serves yet, if it has none.
pub(super) fn revive(mounter: &Mounter, id: PodVolumeId) {
    let Some(volume) = mounter.pods.volume(id) else { return };
    let _span = volume.span().entered();
    let failed = |error| warn!("calls of the volume fail until a program serves it: {error}");
    match Fresh::waiting(mounter, volume.read_only) {
        Ok(fresh) => match put(mounter, id, fresh, Next::Nobody, When::Dead) {
            Ok(()) | Err(PutError::NoVolume | PutError::NotWanted) => {}
            Err(error) => failed(chain(&error)),
        },
        Err(error) => failed(chain(&error)),
    }
}

fn open(mounter: &Mounter, id: PodVolumeId) {
    let Some(volume) = mounter.pods.volume(id) else { return };
    let _span = volume.span().entered();
    let kubelet_dir = &mounter.kubelet_dir;
    match mounter.node.visit(|| Door::open(&volume, kubelet_dir, mounter.patience())) {
        Ok(Ok(door)) => {
            if let Err(door) = mounter.pods.open(id, door) {
                let _ = mounter.node.visit(|| remove(&volume, Some(door.inode), kubelet_dir, mounter.patience()));
            }
        }
        Ok(Err(error)) => warn!("programs cannot ask for the volume's filesystem: {}", chain(&error)),
        Err(error) => warn!("programs cannot ask for the volume's filesystem: {}", chain(&error)),
    }
}
