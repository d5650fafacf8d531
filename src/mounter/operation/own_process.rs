//! Starting a process of the mounter's own program that outlives it: an heir (`crate::heir`), a placeholder's (`crate::placeholder`).
//!
//! Runs in the mounter, on a thread that nothing else is done on afterwards: it takes off what the process has no use for. The process is
//! among the helpers' cgroups: like them it outlives the mounter.

use crate::helper::confine::{ConfineError, confine_this_thread};
use crate::helper::reaper::Ending;
use crate::mounter::Mounter;
use crate::node::cgroup::Placement;
use caps::Capability;
use linux::sys::spawn::{Program, SpawnError};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum OwnProcessError {
    /// Its privileges.
    #[error(transparent)]
    Confine(#[from] ConfineError),
    /// The process.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
}

/// Starts it with these arguments, its name among them, these capabilities and no other, and these two descriptors as its standard input and
/// output. What it says goes to `words`, if to anybody.
pub(super) fn start_own(
    mounter: &Mounter,
    placement: &Placement<'_>,
    capabilities: &[Capability],
    arguments: Vec<OsString>,
    [input, output]: [BorrowedFd<'_>; 2],
    words: Option<BorrowedFd<'_>>,
) -> Result<Ending, OwnProcessError> {
    let null = File::options().write(true).open("/dev/null").map_err(SpawnError::Prepare)?;
    placement.enter().map_err(SpawnError::Prepare)?;
    confine_this_thread(&capabilities.iter().copied().collect(), false)?;
    let program = Program {
        file: "/proc/self/exe".into(),
        arguments,
        environment: BTreeMap::new(),
        standard: [input, output, words.unwrap_or(null.as_fd())],
        user: None,
        descriptors: None,
        filter: Vec::new(),
        cgroup: placement.version_2().map(|(cgroup, _)| cgroup),
    };
    Ok(mounter.reaper.spawn(&program)?)
}
