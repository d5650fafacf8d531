//! What is done for volumes that programs of pods serve, each on a thread of its own, as it may take long.
//!
//! Runs in the mounter; the main thread starts the threads.

use super::PodVolumeId;
use super::conversation::converse;
use super::door::{Door, remove};
use super::entry::Next;
use super::fresh::Fresh;
use super::holders::{holders, possible_holders};
use super::put::{PutError, When, put};
use crate::mounter::Mounter;
use crate::node::target::Target;
use api::exit::chain;
use linux::sys::ask::answers_at;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use tracing::warn;

/// One piece of it.
#[derive(Debug)]
pub enum Task {
    /// A program has connected.
    Converse(Conversation),
    /// A process that had the filesystem's descriptor has ended: which ones have it now?
    Look(PodVolumeId),
    /// Its connection has ended, so that every call fails: another filesystem is to take its place.
    Revive(PodVolumeId),
    /// Its socket is to be made once more: an earlier mounter's ended with that.
    Open(PodVolumeId),
}

/// A program's connection, counted among those of its volume until it is over.
#[derive(Debug)]
pub struct Conversation {
    pub(super) id: PodVolumeId,
    pub(super) stream: UnixStream,
    all: Arc<AtomicUsize>,
}

impl Conversation {
    pub(super) fn new(id: PodVolumeId, stream: UnixStream, all: Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::AcqRel);
        Self { id, stream, all }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Task {
    /// The same once more, to be tried again if it could not be begun. A program that has connected hears nothing then, and connects
    /// again.
    pub fn repeatable(&self) -> Option<Self> {
        match self {
            Self::Converse(_) => None,
            Self::Look(id) => Some(Self::Look(*id)),
            Self::Revive(id) => Some(Self::Revive(*id)),
            Self::Open(id) => Some(Self::Open(*id)),
        }
    }
}

/// Carries one out.
pub fn carry_out(mounter: &Mounter, task: Task) {
    match task {
        Task::Converse(conversation) => converse(mounter, &conversation),
        Task::Look(id) => look(mounter, id),
        Task::Revive(id) => revive(mounter, id),
        Task::Open(id) => open(mounter, id),
    }
}

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

fn revive(mounter: &Mounter, id: PodVolumeId) {
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
