//! A volume's connection that may be held after its helper's end, and one that is answered after that.
//!
//! Runs in the mounter, on the thread that reports what has happened. When is decided by [`Hold`].

use super::hold::{Hold, HoldEffect};
use super::orphan::Inheritance;
use super::pace::Pace;
use super::state::Event;
use crate::node::fuse_device::{Answers, FuseDevice};
use crate::observe::events;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// A volume's connection.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) hold: Hold,
    pub(super) limit: Duration,
    /// There until it is answered or has ended.
    pub(super) device: Option<FuseDevice>,
    /// What its open files are to be served from.
    pub(super) inheritance: Option<Inheritance>,
}

/// A connection whose volume has a fresh helper: what comes on it is answered.
#[derive(Debug)]
pub(super) struct Answering {
    pub(super) answers: Answers,
    pub(super) hold: Hold,
    pub(super) pace: Pace,
    pub(super) heir: Option<Inheritance>,
    pub(super) target: PathBuf,
    /// Without a file that is open it would have ended by then.
    pub(super) orphaned: Instant,
}

/// How long a connection that is answered may go on until it is looked whether files are open on it.
const UNTIL_ORPHANED: Duration = Duration::from_millis(250);

impl Held {
    /// One that ends with its helper for now; later on it may be kept, and held for so long.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { hold: Hold::Ended, limit: limit.unwrap_or_default(), device: None, inheritance: None }
    }

    /// Its open files are to be served from this; and an heir has had it by the mount with this number.
    pub(super) fn bequeath(&mut self, inheritance: Option<Inheritance>, heirs: Option<u64>) {
        self.inheritance = inheritance.map(|inheritance| Inheritance { heirs, ..inheritance });
    }

    /// Takes in what has happened. Returns the connection if it is to be answered from now on.
    pub(super) fn take_in(&mut self, event: Event, now: Instant, target: &Path) -> Option<Answering> {
        let (next, effect) = self.hold.after(event, now, self.limit);
        self.hold = next;
        match effect? {
            HoldEffect::Resend => match self.device.as_ref().map(FuseDevice::resend) {
                Some(Ok(())) => info!(event = events::HELD, "the helper has ended: requests wait for the next one"),
                _ => return self.take_in(Event::NotResent, now, target),
            },
            HoldEffect::Answer => match self.device.take()?.answers() {
                Ok(answers) => {
                    let (heir, orphaned) = (self.inheritance.take(), now + UNTIL_ORPHANED);
                    let target = target.to_owned();
                    return Some(Answering { answers, hold: next, pace: Pace::default(), heir, target, orphaned });
                }
                Err(error) => warn!("cannot answer what waits for the helper that is gone: {error}"),
            },
            HoldEffect::LetGo => drop(self.device.take()),
            HoldEffect::End => {
                if event == Event::Due {
                    error!(event = events::HOLD_OVER, "no helper serves the volume yet: requests wait no longer");
                }
                self.end();
            }
        }
        None
    }

    /// Ends it if it is held: the volume is forgotten.
    pub(super) fn end(&mut self) {
        self.hold = Hold::Ended;
        self.device.take().into_iter().for_each(FuseDevice::end);
    }
}

impl Answering {
    /// When it is looked whether files are open on it, if an heir is to serve them.
    pub(super) fn orphaned_at(&self) -> Option<Instant> {
        self.heir.as_ref().map(|_| self.orphaned)
    }
}
