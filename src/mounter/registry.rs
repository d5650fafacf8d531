//! The volumes that stand, and what becomes of them.
//!
//! Runs in the mounter: request threads add volumes, the main thread hears of their helpers' calls, words and ends.
//! A volume lasts as long as its helper runs or its mount is on the node, whichever is longer. What its helper said
//! is kept for a while longer.

use super::Mounter;
use crate::engine::seccomp::listener::Listener;
use crate::helper::output::Output;
use crate::helper::place::in_words_of_the_node;
use crate::node::mounts::{self, Device};
use crate::node::target::device_at;
use crate::policy::Admitted;
use crate::wire::{VolumeDetail, VolumeState, VolumeView};
use rustix::event::epoll;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::{error, info, info_span, warn};

/// How many volumes are remembered after their end: at 64 KiB of words each at most, a bounded amount.
const REMEMBERED: usize = 100;

/// A volume that is on the node.
#[derive(Debug)]
pub struct Volume {
    /// Where, on the node.
    pub target: PathBuf,
    /// The type that was asked for.
    pub fstype: String,
    /// What is mounted.
    pub source: String,
    /// The helper's program.
    pub helper: String,
    /// Its number in the mount table.
    pub device: Device,
    /// When it was mounted.
    pub since: SystemTime,
}

/// Which of a volume's descriptors an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The seccomp listener.
    Listener,
    /// The helper's output.
    Output,
}

/// All volumes, and the descriptors to wait on for them.
#[derive(Debug)]
pub struct Registry {
    events: OwnedFd,
    volumes: Mutex<Volumes>,
    turns: Arc<Mutex<HashSet<PathBuf>>>,
}

#[derive(Debug, Default)]
struct Volumes {
    last: u64,
    by_id: BTreeMap<u64, Entry>,
    /// The last ones that ended or failed, one for each target, the latest last.
    past: VecDeque<VolumeDetail>,
}

#[derive(Debug)]
struct Entry {
    volume: Volume,
    /// Gone when nothing of the helper runs any more.
    listener: Option<Listener>,
    /// Gone when nobody can write any more.
    output: Option<Output>,
    /// What it said, once that is gone.
    last_words: Vec<String>,
    /// Whether its death was reported: once is enough.
    reported: bool,
}

/// The right to change what is mounted at a target, one request at a time.
#[derive(Debug)]
pub struct Turn {
    target: PathBuf,
    turns: Arc<Mutex<HashSet<PathBuf>>>,
}

/// Somebody else has it.
#[derive(Debug, thiserror::Error)]
#[error("another mount at this target is under way; try again when it is through")]
pub struct TargetBusy;

impl Registry {
    /// An empty registry, whose events arrive on `events` (an epoll descriptor) with the tokens of [`token`].
    pub fn new(events: OwnedFd) -> Self {
        Self { events, volumes: Mutex::default(), turns: Arc::default() }
    }

    /// Takes the turn for `target`; dropped, it is given back.
    pub fn take_turn(&self, target: &Path) -> Result<Turn, TargetBusy> {
        if !locked(&self.turns).insert(target.to_owned()) {
            return Err(TargetBusy);
        }
        Ok(Turn { target: target.to_owned(), turns: Arc::clone(&self.turns) })
    }

    /// Takes in a volume that stands now.
    pub fn adopt(&self, volume: Volume, listener: Listener, output: Output) {
        let mut volumes = locked(&self.volumes);
        volumes.last += 1;
        let id = volumes.last;
        let mut entry =
            Entry { volume, listener: Some(listener), output: Some(output), last_words: Vec::new(), reported: false };
        let watched = entry
            .listener
            .as_ref()
            .map_or(Ok(()), |fd| self.watch(id, Channel::Listener, fd))
            .and_then(|()| entry.output.as_ref().map_or(Ok(()), |fd| self.watch(id, Channel::Output, fd)));
        if let Err(error) = watched {
            // Without the events the volume works all the same, but nobody would notice its end.
            error!(target = %entry.volume.target.display(), "cannot watch the volume's helper: {error}");
            entry.listener = None;
            entry.output = None;
        }
        volumes.by_id.insert(id, entry);
    }

    /// Whether a volume with this device, type and source is there.
    pub fn has(&self, device: Device, fstype: &str, source: &str) -> bool {
        locked(&self.volumes)
            .by_id
            .values()
            .any(|Entry { volume, .. }| volume.device == device && volume.fstype == fstype && volume.source == source)
    }

    /// Takes in what happened on one of a volume's descriptors. `true`: nothing of its helper runs any more, and
    /// [`settle`] shall see what is left.
    pub fn heed(&self, id: u64, channel: Channel, hung_up: bool) -> bool {
        let mut volumes = locked(&self.volumes);
        let Some(entry) = volumes.by_id.get_mut(&id) else { return false };
        let _span =
            info_span!("volume", target = %entry.volume.target.display(), fstype = entry.volume.fstype).entered();
        match channel {
            Channel::Output => {
                let ended = entry.output.as_mut().is_none_or(|output| {
                    output.drain();
                    output.has_ended()
                });
                if ended {
                    entry.last_words = entry.words();
                    self.forget_descriptor(&mut entry.output);
                }
                false
            }
            Channel::Listener if hung_up => {
                self.forget_descriptor(&mut entry.listener);
                true
            }
            Channel::Listener => {
                if let Some(Err(error)) = entry.listener.as_mut().map(|listener| listener.answer(None)) {
                    warn!("cannot answer a call of the helper's: {error}");
                }
                false
            }
        }
    }

    /// The ids of volumes whose helper is gone.
    pub fn without_helper(&self) -> Vec<u64> {
        let volumes = locked(&self.volumes);
        volumes.by_id.iter().filter(|(_, entry)| entry.listener.is_none()).map(|(id, _)| *id).collect()
    }

    fn place_of(&self, id: u64) -> Option<(PathBuf, Device)> {
        let volumes = locked(&self.volumes);
        volumes.by_id.get(&id).map(|entry| (entry.volume.target.clone(), entry.volume.device))
    }

    fn report_dead(&self, id: u64) {
        if let Some(entry) = locked(&self.volumes).by_id.get_mut(&id)
            && !std::mem::replace(&mut entry.reported, true)
        {
            error!(
                target = %entry.volume.target.display(),
                "the helper has ended, its mount has not: every access answers \"Transport endpoint is not \
                 connected\"; unmount it, and mount it again"
            );
        }
    }

    fn forget(&self, id: u64, state: &Path) {
        let mut volumes = locked(&self.volumes);
        if let Some(mut entry) = volumes.by_id.remove(&id) {
            let volume = &entry.volume;
            info!(target = %volume.target.display(), fstype = volume.fstype, "unmounted");
            if let Some(output) = &mut entry.output {
                output.drain();
            }
            let mut detail = entry.detail(VolumeState::Ended, state);
            detail.ended = Some(seconds(SystemTime::now()));
            volumes.remember(detail);
            self.forget_descriptor(&mut entry.output);
        }
    }

    /// Keeps the words of a helper that could not mount.
    pub fn remember_failed(&self, admitted: &Admitted, helper: String, lines: Vec<String>) {
        let now = seconds(SystemTime::now());
        let view = VolumeView {
            target: admitted.target.to_string_lossy().into_owned(),
            fstype: admitted.request.fstype.clone(),
            source: admitted.request.source.clone(),
            state: VolumeState::Failed,
            helper,
            device: String::new(),
            since: now,
        };
        locked(&self.volumes).remember(VolumeDetail { view, ended: Some(now), lines });
    }

    fn watch(&self, id: u64, channel: Channel, fd: &impl AsFd) -> io::Result<()> {
        Ok(epoll::add(&self.events, fd, epoll::EventData::new_u64(token(id, channel)), epoll::EventFlags::IN)?)
    }

    fn forget_descriptor(&self, slot: &mut Option<impl AsFd>) {
        if let Some(fd) = slot.take() {
            // Not closing alone: a copy of the descriptor in a process just being forked would keep the events coming.
            let _ = epoll::delete(&self.events, &fd);
        }
    }
}

/// The number that marks events of one of a volume's descriptors. Ids begin at 1: the mounter's own events are below 2.
pub fn token(id: u64, channel: Channel) -> u64 {
    id << 1 | u64::from(channel == Channel::Output)
}

/// The way back from [`token`].
pub fn from_token(token: u64) -> (u64, Channel) {
    (token >> 1, if token & 1 == 1 { Channel::Output } else { Channel::Listener })
}

/// Sees what is left of a volume whose helper is gone: forgets it if its mount is gone too.
///
/// Runs on a thread of its own, as it visits the node: looking up a path there may take long.
pub fn settle(mounter: &Mounter, id: u64) {
    let Some((target, device)) = mounter.registry.place_of(id) else { return };
    match mounter.node.visit(|| device_at(&target)) {
        Ok(Ok(Some(there))) if there == device => mounter.registry.report_dead(id),
        Ok(Ok(_)) => mounter.registry.forget(id, &mounter.state),
        Ok(Err(error)) => warn!(target = %target.display(), "cannot look at the target: {error}"),
        Err(error) => warn!("{}", crate::exit::chain(&error)),
    }
}

impl Volumes {
    fn remember(&mut self, detail: VolumeDetail) {
        self.past.retain(|past| past.view.target != detail.view.target);
        if self.past.len() == REMEMBERED {
            self.past.pop_front();
        }
        self.past.push_back(detail);
    }
}

impl Entry {
    fn words(&self) -> Vec<String> {
        self.output.as_ref().map_or_else(|| self.last_words.clone(), Output::lines)
    }

    fn state(&self, on_node: bool) -> VolumeState {
        match (on_node, &self.listener) {
            (true, Some(_)) => VolumeState::Mounted,
            (true, None) => VolumeState::Dead,
            (false, _) => VolumeState::Detached,
        }
    }

    fn view(&self, state: VolumeState) -> VolumeView {
        let volume = &self.volume;
        VolumeView {
            target: volume.target.to_string_lossy().into_owned(),
            fstype: volume.fstype.clone(),
            source: volume.source.clone(),
            state,
            helper: volume.helper.clone(),
            device: volume.device.to_string(),
            since: seconds(volume.since),
        }
    }

    fn detail(&self, state: VolumeState, directory: &Path) -> VolumeDetail {
        VolumeDetail { view: self.view(state), ended: None, lines: in_words_of_the_node(directory, &self.words()) }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// All volumes, as the node's mount table shows them just now (read once).
pub fn views(mounter: &Mounter) -> io::Result<Vec<VolumeView>> {
    let on_node = on_node(mounter)?;
    let volumes = locked(&mounter.registry.volumes);
    let view = |entry: &Entry| entry.view(entry.state(on_node.contains(&entry.volume.key())));
    Ok(volumes.by_id.values().map(view).collect())
}

/// The volume at `target`: the latest one that is there, or else the last one that was or should have been.
pub fn look(mounter: &Mounter, target: &Path) -> io::Result<Option<VolumeDetail>> {
    let on_node = on_node(mounter)?;
    let volumes = locked(&mounter.registry.volumes);
    let detail = |entry: &Entry| entry.detail(entry.state(on_node.contains(&entry.volume.key())), &mounter.state);
    let there = volumes.by_id.values().rfind(|entry| entry.volume.target == target).map(detail);
    Ok(there.or_else(|| volumes.past.iter().find(|past| Path::new(&past.view.target) == target).cloned()))
}

/// What is mounted where on the node.
fn on_node(mounter: &Mounter) -> io::Result<HashSet<(PathBuf, Device)>> {
    let table = mounts::parse(&std::fs::read(mounter.host_proc.join("1/mountinfo"))?);
    Ok(table.into_iter().map(|mount| (mount.target, mount.device)).collect())
}

impl Volume {
    fn key(&self) -> (PathBuf, Device) {
        (self.target.clone(), self.device)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        locked(&self.turns).remove(&self.target);
    }
}

/// A thread that panicked while it held a lock has left nothing half-done: every change here is one step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
