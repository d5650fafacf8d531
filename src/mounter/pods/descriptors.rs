//! The descriptors by which the mounter hears of volumes that programs of pods serve.
//!
//! Runs in the mounter, on the main thread.

use crate::mounter::volume::pace::Pace;
use crate::node::fuse_device::Answers;
use std::time::Instant;

/// Which of a volume's descriptors an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its socket.
    Door,
    /// A process that has its filesystem's descriptor.
    Holder,
    /// Its connection, which no program serves.
    Connection,
    /// One that another has taken over from.
    Old,
}

/// A connection that another has taken over from: what comes there is told to look again.
#[derive(Debug)]
pub(super) struct Old {
    pub(super) answers: Answers,
    pub(super) until: Instant,
    pub(super) pace: Pace,
}

/// As epoll(7) keeps it with a descriptor: whose it is, and which.
pub(super) fn token(number: u64, kind: Kind) -> u64 {
    number << 2 | kind as u64
}

/// What [`token`] was made of.
pub(super) fn from_token(token: u64) -> (u64, Kind) {
    let kinds = [Kind::Door, Kind::Holder, Kind::Connection, Kind::Old];
    let kind = kinds.into_iter().find(|kind| *kind as u64 == token & 3);
    (token >> 2, kind.unwrap_or(Kind::Old))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        for kind in [Kind::Door, Kind::Holder, Kind::Connection, Kind::Old] {
            assert_eq!(from_token(token(7, kind)), (7, kind));
        }
    }
}
