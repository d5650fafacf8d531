//! What was objected to the calls of one helper: for the log, for `hostmount logs`, and for the caller, as one may be the reason why
//! the helper failed.
//!
//! Runs in the mounter. A helper may call as often as it likes, with words of its own: what is remembered and logged has a
//! bound.

use crate::observe::events;
use crate::observe::ration::Ration;
use tracing::warn;

/// How many different ones are remembered, and how much of each: more than a helper needs that fails.
const KEPT: usize = 8;
const LONGEST: usize = 1024;
/// How many refusals of a helper are logged a minute.
const LOGGED: u64 = 50;

/// The objections to one helper's calls.
#[derive(Debug)]
pub struct Objections {
    /// Each with how often it was heard.
    kept: Vec<(String, u64)>,
    /// How many were heard that are not kept.
    others: u64,
    log: Ration,
}

impl Default for Objections {
    fn default() -> Self {
        Self { kept: Vec::new(), others: 0, log: Ration::new("refused calls of the helper's", LOGGED) }
    }
}

impl Objections {
    /// Logs and remembers one.
    pub fn add(&mut self, mut words: String) {
        words.truncate(words.floor_char_boundary(LONGEST));
        self.log.log(|| warn!(event = events::HELPER_REFUSED, "refused a call of the helper's: {words}"));
        if let Some((_, times)) = self.kept.iter_mut().find(|(kept, _)| *kept == words) {
            *times += 1;
        } else if self.kept.len() < KEPT {
            self.kept.push((words, 1));
        } else {
            self.others += 1;
        }
    }

    /// Logs a line about a call that is not worth remembering: helpers make it without harm.
    pub fn log(&mut self, line: impl FnOnce()) {
        self.log.log(line);
    }

    /// For the caller, and whoever reads the helper's last lines.
    pub fn words(&self) -> Vec<String> {
        let words = |(words, times): &(String, u64)| match times {
            1 => format!("hostmount refused a call of it: {words}"),
            times => format!("hostmount refused {times} calls of it: {words}"),
        };
        let others = (self.others > 0).then(|| format!("hostmount refused {} more calls of it", self.others));
        self.kept.iter().map(words).chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut objections = Objections::default();
        for number in 0..100_000 {
            objections.add("the same".to_owned());
            objections.add(format!("{}{number}", "é".repeat(4096)));
            objections.add(format!("another, number {number}"));
        }
        let words = objections.words();
        assert_eq!(words.len(), KEPT + 1);
        assert!(words.iter().all(|words| words.len() <= LONGEST + 64));
        assert_eq!(words[0], "hostmount refused 100000 calls of it: the same");
        assert_eq!(words[1].matches('é').count(), LONGEST / 2);
        assert_eq!(words[KEPT], format!("hostmount refused {} more calls of it", 100_000 - (KEPT - 2)));
    }
}
