//! How often the main thread attends to one descriptor of a helper's: one that calls or writes without end has to wait now and
//! then, so that it costs the node little and the others nothing.
//!
//! Pure.

use std::time::{Duration, Instant};

/// So many events are taken in within this time. A helper's output comes in portions of 64 KiB.
const EVENTS: u32 = 100;
const PERIOD: Duration = Duration::from_millis(500);

/// The pace of one descriptor.
#[derive(Debug, Default)]
pub(in crate::mounter) struct Pace {
    /// When the period began.
    since: Option<Instant>,
    events: u32,
    rests: bool,
}

impl Pace {
    /// An event was taken in. Whether the descriptor must rest from now on.
    pub(in crate::mounter) fn must_rest(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= PERIOD) {
            (self.since, self.events) = (Some(now), 0);
        }
        self.events += 1;
        self.rests = self.events >= EVENTS;
        self.rests
    }

    /// When the rest ends.
    pub(in crate::mounter) fn rests_until(&self) -> Option<Instant> {
        self.since.filter(|_| self.rests).map(|since| since + PERIOD)
    }

    /// Whether a rest is over now.
    pub(in crate::mounter) fn has_rested(&mut self, now: Instant) -> bool {
        let over = self.rests_until().is_some_and(|until| until <= now);
        self.rests &= !over;
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_without_end_rests_and_a_quiet_one_does_not() {
        let (begin, mut pace) = (Instant::now(), Pace::default());
        let at = |millis| begin + Duration::from_millis(millis);
        assert!((0..EVENTS - 1).all(|_| !pace.must_rest(at(1))));
        assert!(pace.must_rest(at(2)) && !pace.has_rested(at(400)));
        assert_eq!(pace.rests_until(), Some(at(501)));
        assert!(pace.has_rested(at(501)) && !pace.has_rested(at(502)) && pace.rests_until().is_none());
        assert!(
            (0..10_000).all(|number| !pace.must_rest(at(1000 + 10 * number))),
            "a hundred a second are none too many"
        );
    }
}
