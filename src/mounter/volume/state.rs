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
fn failures_after(served: Duration, failures: Failures) -> Failures {
    if served > LONG { 0 } else { failures }
}

fn dead_for_now(failures: Failures, wait: Duration, now: Instant) -> (State, Option<Effect>) {
    (State::Dead { failures, retry: Some(now + wait) }, Some(Effect::HealLater(wait)))
}

/// How long to wait after so many failures, the last of which had `served` so long: not at all after none.
fn wait_after(failures: Failures, served: Duration) -> Duration {
    let longest = if served < SHORT { LONGEST_WAIT } else { LONGEST_WAIT.min(served / 4) };
    match failures {
        0 => Duration::ZERO,
        more => FIRST_WAIT.saturating_mul(2u32.saturating_pow(more - 1)).min(longest),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(mut state: State, events: &[(Event, Duration)]) -> (State, Vec<Effect>) {
        let (mut now, mut effects) = (Instant::now(), Vec::new());
        for (event, later) in events {
            now += *later;
            let (next, effect) = state.after(*event, now);
            state = next;
            effects.extend(effect);
        }
        (state, effects)
    }

    const AT_ONCE: Duration = Duration::ZERO;

    #[test]
    fn a_plain_umount_is_forgotten() {
        let events = [(Event::HelperEnded, AT_ONCE), (Event::Found(Where::Nowhere), AT_ONCE)];
        let (state, effects) = all(State::serving(Instant::now(), 0), &events);
        assert_eq!((state, effects), (State::Gone, vec![Effect::Search, Effect::Forget]));
    }

    #[test]
    fn the_first_death_is_healed_at_once() {
        let events = [(Event::HelperEnded, AT_ONCE), (Event::Found(Where::Mounted), AT_ONCE)];
        let (state, effects) = all(State::serving(Instant::now(), 0), &events);
        assert_eq!(effects, [Effect::Search, Effect::Heal]);
        assert_eq!(state.failures_of_the_next(), 1);
    }

    /// 0.25 s, 0.5 s, 1 s …, each failure counted once.
    #[test]
    fn waits_double_from_a_quarter_of_a_second_to_a_minute() {
        let mut failures = 0;
        let mut waits = Vec::new();
        for _ in 0..12 {
            let dies = [(Event::HelperEnded, AT_ONCE), (Event::Found(Where::Mounted), AT_ONCE)];
            let (state, effects) = all(State::serving(Instant::now(), failures), &dies);
            waits.push(match effects[..] {
                [Effect::Search, Effect::Heal] => 0.0,
                [Effect::Search, Effect::HealLater(wait)] => wait.as_secs_f64(),
                _ => panic!("{effects:?}"),
            });
            failures = state.failures_of_the_next();
        }
        assert_eq!(waits, [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]);
    }

    #[test]
    fn a_heal_that_fails_counts_as_a_death_does() {
        let dead = State::Dead { failures: 0, retry: None };
        let waits: Vec<_> = all(dead, &[(Event::HealingFailed, AT_ONCE); 3]).1;
        let wait = |millis| Effect::HealLater(Duration::from_millis(millis));
        assert_eq!(waits, [wait(250), wait(500), wait(1000)]);
    }

    #[test]
    fn a_minute_of_service_resets_the_waits() {
        let dies_after =
            |seconds| [(Event::HelperEnded, Duration::from_secs(seconds)), (Event::Found(Where::Mounted), AT_ONCE)];
        assert_eq!(all(State::serving(Instant::now(), 5), &dies_after(61)).1, [Effect::Search, Effect::Heal]);
        assert!(matches!(all(State::serving(Instant::now(), 5), &dies_after(59)).1[1], Effect::HealLater(_)));
    }

    /// A helper that serves for ten seconds between two deaths is not waited for a minute.
    #[test]
    fn a_wait_is_no_longer_than_a_fourth_of_the_service_before() {
        let wait_after_service = |millis| {
            let dies = [(Event::HelperEnded, Duration::from_millis(millis)), (Event::Found(Where::Mounted), AT_ONCE)];
            match all(State::serving(Instant::now(), 20), &dies).1[..] {
                [Effect::Search, Effect::HealLater(wait)] => wait.as_millis(),
                ref effects => panic!("{effects:?}"),
            }
        };
        let waits = [0, 900, 1000, 10_000, 50_000].map(wait_after_service);
        assert_eq!(waits, [60_000, 60_000, 250, 2_500, 12_500]);
    }

    #[test]
    fn a_try_is_due_when_its_time_has_come_and_once() {
        let dead = State::Dead { failures: 1, retry: Some(Instant::now() + Duration::from_secs(1)) };
        assert_eq!(all(dead, &[(Event::Due, AT_ONCE)]).1, []);
        let due = (Event::Due, Duration::from_secs(2));
        assert_eq!(all(dead, &[due, due]).1, [Effect::Heal]);
    }

    #[test]
    fn what_is_left_dead_is_not_tried_again() {
        let dead = State::Dead { failures: 1, retry: Some(Instant::now()) };
        assert_eq!(all(dead, &[(Event::LeftDead, AT_ONCE), (Event::Due, AT_ONCE)]).1, []);
    }

    #[test]
    fn a_swap_expects_the_old_helpers_end() {
        let begun = (Event::ReplacementBegun, AT_ONCE);
        let ended = (Event::HelperEnded, AT_ONCE);
        let now = State::serving(Instant::now(), 3);
        assert_eq!(all(now, &[begun, (Event::Replaced, AT_ONCE)]), (State::Retired, vec![]));
        let after = [begun, (Event::Replaced, AT_ONCE), ended];
        assert_eq!(all(now, &after), (State::Gone, vec![Effect::Forget]));
        let before = [begun, ended, (Event::Found(Where::Nowhere), AT_ONCE), (Event::Replaced, AT_ONCE)];
        assert_eq!(all(now, &before), (State::Gone, vec![Effect::Forget]));
        assert_eq!(all(now, &[begun, (Event::ReplacementFailed, AT_ONCE)]), (now, vec![]));
    }

    #[test]
    fn a_helper_that_ends_during_a_swap_that_fails_is_healed() {
        let events = [
            (Event::ReplacementBegun, AT_ONCE),
            (Event::HelperEnded, AT_ONCE),
            (Event::ReplacementFailed, AT_ONCE),
            (Event::Due, AT_ONCE),
        ];
        assert_eq!(all(State::serving(Instant::now(), 0), &events).1, [Effect::Heal]);
    }

    #[test]
    fn a_dead_volume_that_is_unmounted_is_forgotten_whatever_is_under_way() {
        let nowhere = (Event::Found(Where::Nowhere), AT_ONCE);
        let dead = State::Dead { failures: 2, retry: None };
        assert_eq!(all(dead, &[(Event::MountsChanged, AT_ONCE), nowhere]).1, [Effect::Search, Effect::Forget]);
        // While a fresh filesystem is put in its places, nowhere means that it has them.
        let begun = (Event::ReplacementBegun, AT_ONCE);
        assert_eq!(all(dead, &[begun, nowhere, (Event::ReplacementFailed, AT_ONCE)]), (dead, vec![]));
    }

    #[test]
    fn what_is_covered_waits_for_a_change() {
        let events = [
            (Event::HelperEnded, AT_ONCE),
            (Event::Found(Where::Covered), AT_ONCE),
            (Event::MountsChanged, AT_ONCE),
            (Event::Found(Where::Mounted), AT_ONCE),
        ];
        let effects = all(State::serving(Instant::now(), 0), &events).1;
        assert_eq!(effects, [Effect::Search, Effect::Search, Effect::Heal]);
    }

    pub(in crate::mounter::volume) fn any_event() -> impl Strategy<Value = Event> {
        use Event::*;
        prop::sample::select(vec![
            HelperKilled,
            HelperEnded,
            NotResent,
            MountsChanged,
            Found(Where::Nowhere),
            Found(Where::Mounted),
            Found(Where::Covered),
            Due,
            HealingFailed,
            LeftDead,
            ReplacementBegun,
            ReplacementFailed,
            Replaced,
        ])
    }

    proptest! {
        /// Whatever happens in whatever order: a helper that runs is never healed, what is gone stays gone and is forgotten
        /// once, and a wait is never longer than a minute.
        #[test]
        fn any_order_of_events(events in prop::collection::vec((any_event(), 0u64..90), 0..40)) {
            let mut now = Instant::now();
            let mut state = State::serving(now, 0);
            let mut forgotten = 0;
            for (event, seconds) in events {
                now += Duration::from_secs(seconds);
                let before = state;
                let (next, effect) = state.after(event, now);
                state = next;
                prop_assert!(before != State::Gone || state == State::Gone);
                prop_assert!(!(before.has_helper() && effect == Some(Effect::Heal)));
                match effect {
                    Some(Effect::Forget) => forgotten += 1,
                    Some(Effect::HealLater(wait)) => prop_assert!(wait <= LONGEST_WAIT),
                    _ => {}
                }
                prop_assert_eq!(effect == Some(Effect::Forget), state == State::Gone && before != State::Gone);
            }
            prop_assert!(forgotten <= 1);
        }
    }
}
