//! The mounter's main thread: waits for events, and does nothing else.
//!
//! It accepts connections (a thread each), collects processes, and takes in what helpers ask for, write, and that they have
//! ended. Nothing here waits for a helper, a filesystem or a path on the node: what may take long is done on a thread of its
//! own.

use super::Mounter;
use super::operation::{hang, heal};
use super::requests::converse;
use super::step::{StepError, step};
use super::volume::VolumeId;
use super::volume::registry;
use super::volume::state::{Effect, Event};
use crate::observe::events;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// Marks events that are not a volume's; volumes' tokens begin at 2.
const CONNECTION: u64 = 0;
const SIGNAL: u64 = 1;
/// No volume has the highest id.
const NODE_MOUNTS: u64 = u64::MAX;
const THREAD_ENDED: u64 = u64::MAX - 1;

/// What the main thread waits on.
pub(super) struct EventLoop {
    mounter: Arc<Mounter>,
    events: OwnedFd,
    listener: UnixListener,
    signals: SignalFd,
    node_mounts: File,
    threads: Arc<Threads>,
    /// When volumes are looked at next for hangs; never while there is none.
    next_look: Option<Instant>,
}

/// The threads that the mounter waits for before it stops.
struct Threads {
    count: AtomicUsize,
    /// Readable when one has ended.
    ended: OwnedFd,
}

/// One of them.
struct Running(Arc<Threads>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        let _ = rustix::io::write(&self.0.ended, &1u64.to_ne_bytes());
    }
}

impl EventLoop {
    pub(super) fn new(mounter: Arc<Mounter>, events: OwnedFd, listener: UnixListener) -> Result<Self, StepError> {
        let mut mask = SigSet::empty();
        mask.extend([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]);
        mask.thread_block().map_err(step("block signals"))?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(step("create a signal descriptor"))?;
        let table = mounter.host_proc.join("1/mountinfo");
        let node_mounts = File::open(&table).map_err(step(format!("open {}", table.display())))?;
        let threads = Arc::new(Threads { count: AtomicUsize::new(0), ended: event_descriptor()? });
        let this = Self { mounter, events, listener, signals, node_mounts, threads, next_look: None };
        this.add(&this.listener, CONNECTION, epoll::EventFlags::IN)?;
        this.add(&this.signals, SIGNAL, epoll::EventFlags::IN)?;
        // Any change of the table shows as an error condition (proc_pid_mounts(5)).
        this.add(&this.node_mounts, NODE_MOUNTS, epoll::EventFlags::PRI)?;
        this.add(&this.threads.ended, THREAD_ENDED, epoll::EventFlags::IN)?;
        Ok(this)
    }

    fn add(&self, fd: impl AsFd, token: u64, flags: epoll::EventFlags) -> Result<(), StepError> {
        epoll::add(&self.events, fd, epoll::EventData::new_u64(token), flags).map_err(step("watch a descriptor"))
    }

    /// Runs until SIGTERM or SIGINT, and until every thread has ended after that.
    pub(super) fn run(mut self) -> Result<(), StepError> {
        // Helpers of an earlier mounter may have ended meanwhile.
        self.report_to_all(Event::MountsChanged);
        let mut stop = false;
        let mut buffer = Vec::with_capacity(64);
        while !stop || self.threads.count.load(Ordering::Acquire) > 0 {
            buffer.clear();
            self.mounter.cgroups.sweep();
            self.mounter.registry.watch_again();
            self.report_to_all(Event::RetryDue);
            let next = [self.mounter.registry.next_due(), self.look_if_due()];
            let timeout = next.into_iter().flatten().min().and_then(|wait| Timespec::try_from(wait).ok());
            match epoll::wait(&self.events, rustix::buffer::spare_capacity(&mut buffer), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(step("wait for events")(errno)),
            }
            for event in &buffer {
                match event.data.u64() {
                    CONNECTION if !stop => self.accept(),
                    CONNECTION => {}
                    SIGNAL => {
                        if self.read_signals() && !stop {
                            stop = true;
                            self.begin_to_stop();
                        }
                    }
                    NODE_MOUNTS => self.report_to_all(Event::MountsChanged),
                    THREAD_ENDED => {
                        let _ = rustix::io::read(&self.threads.ended, &mut [0; 8]);
                    }
                    token => {
                        let (id, channel) = registry::from_token(token);
                        if let Some(effect) = self.mounter.registry.descriptor_ready(id, channel) {
                            self.carry_out(id, effect);
                        }
                    }
                }
            }
        }
        info!(event = events::STOPPED, "the mounter stops; volumes go on being served by their helpers");
        Ok(())
    }

    fn report_to_all(&self, event: Event) {
        for (id, effect) in self.mounter.registry.report_to_all(event) {
            self.carry_out(id, effect);
        }
    }

    /// On a thread of its own: it may take long.
    fn carry_out(&self, id: VolumeId, effect: Effect) {
        let started = self.start("volume", move |mounter| heal::carry_out(mounter, id, effect));
        if !started && effect == Effect::Heal {
            // As when a helper cannot be started: it is tried again.
            self.mounter.registry.report(id, Event::HealingFailed);
        }
    }

    /// Has volumes looked at when it is time; how long until the next time?
    fn look_if_due(&mut self) -> Option<Duration> {
        let between = self.mounter.config.shortest_hang_time()? / hang::LOOKS;
        if self.mounter.registry.is_empty() {
            self.next_look = None;
            return None;
        }
        let now = Instant::now();
        if self.next_look.is_some_and(|at| at <= now) {
            self.start("look", hang::look);
            self.next_look = None;
        }
        Some(self.next_look.get_or_insert(now + between).saturating_duration_since(now))
    }

    /// Collects the processes that have ended. Whether a signal asks us to stop.
    fn read_signals(&self) -> bool {
        let mut stop = false;
        while let Ok(Some(signal)) = self.signals.read_signal() {
            stop |= signal.ssi_signo != Signal::SIGCHLD as u32;
        }
        self.mounter.reaper.reap();
        stop
    }

    fn begin_to_stop(&self) {
        info!(event = events::STOPPING, "stopping: requests under way give up");
        let _ = epoll::delete(&self.events, &self.listener);
        let _ = rustix::io::write(&self.mounter.stopping, &1u64.to_ne_bytes());
    }

    /// Starts a thread that the mounter waits for before it stops. Whether it could be started.
    fn start(&self, name: &str, work: impl FnOnce(&Mounter) + Send + 'static) -> bool {
        self.threads.count.fetch_add(1, Ordering::AcqRel);
        let running = Running(Arc::clone(&self.threads));
        let mounter = Arc::clone(&self.mounter);
        let work = move || {
            let _running = running;
            work(&mounter);
        };
        let started = thread::Builder::new().name(name.into()).spawn(work);
        started.inspect_err(|error| error!("cannot start a thread: {error}")).is_ok()
    }

    fn accept(&self) {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors, most likely: the caller waits in the queue until a request is through.
                    warn!("cannot accept a connection: {error}");
                    return;
                }
            };
            self.start("request", move |mounter| converse(mounter, stream));
        }
    }
}

/// A descriptor that one thread makes readable for others.
pub(super) fn event_descriptor() -> Result<OwnedFd, StepError> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(step("create an event descriptor"))
}
