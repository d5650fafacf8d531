//! Log lines that somebody else can cause: so many in a minute, then one that says so, and later how many there were beyond.
//!
//! Runs in the mounter. One ration for each helper and kind of line: one that is loud silences no other.

use super::events;
use std::time::{Duration, Instant};
use tracing::warn;

const PERIOD: Duration = Duration::from_secs(60);

/// What may be logged of one kind of line.
#[derive(Debug)]
pub struct Ration {
    what: &'static str,
    allowed: u64,
    since: Instant,
    /// In the period that began then.
    lines: u64,
}

impl Ration {
    /// So many lines a minute; `what` names several of them.
    pub fn new(what: &'static str, allowed: u64) -> Self {
        Self { what, allowed, since: Instant::now(), lines: 0 }
    }

    /// Logs a line, unless there were too many.
    pub fn log(&mut self, line: impl FnOnce()) {
        if self.since.elapsed() > PERIOD {
            self.say_how_many();
            (self.since, self.lines) = (Instant::now(), 0);
        }
        if self.lines < self.allowed {
            line();
        } else if self.lines == self.allowed {
            warn!(event = events::HELPER_QUIETED, "further {} are not logged for a minute", self.what);
        }
        self.lines = self.lines.saturating_add(1);
    }

    /// How many lines of this period were not logged.
    fn left_out(&self) -> u64 {
        self.lines.saturating_sub(self.allowed)
    }

    fn say_how_many(&self) {
        if let more @ 1.. = self.left_out() {
            warn!(event = events::HELPER_QUIETED, left_out = more, "{more} {} were not logged", self.what);
        }
    }
}

impl Drop for Ration {
    fn drop(&mut self) {
        self.say_how_many();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loud_one_is_heard_again_after_a_while() {
        let mut ration = Ration::new("lines", 3);
        let mut heard = 0;
        (0..1000).for_each(|_| ration.log(|| heard += 1));
        assert_eq!((heard, ration.left_out()), (3, 997));
        ration.since -= 2 * PERIOD;
        ration.log(|| heard += 1);
        assert_eq!((heard, ration.left_out()), (4, 0));
    }
}
