//! The table of the states, and what must hold whatever happens.

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
