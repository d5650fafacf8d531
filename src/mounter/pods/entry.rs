//! One volume that a program of a pod serves, as the registry has it.
//!
//! Runs in the mounter. It changes under the registry's lock alone.

use super::PodVolume;
use super::door::Door;
use super::holders::Holder;
use super::ration::Ration;
use crate::mounter::volume::pace::Pace;
use crate::node::connections::Identity;
use crate::node::fuse_device::FuseDevice;
use crate::node::fuse_waiting::Waiting;
use crate::observe;
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};
use tracing::warn;

/// One of them.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) volume: Arc<PodVolume>,
    pub(super) since: SystemTime,
    /// What shows at its places.
    pub(super) filesystem: Identity,
    /// What is being put there.
    pub(super) successor: Option<Identity>,
    /// Earlier ones that may show somewhere still, the latest first.
    pub(super) left: Vec<Identity>,
    pub(super) state: State,
    pub(super) door: Option<Door>,
    /// Its door takes no connection until then, and until one that is served is through.
    pub(super) shut: Option<Instant>,
    pub(super) conversations: Arc<AtomicUsize>,
    /// The filesystem of the program that has asked last. Closed, that one is not waited for any longer.
    pub(super) asked: Option<(Identity, PipeWriter)>,
    /// Held while a filesystem takes the place of another.
    pub(super) turn: Arc<Mutex<()>>,
    /// A program has served it.
    pub(super) had_program: bool,
    /// What its programs said last.
    pub(super) words: Vec<String>,
    /// Kubelet was told so last.
    pub(super) told: Option<Instant>,
    /// How often its connection is attended to.
    pub(super) pace: Pace,
    /// How often its programs may ask.
    pub(super) connects: Ration,
    /// What they can cause to be logged.
    pub(super) log: observe::ration::Ration,
}

/// Who serves it.
#[derive(Debug)]
pub(super) enum State {
    /// A program.
    Served {
        /// Its name.
        program: String,
        /// A copy of its descriptor; none if an earlier mounter's is lost.
        device: Option<FuseDevice>,
        /// The processes that have it.
        holders: Vec<OwnedFd>,
    },
    /// The mounter, as far as it must.
    Waiting {
        /// None: it has ended, and every call fails.
        connection: Option<Waiting>,
        since: Instant,
    },
}

/// What is to serve a filesystem from now on.
#[derive(Debug)]
pub(super) enum Next {
    /// A program, which these processes are.
    Program(Vec<Holder>),
    /// Nobody yet.
    Nobody,
}

impl Entry {
    /// Whether it is this filesystem, or was, or is given it.
    pub(super) fn is(&self, filesystem: Identity) -> bool {
        self.filesystem == filesystem || self.successor == Some(filesystem) || self.left.contains(&filesystem)
    }
}

impl State {
    pub(super) fn served(device: FuseDevice, holders: Vec<Holder>) -> Self {
        let program = holders.first().map(|holder| holder.program.clone()).unwrap_or_default();
        let holders = holders.into_iter().map(|holder| holder.held).collect();
        Self::Served { program, device: Some(device), holders }
    }

    pub(super) fn waiting(connection: io::Result<Waiting>) -> Self {
        // ENODEV: it is mounted nowhere any more.
        let failed = |error: &io::Error| match error.raw_os_error() {
            Some(libc::ENODEV) => {}
            _ => warn!("requests cannot wait for a program: {error}"),
        };
        Self::Waiting { connection: connection.inspect_err(failed).ok(), since: Instant::now() }
    }
}
