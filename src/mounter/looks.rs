//! Looks at all volumes from time to time, for what no event tells.
//!
//! Runs in the mounter's main thread; each look has a thread of its own.

use super::Mounter;
use super::operation::{abandoned, hang};
use crate::config::Config;
use std::time::{Duration, Instant};

/// All of them.
pub(super) struct Looks([Look; 2]);

/// A look at all volumes from time to time.
#[derive(Clone, Copy)]
pub(super) struct Look {
    /// What it looks for.
    pub(super) what: &'static str,
    pub(super) run: fn(&Mounter),
    /// Never: none.
    between: Option<Duration>,
    /// Never while there is no volume.
    next: Option<Instant>,
}

impl Look {
    /// So many `times` in this time.
    fn new(what: &'static str, time: Option<Duration>, times: u32, run: fn(&Mounter)) -> Self {
        Self { what, between: time.map(|time| time / times), run, next: None }
    }
}

impl Looks {
    /// As often as the settings have it.
    pub(super) fn of(config: &Config) -> Self {
        Self([
            Look::new("hung", config.shortest_hang_time(), hang::LOOKS, hang::look),
            Look::new("abandoned", config.shortest_abandoned_time(), abandoned::LOOKS, abandoned::look),
        ])
    }

    /// Begins those that are due, by `start`. How long until the next one is; there is none while there is `none` to look at.
    pub(super) fn begin(&mut self, none: bool, mut start: impl FnMut(Look)) -> Option<Duration> {
        let now = Instant::now();
        let mut soonest = None;
        for look in &mut self.0 {
            let Some(between) = look.between.filter(|_| !none) else {
                look.next = None;
                continue;
            };
            let due = look.next.is_some_and(|next| next <= now);
            if due {
                start(*look);
            }
            let next = look.next.filter(|_| !due).unwrap_or(now + between);
            look.next = Some(next);
            let wait = next.saturating_duration_since(now);
            soonest = Some(soonest.map_or(wait, |soonest: Duration| soonest.min(wait)));
        }
        soonest
    }
}
