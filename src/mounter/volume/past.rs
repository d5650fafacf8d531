//! The last volumes that ended or failed: their helpers' words can still be read.
//!
//! Pure.

use super::{Volume, seconds, view_of};
use crate::helper::output::texts;
use crate::policy::Plan;
use api::volume::{Line, VolumeDetail, VolumeState, VolumeView};
use std::collections::VecDeque;
use std::path::Path;
use std::time::SystemTime;

/// How many volumes are kept after their end: at 64 KiB of words each at most, a bounded amount.
const KEPT: usize = 100;

/// The last volumes that ended or failed, one for each target, the latest last.
#[derive(Debug, Default)]
pub(super) struct Past(VecDeque<Over>);

/// One of them.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) view: VolumeView,
    /// In seconds since 1970.
    ended: u64,
    pub(super) lines: Vec<Line>,
}

impl Over {
    pub(super) fn detail(&self) -> VolumeDetail {
        VolumeDetail::of(self.view.clone(), Some(self.ended), texts(self.lines.clone()))
    }
}

impl Past {
    /// Keeps what is known of a volume that has ended just now.
    pub(super) fn keep_ended(&mut self, volume: &Volume, lines: Vec<Line>) {
        self.keep(volume.view(VolumeState::Ended), lines);
    }

    /// Keeps what is known of a volume that its helper could not mount.
    pub(super) fn keep_failed(&mut self, plan: &Plan, helper: String, lines: Vec<Line>) {
        self.keep(view_of(plan, helper, VolumeState::Failed), lines);
    }

    /// The last one at `target`.
    pub(super) fn at(&self, target: &Path) -> Option<&Over> {
        self.0.iter().find(|past| Path::new(&past.view.target) == target)
    }

    fn keep(&mut self, view: VolumeView, lines: Vec<Line>) {
        self.0.retain(|past| past.view.target != view.target);
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Over { view, ended: seconds(SystemTime::now()), lines });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_for_each_target_and_not_too_many() {
        let mut past = Past::default();
        let mut end = |target: String, word: &str| {
            let view = VolumeView { target, ..VolumeView::example() };
            past.keep(view, vec![Line { text: word.to_owned(), ..Line::default() }]);
        };
        (0..KEPT).for_each(|number| end(format!("/mnt/{number}"), "first"));
        end("/mnt/0".into(), "second");
        end("/mnt/new".into(), "first");
        let found = |target: &str| past.at(Path::new(target)).map(|past| &past.lines[0].text);
        assert_eq!(past.0.len(), KEPT);
        assert_eq!(found("/mnt/0").unwrap(), "second");
        assert_eq!(found("/mnt/1"), None, "the oldest goes first");
        assert!(found("/mnt/new").is_some());
    }
}
