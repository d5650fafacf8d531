//! How often a pod may ask: each connection costs the mounter a thread and perhaps a mount, and the pod next to nothing.
//!
//! Pure.

use std::time::{Duration, Instant};

/// What a connection costs, and what may be spent at once: sixteen of them, and then two a second.
const COST: Duration = Duration::from_millis(500);
const AT_ONCE: Duration = Duration::from_secs(8);

/// What one volume's programs have spent.
#[derive(Debug, Default)]
pub(super) struct Ration {
    spent_until: Option<Instant>,
}

impl Ration {
    /// A connection is taken at `now`. Until when no other is.
    pub(super) fn take(&mut self, now: Instant) -> Instant {
        let spent = self.spent_until.map_or(now, |spent| spent.max(now)) + COST;
        self.spent_until = Some(spent);
        spent.checked_sub(AT_ONCE).map_or(now, |free| free.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_at_once_and_then_two_a_second() {
        let (begin, mut ration) = (Instant::now(), Ration::default());
        assert!((0..16).all(|_| ration.take(begin) == begin));
        assert_eq!(ration.take(begin), begin + COST);
        assert_eq!(ration.take(begin + COST), begin + COST * 2, "another when the time has come");
        let later = begin + Duration::from_secs(60);
        assert!((0..16).all(|_| ration.take(later) == later), "who asks now and then never waits");
        let mut now = later;
        let mut taken = 0;
        while now < later + Duration::from_secs(50) {
            now = ration.take(now).max(now + Duration::from_millis(1));
            taken += 1;
        }
        assert!((95..=105).contains(&taken), "{taken}");
    }
}
