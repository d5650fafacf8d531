//! The volumes that stand, and what becomes of them.
//!
//! Runs in the mounter: request threads add volumes, the main thread hears of their helpers' calls, words and ends.
//! A volume lasts as long as its helper runs or its mount is on the node, whichever is longer. What its helper said
//! is kept for a while longer.

mod view;

pub use view::{look, views};

use super::record::Records;
use super::volume::{Lost, Volume};
use crate::engine::{Engine, EngineEvent};
use crate::helper::launch::Serving;
use crate::helper::output::HelperOutput;
use crate::node::cgroup::Cgroup;
use crate::node::connections::Identity;
use crate::node::tree::Tree;
use crate::policy::Admitted;
use api::request::Request;
use rustix::event::epoll;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{error, info, info_span, warn};
use view::Past;

/// Which of a volume's descriptors an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The engine.
    Engine,
    /// The helper's output.
    Output,
}

/// All volumes, and the descriptors to wait on for them.
#[derive(Debug)]
pub struct Registry {
    events: OwnedFd,
    records: Records,
    volumes: Mutex<Volumes>,
}

#[derive(Debug, Default)]
struct Volumes {
    last: u64,
    by_id: BTreeMap<u64, Entry>,
    past: Past,
}

#[derive(Debug)]
struct Entry {
    volume: Volume,
    /// Gone when nothing of the helper runs any more.
    engine: Option<Engine>,
    /// Gone when nobody can write any more.
    output: Option<HelperOutput>,
    /// Gone with the helper, if it had one of its own.
    cgroup: Option<Cgroup>,
    /// What was said before: by helpers that it has taken the place of, and all of it once its output is gone.
    said: Vec<String>,
    life: Life,
    /// Keeps the number of a dead volume's filesystem from being used again, for as long as it may be healed.
    hold: Option<Tree>,
    /// Another helper is about to take its place: its end is expected.
    being_replaced: bool,
    /// How often it was tried in vain, or died young, since it last served for long.
    failures: u32,
    /// When its helper began to serve.
    born: Instant,
}

/// What a helper is to its volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    /// It serves it.
    Serving,
    /// It is gone, and the volume is still shown somewhere.
    Dead {
        /// When it is to be tried again.
        retry: Option<Instant>,
    },
    /// Another has taken its place; it serves what was open before.
    Retired,
}

/// How many of a volume's last lines are kept, over all its helpers.
const LINES: usize = 64;

/// A helper that lived so long has done well: the next death is healed at once.
const LONG: Duration = Duration::from_secs(60);
/// The waits between tries: they double.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Registry {
    /// An empty registry, whose events arrive on `events` (an epoll descriptor) with the tokens of [`token`].
    pub fn new(events: OwnedFd, records: Records) -> Self {
        Self { events, records, volumes: Mutex::default() }
    }

    /// Takes in a volume that stands now.
    pub fn adopt(&self, volume: Volume, serving: Serving) {
        self.enter(&mut locked(&self.volumes), volume, Some(serving), 0, Vec::new());
    }

    /// Takes in a volume whose helper has ended while nobody looked.
    pub fn adopt_dead(&self, volume: Volume) {
        self.enter(&mut locked(&self.volumes), volume, None, 0, Vec::new());
    }

    /// What the next mounter will know.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Whether a volume is this filesystem.
    pub fn knows(&self, filesystem: Identity) -> bool {
        locked(&self.volumes).by_id.values().any(|entry| entry.volume.identity == filesystem)
    }

    /// A fresh helper serves volume `old` from here on.
    pub fn succeed(&self, old: u64, volume: Volume, serving: Serving) {
        let mut volumes = locked(&self.volumes);
        let (mut failures, mut said) = (0, Vec::new());
        if let Some(entry) = volumes.by_id.get_mut(&old) {
            // Having died counts; having been replaced while it served does not.
            let died = matches!(entry.life, Life::Dead { .. });
            failures = if died { entry.failures + 1 } else { 0 };
            entry.life = Life::Retired;
            self.records.drop(entry.volume.identity);
            said = entry.words();
            if entry.engine.is_none() {
                if !died {
                    report_retired();
                }
                self.remove(&mut volumes, old);
            }
        }
        self.enter(&mut volumes, volume, Some(serving), failures, said);
    }

    fn enter(&self, volumes: &mut Volumes, volume: Volume, serving: Option<Serving>, failures: u32, said: Vec<String>) {
        volumes.last += 1;
        let id = volumes.last;
        if volume.lost == Lost::Nothing {
            self.records.keep(&volume);
        }
        let (engine, output, cgroup) = match serving {
            Some(Serving { engine, output, cgroup }) => (Some(engine), output, cgroup),
            None => (None, None, None),
        };
        let mut entry = Entry {
            volume,
            engine,
            output,
            cgroup,
            said,
            life: Life::Serving,
            hold: None,
            being_replaced: false,
            failures,
            born: Instant::now(),
        };
        let watched = entry
            .engine
            .as_ref()
            .map_or(Ok(()), |fd| self.watch(id, Channel::Engine, fd))
            .and_then(|()| entry.output.as_ref().map_or(Ok(()), |fd| self.watch(id, Channel::Output, fd)));
        if let Err(error) = watched {
            // Without the events the volume works all the same, but nobody would notice its end.
            error!(target = %entry.volume.admitted.target.display(), "cannot watch the volume's helper: {error}");
            entry.engine = None;
            entry.output = None;
        }
        volumes.by_id.insert(id, entry);
    }

    /// Whether this filesystem is a volume that was asked for with the same type and source.
    pub fn has(&self, filesystem: Identity, request: &Request) -> bool {
        locked(&self.volumes).by_id.values().any(|Entry { volume: Volume { admitted, identity, .. }, .. }| {
            let asked = &admitted.request;
            *identity == filesystem && asked.fstype == request.fstype && asked.source == request.source
        })
    }

    /// What is known of a volume.
    pub fn volume(&self, id: u64) -> Option<Volume> {
        let volumes = locked(&self.volumes);
        volumes.by_id.get(&id).filter(|entry| entry.life != Life::Retired).map(|entry| entry.volume.clone())
    }

    /// Whether there are any volumes.
    pub fn has_any(&self) -> bool {
        !locked(&self.volumes).by_id.is_empty()
    }

    /// The volumes that have a helper.
    pub fn serving(&self) -> Vec<(u64, Volume)> {
        let volumes = locked(&self.volumes);
        let serving = |entry: &&Entry| entry.life == Life::Serving && entry.engine.is_some();
        let served = volumes.by_id.iter().filter(|(_, entry)| serving(entry));
        served.map(|(id, entry)| (*id, entry.volume.clone())).collect()
    }

    /// The volume at `target`, and whether it is dead. Of several on top of each other it is the topmost.
    pub fn at(&self, target: &Path) -> Option<(u64, bool)> {
        let volumes = locked(&self.volumes);
        let here = |entry: &&Entry| entry.life != Life::Retired && entry.volume.admitted.target == target;
        let (id, entry) = volumes.by_id.iter().rfind(|(_, entry)| here(entry))?;
        Some((*id, matches!(entry.life, Life::Dead { .. })))
    }

    /// Takes in what happened on one of a volume's descriptors. `true`: nothing of its helper runs any more, and
    /// [`settle`](super::heal::settle) shall see what is left.
    pub fn heed(&self, id: u64, channel: Channel) -> bool {
        let mut volumes = locked(&self.volumes);
        let Some(entry) = volumes.by_id.get_mut(&id) else { return false };
        let _span = info_span!("volume", target = %entry.volume.admitted.target.display()).entered();
        match channel {
            Channel::Output => {
                let ended = entry.output.as_mut().is_none_or(|output| {
                    output.drain();
                    output.has_ended()
                });
                if ended {
                    entry.said = entry.words();
                    self.forget_descriptor(&mut entry.output);
                }
                false
            }
            Channel::Engine => match entry.engine.as_mut().map(|engine| engine.handle_event(None)) {
                Some(Ok(EngineEvent::HelperGone)) if entry.life == Life::Retired => {
                    report_retired();
                    self.remove(&mut volumes, id);
                    false
                }
                Some(Ok(EngineEvent::HelperGone)) => {
                    self.forget_descriptor(&mut entry.engine);
                    if let Some(why) = entry.cgroup.take().and_then(|cgroup| cgroup.ran_out_of_memory()) {
                        error!("the kernel has ended processes of the helper's: {why}");
                    }
                    !entry.being_replaced
                }
                Some(Err(error)) => {
                    warn!("cannot answer a call of the helper's: {error}");
                    false
                }
                _ => false,
            },
        }
    }

    /// The ids of volumes whose helper is gone.
    pub fn without_helper(&self) -> Vec<u64> {
        let volumes = locked(&self.volumes);
        volumes.by_id.iter().filter(|(_, entry)| entry.engine.is_none()).map(|(id, _)| *id).collect()
    }

    /// A volume whose helper is gone is still shown: how long to wait before it is healed, and whether that is news.
    pub fn bury(&self, id: u64, hold: Tree) -> Option<(Duration, bool)> {
        let mut volumes = locked(&self.volumes);
        let entry = volumes.by_id.get_mut(&id)?;
        let news = !matches!(entry.life, Life::Dead { .. });
        if entry.born.elapsed() > LONG {
            entry.failures = 0;
        }
        if news {
            entry.life = Life::Dead { retry: None };
            entry.hold = Some(hold);
        }
        Some((wait_after(entry.failures), news))
    }

    /// Another helper is about to take the place of volume `id`'s.
    pub fn begin_to_replace(&self, id: u64) {
        if let Some(entry) = locked(&self.volumes).by_id.get_mut(&id) {
            entry.being_replaced = true;
        }
    }

    /// It did not, after all. If the helper that was to be replaced has ended meanwhile, the volume is due to be healed.
    pub fn give_up_replacing(&self, id: u64) {
        if let Some(entry) = locked(&self.volumes).by_id.get_mut(&id) {
            entry.being_replaced = false;
            if entry.life == Life::Serving && entry.engine.is_none() {
                entry.life = Life::Dead { retry: Some(Instant::now()) };
            }
        }
    }

    /// A try was in vain, or must wait: when comes the next?
    pub fn retry_later(&self, id: u64) -> Duration {
        let mut volumes = locked(&self.volumes);
        let Some(entry) = volumes.by_id.get_mut(&id) else { return LONGEST_WAIT };
        entry.failures = entry.failures.saturating_add(1);
        let wait = wait_after(entry.failures);
        if let Life::Dead { retry } = &mut entry.life {
            *retry = Some(Instant::now() + wait);
        }
        wait
    }

    /// How long until a volume is to be tried again.
    pub fn next_retry(&self) -> Option<Duration> {
        let volumes = locked(&self.volumes);
        let due = |entry: &Entry| if let Life::Dead { retry } = entry.life { retry } else { None };
        let next = volumes.by_id.values().filter_map(due).min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// The volumes that are to be tried again now. Each is named once.
    pub fn take_due(&self) -> Vec<u64> {
        let now = Instant::now();
        let mut volumes = locked(&self.volumes);
        let due = volumes.by_id.iter_mut().filter_map(|(id, entry)| match &mut entry.life {
            Life::Dead { retry } if retry.is_some_and(|at| at <= now) => {
                *retry = None;
                Some(*id)
            }
            _ => None,
        });
        due.collect()
    }

    /// The volume seems to be gone from everywhere. While another helper takes its place that means nothing: its places
    /// are that one's already.
    pub fn forget_unless_replaced(&self, id: u64) {
        let replaced = locked(&self.volumes).by_id.get(&id).is_some_and(|entry| entry.being_replaced);
        if !replaced {
            self.forget(id);
        }
    }

    /// The volume is gone from everywhere.
    pub fn forget(&self, id: u64) {
        let mut volumes = locked(&self.volumes);
        if let Some(entry) = volumes.by_id.get(&id) {
            match entry.life {
                Life::Retired => report_retired(),
                _ => info!(target = %entry.volume.admitted.target.display(), "unmounted"),
            }
            self.remove(&mut volumes, id);
        }
    }

    fn remove(&self, volumes: &mut Volumes, id: u64) {
        if let Some(mut entry) = volumes.by_id.remove(&id) {
            self.forget_descriptor(&mut entry.engine);
            if entry.life != Life::Retired {
                self.records.drop(entry.volume.identity);
            }
            if let Some(output) = &entry.output {
                let _ = epoll::delete(&self.events, output);
            }
            if entry.life != Life::Retired {
                entry.pass_into(&mut volumes.past);
            }
        }
    }

    /// Keeps the words of a helper that could not mount.
    pub fn remember_failed(&self, admitted: &Admitted, helper: String, lines: Vec<String>) {
        locked(&self.volumes).past.remember(view::failed(admitted, helper), lines);
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

impl Entry {
    /// The last lines of its helper, and of those before.
    fn words(&self) -> Vec<String> {
        let mut lines = self.said.clone();
        lines.extend(self.output.iter().flat_map(HelperOutput::lines));
        lines.split_off(lines.len().saturating_sub(LINES))
    }
}

/// The number that marks events of one of a volume's descriptors. Ids begin at 1: the mounter's own events are below 2.
pub fn token(id: u64, channel: Channel) -> u64 {
    id << 1 | u64::from(channel == Channel::Output)
}

/// The way back from [`token`].
pub fn from_token(token: u64) -> (u64, Channel) {
    (token >> 1, if token & 1 == 1 { Channel::Output } else { Channel::Engine })
}

fn report_retired() {
    info!("the helper that was replaced has ended: nothing was open any more");
}

/// How long to wait after so many failures: not at all after none.
fn wait_after(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        more => FIRST_WAIT.saturating_mul(2u32.saturating_pow(more - 1)).min(LONGEST_WAIT),
    }
}

/// A thread that panicked while it held a lock has left nothing half-done: every change here is one step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
