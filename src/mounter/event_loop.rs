//! The mounter's main thread: waits for events, and does nothing else.
//!
//! It accepts connections (a thread each), collects processes, and takes in what helpers ask for, write, and that they have
//! ended. Nothing here waits for a helper, a filesystem or a path on the node: what may take long is done on a thread of its
//! own.

use super::Mounter;
use super::configuration::Watched;
use super::door::{CONNECTIONS, Door, Shut};
use super::looks::{Look, Looks};
use super::operation::{heal, heirs, servers};
use super::placeholders;
use super::pods;
use super::requests::{converse, turn_away};
use super::step::{StepError, step};
use super::threads::Threads;
use super::to_do::Task;
use super::volume::state::{Effect, Event};
use super::volume::watching;
use crate::config::log_levels::LogLevels;
use crate::observe::events;
use crate::observe::ration::Ration;
use api::exit::chain;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// Marks events that are not a volume's; volumes' tokens begin at 4.
const CONNECTION: u64 = 0;
const SIGNAL: u64 = 1;
const PODS: u64 = 2;
const PLACEHOLDERS: u64 = 3;
/// No volume has the highest id.
const NODE_MOUNTS: u64 = u64::MAX;
const THREAD_ENDED: u64 = u64::MAX - 1;
const CONFIGURATION: u64 = u64::MAX - 2;

/// How long after a process of a helper's has ended it is looked whether the others serve.
const SERVERS: Duration = Duration::from_secs(1);
/// How long no connection is taken after one could not be.
const NO_ROOM: Duration = Duration::from_millis(200);

/// What the main thread waits on.
pub(super) struct EventLoop {
    mounter: Arc<Mounter>,
    events: OwnedFd,
    doors: Vec<Door>,
    signals: SignalFd,
    node_mounts: File,
    threads: Threads,
    looks: Looks,
    /// The file of the configuration.
    configuration: Option<Watched>,
    /// When helpers are looked at next for whether they still serve; never unless a process of one has ended.
    next_look_at_servers: Option<Instant>,
    /// For what can go wrong again and again.
    log: Ration,
}

impl EventLoop {
    pub(super) fn new(mounter: Arc<Mounter>, events: OwnedFd, doors: Vec<Door>) -> Result<Self, StepError> {
        let mut mask = SigSet::empty();
        mask.extend([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        mask.thread_block().map_err(step("block signals"))?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(step("create a signal descriptor"))?;
        let table = mounter.host_proc.join("1/mountinfo");
        let node_mounts = File::open(&table).map_err(step(format!("open {}", table.display())))?;
        let looks = Looks::of(&mounter.configuration.get());
        let configuration = mounter.configuration.watch();
        let not_watched =
            |error: &io::Error| warn!("a change of the configuration will not be noticed before SIGHUP: {error}");
        let configuration = configuration.inspect_err(not_watched).ok();
        let threads = Threads::new()?;
        let this = Self {
            mounter,
            events,
            doors,
            signals,
            node_mounts,
            threads,
            looks,
            configuration,
            next_look_at_servers: None,
            log: Ration::new("troubles of the mounter's", 20),
        };
        for door in &this.doors {
            this.add(&door.listener, CONNECTION, epoll::EventFlags::IN)?;
        }
        this.add(&this.signals, SIGNAL, epoll::EventFlags::IN)?;
        // Any change of the table shows as an error condition (proc_pid_mounts(5)).
        this.add(&this.node_mounts, NODE_MOUNTS, epoll::EventFlags::PRI)?;
        this.add(&this.threads, THREAD_ENDED, epoll::EventFlags::IN)?;
        this.add(this.mounter.pods.descriptor(), PODS, epoll::EventFlags::IN)?;
        this.add(this.mounter.placeholders.descriptor(), PLACEHOLDERS, epoll::EventFlags::IN)?;
        if let Some(configuration) = &this.configuration {
            this.add(configuration, CONFIGURATION, epoll::EventFlags::IN)?;
        }
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
        while !stop || self.threads.run() {
            buffer.clear();
            self.mounter.cgroups.sweep();
            self.mounter.registry.watch_again();
            self.report_to_all(Event::Due);
            let begin = if stop { None } else { self.begin_what_is_due() };
            if !stop {
                self.begin_heirs();
            }
            let pods = if stop { None } else { self.begin_for_pods() };
            let placeholders = if stop { None } else { self.begin_for_placeholders() };
            let servers = self.look_at_servers_if_due();
            let next = [self.mounter.registry.next_due(), begin, pods, placeholders, servers];
            let next = next.into_iter().chain([self.look_if_due(), self.open_again(stop)]);
            let timeout = next.flatten().min().and_then(|wait| Timespec::try_from(wait).ok());
            match epoll::wait(&self.events, rustix::buffer::spare_capacity(&mut buffer), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(step("wait for events")(errno)),
            }
            for event in &buffer {
                match event.data.u64() {
                    CONNECTION if !stop => (0..self.doors.len()).for_each(|door| self.accept(door)),
                    CONNECTION => {}
                    SIGNAL => {
                        if self.read_signals() && !stop {
                            stop = true;
                            self.begin_to_stop();
                        }
                    }
                    PODS => self.mounter.pods.take_in(),
                    PLACEHOLDERS => self.mounter.placeholders.take_in(),
                    CONFIGURATION => self.reload(),
                    NODE_MOUNTS => self.report_to_all(Event::MountsChanged),
                    THREAD_ENDED => {
                        self.threads.note_ended();
                    }
                    token => {
                        let (id, channel) = watching::from_token(token);
                        if let Some(Effect::Search) = self.mounter.registry.descriptor_ready(id, channel) {
                            self.mounter.to_do.search_at_once(id);
                        }
                    }
                }
            }
        }
        for door in &self.doors {
            if let Err(error) = door.close() {
                warn!("{}", chain(&error));
            }
        }
        info!(event = events::STOPPED, "the mounter stops; volumes go on being served by their helpers");
        Ok(())
    }

    fn report_to_all(&self, event: Event) {
        for (id, effect) in self.mounter.registry.report_to_all(event) {
            match effect {
                Effect::Search => self.mounter.to_do.search(id),
                Effect::Heal => self.mounter.to_do.heal(id),
                // The registry knows when, and has forgotten it already.
                Effect::HealLater(_) | Effect::Forget => {}
            }
        }
    }

    /// Begins what is due, on threads of its own, as it may take long; how long until more is?
    fn begin_what_is_due(&mut self) -> Option<Duration> {
        let now = Instant::now();
        while let Some(task) = self.mounter.to_do.next(now) {
            let theirs = task.clone();
            let work = move |mounter: &Mounter| {
                let _under_way = mounter.to_do.under_way(&theirs, now);
                heal::carry_out(mounter, &theirs);
            };
            if let Err(error) = self.start("volume", None, work) {
                self.log.log(|| error!("cannot start a thread for a volume: {error}"));
                drop(self.mounter.to_do.under_way(&task, now));
                match task {
                    Task::Search(ids) => self.mounter.to_do.search_again(ids),
                    Task::Heal(id) => _ = self.mounter.registry.report(id, Event::HealingFailed),
                    Task::Upgrade(id) => self.mounter.to_do.upgrade_again(id),
                }
            }
        }
        self.mounter.to_do.next_due(now)
    }

    /// Starts heirs for files that are open in filesystems whose helpers are gone.
    fn begin_heirs(&mut self) {
        for orphan in self.mounter.registry.take_orphans() {
            if let Err(error) = self.start("heir", None, |mounter| heirs::start(mounter, orphan)) {
                self.log.log(|| error!("cannot start a thread for files that are open: {error}"));
            }
        }
    }

    /// The same for volumes that programs of pods serve.
    fn begin_for_pods(&mut self) -> Option<Duration> {
        let mut due = self.mounter.pods.due();
        while let Some(task) = self.mounter.pods.next_task() {
            let again = task.repeatable();
            if let Err(error) = self.start("pod", None, move |mounter| pods::carry_out(mounter, task)) {
                self.log.log(|| error!("cannot start a thread for a pod's program: {error}"));
                self.mounter.pods.again(again);
                due = self.mounter.pods.due();
            }
        }
        due
    }

    /// The same for placeholders whose processes have ended.
    fn begin_for_placeholders(&mut self) -> Option<Duration> {
        while let Some(number) = self.mounter.placeholders.next() {
            let work = move |mounter: &Mounter| {
                let _under_way = mounter.placeholders.under_way();
                placeholders::renew(mounter, number);
            };
            if let Err(error) = self.start("placeholder", None, work) {
                self.log.log(|| error!("cannot start a thread for a placeholder: {error}"));
                drop(self.mounter.placeholders.under_way());
                self.mounter.placeholders.again(number, true);
            }
        }
        self.mounter.placeholders.due()
    }

    /// Has helpers looked at of which a process has ended, a moment after that: most helpers end as a whole, and nothing is left
    /// to be looked at. How long until it is time?
    fn look_at_servers_if_due(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.mounter.registry.take_server_gone() {
            self.next_look_at_servers.get_or_insert(now + SERVERS);
        }
        let at = self.next_look_at_servers?;
        if now < at {
            return Some(at - now);
        }
        self.next_look_at_servers = None;
        if let Err(error) = self.start("servers", None, servers::look) {
            self.log.log(|| error!("cannot start a thread to look at helpers: {error}"));
            self.next_look_at_servers = Some(now + SERVERS);
        }
        self.next_look_at_servers.map(|at| at - now)
    }

    /// Has volumes looked at when it is time; how long until the next time?
    fn look_if_due(&mut self) -> Option<Duration> {
        let mut due = Vec::new();
        let next = self.looks.begin(self.mounter.registry.is_empty(), |look| due.push(look));
        for Look { what, run, .. } in due {
            if let Err(error) = self.start("look", None, run) {
                self.log.log(|| error!("cannot start a thread to look for volumes that are {what}: {error}"));
            }
        }
        next
    }

    /// The configuration's file may have changed.
    fn reload(&mut self) {
        if let Some(configuration) = &self.configuration {
            configuration.take_in(&self.mounter.configuration);
        }
        if let Some(config) = self.mounter.configuration.reload() {
            self.mounter.registry.take_settings(&config);
            self.looks = Looks::of(&config);
            self.mounter.levels.set(config.log.as_ref().map(LogLevels::as_str));
        }
    }

    /// Collects the processes that have ended. Whether a signal asks us to stop.
    fn read_signals(&mut self) -> bool {
        let (mut stop, mut reload) = (false, false);
        while let Ok(Some(signal)) = self.signals.read_signal() {
            reload |= signal.ssi_signo == Signal::SIGHUP as u32;
            stop |= [Signal::SIGTERM, Signal::SIGINT].iter().any(|asked| signal.ssi_signo == *asked as u32);
        }
        if reload {
            self.reload();
        }
        self.mounter.heirs.forget_ended();
        if self.mounter.reaper.reap() {
            self.mounter.registry.note_server_gone();
        }
        stop
    }

    fn begin_to_stop(&self) {
        info!(event = events::STOPPING, "stopping: requests under way give up");
        for door in &self.doors {
            let _ = epoll::delete(&self.events, &door.listener);
        }
        let _ = rustix::io::write(&self.mounter.stopping, &1u64.to_ne_bytes());
    }

    fn start(
        &self,
        name: &str,
        connections: Option<&Arc<AtomicUsize>>,
        work: impl FnOnce(&Mounter) + Send + 'static,
    ) -> io::Result<()> {
        let mounter = Arc::clone(&self.mounter);
        self.threads.start(name, connections, move || work(&mounter))
    }

    /// Takes the connections that wait at a door.
    fn accept(&mut self, at: usize) {
        loop {
            let door = &self.doors[at];
            let (origin, may_ask) = (door.origin, door.may_ask);
            if door.shut.is_some() {
                return;
            }
            if door.is_full() {
                return self.shut(at, Shut::Full);
            }
            let stream = match door.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of descriptors, most likely: the caller waits in the queue until a request is through.
                    self.log.log(|| warn!("cannot accept a connection: {error}"));
                    return self.shut(at, Shut::NoRoom(Instant::now() + NO_ROOM));
                }
            };
            // The thread takes it from there; if there is none, it is still there.
            let slot = Arc::new(Mutex::new(Some(stream)));
            let take = |slot: &Mutex<Option<UnixStream>>| slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            let theirs = Arc::clone(&slot);
            let serve = move |mounter: &Mounter| {
                take(&theirs).into_iter().for_each(|stream| converse(mounter, stream, origin, may_ask));
            };
            if let Err(error) = self.start("request", Some(&door.connections), serve) {
                self.log.log(|| error!("cannot start a thread for a request: {error}"));
                take(&slot).iter().for_each(|stream| turn_away(stream, &error));
                return self.shut(at, Shut::NoRoom(Instant::now() + NO_ROOM));
            }
        }
    }

    /// Takes no connection at a door for now: those that come wait in the socket's queue.
    fn shut(&mut self, at: usize, how: Shut) {
        let door = &mut self.doors[at];
        if matches!(how, Shut::Full) {
            self.log.log(|| warn!("{CONNECTIONS} connections from {} are served: further callers wait", door.origin));
        }
        let _ = epoll::delete(&self.events, &door.listener);
        door.shut = Some(how);
    }

    /// Takes connections again at the doors where it is time; how long until it may be at others?
    fn open_again(&mut self, stop: bool) -> Option<Duration> {
        if stop {
            return None;
        }
        let now = Instant::now();
        let mut next = None;
        for at in 0..self.doors.len() {
            let door = &self.doors[at];
            let wait = match door.shut {
                None => continue,
                Some(Shut::Full) if door.is_full() => continue,
                Some(Shut::NoRoom(until)) if now < until => until - now,
                Some(Shut::Full | Shut::NoRoom(_)) => {
                    match self.add(&door.listener, CONNECTION, epoll::EventFlags::IN) {
                        Ok(()) => {
                            self.doors[at].shut = None;
                            continue;
                        }
                        Err(error) => {
                            self.log.log(|| error!("{}", chain(&error)));
                            self.doors[at].shut = Some(Shut::NoRoom(now + NO_ROOM));
                            NO_ROOM
                        }
                    }
                }
            };
            next = Some(next.map_or(wait, |next: Duration| next.min(wait)));
        }
        next
    }
}
