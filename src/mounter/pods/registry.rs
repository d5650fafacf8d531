//! All volumes that programs of pods serve.
//!
//! Runs in the mounter, on all its threads. What happens on their descriptors is taken in by the main thread ([`events`](super::events)).

use super::descriptors::{Kind, Old};
use super::door::{Door, Inode};
use super::entry::{Entry, Next, State};
use super::holders::Holder;
use super::ration::Ration;
use super::record::Records;
use super::task::Task;
use super::{PodVolume, PodVolumeId};
use crate::mounter::volume::pace::Pace;
use crate::node::connections::Identity;
use crate::node::fuse_device::FuseDevice;
use crate::node::fuse_waiting::Waiting;
use crate::observe::{self, events};
use rustix::event::epoll;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, PipeReader};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tracing::info;

/// How many of a program's last words are kept, and how long each may be.
const LINES: usize = api::program::MAX_WORDS;
const LINE: usize = 1024;
/// How many lines a minute are logged of what its programs say, or are refused.
const LOGGED: u64 = 60;
/// How many earlier filesystems of a volume are looked for, as they may show somewhere still.
const MOST_LEFT: usize = 8;

/// All of them.
#[derive(Debug)]
pub struct Pods {
    /// An epoll descriptor of our own, which the main thread waits on among others.
    pub(super) events: OwnedFd,
    records: Records,
    volumes: Mutex<Volumes>,
    /// How long calls wait for a program.
    pub(super) limit: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Volumes {
    last: u64,
    pub(super) by_id: BTreeMap<PodVolumeId, Entry>,
    /// Connections that others have taken over from, by numbers of their own.
    pub(super) old: BTreeMap<u64, Old>,
    pub(super) tasks: VecDeque<Task>,
    /// When tasks that could not be begun are tried again.
    pub(super) rests_until: Option<Instant>,
}

/// A volume as it is added.
#[derive(Debug)]
pub(super) struct New {
    pub(super) volume: PodVolume,
    pub(super) since: SystemTime,
    pub(super) filesystem: Identity,
    pub(super) left: Vec<Identity>,
    pub(super) state: State,
    pub(super) door: Option<Door>,
}

/// What was known of a volume that is no more.
#[derive(Debug)]
pub(super) struct Forgotten {
    pub(super) volume: Arc<PodVolume>,
    /// Its socket, if this mounter has made one.
    pub(super) socket: Option<Inode>,
}

impl Pods {
    /// None yet. Calls wait for a program as long as `limit`.
    pub fn new(records: Records, limit: Duration) -> io::Result<Self> {
        Ok(Self { events: epoll::create(epoll::CreateFlags::CLOEXEC)?, records, volumes: Mutex::default(), limit })
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, Volumes> {
        // Every change here is one step.
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next mounter will know.
    pub(super) fn records(&self) -> &Records {
        &self.records
    }

    pub(super) fn add(&self, new: New) -> PodVolumeId {
        let New { volume, since, filesystem, left, state, door } = new;
        let mut volumes = self.locked();
        let id = PodVolumeId(volumes.next());
        let had_program = matches!(state, State::Served { .. });
        let entry = Entry {
            volume: Arc::new(volume),
            since,
            filesystem,
            successor: None,
            left,
            state,
            door,
            shut: None,
            conversations: Arc::default(),
            asked: None,
            turn: Arc::default(),
            had_program,
            words: Vec::new(),
            told: None,
            pace: Pace::default(),
            connects: Ration::default(),
            log: observe::ration::Ration::new("words of a pod's programs", LOGGED),
        };
        self.records.keep(&entry);
        self.watch(id, &entry);
        volumes.by_id.insert(id, entry);
        id
    }

    /// The volume at `target`.
    pub fn at(&self, target: &Path) -> Option<PodVolumeId> {
        self.locked().by_id.iter().find(|(_, entry)| entry.volume.target == target).map(|(id, _)| *id)
    }

    /// The filesystem of the volume at `target`.
    pub fn filesystem_of(&self, target: &Path) -> Option<Identity> {
        let volumes = self.locked();
        volumes.by_id.values().find(|entry| entry.volume.target == target).map(|entry| entry.filesystem)
    }

    pub(super) fn volume(&self, id: PodVolumeId) -> Option<Arc<PodVolume>> {
        self.locked().by_id.get(&id).map(|entry| Arc::clone(&entry.volume))
    }

    /// Whether a filesystem is one of theirs.
    pub fn knows(&self, filesystem: Identity) -> bool {
        self.locked().by_id.values().any(|entry| entry.is(filesystem))
    }

    /// A program serves the volume.
    pub(super) fn is_served(&self, id: PodVolumeId) -> bool {
        self.is_served_by(id, None)
    }

    /// A program serves the volume, by this connection if one is named.
    pub(super) fn is_served_by(&self, id: PodVolumeId, connection: Option<u64>) -> bool {
        let volumes = self.locked();
        let Some(entry) = volumes.by_id.get(&id) else { return false };
        matches!(entry.state, State::Served { .. })
            && (connection.is_none() || entry.filesystem.connection == connection)
    }

    /// No program serves the volume, and nothing waits for one: every call fails.
    pub(super) fn is_dead(&self, id: PodVolumeId) -> bool {
        let dead = |entry: &Entry| matches!(entry.state, State::Waiting { connection: None, .. });
        self.locked().by_id.get(&id).is_some_and(dead)
    }

    /// The right to put a filesystem in the place of the volume's; none if there is no such volume.
    pub(super) fn turn(&self, id: PodVolumeId) -> Option<Arc<Mutex<()>>> {
        self.locked().by_id.get(&id).map(|entry| Arc::clone(&entry.turn))
    }

    /// A program asks for the volume's filesystem, and gets `fresh`: who has asked before is not waited for any longer. What is hung up
    /// when this one is not waited for any longer either.
    pub(super) fn ask(&self, id: PodVolumeId, fresh: Identity) -> io::Result<Option<PipeReader>> {
        let (reader, writer) = io::pipe()?;
        let mut volumes = self.locked();
        let Some(entry) = volumes.by_id.get_mut(&id) else { return Ok(None) };
        entry.asked = Some((fresh, writer));
        Ok(Some(reader))
    }

    /// Whether nobody has asked since the program did that got `fresh`, and that one has not given it up.
    pub(super) fn has_asked_last(&self, id: PodVolumeId, fresh: Identity) -> bool {
        let volumes = self.locked();
        let asked = volumes.by_id.get(&id).and_then(|entry| entry.asked.as_ref());
        asked.is_some_and(|(last, _)| *last == fresh)
    }

    /// The program that has asked last is not waited for any longer, if what it got is this connection's and does not show yet.
    pub(super) fn give_up(&self, id: PodVolumeId, connection: u64) -> bool {
        let mut volumes = self.locked();
        let Some(entry) = volumes.by_id.get_mut(&id) else { return false };
        let shown = entry.filesystem;
        entry.asked.take_if(|(got, _)| *got != shown && got.connection == Some(connection)).is_some()
    }

    /// A fresh filesystem is put in the volume's places: which ones are there now, and whether nobody serves the first of them.
    pub(super) fn expect(&self, id: PodVolumeId, fresh: Identity) -> Option<(Vec<Identity>, bool)> {
        let mut volumes = self.locked();
        let entry = volumes.by_id.get_mut(&id)?;
        entry.successor = Some(fresh);
        // Before it shows: a mounter that is killed then leaves it there.
        self.records.keep(entry);
        let all = [entry.filesystem].into_iter().chain(entry.left.iter().copied());
        Some((all.collect(), matches!(entry.state, State::Waiting { .. })))
    }

    /// It was not, after all.
    pub(super) fn do_not_expect(&self, id: PodVolumeId) {
        self.locked().by_id.get_mut(&id).into_iter().for_each(|entry| entry.successor = None);
    }

    /// It was: all but what is `left`. Returns the device if there is no such volume any more.
    pub(super) fn take_over(
        &self,
        id: PodVolumeId,
        fresh: Identity,
        device: FuseDevice,
        next: Next,
        mut left: Vec<Identity>,
    ) -> Result<(), FuseDevice> {
        let mut volumes = self.locked();
        let number = volumes.next();
        let Some(entry) = volumes.by_id.get_mut(&id) else { return Err(device) };
        left.truncate(MOST_LEFT);
        (entry.filesystem, entry.successor, entry.left, entry.told) = (fresh, None, left, None);
        let state = match next {
            Next::Program(holders) => {
                entry.words.clear();
                entry.had_program = true;
                State::served(device, holders)
            }
            Next::Nobody => State::waiting(Waiting::on(device)),
        };
        self.stop_watching(&entry.state);
        let before = std::mem::replace(&mut entry.state, state);
        self.watch_state(id, &entry.state);
        self.records.keep(entry);
        // What waits there looks again. A program that lives goes on with what is open, until that is closed.
        if let State::Waiting { connection: Some(waiting), .. } = before {
            self.answer(&mut volumes, number, waiting);
        }
        Ok(())
    }

    /// A copy of the descriptor of the volume's program, and what it serves; an error: that there is none.
    pub(super) fn device(&self, id: PodVolumeId) -> Option<(Identity, Option<FuseDevice>)> {
        let volumes = self.locked();
        let entry = volumes.by_id.get(&id)?;
        let State::Served { device, .. } = &entry.state else { return None };
        Some((entry.filesystem, device.as_ref().and_then(|device| device.try_clone().ok())))
    }

    /// These processes have the descriptor of `filesystem` now.
    pub(super) fn is_held_by(&self, id: PodVolumeId, filesystem: Identity, now: Vec<Holder>) {
        let mut volumes = self.locked();
        let Some(entry) = volumes.by_id.get_mut(&id).filter(|entry| entry.filesystem == filesystem) else { return };
        self.stop_watching(&entry.state);
        if let State::Served { holders, .. } = &mut entry.state {
            *holders = now.into_iter().map(|holder| holder.held).collect();
        }
        self.watch_state(id, &entry.state);
    }

    /// No process has the descriptor of `filesystem` any more: calls wait for the next program.
    pub(super) fn has_ended(&self, id: PodVolumeId, filesystem: Identity) {
        let mut volumes = self.locked();
        let Some(entry) = volumes.by_id.get_mut(&id).filter(|entry| entry.filesystem == filesystem) else { return };
        let State::Served { program, device, .. } = &mut entry.state else { return };
        info!(event = events::PROGRAM_ENDED, program, "the volume's program has ended: calls wait for the next one");
        let device = device.take();
        let resent = device.ok_or_else(|| io::ErrorKind::NotFound.into()).and_then(|device| match device.resend() {
            Ok(()) => Waiting::on(device),
            Err(error) => {
                device.end();
                Err(error)
            }
        });
        self.stop_watching(&entry.state);
        entry.state = State::waiting(resent);
        entry.told = None;
        self.watch_state(id, &entry.state);
        if matches!(entry.state, State::Waiting { connection: None, .. }) {
            // Linux before 6.9: calls fail until another filesystem is there.
            volumes.tasks.push_back(Task::Revive(id));
        }
    }

    /// What the volume's program has said before its end.
    pub(super) fn has_said(&self, id: PodVolumeId, words: Vec<String>) {
        if let Some(entry) = self.locked().by_id.get_mut(&id) {
            let short = |line: String| line.chars().take(LINE).collect();
            let skipped = words.len().saturating_sub(LINES);
            entry.words = words.into_iter().skip(skipped).map(short).collect();
            entry.told = None;
        }
    }

    /// What the volume's programs said last.
    pub(super) fn words(&self, id: PodVolumeId) -> Vec<String> {
        self.locked().by_id.get(&id).map(|entry| entry.words.clone()).unwrap_or_default()
    }

    /// Logs a line that a program of the volume's has caused, unless there were too many.
    pub(super) fn log(&self, id: PodVolumeId, line: impl FnOnce()) {
        if let Some(entry) = self.locked().by_id.get_mut(&id) {
            entry.log.log(line);
        }
    }

    /// Its door is open again.
    pub(super) fn open(&self, id: PodVolumeId, door: Door) -> Result<(), Door> {
        let mut volumes = self.locked();
        let Some(entry) = volumes.by_id.get_mut(&id) else { return Err(door) };
        self.watch_fd(id, Kind::Door, &door.listener);
        (entry.door, entry.shut) = (Some(door), None);
        self.records.keep(entry);
        Ok(())
    }

    /// The volume is no more. What it waited for ends.
    pub(super) fn forget(&self, id: PodVolumeId) -> Option<Forgotten> {
        let entry = self.locked().by_id.remove(&id)?;
        self.records.drop(entry.volume.as_ref());
        self.stop_watching(&entry.state);
        entry.door.iter().for_each(|door| self.stop_watching_fd(&door.listener));
        let socket = entry.door.as_ref().map(|door| door.inode);
        match entry.state {
            State::Waiting { connection: Some(waiting), .. } => waiting.end(),
            // A program that lives serves what is open still.
            State::Served { .. } | State::Waiting { .. } => {}
        }
        Some(Forgotten { volume: entry.volume, socket })
    }

    /// Has a task carried out.
    pub(super) fn to_do(&self, task: Task) {
        self.locked().tasks.push_back(task);
    }
}

impl Volumes {
    pub(super) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}
