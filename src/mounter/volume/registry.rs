//! All volumes, each with its state; what happens on their descriptors is in [`watching`](super::watching).
//!
//! Runs in the mounter: request threads add volumes, the main thread takes in what happens on their descriptors. A volume
//! lasts as long as its helper runs or its filesystem is mounted somewhere, whichever is longer.

use super::held::{Answering, Held};
use super::orphan::{Inheritance, Orphan};
use super::pace::Pace;
use super::past::Past;
use super::record::Records;
use super::state::{Effect, Event, Old, State, Where};
use super::{Known, Volume, VolumeId};
use crate::config::Config;
use crate::engine::Engine;
use crate::helper::launch::Serving;
use crate::helper::output::{HelperOutput, aside};
use crate::node::cgroup::Cgroup;
use crate::node::connections::{Connections, Identity};
use crate::node::tree::Tree;
use crate::observe::events;
use crate::policy::Plan;
use api::secret::Secrets;
use api::volume::Line;
use std::collections::BTreeMap;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tracing::info;

/// How many of a volume's last lines are kept, over all its helpers.
const LINES: usize = 64;
/// All volumes.
#[derive(Debug)]
pub struct Registry {
    /// An epoll descriptor.
    pub(super) events: OwnedFd,
    records: Records,
    pub(super) connections: Arc<Connections>,
    volumes: Mutex<Volumes>,
    /// A process of a helper's has ended that may have been the one that served.
    server_gone: AtomicBool,
}

#[derive(Debug, Default)]
pub(super) struct Volumes {
    last: u64,
    pub(super) by_id: BTreeMap<VolumeId, Entry>,
    /// By the id of the volume that another has taken over from.
    pub(super) answering: BTreeMap<VolumeId, Answering>,
    /// Connections whose open files are to have an heir.
    pub(super) orphans: Vec<Orphan>,
    /// Those with a new helper, of whose descriptor there is no copy yet.
    pub(super) unkept: Vec<VolumeId>,
    pub(super) past: Past,
}

/// One volume.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) volume: Volume,
    pub(super) state: State,
    /// The fresh filesystem that is being put in its place.
    pub(super) successor: Option<Identity>,
    /// Gone when nothing of the helper runs any more.
    pub(super) engine: Option<Engine>,
    /// Gone when nobody can write any more.
    pub(super) output: Option<HelperOutput>,
    /// Gone with the helper, if it had one of its own.
    pub(super) cgroup: Option<Cgroup>,
    /// What was refused to a helper that is gone.
    pub(super) refused: Vec<String>,
    /// The lines of helpers that it has taken over from, and all of them once its output is gone.
    pub(super) earlier_lines: Vec<Line>,
    /// Keeps the number of a dead volume's filesystem from being used again, for as long as it may be healed.
    pin: Option<Tree>,
    /// Closed when the volume is no more, for the operation that prepares something for it.
    there: Option<PipeWriter>,
    /// Its connection.
    pub(super) held: Held,
    /// The number of the mount by which an heir of the filesystem before has it, if there is one.
    heirs_tree: Option<u64>,
    /// Its descriptors could not be watched yet.
    pub(super) unwatched: bool,
    pub(super) calls: Pace,
    pub(super) writes: Pace,
}

impl Registry {
    /// An empty registry, whose events arrive on `events` (an epoll descriptor) with the tokens of [`token`](super::watching::token).
    pub fn new(events: OwnedFd, records: Records, connections: Arc<Connections>) -> Self {
        Self { events, records, connections, volumes: Mutex::default(), server_gone: AtomicBool::new(false) }
    }

    /// A process of a helper's has ended.
    pub fn note_server_gone(&self) {
        self.server_gone.store(true, Ordering::Relaxed);
    }

    /// Whether a process of a helper's has ended since this was asked last: others of it may be left, and none that serves.
    pub fn take_server_gone(&self) -> bool {
        self.server_gone.swap(false, Ordering::Relaxed)
    }

    /// What the next mounter will know.
    pub fn records(&self) -> &Records {
        &self.records
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, Volumes> {
        // A thread that panicked while it held the lock has left nothing half-done: every change here is one step.
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a volume whose helper serves it.
    pub fn add(&self, volume: Volume, serving: Serving) -> VolumeId {
        let state = State::serving(Instant::now(), 0);
        self.enter(&mut self.locked(), volume, state, Some(serving), Vec::new())
    }

    /// Adds a volume whose helper ended while no mounter ran.
    pub fn add_ended(&self, volume: Volume) {
        self.enter(&mut self.locked(), volume, State::ended(), None, Vec::new());
    }

    /// A fresh helper serves volume `old` from here on.
    pub fn take_over(&self, old: VolumeId, volume: Volume, serving: Serving, inheritance: Option<Inheritance>) {
        let mut volumes = self.locked();
        let (mut failures, mut lines) = (0, Vec::new());
        let heirs = inheritance.as_ref().and_then(Inheritance::tree_number);
        if let Some(entry) = volumes.by_id.get_mut(&old) {
            entry.held.bequeath(inheritance, entry.heirs_tree);
            failures = entry.state.failures_of_the_next();
            lines = entry.lines();
            self.records.drop(entry.volume.identity);
        }
        self.report_to(&mut volumes, old, Event::Replaced);
        let id = self.enter(&mut volumes, volume, State::serving(Instant::now(), failures), Some(serving), lines);
        if let Some(entry) = volumes.by_id.get_mut(&id) {
            entry.heirs_tree = heirs;
        }
    }

    fn enter(
        &self,
        volumes: &mut Volumes,
        volume: Volume,
        state: State,
        serving: Option<Serving>,
        earlier_lines: Vec<Line>,
    ) -> VolumeId {
        volumes.last += 1;
        let id = VolumeId(volumes.last);
        if volume.known == Known::All {
            self.records.keep(&volume);
        }
        let (engine, output, cgroup) = match serving {
            Some(Serving { engine, output, cgroup }) => (Some(engine), output, cgroup),
            None => (None, None, None),
        };
        // Recovery knows the processes of the others.
        if engine.as_ref().is_some_and(|engine| !matches!(engine, Engine::Adopted(_))) {
            volumes.unkept.push(id);
        }
        let held = Held::new(volume.hold_time());
        let mut entry = Entry {
            volume,
            state,
            successor: None,
            engine,
            output,
            cgroup,
            refused: Vec::new(),
            earlier_lines,
            pin: None,
            there: None,
            held,
            heirs_tree: None,
            unwatched: false,
            calls: Pace::default(),
            writes: Pace::default(),
        };
        self.watch(id, &mut entry);
        volumes.by_id.insert(id, entry);
        id
    }

    /// A descriptor that is hung up when volume `id` is no more.
    pub fn until_gone(&self, id: VolumeId) -> io::Result<PipeReader> {
        let (reader, there) = io::pipe()?;
        // One operation at a time asks: the last one's is not needed any more.
        if let Some(entry) = self.locked().by_id.get_mut(&id) {
            entry.there = Some(there);
        }
        Ok(reader)
    }

    /// Volume `id` is given this fresh filesystem: from now on its places show the one or the other.
    pub fn expect(&self, id: VolumeId, fresh: Identity) {
        self.locked().by_id.get_mut(&id).into_iter().for_each(|entry| entry.successor = Some(fresh));
    }

    /// Whether a volume is this filesystem, or is given it.
    pub fn knows(&self, filesystem: Identity) -> bool {
        self.locked().by_id.values().any(|entry| entry.is(filesystem))
    }

    /// The volume that is this filesystem, or is given it.
    pub fn of(&self, filesystem: Identity) -> Option<Volume> {
        let volumes = self.locked();
        volumes.by_id.values().find(|entry| entry.is(filesystem)).map(|entry| entry.volume.clone())
    }

    /// A volume has begun to hang.
    pub fn note_hang(&self, id: VolumeId) {
        let mut volumes = self.locked();
        let Some(entry) = volumes.by_id.get_mut(&id) else { return };
        entry.volume.history.hangs += 1;
        if entry.volume.known == Known::All {
            self.records.keep(&entry.volume);
        }
    }

    /// The next helpers of the volume that is this filesystem get these secrets, which are all that it has.
    pub fn renew_secrets(&self, filesystem: Identity, secrets: &Secrets) {
        let mut volumes = self.locked();
        let Some(entry) = volumes.by_id.values_mut().find(|entry| entry.is(filesystem)) else { return };
        entry.volume.plan.request.secrets.clone_from(secrets);
        // All but those were known.
        if entry.volume.known == Known::AllButSecrets {
            entry.volume.known = Known::All;
        }
    }

    /// Whether both are one volume's: its filesystem, and the fresh one that it is given.
    pub fn are_one_volumes(&self, one: Identity, other: Identity) -> bool {
        self.locked().by_id.values().any(|entry| entry.is(one) && entry.is(other))
    }

    /// What is known of a volume that no other has taken over from.
    pub fn volume(&self, id: VolumeId) -> Option<Volume> {
        let volumes = self.locked();
        volumes.by_id.get(&id).filter(|entry| entry.state.is_current()).map(|entry| entry.volume.clone())
    }

    /// Whether nothing of its helper runs any more.
    pub fn is_dead(&self, id: VolumeId) -> bool {
        self.locked().by_id.get(&id).is_some_and(|entry| !entry.state.has_helper())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.locked().by_id.is_empty()
    }

    /// The filesystems of those volumes that a helper serves, and that are `wanted`.
    pub fn filesystems(&self, wanted: impl Fn(&Volume) -> bool) -> Vec<(VolumeId, Identity)> {
        let volumes = self.locked();
        let serves = |entry: &Entry| entry.state.is_current() && entry.state.has_helper() && wanted(&entry.volume);
        let serving = volumes.by_id.iter().filter(|(_, entry)| serves(entry));
        serving.map(|(id, entry)| (*id, entry.volume.identity)).collect()
    }

    /// The volumes that a helper serves.
    pub fn serving(&self) -> Vec<(VolumeId, Volume)> {
        let volumes = self.locked();
        let serves = |entry: &Entry| entry.state.is_current() && entry.state.has_helper();
        let serving = volumes.by_id.iter().filter(|(_, entry)| serves(entry));
        serving.map(|(id, entry)| (*id, entry.volume.clone())).collect()
    }

    /// The volume at `target`, and its state. Of several on top of each other it is the topmost.
    pub fn at(&self, target: &Path) -> Option<(VolumeId, State)> {
        let volumes = self.locked();
        let here = |entry: &&Entry| entry.state.is_current() && entry.volume.plan.target == target;
        volumes.by_id.iter().rfind(|(_, entry)| here(entry)).map(|(id, entry)| (*id, entry.state))
    }

    /// Whether a helper serves another volume at `target`: one that has taken over from this one, before a mounter was killed.
    pub fn another_serves(&self, target: &Path, id: VolumeId) -> bool {
        let volumes = self.locked();
        let serves =
            |entry: &Entry| entry.state.is_current() && entry.state.has_helper() && entry.volume.plan.target == target;
        volumes.by_id.iter().any(|(other, entry)| *other != id && serves(entry))
    }

    /// Something has happened to a volume. What is to be done about it by the caller: [`Effect::Forget`] is done here.
    pub fn report(&self, id: VolumeId, event: Event) -> Option<Effect> {
        self.report_to(&mut self.locked(), id, event)
    }

    /// The mount tables were searched for a volume's filesystem. `pin` is a copy of it, which holds its number.
    pub fn report_found(&self, id: VolumeId, found: Where, pin: Option<Tree>) -> Option<Effect> {
        let mut volumes = self.locked();
        let effect = self.report_to(&mut volumes, id, Event::Found(found));
        if let Some(entry) = volumes.by_id.get_mut(&id)
            && matches!(entry.state, State::Dead { .. })
            && entry.pin.is_none()
        {
            entry.pin = pin;
        }
        effect
    }

    /// Something has happened that concerns every volume: those for which there is something to be done.
    pub fn report_to_all(&self, event: Event) -> Vec<(VolumeId, Effect)> {
        let mut volumes = self.locked();
        if event == Event::Due {
            self.look_at_answers(&mut volumes, Instant::now());
        }
        let ids: Vec<_> = volumes.by_id.keys().copied().collect();
        let effects = ids.into_iter().filter_map(|id| Some((id, self.report_to(&mut volumes, id, event)?)));
        effects.collect()
    }

    pub(super) fn report_to(&self, volumes: &mut Volumes, id: VolumeId, event: Event) -> Option<Effect> {
        let entry = volumes.by_id.get_mut(&id)?;
        let (before, now) = (entry.state, Instant::now());
        let (after, effect) = before.after(event, now);
        entry.state = after;
        let answering = entry.volume.span().in_scope(|| entry.held.take_in(event, now, &entry.volume.plan.target));
        if let Some(answering) = answering {
            self.begin_to_answer(volumes, id, answering);
        }
        if effect == Some(Effect::Forget) {
            self.forget(volumes, id, before);
            return None;
        }
        effect
    }

    /// Nothing is left of a volume that was in the state `before`.
    fn forget(&self, volumes: &mut Volumes, id: VolumeId, before: State) {
        let Some(mut entry) = volumes.by_id.remove(&id) else { return };
        let _span = entry.volume.span().entered();
        self.stop_watching(entry.engine.take());
        entry.held.end();
        match before {
            State::Ended { .. } | State::Dead { .. } => {
                info!(event = events::UNMOUNTED, "unmounted");
                self.records.drop(entry.volume.identity);
                if let Some(output) = &mut entry.output {
                    output.drain();
                }
                volumes.past.keep_ended(&entry.volume, entry.lines());
            }
            State::Retired | State::Replacing(Old::EndedMeanwhile { .. }) => {
                info!(event = events::DRAINED, "the helper that was replaced has ended: nothing was open any more");
            }
            _ => {}
        }
        entry.output.iter().flat_map(HelperOutput::descriptors).for_each(|fd| self.stop_watching([fd]));
    }

    /// Other settings are in force, for the volumes that are there as well: as after a restart of the mounter.
    pub fn take_settings(&self, config: &Config) {
        for entry in self.locked().by_id.values_mut() {
            entry.volume.plan.settings = config.settings(&entry.volume.plan.request);
        }
    }

    /// Keeps the last lines of a helper that could not mount.
    pub fn keep_failed(&self, plan: &Plan, helper: String, lines: Vec<Line>) {
        self.locked().past.keep_failed(plan, helper, lines);
    }
}

impl Entry {
    /// Whether it is this filesystem, or is given it.
    pub(super) fn is(&self, filesystem: Identity) -> bool {
        self.volume.identity == filesystem || self.successor == Some(filesystem)
    }

    /// The last lines of its helper, and of those before, and what was refused to it.
    pub(super) fn lines(&self) -> Vec<Line> {
        let mut lines = self.written();
        let refused = self.refused.iter().cloned().chain(self.engine.iter().flat_map(Engine::refused));
        lines.extend(refused.map(aside));
        lines.split_off(lines.len().saturating_sub(LINES))
    }

    /// What helpers wrote.
    pub(super) fn written(&self) -> Vec<Line> {
        let mut lines = self.earlier_lines.clone();
        lines.extend(self.output.iter().flat_map(HelperOutput::lines));
        lines.split_off(lines.len().saturating_sub(LINES))
    }
}
