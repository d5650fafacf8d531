//! Volumes that hang: requests wait for a helper that lives and does nothing.
//!
//! Runs in the mounter, on a thread of its own from time to time. It reads what the kernel counts, and never touches the
//! filesystem: a thread that does that waits as well.
//!
//! A volume hangs when for the configured time, at every look, there were requests waiting, never fewer than at the look
//! before, not all of them for file locks, and its helper's processes did next to nothing. That requests wait says little
//! alone: with a busy volume some always do. docs/hung-volumes.md says the same for administrators.

use super::kill::kill_helper;
use crate::config::settings::OnHang;
use crate::helper::cause::waits_for;
use crate::helper::work::{Done, Work};
use crate::mounter::Mounter;
use crate::mounter::volume::{Volume, VolumeId};
use crate::node::file_locks;
use crate::observe::events;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant, SystemTime};
use tracing::{debug, error, info, warn};

/// How many looks the configured time has.
pub const LOOKS: u32 = 8;

/// Which volumes hang, and what all of them looked like.
#[derive(Debug, Default)]
pub struct Hangs {
    /// Held for as long as a look lasts, which walks through /proc: nobody but the next look may wait for it.
    looking: Mutex<HashMap<VolumeId, Pulse>>,
    /// Held for a moment only.
    hung: Mutex<HashMap<VolumeId, SystemTime>>,
}

/// What one volume looked like.
#[derive(Debug, Default)]
struct Pulse {
    waiting: u64,
    still: Option<Still>,
    hangs: bool,
}

/// Requests wait, and nothing is seen to be done about it.
#[derive(Debug)]
struct Still {
    since: Instant,
    /// How many have come since.
    more: u64,
    /// What the helper had done by then.
    work: Work,
}

/// What a look has brought to light.
#[derive(Debug, PartialEq, Eq)]
enum News {
    Hangs,
    Answers,
}

/// Looks at all volumes once. If the look before is not over yet, that one will do.
pub fn look(mounter: &Mounter) {
    let mut pulses = match mounter.hangs.looking.try_lock() {
        Ok(pulses) => pulses,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return debug!("the last look at all volumes is not over yet"),
    };
    let volumes = mounter.registry.serving();
    let there = |id: &VolumeId| volumes.iter().any(|(volume, _)| volume == id);
    pulses.retain(|id, _| there(id));
    mounter.hangs.hung().retain(|id, _| there(id));
    for (id, volume) in &volumes {
        let Some(limit) = volume.plan.settings.hang_time else { continue };
        // An error: a filesystem of the kernel's own, or one that has just gone.
        let Ok(waiting) = mounter.connections.waiting(volume.identity) else { continue };
        let _span = volume.span().entered();
        let work = || Work::of(&volume.processes).ok().filter(|work| !work.has_no_process());
        let locks = || file_locks::waiting(volume.identity.device, &mounter.host_proc);
        match pulses.entry(*id).or_default().look(Instant::now(), waiting, work, locks, limit) {
            Some(News::Hangs) => {
                mounter.hangs.hung().insert(*id, SystemTime::now());
                report(mounter, *id, volume, waiting, limit);
            }
            Some(News::Answers) => {
                mounter.hangs.hung().remove(id);
                info!(event = events::ANSWERS, "the volume answers again");
            }
            None => {}
        }
    }
}

/// Says that a volume hangs, and does what is configured.
fn report(mounter: &Mounter, id: VolumeId, volume: &Volume, waiting: u64, limit: Duration) {
    let seconds = limit.as_secs();
    let waits = waits_for(&volume.processes).map(|waits| format!("; {waits}")).unwrap_or_default();
    error!(
        event = events::HUNG,
        waiting, "the volume hangs: for {seconds} s requests have waited, and its helper does nothing{waits}"
    );
    mounter.metrics.hangs.inc();
    mounter.registry.note_hang(id);
    match volume.not_healed() {
        _ if volume.plan.settings.on_hang == OnHang::Report => {}
        Some(why) => {
            warn!(event = events::HUNG_LEFT, "its helper is left alone, as the volume would not be healed: {why}");
        }
        None => {
            warn!("its helper is killed, for a fresh one to take its place");
            kill_helper(mounter, id, volume);
        }
    }
}

impl Hangs {
    /// Since when volume `id` has been known to hang.
    pub fn since(&self, id: VolumeId) -> Option<SystemTime> {
        self.hung().get(&id).copied()
    }

    fn hung(&self) -> MutexGuard<'_, HashMap<VolumeId, SystemTime>> {
        self.hung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pulse {
    fn look(
        &mut self,
        now: Instant,
        waiting: u64,
        work: impl FnOnce() -> Option<Work>,
        locks: impl FnOnce() -> u64,
        limit: Duration,
    ) -> Option<News> {
        let before = std::mem::replace(&mut self.waiting, waiting);
        let work = if waiting == 0 || waiting < before { None } else { work() };
        // Fewer wait, or nobody is there to hang: it is well, or another's business.
        let Some(work) = work else { return self.moves() };
        let Some(still) = &mut self.still else {
            self.still = Some(Still { since: now, more: 0, work });
            return None;
        };
        still.more += waiting - before;
        let time = now.duration_since(still.since);
        let done = work.since(&still.work);
        if is_work(done, time, still.more) {
            debug!(event = events::BUSY, waiting, ?done, "requests wait, and the helper works");
            let news = self.moves();
            self.still = Some(Still { since: now, more: 0, work });
            return news;
        }
        if locks() >= waiting {
            debug!(event = events::LOCKED, waiting, "requests wait for file locks");
            return self.moves();
        }
        if !self.hangs && time >= limit {
            self.hangs = true;
            return Some(News::Hangs);
        }
        None
    }

    fn moves(&mut self) -> Option<News> {
        self.still = None;
        std::mem::take(&mut self.hangs).then_some(News::Answers)
    }
}

/// Whether this is more than a helper does by itself that has nothing to do: timers, keeping a connection alive, and
/// reading requests that have come meanwhile.
fn is_work(done: Done, time: Duration, more: u64) -> bool {
    // Measured (docs/hung-volumes.md): at rest helpers made no more than 0.2 calls and took no more than 3.3 turns a second;
    // at work it is hundreds of each. A helper that never rests takes few turns, and all the time there is.
    let seconds = time.as_secs_f64();
    let by_itself = |per_second: f64, per_request: u64| (per_second * seconds) as u64 + per_request * more;
    done.calls > by_itself(0.2, 16) || done.turns > by_itself(10.0, 16) || done.time > by_itself(1.0, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(8);

    /// What each look brings, one a second, at a helper that does nothing.
    fn looks(waiting: &[u64], locks: u64) -> Vec<Option<News>> {
        let (mut pulse, begin) = (Pulse::default(), Instant::now());
        let look = |(second, waiting): (u64, &u64)| {
            let now = begin + Duration::from_secs(second);
            pulse.look(now, *waiting, || Some(Work::default()), || locks, LIMIT)
        };
        (0..).zip(waiting).map(look).collect()
    }

    /// A look walks through /proc for as long as it takes. The list of volumes, and the main thread behind it, ask meanwhile.
    #[test]
    fn a_look_that_takes_long_keeps_nobody_waiting() {
        let hangs = Hangs::default();
        let _look = hangs.looking.lock().unwrap();
        assert_eq!(hangs.since(VolumeId::default()), None);
    }

    #[test]
    fn a_volume_that_never_answers_hangs_and_that_is_reported_once() {
        let mut waiting = vec![1; 20];
        waiting.extend([0, 0]);
        let news = looks(&waiting, 0);
        let reported: Vec<_> = news.iter().enumerate().filter(|(_, news)| news.is_some()).map(|(at, _)| at).collect();
        assert_eq!((reported, &news[8], &news[20]), (vec![8, 20], &Some(News::Hangs), &Some(News::Answers)));
        // More and more wait.
        assert_eq!(looks(&[1, 1, 2, 2, 3, 4, 5, 5, 5], 0)[8], Some(News::Hangs));
    }

    #[test]
    fn a_volume_that_answers_now_and_then_does_not() {
        let waiting: Vec<u64> = (0..60).map(|at| if at % 7 == 0 { 3 } else { 4 }).collect();
        assert!(looks(&waiting, 0).iter().all(Option::is_none));
        assert!(looks(&[0; 60], 0).iter().all(Option::is_none));
    }

    #[test]
    fn a_request_that_waits_for_a_lock_waits_for_another_process() {
        assert!(looks(&[1; 60], 1).iter().all(Option::is_none));
        assert_eq!(looks(&[2; 20], 1)[8], Some(News::Hangs));
    }
}
