//! What becomes of a volume's connection when its helper ends, as a state machine beside [`State`](super::state::State): of
//! the same events, and as pure.
//!
//! ```text
//!        HelperKilled, HelperEnded           Replaced
//! Kept ──────────────────────────▶ Waiting ───────────▶ Answering
//!   │ Replaced (a swap)               │ Due, NotResent,     │ Due
//!   ▼                                 ▼ LeftDead            ▼
//! Ended ◀─────────────────────────────┴─────────────────────┘
//! ```
//!
//! Without a copy of the helper's descriptor it is [`Hold::Ended`] from the beginning: the kernel ends the connection together
//! with the helper.

use super::state::Event;
use std::time::{Duration, Instant};

/// What a connection is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// The helper serves it.
    Kept,
    /// The helper has ended, or was killed. Requests wait for a fresh filesystem, and no longer than this.
    Waiting {
        /// When the connection ends.
        until: Instant,
        /// Nothing of the helper runs any more.
        ended: bool,
    },
    /// A fresh filesystem is in its places. What comes is answered, so that the kernel looks there.
    Answering {
        /// When the connection ends.
        until: Instant,
    },
    /// For nothing: it ends with its helper, or it has ended.
    Ended,
}

/// What is to be done about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldEffect {
    /// Have the kernel hand out once more what the helper had read ([`Event::NotResent`] if it cannot).
    Resend,
    /// Answer what comes.
    Answer,
    /// Let go of the descriptor: the helper goes on serving.
    LetGo,
    /// End it: what waits gets an error.
    End,
}

impl Hold {
    /// What the hold becomes when `event` happens at `now`, and what is to be done. It lasts for `limit` at most, and as long
    /// again for those that are on their way when the fresh filesystem is there. What it does not expect changes nothing.
    pub fn after(self, event: Event, now: Instant, limit: Duration) -> (Self, Option<HoldEffect>) {
        let until = now + limit;
        match (self, event) {
            (Self::Kept, Event::HelperKilled) => (Self::Waiting { until, ended: false }, None),
            (Self::Kept, Event::HelperEnded) => (Self::Waiting { until, ended: true }, Some(HoldEffect::Resend)),
            (Self::Waiting { until, ended: false }, Event::HelperEnded) => {
                (Self::Waiting { until, ended: true }, Some(HoldEffect::Resend))
            }
            // A swap: the old helper serves what is open, and no other is there for that when it ends.
            (Self::Kept, Event::Replaced) => (Self::Ended, Some(HoldEffect::LetGo)),
            (Self::Waiting { ended: true, .. }, Event::Replaced) => {
                (Self::Answering { until }, Some(HoldEffect::Answer))
            }
            // What was killed and has not ended may still read requests.
            (Self::Waiting { ended: false, .. }, Event::Replaced) => (Self::Ended, Some(HoldEffect::End)),
            (Self::Waiting { .. }, Event::NotResent | Event::LeftDead) => (Self::Ended, Some(HoldEffect::End)),
            (Self::Waiting { until, .. } | Self::Answering { until }, Event::Due) if until <= now => {
                (Self::Ended, Some(HoldEffect::End))
            }
            _ => (self, None),
        }
    }

    /// When [`Event::Due`] is due.
    pub fn until(self) -> Option<Instant> {
        match self {
            Self::Waiting { until, .. } | Self::Answering { until } => Some(until),
            Self::Kept | Self::Ended => None,
        }
    }

    /// Whether requests wait because of it.
    pub fn is_waiting(self) -> bool {
        matches!(self, Self::Waiting { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::Where;
    use super::*;
    use proptest::prelude::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn all(events: &[(Event, u64)]) -> (Hold, Vec<HoldEffect>) {
        let (mut now, mut hold, mut effects) = (Instant::now(), Hold::Kept, Vec::new());
        for (event, seconds) in events {
            now += Duration::from_secs(*seconds);
            let (next, effect) = hold.after(*event, now, LIMIT);
            hold = next;
            effects.extend(effect);
        }
        (hold, effects)
    }

    #[test]
    fn what_happens_and_what_is_done() {
        use Event::*;
        use HoldEffect::*;
        let mounted = Found(Where::Mounted);
        type Row<'a> = (&'a str, &'a [(Event, u64)], &'a [HoldEffect]);
        let rows: [Row<'_>; 11] = [
            ("healed", &[(HelperEnded, 0), (mounted, 0), (ReplacementBegun, 0), (Replaced, 1)], &[Resend, Answer]),
            ("healed, then over", &[(HelperEnded, 0), (Replaced, 9), (Due, 9), (Due, 1)], &[Resend, Answer, End]),
            ("no helper comes up", &[(HelperEnded, 0), (HealingFailed, 9), (Due, 1), (Replaced, 1)], &[Resend, End]),
            ("not over yet", &[(HelperEnded, 0), (Due, 9)], &[Resend]),
            ("an old kernel", &[(HelperEnded, 0), (NotResent, 0), (Replaced, 1)], &[Resend, End]),
            ("healing is off", &[(HelperEnded, 0), (LeftDead, 0)], &[Resend, End]),
            // While a fresh filesystem takes its places, others look for it and do not find it.
            ("looked for meanwhile", &[(HelperEnded, 0), (Found(Where::Nowhere), 0), (Replaced, 1)], &[Resend, Answer]),
            ("a swap", &[(ReplacementBegun, 0), (Replaced, 1), (HelperEnded, 9)], &[LetGo]),
            ("it ends during a swap", &[(ReplacementBegun, 0), (HelperEnded, 0), (Replaced, 1)], &[Resend, Answer]),
            ("it hung, and was killed", &[(HelperKilled, 0), (HelperEnded, 1), (Replaced, 1)], &[Resend, Answer]),
            ("killed, and does not end", &[(HelperKilled, 0), (Due, 10), (HelperEnded, 1)], &[End]),
        ];
        for (what, events, effects) in rows {
            assert_eq!(all(events).1, effects, "{what}");
        }
        assert_eq!(all(&[(HelperKilled, 0), (Replaced, 1)]), (Hold::Ended, vec![End]));
    }

    #[test]
    fn a_helper_that_was_killed_is_not_waited_for_twice() {
        let (hold, _) = all(&[(Event::HelperKilled, 0), (Event::HelperEnded, 9)]);
        let (later, _) = all(&[(Event::HelperEnded, 0)]);
        assert!(hold.is_waiting() && hold.until() <= later.until().map(|until| until + LIMIT));
        assert_eq!(all(&[(Event::HelperKilled, 0), (Event::HelperEnded, 9), (Event::Due, 1)]).0, Hold::Ended);
    }

    proptest! {
        /// In whatever order: requests wait no longer than the limit, nothing is read before the helper has ended, and what has
        /// ended stays so.
        #[test]
        fn any_order_of_events(events in prop::collection::vec((super::super::state::tests::any_event(), 0u64..12), 0..40)) {
            let (mut now, mut hold, mut since, mut ended) = (Instant::now(), Hold::Kept, None, false);
            for (event, seconds) in events {
                now += Duration::from_secs(seconds);
                ended |= event == Event::HelperEnded;
                let before = hold;
                let (next, effect) = hold.after(event, now, LIMIT);
                hold = next;
                prop_assert!(before != Hold::Ended || hold == Hold::Ended && effect.is_none());
                prop_assert!(ended || !matches!(effect, Some(HoldEffect::Resend | HoldEffect::Answer)));
                since = hold.is_waiting().then(|| since.unwrap_or(now));
                let over = since.is_some_and(|since| now - since >= LIMIT);
                prop_assert!(!(event == Event::Due && over && hold.is_waiting()));
            }
        }
    }
}
