//! Volumes that hang: requests wait for a helper that lives and does nothing.
//!
//! Runs in the mounter, on a thread of its own from time to time. It reads what the kernel counts, and never touches the
//! filesystem: whoever does that waits as well.
//!
//! A volume hangs when for the configured time, at every look, there were requests waiting, never fewer than at the look
//! before, not all of them for file locks, and its helper's processes did next to nothing. That requests wait says little alone: with a busy volume
//! some always do. docs/hung-volumes.md says the same for administrators.

use super::Mounter;
use super::heal::obstacle;
use super::volume::Volume;
use crate::config::OnHang;
use crate::helper::work::{Done, Work};
use crate::node::file_locks;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tracing::{debug, error, info, info_span, warn};

/// How many looks the configured time has.
pub const LOOKS: u32 = 8;

/// What all volumes looked like.
#[derive(Debug, Default)]
pub struct Hangs(Mutex<HashMap<u64, Pulse>>);

/// What one volume looked like.
#[derive(Debug, Default)]
struct Pulse {
    waiting: u64,
    still: Option<Still>,
    hangs: Option<SystemTime>,
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

/// Looks at all volumes once.
pub fn look(mounter: &Mounter) {
    let volumes = mounter.registry.serving();
    mounter.hangs.locked().retain(|id, _| volumes.iter().any(|(there, _)| there == id));
    for (id, volume) in volumes {
        let settings = mounter.config.filesystem(&volume.admitted.request);
        let Some(limit) = mounter.config.hang_time(&settings) else { continue };
        // None: a filesystem of the kernel's own, or one that has just gone.
        let Ok(waiting) = mounter.connections.waiting(volume.identity) else { continue };
        let work = || Work::of(&volume.family).ok().filter(|work| !work.has_no_process());
        let _span = info_span!("volume", target = %volume.admitted.target.display()).entered();
        let locks = || file_locks::waiting(volume.identity.device, &mounter.host_proc);
        let news = mounter.hangs.locked().entry(id).or_default().look(Instant::now(), waiting, work, locks, limit);
        match news {
            Some(News::Hangs) => {
                error!(
                    waiting,
                    "the volume hangs: for {} s requests have waited, and its helper does nothing",
                    limit.as_secs()
                );
                mounter.metrics.hangs.inc();
                match obstacle(mounter, &volume) {
                    _ if mounter.config.on_hang(&settings) == OnHang::Report => {}
                    Some(obstacle) => warn!("its helper is left alone, as the volume would not be healed: {obstacle}"),
                    None => {
                        warn!("its helper is ended, for a fresh one to take its place");
                        end_helper(mounter, &volume);
                    }
                }
            }
            Some(News::Answers) => info!("the volume answers again"),
            None => {}
        }
    }
}

/// Ends the helper of a volume that hangs: it is dead then, and healed like any other.
pub fn end_helper(mounter: &Mounter, volume: &Volume) {
    // First of all whoever waits is let go, the helper itself perhaps.
    if let Err(error) = mounter.connections.abort(volume.identity) {
        warn!("cannot end the connection of a volume that hangs: {error}");
    }
    if let Err(error) = volume.family.kill() {
        warn!("cannot end the helper of a volume that hangs: {error}");
    }
}

impl Hangs {
    /// Since when volume `id` has been known to hang.
    pub fn since(&self, id: u64) -> Option<SystemTime> {
        self.locked().get(&id)?.hangs
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<u64, Pulse>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
            debug!(waiting, ?done, "requests wait, and the helper works");
            let news = self.moves();
            self.still = Some(Still { since: now, more: 0, work });
            return news;
        }
        if locks() >= waiting {
            debug!(waiting, "requests wait for file locks");
            return self.moves();
        }
        if self.hangs.is_none() && time >= limit {
            self.hangs = Some(SystemTime::now());
            return Some(News::Hangs);
        }
        None
    }

    fn moves(&mut self) -> Option<News> {
        self.still = None;
        self.hangs.take().map(|_| News::Answers)
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

    #[test]
    fn who_never_answers_hangs_and_that_is_told_once() {
        let mut waiting = vec![1; 20];
        waiting.extend([0, 0]);
        let news = looks(&waiting, 0);
        let told: Vec<_> = news.iter().enumerate().filter(|(_, news)| news.is_some()).map(|(at, _)| at).collect();
        assert_eq!((told, &news[8], &news[20]), (vec![8, 20], &Some(News::Hangs), &Some(News::Answers)));
        // More and more wait.
        assert_eq!(looks(&[1, 1, 2, 2, 3, 4, 5, 5, 5], 0)[8], Some(News::Hangs));
    }

    #[test]
    fn who_answers_now_and_then_does_not() {
        let waiting: Vec<u64> = (0..60).map(|at| if at % 7 == 0 { 3 } else { 4 }).collect();
        assert!(looks(&waiting, 0).iter().all(Option::is_none));
        assert!(looks(&[0; 60], 0).iter().all(Option::is_none));
    }

    #[test]
    fn who_waits_for_a_lock_waits_for_somebody_else() {
        assert!(looks(&[1; 60], 1).iter().all(Option::is_none));
        assert_eq!(looks(&[2; 20], 1)[8], Some(News::Hangs));
    }
}
