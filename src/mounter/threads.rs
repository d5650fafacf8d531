//! The threads that the mounter waits for before it stops: one for each request, and for each operation.
//!
//! Runs in the mounter, on its main thread.

use super::step::{StepError, step};
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Those that run. Readable when one has ended.
pub(super) struct Threads(Arc<Count>);

struct Count {
    running: AtomicUsize,
    ended: OwnedFd,
}

/// One of them, and among which it is counted besides.
struct Running(Arc<Count>, Option<Arc<AtomicUsize>>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(connections) = &self.1 {
            connections.fetch_sub(1, Ordering::AcqRel);
        }
        self.0.running.fetch_sub(1, Ordering::AcqRel);
        let _ = rustix::io::write(&self.0.ended, &1u64.to_ne_bytes());
    }
}

impl Threads {
    pub(super) fn new() -> Result<Self, StepError> {
        Ok(Self(Arc::new(Count { running: AtomicUsize::new(0), ended: event_descriptor()? })))
    }

    /// Starts one; it is one of these `connections`.
    pub(super) fn start(
        &self,
        name: &str,
        connections: Option<&Arc<AtomicUsize>>,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.0.running.fetch_add(1, Ordering::AcqRel);
        if let Some(connections) = connections {
            connections.fetch_add(1, Ordering::AcqRel);
        }
        let running = Running(Arc::clone(&self.0), connections.map(Arc::clone));
        let work = move || {
            let _running = running;
            work();
        };
        thread::Builder::new().name(name.into()).spawn(work).map(drop)
    }

    /// Whether there is any.
    pub(super) fn run(&self) -> bool {
        self.0.running.load(Ordering::Acquire) > 0
    }

    /// It is known that one has ended.
    pub(super) fn note_ended(&self) {
        let _ = rustix::io::read(&self.0.ended, &mut [0; 8]);
    }
}

impl AsFd for Threads {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.ended.as_fd()
    }
}

/// A descriptor that one thread makes readable for others.
pub(super) fn event_descriptor() -> Result<OwnedFd, StepError> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(step("create an event descriptor"))
}
