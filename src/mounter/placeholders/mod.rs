//! The placeholders of volumes (`crate::placeholder`), as the mounter watches over their processes. One whose process has ended gets a fresh
//! one in its places: the movement of a heal ([`renew`](fn@renew)).
//!
//! Runs in the mounter. The main thread takes in what happens on descriptors. Nothing is recorded: the processes and the mount tables
//! tell the next mounter all ([`recovery`]). A copy of each one's descriptor of /dev/fuse is kept, so that calls wait while none serves it.

pub mod recovery;
mod renew;

pub use renew::{RenewError, put_in_place, renew, renew_all_of};

use super::volume::state::{failures_after, wait_after};
use crate::helper::output::HelperOutput;
use crate::node::connections::{Connections, Identity};
use crate::node::fuse_device::FuseDevice;
use rustix::event::{Timespec, epoll};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::warn;

/// How many get a fresh one at a time.
const AT_ONCE: usize = 16;
/// How long calls wait for that: no longer than a helper's by default.
const HELD: Duration = Duration::from_secs(10);

/// A placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder {
    /// Its filesystem.
    pub filesystem: Identity,
    /// The target of its volume, by which that is known.
    pub volume: PathBuf,
    /// Where it is on the node.
    pub target: PathBuf,
}

/// One that a process serves.
#[derive(Debug)]
pub struct Served {
    /// Which one.
    pub placeholder: Placeholder,
    /// The process.
    pub process: OwnedFd,
    /// A copy of the descriptor that it serves by.
    pub connection: Option<FuseDevice>,
    /// What it says.
    pub words: Option<HelperOutput>,
    /// Since when, and how many times in a row one has not lasted there.
    pub since: Instant,
    /// See there.
    pub failures: u32,
}

/// One whose process has ended.
#[derive(Debug)]
pub struct Dead {
    /// Which one.
    pub placeholder: Placeholder,
    /// Calls wait on it.
    connection: Option<FuseDevice>,
    held_until: Instant,
    failures: u32,
    /// When a fresh one is to take its place; none while that is being done, and if it cannot be.
    due: Option<Instant>,
    /// Somebody has been told.
    told: bool,
}

/// All of them.
#[derive(Debug)]
pub struct Placeholders {
    /// An epoll descriptor of our own, which the main thread waits on among others.
    events: OwnedFd,
    connections: Arc<Connections>,
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    last: u64,
    served: BTreeMap<u64, Served>,
    dead: BTreeMap<u64, Dead>,
    under_way: usize,
}

/// A fresh one is being put in the place of one whose process has ended.
#[derive(Debug)]
pub struct UnderWay<'a>(&'a Placeholders);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.locked().under_way -= 1;
    }
}

impl Placeholders {
    /// None yet.
    pub fn new(connections: Arc<Connections>) -> io::Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { events, connections, all: Mutex::default() })
    }

    fn locked(&self) -> MutexGuard<'_, All> {
        // Every change here is one step.
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Readable when there is something to [take in](Self::take_in).
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// A process serves one.
    pub fn add(&self, served: Served) {
        let mut all = self.locked();
        let number = all.next();
        let words = served.words.iter().flat_map(HelperOutput::descriptors);
        for (fd, what) in [(served.process.as_fd(), ENDED)].into_iter().chain(words.map(|fd| (fd, SAYS))) {
            let token = epoll::EventData::new_u64(number << 1 | what);
            if let Err(error) = epoll::add(&self.events, fd, token, epoll::EventFlags::IN) {
                warn!("cannot watch a placeholder's process: {error}");
            }
        }
        all.served.insert(number, served);
    }

    /// One was found whose process has ended while no mounter ran.
    fn add_dead(&self, placeholder: Placeholder) {
        let mut all = self.locked();
        let (number, now) = (all.next(), Instant::now());
        let dead = Dead { placeholder, connection: None, held_until: now, failures: 0, due: Some(now), told: false };
        all.dead.insert(number, dead);
    }

    /// Takes in what has happened.
    pub fn take_in(&self) {
        let mut buffer = Vec::with_capacity(64);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if let Err(error) = epoll::wait(&self.events, rustix::buffer::spare_capacity(&mut buffer), Some(&at_once)) {
            return warn!("cannot see what the processes of placeholders do: {error}");
        }
        let mut all = self.locked();
        for event in &buffer {
            let (number, what) = (event.data.u64() >> 1, event.data.u64() & 1);
            match what {
                SAYS => self.hear(&mut all, number),
                _ => self.has_ended(&mut all, number),
            }
        }
    }

    fn hear(&self, all: &mut All, number: u64) {
        let Some(served) = all.served.get_mut(&number) else { return };
        let _span = served.placeholder.span().entered();
        let Some(words) = &mut served.words else { return };
        words.drain();
        if let Some(pipe) = words.take_ended() {
            let _ = epoll::delete(&self.events, pipe);
        }
    }

    fn has_ended(&self, all: &mut All, number: u64) {
        let Some(Served { placeholder, process, connection, words, since, failures }) = all.served.remove(&number)
        else {
            return;
        };
        let _ = epoll::delete(&self.events, &process);
        if let Some(mut words) = words {
            let _span = placeholder.span().entered();
            words.drain();
            words.descriptors().for_each(|pipe| _ = epoll::delete(&self.events, pipe));
        }
        // The usual end: it is mounted nowhere any more.
        all.dead.retain(|_, dead| self.connections.has(dead.placeholder.filesystem));
        if !self.connections.has(placeholder.filesystem) {
            return;
        }
        let (now, served) = (Instant::now(), since.elapsed());
        let failures = failures_after(served, failures);
        let connection = connection.filter(|connection| connection.resend().is_ok());
        let (due, held_until) = (Some(now + wait_after(failures, served)), now + HELD);
        all.dead.insert(number, Dead { placeholder, connection, held_until, failures, due, told: false });
    }

    /// Does what is due; how long until more is?
    pub fn due(&self) -> Option<Duration> {
        let (now, mut all) = (Instant::now(), self.locked());
        for dead in all.dead.values_mut().filter(|dead| dead.held_until <= now) {
            dead.connection.take().into_iter().for_each(FuseDevice::end);
        }
        let ready = all.under_way < AT_ONCE;
        let next = |dead: &Dead| {
            let held = dead.connection.as_ref().map(|_| dead.held_until);
            [dead.due.filter(|_| ready), held].into_iter().flatten().min()
        };
        all.dead.values().filter_map(next).min().map(|at| at.saturating_duration_since(now))
    }

    /// One whose place a fresh one is to take now.
    pub fn next(&self) -> Option<u64> {
        let (now, mut all) = (Instant::now(), self.locked());
        if all.under_way >= AT_ONCE {
            return None;
        }
        let (number, dead) = all.dead.iter_mut().find(|(_, dead)| dead.due.is_some_and(|due| due <= now))?;
        let number = *number;
        dead.due = None;
        all.under_way += 1;
        Some(number)
    }

    /// To be held by who does it.
    pub fn under_way(&self) -> UnderWay<'_> {
        UnderWay(self)
    }

    /// It was not done: it is tried again later, if that is of any use. Returns when.
    pub fn again(&self, number: u64, try_again: bool) -> Option<Duration> {
        let mut all = self.locked();
        let dead = all.dead.get_mut(&number)?;
        dead.failures = dead.failures.saturating_add(1);
        let wait = wait_after(dead.failures, Duration::ZERO);
        dead.due = try_again.then(|| Instant::now() + wait);
        if !try_again {
            dead.connection.take().into_iter().for_each(FuseDevice::end);
        }
        dead.due.map(|_| wait)
    }

    /// The one of this number, if its process has ended and no fresh one has taken its place; and whether that is news.
    fn dead(&self, number: u64) -> Option<(Placeholder, bool)> {
        let mut all = self.locked();
        let dead = all.dead.get_mut(&number)?;
        let told = std::mem::replace(&mut dead.told, true);
        Some((dead.placeholder.clone(), !told))
    }

    /// Those of a volume whose processes have ended.
    fn dead_of(&self, volume: &Path) -> Vec<u64> {
        let all = self.locked();
        let of = all.dead.iter().filter(|(_, dead)| dead.placeholder.volume == volume);
        of.map(|(number, _)| *number).collect()
    }

    /// Takes one out, for who puts a fresh one in its place.
    fn take(&self, number: u64) -> Option<Dead> {
        self.locked().dead.remove(&number)
    }

    /// It was not put there.
    fn give_back(&self, number: u64, dead: Dead) {
        self.locked().dead.insert(number, dead);
    }

    /// Whether it is a placeholder whose process has ended: calls wait there, or fail.
    pub fn is_dead(&self, filesystem: Identity) -> bool {
        self.locked().dead.values().any(|dead| dead.placeholder.filesystem == filesystem)
    }
}

/// What has happened on a descriptor.
const ENDED: u64 = 0;
const SAYS: u64 = 1;

impl All {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

impl Placeholder {
    /// What marks log lines about it.
    fn span(&self) -> tracing::Span {
        tracing::info_span!("volume", target = %self.target.display())
    }
}
