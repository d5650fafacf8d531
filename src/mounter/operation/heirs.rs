//! Starting an heir (`crate::heir`) for the files that are open in a filesystem whose helper is gone.
//!
//! Runs in the mounter, on a thread of its own, which takes off what an heir has no use for. The heir is among the helpers' cgroups:
//! like them it outlives the mounter, and its mount namespace is not searched for volumes.

use super::own_process::{OwnProcessError, start_own};
use crate::heir::CAPABILITIES;
use crate::heir::inherited::Inherited;
use crate::mounter::Mounter;
use crate::mounter::volume::orphan::Orphan;
use crate::node::cgroup::{EndsWithContainer, Resident};
use crate::observe::events;
use api::exit::chain;
use linux::processes::has_ended;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tracing::{info, warn};

/// How many there are at most. The files of others fail, as all of them would without heirs.
const MOST: usize = 64;

/// Those that run.
#[derive(Debug, Default)]
pub struct Heirs(Mutex<Vec<OwnedFd>>);

impl Heirs {
    /// Lets go of those that have ended. To be called when a process has.
    pub fn forget_ended(&self) {
        self.locked().retain(|process| has_ended(process).is_ok_and(|ended| !ended));
    }

    fn locked(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        // Nothing is left half-done by a thread that panics while it holds it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
enum HeirError {
    #[error("{MOST} others are served already")]
    TooMany,
    #[error("no cgroup for it")]
    Cgroup(#[from] EndsWithContainer),
    #[error(transparent)]
    Start(#[from] OwnProcessError),
    #[error("cannot prepare for it")]
    Prepare(#[from] io::Error),
}

/// Starts an heir for a connection. Without one the connection ends: whoever has a file open there gets an error.
pub fn start(mounter: &Mounter, orphan: Orphan) {
    let Orphan { target, device, until, answers, inheritance } = orphan;
    let _span = tracing::info_span!("volume", target = %target.display()).entered();
    let mut running = mounter.heirs.locked();
    let detached = &inheritance.detached;
    let places = detached.iter().map(|mount| (mount.number, mount.root.clone()));
    // An heir has the root.
    let places = places.chain(inheritance.heirs.map(|number| (number, "/".into()))).collect();
    let namespaces = detached.iter().map(|mount| mount.namespace).collect();
    let host_proc = mounter.host_proc.clone();
    let left = until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
    let inherited = Inherited { host_proc, device, mode: inheritance.mode, answers: left, namespaces, places };
    let started = (|| {
        if running.len() >= MOST {
            return Err(HeirError::TooMany);
        }
        let placement = mounter.cgroups.placement(Resident::Helper, &target, None, None)?;
        let connection = answers.connection().try_clone_to_owned()?;
        let given = [connection.as_fd(), inheritance.tree.as_fd()];
        Ok(start_own(mounter, &placement, &CAPABILITIES, inherited.command_line(), given, None)?.process()?)
    })();
    match started {
        Ok(process) => {
            running.push(process);
            mounter.metrics.heirs.inc();
            info!(event = events::HEIR, mode = %inheritance.mode, "files are open in the old filesystem: they are served from the new one");
        }
        Err(error) => {
            warn!(
                event = events::NO_HEIR,
                "files that are open in the old filesystem are not served any more: {}",
                chain(&error)
            );
            answers.end();
        }
    }
}
