//! What is to be done for volumes that programs of pods serve, each on a thread of its own, as it may take long: see
//! [`carry_out`](fn@super::carry_out).
//!
//! In the mounter: the main thread starts the threads.

use super::PodVolumeId;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
