//! All volumes, each with its state and the descriptors to wait on for it.
//!
//! Runs in the mounter: request threads add volumes, the main thread takes in what happens on their descriptors. A volume
//! lasts as long as its helper runs or its filesystem is mounted somewhere, whichever is longer.

use super::answering::{Answering, Held};
use super::pace::Pace;
use super::past::Past;
use super::record::Records;
use super::state::{Effect, Event, Old, State, Where};
use super::{Known, Volume, VolumeId};
use crate::engine::{Engine, EngineEvent};
use crate::helper::launch::Serving;
use crate::helper::output::HelperOutput;
use crate::node::cgroup::Cgroup;
use crate::node::connections::Identity;
use crate::node::tree::Tree;
use crate::observe::events;
use crate::policy::Plan;
use api::secret::Secrets;
use rustix::event::epoll;
use std::collections::BTreeMap;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// How many of a volume's last lines are kept, over all its helpers.
const LINES: usize = 64;
/// How long until a descriptor that could not be watched is tried again.
const WATCH_AGAIN: Duration = Duration::from_secs(10);

/// Which of a volume's descriptors an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The engine.
    Engine,
    /// The helper's output.
    Output,
    /// What waits on the connection of one that is gone.
    Answers,
}

/// All volumes.
#[derive(Debug)]
pub struct Registry {
    /// An epoll descriptor.
    pub(super) events: OwnedFd,
    records: Records,
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
    refused: Vec<String>,
    /// The lines of helpers that it has taken over from, and all of them once its output is gone.
    earlier_lines: Vec<String>,
    /// Keeps the number of a dead volume's filesystem from being used again, for as long as it may be healed.
    pin: Option<Tree>,
    /// Closed when the volume is no more, for the operation that prepares something for it.
    there: Option<PipeWriter>,
    /// Its connection.
    pub(super) held: Held,
    /// Its descriptors could not be watched yet.
    unwatched: bool,
    calls: Pace,
    writes: Pace,
}

impl Registry {
    /// An empty registry, whose events arrive on `events` (an epoll descriptor) with the tokens of [`token`].
    pub fn new(events: OwnedFd, records: Records) -> Self {
        Self { events, records, volumes: Mutex::default(), server_gone: AtomicBool::new(false) }
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
    pub fn take_over(&self, old: VolumeId, volume: Volume, serving: Serving) {
        let mut volumes = self.locked();
        let (mut failures, mut lines) = (0, Vec::new());
        if let Some(entry) = volumes.by_id.get(&old) {
            failures = entry.state.failures_of_the_next();
            lines = entry.lines();
            self.records.drop(entry.volume.identity);
        }
        self.report_to(&mut volumes, old, Event::Replaced);
        self.enter(&mut volumes, volume, State::serving(Instant::now(), failures), Some(serving), lines);
    }

    fn enter(
        &self,
        volumes: &mut Volumes,
        volume: Volume,
        state: State,
        serving: Option<Serving>,
        earlier_lines: Vec<String>,
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

    fn report_to(&self, volumes: &mut Volumes, id: VolumeId, event: Event) -> Option<Effect> {
        let entry = volumes.by_id.get_mut(&id)?;
        let (before, now) = (entry.state, Instant::now());
        let (after, effect) = before.after(event, now);
        entry.state = after;
        let answering = entry.volume.span().in_scope(|| entry.held.take_in(event, now));
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

    /// When the next volume is to be tried again, or a descriptor to be watched.
    pub fn next_due(&self) -> Option<Duration> {
        let volumes = self.locked();
        let retry = volumes.by_id.values().filter_map(|entry| entry.state.retry());
        let retry =
            retry.chain(volumes.next_of_connections()).min().map(|at| at.saturating_duration_since(Instant::now()));
        let watch = volumes.by_id.values().any(|entry| entry.unwatched).then_some(WATCH_AGAIN);
        let rests =
            volumes.by_id.values().flat_map(|entry| [&entry.calls, &entry.writes]).filter_map(Pace::rests_until);
        let rests = rests.min().map(|until| until.saturating_duration_since(Instant::now()));
        retry.into_iter().chain(watch).chain(rests).min()
    }

    /// Takes in what has happened on one of a volume's descriptors.
    pub fn descriptor_ready(&self, id: VolumeId, channel: Channel) -> Option<Effect> {
        let mut volumes = self.locked();
        if channel == Channel::Answers {
            self.answer(&mut volumes, id);
            return None;
        }
        let entry = volumes.by_id.get_mut(&id)?;
        let _span = entry.volume.span().entered();
        match channel {
            Channel::Answers => None,
            Channel::Output => {
                self.read_output(entry);
                None
            }
            Channel::Engine => match entry.engine.as_mut()?.handle_event(None) {
                Ok(EngineEvent::HelperGone) => {
                    entry.refused = entry.engine.iter().flat_map(Engine::refused).collect();
                    self.stop_watching(entry.engine.take());
                    self.stop_watching(entry.output.as_mut().and_then(HelperOutput::helper_gone));
                    self.read_output(entry);
                    let cgroup = entry.cgroup.take();
                    cgroup.iter().for_each(Cgroup::kill);
                    if let Some(why) = cgroup.and_then(|cgroup| cgroup.ran_out_of_memory()) {
                        error!(
                            event = events::HELPER_OUT_OF_MEMORY,
                            "the kernel killed processes of the helper: {why}"
                        );
                    }
                    self.report_to(&mut volumes, id, Event::HelperEnded)
                }
                event => {
                    if matches!(event, Ok(EngineEvent::ProcessEnded)) {
                        self.note_server_gone();
                    }
                    if entry.calls.must_rest(Instant::now()) {
                        let _ = epoll::delete(&self.events, entry.engine.as_ref()?);
                        // It would be ready again at once, and a line for each time has no bound.
                        if let Err(error) = event {
                            warn!("cannot answer calls of the helper: {error}");
                        }
                    }
                    None
                }
            },
        }
    }

    fn read_output(&self, entry: &mut Entry) {
        let Some(output) = &mut entry.output else { return };
        output.drain();
        self.stop_watching(output.take_ended());
        if output.has_ended() {
            entry.earlier_lines = entry.written();
            entry.output = None;
        } else if entry.writes.must_rest(Instant::now()) {
            output.descriptors().for_each(|fd| self.stop_watching([fd]));
        }
    }

    /// Keeps the last lines of a helper that could not mount.
    pub fn keep_failed(&self, plan: &Plan, helper: String, lines: Vec<String>) {
        self.locked().past.keep_failed(plan, helper, lines);
    }

    /// Tries again to watch what could not be watched, and what has rested.
    pub fn watch_again(&self) {
        let (now, mut volumes) = (Instant::now(), self.locked());
        for (id, entry) in &mut volumes.by_id {
            let rested = [&mut entry.calls, &mut entry.writes].map(|pace| pace.has_rested(now));
            if entry.unwatched || rested.contains(&true) {
                self.watch(*id, entry);
            }
        }
    }

    /// A volume whose helper cannot be watched works all the same, but its end would not be noticed: it is tried again.
    fn watch(&self, id: VolumeId, entry: &mut Entry) {
        let awake = |pace: &Pace| pace.rests_until().is_none();
        let engine = entry.engine.as_ref().filter(|_| awake(&entry.calls)).map(|fd| (Channel::Engine, fd.as_fd()));
        let output = entry.output.iter().filter(|_| awake(&entry.writes)).flat_map(HelperOutput::descriptors);
        let output = output.map(|fd| (Channel::Output, fd));
        let watched = engine.into_iter().chain(output).try_for_each(|(channel, fd)| {
            match epoll::add(&self.events, fd, epoll::EventData::new_u64(token(id, channel)), epoll::EventFlags::IN) {
                // At an earlier try.
                Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
                Err(errno) => Err(io::Error::from(errno)),
            }
        });
        if let Err(error) = &watched
            && !entry.unwatched
        {
            error!(target = %entry.volume.plan.target.display(), "cannot watch the volume's helper yet: {error}");
        }
        entry.unwatched = watched.is_err();
    }

    fn stop_watching(&self, fds: impl IntoIterator<Item = impl AsFd>) {
        for fd in fds {
            // Not closing alone: a copy of the descriptor in a process just being forked would keep the events coming.
            let _ = epoll::delete(&self.events, &fd);
        }
    }
}

impl Entry {
    /// Whether it is this filesystem, or is given it.
    pub(super) fn is(&self, filesystem: Identity) -> bool {
        self.volume.identity == filesystem || self.successor == Some(filesystem)
    }

    /// The last lines of its helper, and of those before, and what was refused to it.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = self.written();
        lines.extend(self.refused.iter().cloned().chain(self.engine.iter().flat_map(Engine::refused)));
        lines.split_off(lines.len().saturating_sub(LINES))
    }

    /// What helpers wrote.
    fn written(&self) -> Vec<String> {
        let mut lines = self.earlier_lines.clone();
        lines.extend(self.output.iter().flat_map(HelperOutput::lines));
        lines.split_off(lines.len().saturating_sub(LINES))
    }
}

/// The number that marks events of one of a volume's descriptors. Ids begin at 1: the mounter's own events are below 4.
pub fn token(id: VolumeId, channel: Channel) -> u64 {
    id.0 << 2 | channel as u64
}

/// The way back from [`token`].
pub fn from_token(token: u64) -> (VolumeId, Channel) {
    let channel = [Channel::Engine, Channel::Output].into_iter().find(|channel| *channel as u64 == token & 3);
    (VolumeId(token >> 2), channel.unwrap_or(Channel::Answers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::helper_processes::HelperProcesses;
    use crate::engine::watch::Watch;
    use api::origin::Origin;
    use api::request::Request;
    use linux::mount_table::Device;

    /// The kernel may refuse to watch a descriptor (epoll_ctl(2): ENOSPC, ENOMEM). A volume whose helper lives must not
    /// look dead for that: it would be healed, and its helper replaced.
    #[test]
    fn a_volume_that_cannot_be_watched_is_not_taken_for_a_dead_one() {
        let not_epoll = std::fs::File::open("/dev/null").unwrap();
        let registry = Registry::new(not_epoll.into(), Records::none());
        let request = Request {
            fstype: "fuse.x".into(),
            source: "x".into(),
            target: "/t".into(),
            options: Default::default(),
            switches: Default::default(),
            secrets: Default::default(),
        };
        let plan = Plan::new(&Config::default(), Origin::Operator, request).unwrap();
        let family = HelperProcesses::of_this_thread().unwrap();
        let identity = Identity { device: Device { major: 0, minor: 7 }, connection: Some(7) };
        let engine = Engine::Adopted(Watch::new(family.clone()).unwrap());
        let serving = Serving { engine, output: None, cgroup: None };
        registry.add(Volume::new(plan, "x".into(), identity, family), serving);
        assert_eq!(registry.report_to_all(Event::MountsChanged), []);
        assert_eq!(registry.serving().len(), 1);
        assert!(registry.next_due().is_some(), "it is to be tried again");
    }
}
