//! What happens on the descriptors of volumes that programs of pods serve, and what is due.
//!
//! Runs in the mounter, on the main thread. Nothing here waits, and no volume is attended to more often than its pace allows: what may take
//! long becomes a [`Task`].

use super::PodVolumeId;
use super::descriptors::{Kind, Old, from_token, token};
use super::entry::{Entry, State};
use super::registry::{Pods, Volumes};
use super::task::{Conversation, Task};
use crate::mounter::volume::pace::Pace;
use crate::node::fuse_device::Answered;
use crate::node::fuse_waiting::Waiting;
use crate::observe::events;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{error, warn};

/// How many connections of a volume's programs are served at a time, each by a thread; others wait in the socket's queue.
const CONVERSATIONS: usize = 4;
/// How long what waited on an earlier connection, or is on its way there, is told to look again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long tasks rest when there is no thread for one.
const NO_ROOM: Duration = Duration::from_millis(200);

impl Pods {
    /// Readable when there is something to [take in](Self::take_in).
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Takes in what has happened.
    pub fn take_in(&self) {
        let mut buffer = Vec::with_capacity(64);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if let Err(error) = epoll::wait(&self.events, spare_capacity(&mut buffer), Some(&now)) {
            return warn!("cannot see what the programs of pods do: {error}");
        }
        let mut volumes = self.locked();
        for event in &buffer {
            let (number, kind) = from_token(event.data.u64());
            let id = PodVolumeId(number);
            match kind {
                Kind::Door => self.accept(&mut volumes, id),
                Kind::Holder => {
                    if let Some(entry) = volumes.by_id.get(&id) {
                        // Until it is looked for others.
                        self.stop_watching(&entry.state);
                        volumes.tasks.push_back(Task::Look(id));
                    }
                }
                Kind::Connection => self.serve(&mut volumes, id),
                Kind::Old => self.answer_old(&mut volumes, number),
            }
        }
    }

    fn accept(&self, volumes: &mut Volumes, id: PodVolumeId) {
        let Volumes { by_id, tasks, .. } = volumes;
        let Some(entry) = by_id.get_mut(&id) else { return };
        let Some(door) = &entry.door else { return };
        let now = Instant::now();
        let until = loop {
            if !entry.is_free() {
                break now;
            }
            match door.listener.accept() {
                Ok((stream, _)) => {
                    let conversation = Conversation::new(id, stream, Arc::clone(&entry.conversations));
                    tasks.push_back(Task::Converse(conversation));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Out of descriptors, most likely: the program waits in the queue.
                Err(_) => break now + NO_ROOM,
            }
            let until = entry.connects.take(now);
            if until > now {
                break until;
            }
        };
        self.stop_watching_fd(&door.listener);
        entry.shut = Some(until);
    }

    fn serve(&self, volumes: &mut Volumes, id: PodVolumeId) {
        let Some(entry) = volumes.by_id.get_mut(&id) else { return };
        let State::Waiting { connection, .. } = &mut entry.state else { return };
        let Some(waiting) = connection else { return };
        if !waiting.serve() {
            // It is mounted nowhere any more.
            self.stop_watching_fd(&*waiting);
            *connection = None;
        } else if entry.pace.must_rest(Instant::now()) {
            self.stop_watching_fd(&*waiting);
        }
    }

    /// From now on what waits on a connection looks again, and so does what comes.
    pub(super) fn answer(&self, volumes: &mut Volumes, number: u64, waiting: Waiting) {
        let old = Old { answers: waiting.answers(), until: Instant::now() + LOOK_AGAIN, pace: Pace::default() };
        self.watch_number(number, Kind::Old, &old.answers);
        volumes.old.insert(number, old);
    }

    fn answer_old(&self, volumes: &mut Volumes, number: u64) {
        let Some(old) = volumes.old.get_mut(&number) else { return };
        if old.answers.answer(false) == Answered::Ended {
            self.end_old(volumes, number);
        } else if old.pace.must_rest(Instant::now()) {
            self.stop_watching_fd(&old.answers);
        }
    }

    fn end_old(&self, volumes: &mut Volumes, number: u64) {
        if let Some(old) = volumes.old.remove(&number) {
            self.stop_watching_fd(&old.answers);
            old.answers.end();
        }
    }

    /// Does what is due; how long until more is?
    pub fn due(&self) -> Option<Duration> {
        let (now, mut volumes) = (Instant::now(), self.locked());
        let over: Vec<_> = volumes.old.iter().filter(|(_, old)| old.until <= now).map(|(number, _)| *number).collect();
        over.into_iter().for_each(|number| self.end_old(&mut volumes, number));
        for (number, old) in &mut volumes.old {
            if old.pace.has_rested(now) {
                self.watch_number(*number, Kind::Old, &old.answers);
            }
        }
        for (id, entry) in &mut volumes.by_id {
            self.do_what_is_due(*id, entry, now);
        }
        let old = volumes.old.values().flat_map(|old| [Some(old.until), old.pace.rests_until()]);
        let waits = volumes.by_id.values().flat_map(|entry| [self.over_at(entry), entry.pace.rests_until()]);
        let shut = volumes.by_id.values().filter(|entry| entry.is_free()).filter_map(|entry| entry.shut).min();
        let rest = volumes.rests_until.filter(|_| !volumes.tasks.is_empty());
        let next = old.chain(waits).chain([shut, rest]).flatten().min();
        next.map(|at| at.saturating_duration_since(now))
    }

    fn do_what_is_due(&self, id: PodVolumeId, entry: &mut Entry, now: Instant) {
        let rested = entry.pace.has_rested(now);
        let over = self.over_at(entry).is_some_and(|at| at <= now);
        if let State::Waiting { connection: Some(waiting), .. } = &mut entry.state {
            if over {
                let seconds = self.limit.as_secs();
                let _span = entry.volume.span().entered();
                error!(
                    event = events::PROGRAM_LATE,
                    "no program has served the volume for {seconds} s: calls wait no longer, and fail until one does"
                );
                waiting.give_up();
            }
            if rested {
                self.watch_fd(id, Kind::Connection, &*waiting);
            }
        }
        if entry.shut.is_some_and(|until| until <= now)
            && entry.is_free()
            && let Some(door) = &entry.door
        {
            let watched = self.watch_fd(id, Kind::Door, &door.listener);
            entry.shut = (!watched).then_some(now + NO_ROOM);
        }
    }

    /// When calls wait no longer.
    fn over_at(&self, entry: &Entry) -> Option<Instant> {
        match &entry.state {
            State::Waiting { connection: Some(waiting), since } if !waiting.is_over() => Some(*since + self.limit),
            _ => None,
        }
    }

    /// What is to be done, each on a thread of its own.
    pub fn next_task(&self) -> Option<Task> {
        let mut volumes = self.locked();
        if volumes.rests_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        volumes.tasks.pop_front()
    }

    /// There was no thread for a task: it is tried again.
    pub fn again(&self, task: Option<Task>) {
        let mut volumes = self.locked();
        task.into_iter().for_each(|task| volumes.tasks.push_front(task));
        volumes.rests_until = Some(Instant::now() + NO_ROOM);
    }

    pub(super) fn watch(&self, id: PodVolumeId, entry: &Entry) {
        entry.door.iter().for_each(|door| _ = self.watch_fd(id, Kind::Door, &door.listener));
        self.watch_state(id, &entry.state);
    }

    pub(super) fn watch_state(&self, id: PodVolumeId, state: &State) {
        match state {
            State::Served { holders, .. } => {
                holders.iter().for_each(|holder| _ = self.watch_fd(id, Kind::Holder, holder));
            }
            State::Waiting { connection, .. } => {
                connection.iter().for_each(|waiting| _ = self.watch_fd(id, Kind::Connection, waiting));
            }
        }
    }

    pub(super) fn stop_watching(&self, state: &State) {
        match state {
            State::Served { holders, .. } => holders.iter().for_each(|holder| self.stop_watching_fd(holder)),
            State::Waiting { connection, .. } => connection.iter().for_each(|waiting| self.stop_watching_fd(waiting)),
        }
    }

    pub(super) fn watch_fd(&self, id: PodVolumeId, kind: Kind, fd: impl AsFd) -> bool {
        self.watch_number(id.0, kind, fd)
    }

    fn watch_number(&self, number: u64, kind: Kind, fd: impl AsFd) -> bool {
        let token = epoll::EventData::new_u64(token(number, kind));
        match epoll::add(&self.events, fd, token, epoll::EventFlags::IN) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => true,
            Err(error) => {
                warn!("cannot watch what a pod's program does: {error}");
                false
            }
        }
    }

    pub(super) fn stop_watching_fd(&self, fd: impl AsFd) {
        // Not closing alone: a copy of the descriptor in a process just being forked would keep the events coming.
        let _ = epoll::delete(&self.events, fd);
    }
}

impl Entry {
    fn is_free(&self) -> bool {
        self.conversations.load(Ordering::Acquire) < CONVERSATIONS
    }
}
