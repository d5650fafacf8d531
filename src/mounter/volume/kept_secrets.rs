//! Volumes' secrets, kept for the next mounter as kubelet keeps Secrets: in memory of the node, where its root alone can read
//! them. They are in files on a [ramfs](crate::node::ramfs), which unlike a tmpfs is never swapped out to a disk.
//!
//! Runs in the mounter. The ramfs is mounted when the first volume that has secrets is. Helpers and pods do not see the directory that it
//! is in; a local user may not enter it.

use super::whole_file::{read_at, write_at};
use crate::node::ramfs::Place;
use api::exit::chain;
use api::secret::Secrets;
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, openat, unlinkat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tracing::warn;
use zeroize::Zeroizing;

/// The directory's name, in the state directory.
pub const DIRECTORY: &str = "secrets";

/// Where they are kept; nowhere, if there is no place for them.
#[derive(Debug, Default)]
pub struct KeptSecrets {
    place: Option<Place>,
    /// The ramfs, once there is one. Held by a descriptor: volumes' threads stand in their helpers' mount namespaces.
    opened: Mutex<Option<OwnedFd>>,
}

impl KeptSecrets {
    /// Those below `state`, which the node has as well.
    pub fn below(state: &Path, host_proc: &Path) -> Self {
        let found =
            Place::find(state, DIRECTORY, host_proc).and_then(|place| place.open().map(|opened| (place, opened)));
        match found {
            Ok((place, opened)) => Self { place: Some(place), opened: Mutex::new(opened) },
            Err(error) => {
                warn!("volumes' secrets will not be known any more after a restart of the mounter: {}", chain(&error));
                Self::default()
            }
        }
    }

    /// Keeps those of one volume, if it has any.
    pub(super) fn keep(&self, name: &str, secrets: &Secrets) -> io::Result<()> {
        let Some(place) = self.place.as_ref().filter(|_| !secrets.is_empty()) else { return Ok(()) };
        let mut opened = self.opened();
        let directory = match &mut *opened {
            Some(directory) => directory,
            none => none.insert(place.open_or_mount()?),
        };
        write_at(directory.as_fd(), name, &Zeroizing::new(serde_json::to_vec(secrets)?))
    }

    /// Those of one volume, if they are there.
    pub(super) fn read(&self, name: &str) -> Option<Secrets> {
        let opened = self.opened();
        let text = Zeroizing::new(read_at(opened.as_ref()?.as_fd(), name).ok()?);
        serde_json::from_slice(&text).inspect_err(|error| warn!("a volume's secrets are damaged: {error}")).ok()
    }

    /// The volume is no more.
    pub(super) fn drop(&self, name: &str) {
        if let Some(directory) = &*self.opened()
            && let Err(error) = remove(directory, name)
        {
            warn!("cannot remove a volume's secrets: {error}");
        }
    }

    /// Drops all whose name is none of these.
    pub(super) fn retain(&self, names: &HashSet<String>) {
        let opened = self.opened();
        let Some(directory) = &*opened else { return };
        let others = list(directory).map(|found| found.into_iter().filter(|name| !names.contains(name)));
        let done = others.and_then(|mut others| others.try_for_each(|name| remove(directory, &name)));
        if let Err(error) = done {
            warn!("cannot remove the secrets of volumes that are no more: {error}");
        }
    }

    fn opened(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        // Every change here is one step.
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(directory: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn list(directory: &OwnedFd) -> io::Result<Vec<String>> {
    let readable = openat(directory, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(readable, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if ![".", ".."].contains(&&*name) {
            names.push(name);
        }
    }
    Ok(names)
}
