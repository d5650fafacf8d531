//! Connections that are held after their helper's end, and what waits on them.
//!
//! Runs in the mounter: every thread reports events to the registry, the main thread answers requests and ends what is held
//! too long. When is decided by [`Hold`].

use super::held::Answering;
use super::hold::{Hold, HoldEffect};
use super::orphan::Orphan;
use super::registry::{Entry, Registry, Volumes};
use super::state::{Event, State};
use super::watching::{Channel, token};
use super::{Volume, VolumeId};
use crate::engine::Engine;
use crate::node::cgroup::Cgroup;
use crate::node::connections::Identity;
use crate::node::fuse_device::{Answered, FuseDevice};
use linux::processes::Process;
use rustix::event::epoll;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use tracing::warn;

impl Registry {
    /// The volumes with new helpers, of whose descriptors there is no copy yet, with the processes that may be those helpers' where
    /// that is known. None of them is returned again.
    pub fn take_unkept(&self) -> Vec<(VolumeId, Volume, Option<Vec<Process>>)> {
        let mut volumes = self.locked();
        let ids = std::mem::take(&mut volumes.unkept);
        let entries = ids.into_iter().filter_map(|id| Some((id, volumes.by_id.get(&id)?)));
        let unkept = entries.filter(|(_, entry)| !entry.held.limit.is_zero());
        unkept.map(|(id, entry)| (id, entry.volume.clone(), entry.cgroup.as_ref().map(Cgroup::processes))).collect()
    }

    /// Keeps a copy of the descriptor that the helper of volume `id` serves by. It was taken from a process in the mount namespace
    /// with the helper's number.
    pub fn keep(&self, id: VolumeId, device: FuseDevice) {
        let mut volumes = self.locked();
        let Some(entry) = volumes.by_id.get_mut(&id) else { return };
        // Another helper has the number only after this one's end.
        let its_own = entry.engine.as_ref().is_some_and(Engine::has_helper);
        if its_own && matches!(entry.state, State::Serving { .. }) && entry.held.hold == Hold::Ended {
            (entry.held.hold, entry.held.device) = (Hold::Kept, Some(device));
        }
    }

    /// A copy of the descriptor that the helper of volume `id` serves by, for as long as it does.
    pub fn copy_of_kept(&self, id: VolumeId) -> Option<FuseDevice> {
        let volumes = self.locked();
        let held = &volumes.by_id.get(&id)?.held;
        held.device.as_ref().filter(|_| held.hold == Hold::Kept)?.try_clone().ok()
    }

    /// A volume's helper is about to be killed. Whether its connection is held: then requests wait for the next one.
    pub fn expect_end(&self, id: VolumeId) -> bool {
        self.report(id, Event::HelperKilled);
        self.locked().by_id.get(&id).is_some_and(|entry| entry.held.hold.is_waiting())
    }

    /// How long requests to volume `id` have waited for the next helper, if they do.
    pub fn held_for(&self, id: VolumeId) -> Option<Duration> {
        let volumes = self.locked();
        let held = &volumes.by_id.get(&id)?.held;
        let until = held.hold.until().filter(|_| held.hold.is_waiting())?;
        Some(held.limit.saturating_sub(until.saturating_duration_since(Instant::now())))
    }

    /// Whether a filesystem's helper is gone and its requests wait all the same.
    pub fn is_held(&self, filesystem: Identity) -> bool {
        self.locked().by_id.values().any(|entry| entry.volume.identity == filesystem && entry.held.hold.is_waiting())
    }

    /// The volumes whose connections are kept while their helpers serve.
    pub fn kept(&self) -> Vec<(VolumeId, Volume)> {
        let volumes = self.locked();
        let kept = volumes.by_id.iter().filter(|(_, entry)| entry.held.hold == Hold::Kept);
        kept.map(|(id, entry)| (*id, entry.volume.clone())).collect()
    }

    /// Whether the connection of volume `id` is kept, and something of its helper lives just now.
    pub fn is_kept_by_helper(&self, id: VolumeId) -> bool {
        let lives = |entry: &Entry| entry.engine.as_ref().is_some_and(Engine::has_helper);
        self.locked().by_id.get(&id).is_some_and(|entry| entry.held.hold == Hold::Kept && lives(entry))
    }

    /// Begins to answer what comes on the connection of volume `id`, which another has taken over from.
    pub(super) fn begin_to_answer(&self, volumes: &mut Volumes, id: VolumeId, answering: Answering) {
        match self.watch_answers(id, &answering) {
            Ok(()) => _ = volumes.answering.insert(id, answering),
            Err(error) => {
                warn!("cannot watch what waits for the helper that is gone: {error}");
                answering.answers.end();
            }
        }
    }

    /// Requests wait on a connection that is answered, or it has ended.
    pub(super) fn answer(&self, volumes: &mut Volumes, id: VolumeId) {
        let Some(answering) = volumes.answering.get_mut(&id) else { return };
        match answering.answers.answer(answering.heir.is_some()) {
            Answered::Ended => return self.end_answers(volumes.answering.remove(&id)),
            Answered::OpenFile => return self.orphan(volumes, id),
            Answered::Some => {}
        }
        if answering.pace.must_rest(Instant::now()) {
            let _ = epoll::delete(&self.events, &answering.answers);
        }
    }

    /// Ends the connections that have been answered for long enough, and goes on with those that have rested.
    pub(super) fn look_at_answers(&self, volumes: &mut Volumes, now: Instant) {
        let over = |answering: &mut Answering| {
            let (hold, effect) = answering.hold.after(Event::Due, now, Duration::ZERO);
            answering.hold = hold;
            effect == Some(HoldEffect::End)
        };
        let ids: Vec<_> = volumes.answering.keys().copied().collect();
        for id in ids {
            let Some(answering) = volumes.answering.get_mut(&id) else { continue };
            let goes_on = !answering.pace.has_rested(now) || self.watch_answers(id, answering).is_ok();
            let orphaned = answering.heir.is_some() && answering.orphaned <= now;
            if over(answering) || !goes_on {
                self.end_answers(volumes.answering.remove(&id));
            } else if orphaned {
                self.orphan(volumes, id);
            }
        }
    }

    /// Files are open on a connection: an heir is to be started for them.
    fn orphan(&self, volumes: &mut Volumes, id: VolumeId) {
        let Some(Answering { answers, hold, heir: Some(inheritance), target, .. }) = volumes.answering.remove(&id)
        else {
            return;
        };
        let _ = epoll::delete(&self.events, &answers);
        let (device, until) = (answers.device(), hold.until());
        volumes.orphans.push(Orphan { target, device, until, answers, inheritance });
    }

    /// The connections for which heirs are to be started. None of them is returned again.
    pub fn take_orphans(&self) -> Vec<Orphan> {
        std::mem::take(&mut self.locked().orphans)
    }

    fn watch_answers(&self, id: VolumeId, answering: &Answering) -> rustix::io::Result<()> {
        let token = epoll::EventData::new_u64(token(id, Channel::Answers));
        epoll::add(&self.events, answering.answers.as_fd(), token, epoll::EventFlags::IN)
    }

    fn end_answers(&self, answering: Option<Answering>) {
        if let Some(Answering { answers, .. }) = answering {
            let _ = epoll::delete(&self.events, &answers);
            answers.end();
        }
    }
}

impl Volumes {
    /// When a connection is not held any longer, or has rested.
    pub(super) fn next_of_connections(&self) -> Option<Instant> {
        let held = self.by_id.values().filter_map(|entry: &Entry| entry.held.hold.until());
        let answering = self.answering.values();
        let answering = answering
            .flat_map(|answering| [answering.hold.until(), answering.pace.rests_until(), answering.orphaned_at()])
            .flatten();
        held.chain(answering).min()
    }
}
