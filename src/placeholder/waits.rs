//! Requests of containers that wait for the volume's program: no program of the pod serves the volume yet, or its last one has ended.
//!
//! They are not given to the filesystem that the mounter has there meanwhile: it would answer that the kernel is to look again, as the
//! placeholder does, and the kernel looks again once.

use super::requests::Request;
use super::room;
use linux::mount_table::parse;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How many wait at most.
const MOST: usize = 1024;
/// How long. Then they wait, or fail, as the mounter has it (`program_timeout_seconds`).
const LONGEST: Duration = Duration::from_secs(60);
/// The process's own mount table, in its room.
const TABLE: &str = "/proc/self/mountinfo";
/// What the mounter mounts while no program serves the volume.
const WAITING: &str = "fuse.waiting";

/// The requests.
#[derive(Debug)]
pub(super) struct Waits {
    requests: Mutex<Vec<(Request, Instant)>>,
    /// Readable when one has come.
    more: OwnedFd,
    /// Tells when something has taken the volume's place.
    table: File,
}

impl Waits {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { requests: Mutex::default(), more: eventfd(0, EventfdFlags::CLOEXEC)?, table: File::open(TABLE)? })
    }

    /// Whether no program serves the volume.
    pub(super) fn must_wait(request: &Request) -> bool {
        !request.waited && fs::read(TABLE).is_ok_and(|table| is_waiting(&table))
    }

    /// Has a request wait; gives it back if there are too many, or if it need not wait any more.
    pub(super) fn add(&self, request: Request) -> Result<(), Request> {
        let unique = request.unique;
        {
            let mut requests = self.locked();
            if requests.len() >= MOST {
                return Err(request);
            }
            requests.push((request.clone(), Instant::now() + LONGEST));
        }
        let _ = rustix::io::write(&self.more, &1u64.to_ne_bytes());
        // What has changed before it was added is not told again.
        if Self::must_wait(&request) { Ok(()) } else { self.call_off(unique).map_or(Ok(()), Err) }
    }

    /// Those that need not wait any more; waits for them.
    pub(super) fn next(&self) -> Vec<Request> {
        let now = Instant::now();
        let due = self.locked().iter().map(|(_, until)| until.saturating_duration_since(now)).min();
        let limit = due.and_then(|due| Timespec::try_from(due).ok());
        let mut fds = [PollFd::new(&self.table, PollFlags::PRI), PollFd::new(&self.more, PollFlags::IN)];
        if poll(&mut fds, limit.as_ref()).is_err() {
            return Vec::new();
        }
        let [changed, more] = fds.map(|fd| !fd.revents().is_empty());
        if more {
            let _ = rustix::io::read(&self.more, &mut [0; 8]);
        }
        let now = Instant::now();
        let mut requests = self.locked();
        let through = requests.extract_if(.., |(_, until)| changed || *until <= now);
        through.map(|(request, until)| if until <= now { request.after_waiting() } else { request }).collect()
    }

    /// Nobody waits any longer for the request of this number: returns it, if it is here.
    pub(super) fn call_off(&self, unique: u64) -> Option<Request> {
        let mut requests = self.locked();
        let at = requests.iter().position(|(request, _)| request.unique == unique)?;
        Some(requests.swap_remove(at).0)
    }

    fn locked(&self) -> MutexGuard<'_, Vec<(Request, Instant)>> {
        // Nothing is left half-done by a thread that panics while it holds it.
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_waiting(table: &[u8]) -> bool {
    let table = parse(table);
    let volume = table.iter().rfind(|mount| mount.target == Path::new(room::VOLUME));
    volume.is_some_and(|mount| mount.fstype == WAITING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_the_room_says_whether_a_program_serves() {
        let table = |fstype: &str| format!("29 28 0:61 / /volume rw - {fstype} hostmount rw\n").into_bytes();
        assert!(is_waiting(&table("fuse.waiting")) && !is_waiting(&table("fuse.sshfs")) && !is_waiting(b""));
    }
}
