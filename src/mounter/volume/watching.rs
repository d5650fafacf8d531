//! The descriptors of volumes that the main thread waits on, and what has happened on them.
//!
//! Runs in the mounter, on the main thread; a request thread has those of a new volume watched.

use super::VolumeId;
use super::pace::Pace;
use super::registry::{Entry, Registry};
use super::state::{Effect, Event};
use crate::engine::{Engine, EngineEvent};
use crate::helper::output::HelperOutput;
use crate::node::cgroup::Cgroup;
use crate::observe::events;
use rustix::event::epoll;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use tracing::{error, warn};

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

impl Registry {
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
                Ok(EngineEvent::Cheats) => {
                    entry.held.end();
                    // Its processes, which are killed, may wait for their own filesystem.
                    if let Err(error) = self.connections.abort(entry.volume.identity) {
                        warn!("cannot end the connection of a helper that was killed: {error}");
                    }
                    None
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
    pub(super) fn watch(&self, id: VolumeId, entry: &mut Entry) {
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

    pub(super) fn stop_watching(&self, fds: impl IntoIterator<Item = impl AsFd>) {
        for fd in fds {
            // Not closing alone: a copy of the descriptor in a process just being forked would keep the events coming.
            let _ = epoll::delete(&self.events, &fd);
        }
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
    use super::super::Volume;
    use super::super::record::Records;
    use super::*;
    use crate::config::Config;
    use crate::engine::helper_processes::HelperProcesses;
    use crate::engine::watch::Watch;
    use crate::helper::launch::Serving;
    use crate::node::connections::{Connections, Identity};
    use crate::policy::Plan;
    use api::origin::Origin;
    use api::request::Request;
    use linux::mount_table::Device;
    use std::sync::Arc;

    /// The kernel may refuse to watch a descriptor (epoll_ctl(2): ENOSPC, ENOMEM). A volume whose helper lives must not
    /// look dead for that: it would be healed, and its helper replaced.
    #[test]
    #[ignore = "the kernel's list of connections needs root: make test-quick"]
    fn a_volume_that_cannot_be_watched_is_not_taken_for_a_dead_one() {
        let not_epoll = std::fs::File::open("/dev/null").unwrap();
        let registry = Registry::new(not_epoll.into(), Records::none(), Arc::new(Connections::open().unwrap()));
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
