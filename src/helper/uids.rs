//! The uids that helpers have for themselves: which one the next helper gets.
//!
//! Runs in the mounter, on the volume's own thread. Nothing is recorded: the kernel tells whether any process has a uid, an
//! earlier mounter's helper or a stranger. It tells of the processes in the mounter's PID namespace: every helper is there.

use crate::config::user::UidRange;
use rustix::io::Errno;
use rustix::process::{Uid, getpriority_user};
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// The range, and how far it was given out.
#[derive(Debug)]
pub struct Uids {
    range: UidRange,
    given: Mutex<Given>,
}

#[derive(Debug)]
struct Given {
    next: u32,
    /// To helpers that are being started: no process has it yet.
    starting: HashSet<u32>,
}

/// A uid that nobody else gets. When this is dropped a process must have it, or none be going to.
#[derive(Debug)]
pub struct OwnUid<'a> {
    number: u32,
    uids: &'a Uids,
}

/// Every number is some process's.
#[derive(Debug, thiserror::Error)]
#[error(
    "no uid is left for another helper: processes have every one of {range}; unmount volumes, or give helpers more: \
     `[helpers] uids` in the configuration"
)]
pub struct NoUidLeft {
    range: UidRange,
}

impl Uids {
    /// Those of this range. The first is any of them: helpers of an earlier mounter may have left files of theirs.
    pub fn new(range: UidRange) -> Self {
        let numbers = range.numbers();
        let chance = u32::try_from(RandomState::new().hash_one(std::process::id()) >> 32).unwrap_or_default();
        let next = numbers.start() + chance % (numbers.end() - numbers.start()).max(1);
        Self { range, given: Mutex::new(Given { next, starting: HashSet::new() }) }
    }

    /// One that no process has. A number comes again when all others had their turn.
    pub fn take(&self) -> Result<OwnUid<'_>, NoUidLeft> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let numbers = self.range.numbers();
        for _ in numbers.clone() {
            let number = given.next;
            given.next = if number == *numbers.end() { *numbers.start() } else { number + 1 };
            if !is_in_use(number) && given.starting.insert(number) {
                return Ok(OwnUid { number, uids: self });
            }
        }
        Err(NoUidLeft { range: self.range.clone() })
    }
}

/// Whether any process runs as this uid. The kernel finds users by their numbers: one without a process costs no search.
fn is_in_use(number: u32) -> bool {
    getpriority_user(Uid::from_raw(number)) != Err(Errno::SRCH)
}

impl OwnUid<'_> {
    /// The uid.
    pub fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for OwnUid<'_> {
    fn drop(&mut self) {
        self.uids.given.lock().unwrap_or_else(PoisonError::into_inner).starting.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    fn uids(range: &str) -> Uids {
        Uids::new(UidRange::try_from(range.to_owned()).unwrap())
    }

    #[test]
    fn each_is_given_once_until_it_comes_back() {
        let uids = uids("1890000000-1890000002");
        let taken: Vec<_> = (0..3).map(|_| uids.take().unwrap()).collect();
        let numbers: HashSet<_> = taken.iter().map(OwnUid::number).collect();
        assert_eq!(numbers, HashSet::from([1_890_000_000, 1_890_000_001, 1_890_000_002]));
        let error = uids.take().unwrap_err().to_string();
        assert!(error.contains("1890000000-1890000002") && error.contains("[helpers] uids"), "{error}");
        drop(taken);
        assert!(uids.take().is_ok());
    }

    #[test]
    #[ignore = "a process of another uid needs root: make test-quick"]
    fn what_a_process_has_is_passed_over() {
        let uids = uids("1890000010-1890000011");
        let mut stranger = Command::new("sleep");
        stranger.arg("infinity").uid(1_890_000_010).gid(1_890_000_010).stdin(Stdio::null());
        let mut stranger = stranger.spawn().unwrap();
        for _ in 0..3 {
            assert_eq!(uids.take().unwrap().number(), 1_890_000_011);
        }
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        let numbers: HashSet<_> = (0..2).map(|_| uids.take().unwrap().number()).collect();
        assert_eq!(numbers.len(), 2);
    }
}
