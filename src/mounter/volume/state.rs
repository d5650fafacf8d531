//! The life of a volume as a state machine: an event comes in, the state changes, and what is to be done goes out.
//!
//! Pure: no descriptor, no clock, no lock. The registry holds a state for each volume and passes on what happens; the event
//! loop starts what is asked for.
//!
//! ```text
//!            HelperEnded           Found(Mounted)            Due, then      ReplacementBegun
//! Serving ───────────────▶ Ended ─────────────────▶ Dead ──────────────────────────────────▶ Replacing
//!    ▲  │                    │ Found(Nowhere)        │ Found(Nowhere)                          │   │
//!    │  └── ReplacementBegun (a swap) ───────────────┼───────────────────────────────────────▶ │   │
//!    │                       ▼                       ▼                                         │   │
//!    │                      Gone ◀──────────────────────────────── Replaced, its helper ended ─┘   │
//!    └── ReplacementFailed                             Retired ◀── Replaced, its helper runs ──────┘
//! ```

use std::time::{Duration, Instant};

/// A helper that served so long has done well: the next death is healed at once.
const LONG: Duration = Duration::from_secs(60);
/// The waits between tries: they double.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A helper that served for this time at least is not waited for longer than a fourth of it: most of the time its volume is
/// served, and no more helpers are started than one in that time.
const SHORT: Duration = Duration::from_secs(1);

/// How often in a row a volume's helper ended, or could not be started, without one that served for [`LONG`] in between.
pub type Failures = u32;

/// What a volume's helper is to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The helper runs.
    Serving {
        /// When it began to serve.
        since: Instant,
        /// How many failed before it.
        failures: Failures,
    },
    /// Nothing of the helper runs any more. Whether the filesystem is still mounted somewhere is to be found out.
    Ended {
        /// How many failed, this one not counted.
        failures: Failures,
        /// How long to wait before a fresh one is started.
        wait: Duration,
    },
    /// The helper has ended and the filesystem is still mounted: every access answers "Transport endpoint is not
    /// connected", or waits if its connection is [held](super::hold).
    Dead {
        /// How many failed, this one not counted.
        failures: Failures,
        /// When a fresh helper is to be tried. None while that is under way, or if it would be of no use.
        retry: Option<Instant>,
    },
    /// A fresh helper's filesystem is being put in the place of this one: the old helper's end is expected.
    Replacing(Old),
    /// A fresh helper has taken over. The old one serves what was open before, until that is closed.
    Retired,
    /// Nothing is left of it.
    Gone,
}

/// What is being replaced: what the state was before, and will be again if nothing comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Old {
    /// A helper that runs.
    Serving {
        /// When it began to serve.
        since: Instant,
        /// How many failed before it.
        failures: Failures,
    },
    /// A helper that ran when its replacement began, and has ended since.
    EndedMeanwhile {
        /// How many failed before it.
        failures: Failures,
    },
    /// None: the volume is dead.
    Dead {
        /// How many failed.
        failures: Failures,
        /// When it is to be tried again, if this try fails.
        retry: Option<Instant>,
    },
}

/// Something that happened to a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The helper was killed: its end is expected.
    HelperKilled,
    /// The last process of the helper has ended.
    HelperEnded,
    /// What it had read and not answered cannot be read again.
    NotResent,
    /// A mount table has changed: a volume without a helper may have been unmounted.
    MountsChanged,
    /// The mount tables have been searched for the filesystem.
    Found(Where),
    /// It is time for the next try to heal it, perhaps, or that its connection is not [held](super::hold) any longer.
    Due,
    /// A fresh helper could not be started for a dead volume.
    HealingFailed,
    /// A fresh helper will not be started for a dead volume: healing is off, or too little is known of it.
    LeftDead,
    /// A fresh helper's filesystem is about to be put in its place.
    ReplacementBegun,
    /// It was not, after all.
    ReplacementFailed,
    /// It was: another volume has taken over.
    Replaced,
}

/// Where a filesystem without a helper is still mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// Nowhere.
    Nowhere,
    /// Somewhere, where it can be reached.
    Mounted,
    /// Under other mounts only: nobody meets it, and it cannot be replaced.
    Covered,
}

/// What is to be done about a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Search the mount tables for its filesystem.
    Search,
    /// It is dead: start a fresh helper now.
    Heal,
    /// It is dead, and its helper had not served for long: a fresh one is due after this time ([`Event::Due`]).
    HealLater(Duration),
    /// Drop all that is known of it: it is [`State::Gone`].
    Forget,
}

impl State {
    /// A helper serves since `now`, after so many failures.
    pub fn serving(now: Instant, failures: Failures) -> Self {
        Self::Serving { since: now, failures }
    }

    /// A volume whose helper ended while no mounter ran.
    pub fn ended() -> Self {
        Self::Ended { failures: 0, wait: Duration::ZERO }
    }

    /// What the state becomes when `event` happens at `now`, and what is to be done. An event that a state does not expect
    /// changes nothing: threads report what they saw, and another may have been quicker.
    pub fn after(self, event: Event, now: Instant) -> (Self, Option<Effect>) {
        use Event::*;
        match (self, event) {
            (Self::Serving { since, failures }, HelperEnded) => {
                let served = now.saturating_duration_since(since);
                let failures = failures_after(served, failures);
                (Self::Ended { failures, wait: wait_after(failures, served) }, Some(Effect::Search))
            }
            (Self::Retired, HelperEnded) => (Self::Gone, Some(Effect::Forget)),
            (Self::Replacing(Old::Serving { since, failures }), HelperEnded) => {
                let failures = failures_after(now.saturating_duration_since(since), failures);
                (Self::Replacing(Old::EndedMeanwhile { failures }), None)
            }

            (Self::Ended { .. } | Self::Dead { .. }, MountsChanged) => (self, Some(Effect::Search)),
            (Self::Ended { .. } | Self::Dead { .. }, Found(Where::Nowhere)) => (Self::Gone, Some(Effect::Forget)),
            (Self::Ended { failures, wait: Duration::ZERO }, Found(Where::Mounted)) => {
                (Self::Dead { failures, retry: None }, Some(Effect::Heal))
            }
            (Self::Ended { failures, wait }, Found(Where::Mounted)) => dead_for_now(failures, wait, now),

            (Self::Dead { failures, retry: Some(at) }, Due) if at <= now => {
                (Self::Dead { failures, retry: None }, Some(Effect::Heal))
            }
            (Self::Dead { failures, .. }, HealingFailed) => {
                let failures = failures.saturating_add(1);
                dead_for_now(failures, wait_after(failures, Duration::ZERO), now)
            }

            (Self::Dead { failures, .. }, LeftDead) => (Self::Dead { failures, retry: None }, None),

            (Self::Serving { since, failures }, ReplacementBegun) => {
                (Self::Replacing(Old::Serving { since, failures }), None)
            }
            (Self::Ended { failures, .. }, ReplacementBegun) => {
                (Self::Replacing(Old::Dead { failures, retry: Some(now) }), None)
            }
            (Self::Dead { failures, retry }, ReplacementBegun) => {
                (Self::Replacing(Old::Dead { failures, retry }), None)
            }

            (Self::Replacing(Old::Serving { since, failures }), ReplacementFailed) => {
                (Self::Serving { since, failures }, None)
            }
            (Self::Replacing(Old::EndedMeanwhile { failures }), ReplacementFailed) => {
                (Self::Dead { failures, retry: Some(now) }, None)
            }
            (Self::Replacing(Old::Dead { failures, retry }), ReplacementFailed) => {
                (Self::Dead { failures, retry }, None)
            }

            (Self::Replacing(Old::Serving { .. }), Replaced) => (Self::Retired, None),
            (Self::Replacing(_), Replaced) => (Self::Gone, Some(Effect::Forget)),
            _ => (self, None),
        }
    }

    /// How many failures the helper that takes over has before it: having died counts, having been swapped does not.
    pub fn failures_of_the_next(self) -> Failures {
        match self {
            Self::Dead { failures, .. } | Self::Replacing(Old::Dead { failures, .. }) => failures.saturating_add(1),
            _ => 0,
        }
    }

    /// When [`Event::Due`] is due.
    pub fn retry(self) -> Option<Instant> {
        match self {
            Self::Dead { retry, .. } => retry,
            _ => None,
        }
    }

    /// Whether its helper runs, as far as is known.
    pub fn has_helper(self) -> bool {
        matches!(self, Self::Serving { .. } | Self::Replacing(Old::Serving { .. }) | Self::Retired)
    }

    /// Whether it is a volume that callers may ask for: not one that another has taken over from.
    pub fn is_current(self) -> bool {
        !matches!(self, Self::Retired | Self::Gone)
    }
}

/// The failures before a helper that has ended after it `served` so long: a long service makes up for them.
pub(in crate::mounter) fn failures_after(served: Duration, failures: Failures) -> Failures {
    if served > LONG { 0 } else { failures }
}

fn dead_for_now(failures: Failures, wait: Duration, now: Instant) -> (State, Option<Effect>) {
    (State::Dead { failures, retry: Some(now + wait) }, Some(Effect::HealLater(wait)))
}

/// How long to wait after so many failures, the last of which had `served` so long: not at all after none.
pub(in crate::mounter) fn wait_after(failures: Failures, served: Duration) -> Duration {
    let longest = if served < SHORT { LONGEST_WAIT } else { LONGEST_WAIT.min(served / 4) };
    match failures {
        0 => Duration::ZERO,
        more => FIRST_WAIT.saturating_mul(2u32.saturating_pow(more - 1)).min(longest),
    }
}

#[cfg(test)]
pub(super) mod tests;
