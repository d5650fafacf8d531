//! The mounter's main thread: set up, then wait for events and nothing else.
//!
//! It accepts connections (a thread each), collects processes, and hears of helpers' calls, words and ends. Nothing
//! here waits for a helper, a filesystem or a path on the node.

use super::caller::{Caller, CallerError};
use super::hang::{self, Hangs};
use super::record::Records;
use super::recover::recover;
use super::registry::{self, Registry};
use super::turns::Turns;
use super::{Mounter, answer, heal, install, mount, replace, scrape};
use crate::config::Config;
use crate::engine::{self, Choice, NoEngine};
use crate::helper::namespace;
use crate::helper::reaper::Reaper;
use crate::helper::scratch::Scratch;
use crate::node::cgroup::{self, Cgroups};
use crate::node::connections::Connections;
use crate::node::kernel::{self, TooOld};
use crate::node::programs::Places;
use crate::observe::metrics::{Metrics, What};
use api::exit::{Exit, chain};
use api::message::{self, Call, Failure, MessageError, Reply};
use linux::mount_namespace::{MountNamespace, NamespaceError};
use linux::mount_table;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::fs::{FlockOperation, Mode, fcntl_lock};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{Resource, Rlimit, getrlimit, set_child_subreaper, setrlimit, umask};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tracing::{debug, error, info, info_span, warn};

/// How the mounter is started.
#[derive(Debug)]
pub struct Settings {
    /// The administrator's settings.
    pub config: Config,
    /// The socket to listen on.
    pub socket: PathBuf,
    /// A directory for what the mounter keeps while it runs.
    pub state: PathBuf,
    /// A proc filesystem that shows the node's processes.
    pub host_proc: PathBuf,
    /// How helpers' calls shall reach us.
    pub engine: Choice,
    /// The preload engine's shared object.
    pub preload: PathBuf,
    /// Where the node's copies of this program shall be.
    pub places: Places,
    /// The types that they shall know to be served.
    pub types: BTreeSet<String>,
    /// Where to tell the metrics by HTTP.
    pub metrics: Option<SocketAddr>,
}

/// Why the mounter does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No volume could be mounted.
    #[error(transparent)]
    Kernel(#[from] TooOld),
    /// The node cannot be reached.
    #[error(transparent)]
    Node(#[from] NamespaceError),
    /// There is one already.
    #[error("another mounter is running: it holds {path}", path = path.display())]
    AlreadyRunning {
        /// The lock file.
        path: PathBuf,
    },
    /// Helpers' calls would not reach us.
    #[error(transparent)]
    Engine(#[from] NoEngine),
    /// The node would not know of the mounter.
    #[error(transparent)]
    Install(#[from] install::InstallError),
    /// A step of the start, or a system call of the main loop.
    #[error("cannot {step}")]
    Step {
        /// What was tried.
        step: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Marks events that are not a volume's; volumes' tokens begin at 2.
const CONNECTION: u64 = 0;
const SIGNAL: u64 = 1;
/// No volume has the highest id.
const NODE_MOUNTS: u64 = u64::MAX;
const REQUEST_DONE: u64 = u64::MAX - 1;

fn step<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> ServeError {
    move |source| ServeError::Step { step: step.into(), source: source.into() }
}

/// Runs the mounter until SIGTERM or SIGINT. Volumes go on being served by their helpers after that.
pub fn serve(settings: Settings) -> Result<(), ServeError> {
    become_a_daemon()?;
    kernel::check()?;
    let node = MountNamespace::of_node(&settings.host_proc)?;
    if node.is_callers().map_err(step("look at our mount namespace"))? {
        let proc = settings.host_proc.display();
        warn!(
            "{proc} shows our own first process: volumes appear here, and on a node only if this is none's container"
        );
    }
    // Before there are other threads: they inherit the cgroup namespace.
    let cgroups = Arc::new(find_cgroups(&node, &settings));
    enter_own_namespace()?;
    fs::create_dir_all(&settings.state).map_err(step(format!("create {}", settings.state.display())))?;
    let _lock = take_lock(&settings.state)?;
    let method = engine::choose(settings.engine, settings.preload)?;
    namespace::create_directories(&settings.state).map_err(step("prepare the state directory"))?;
    let records = Records::below(&settings.state).map_err(step("prepare the state directory"))?;
    install::install(&node, &settings.places, settings.types)?;
    let listener = listen(&settings.socket)?;
    let events = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(step("create an epoll descriptor"))?;
    let stopping = event_descriptor()?;
    let connections = Connections::open().map_err(step("open the kernel's list of FUSE connections (fusectl)"))?;
    let scratch = Scratch::new().map_err(step("look for the directories that helpers write to"))?;
    let mounter = Arc::new(Mounter {
        config: settings.config,
        node,
        cgroups: Arc::clone(&cgroups),
        scratch,
        connections,
        host_proc: settings.host_proc,
        state: settings.state,
        registry: Registry::new(events.try_clone().map_err(step("copy a descriptor"))?, records),
        hangs: Hangs::default(),
        metrics: Metrics::default(),
        turns: Turns::default(),
        reaper: Reaper::default(),
        method,
        stopping,
    });
    mounter.cgroups.remove_empty();
    recover(&mounter).map_err(step("look for the volumes of an earlier mounter"))?;
    let main_loop = Loop::new(Arc::clone(&mounter), events, listener)?;
    // After it, as it blocks signals: a thread that does not would swallow them.
    if let Some(address) = settings.metrics {
        let listener = TcpListener::bind(address);
        let listener = listener.map_err(step(format!("listen on {address} for whoever asks for metrics")))?;
        scrape::answer_on(listener, mounter).map_err(step("start a thread"))?;
    }
    info!(socket = %settings.socket.display(), version = env!("CARGO_PKG_VERSION"), "the mounter is ready");
    let result = main_loop.run();
    cgroups.close();
    if let Err(error) = fs::remove_file(&settings.socket) {
        warn!("cannot remove {}: {error}", settings.socket.display());
    }
    result
}

/// What the process must be before it has threads: no helper may inherit a descriptor, a directory or a signal mask.
fn become_a_daemon() -> Result<(), ServeError> {
    std::env::set_current_dir("/").map_err(step("go to /"))?;
    umask(Mode::from_raw_mode(0o022));
    for entry in fs::read_dir("/proc/self/fd").map_err(step("list our descriptors"))?.flatten() {
        if let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()).filter(|fd| *fd > 2) {
            linux::sys::descriptor::close_on_exec(number);
        }
    }
    let files = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }) {
        warn!("cannot raise the limit of open files: {error}");
    }
    set_child_subreaper(Some(rustix::process::getpid())).map_err(step("become a child subreaper"))?;
    Ok(())
}

fn find_cgroups(node: &MountNamespace, settings: &Settings) -> Cgroups {
    let (cgroups, ends_with_container) = Cgroups::find(node, &settings.host_proc, cgroup::DIRECTORY);
    if let Some(why) = ends_with_container {
        warn!("volumes end when the mounter's container does: {}", chain(&why));
    }
    if settings.config.limits_memory() && !cgroups.can_limit() {
        warn!("no memory_limit is in force: the node's cgroups cannot be used for it");
    }
    cgroups
}

/// Leaves the container's mount namespace for a slave copy of it, and detaches every FUSE filesystem in the copy:
/// volumes that happen to be visible in the container must not be kept alive by it.
fn enter_own_namespace() -> Result<(), ServeError> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(step("make a mount namespace; the mounter must be privileged"))?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave).map_err(step("make our mount namespace a slave"))?;
    let table = fs::read("/proc/self/mountinfo").map_err(step("read our mount table"))?;
    for mount in mount_table::parse(&table).iter().rev() {
        // The root cannot be detached, and is no volume.
        if mount.is_fuse() && mount.target != Path::new("/") {
            match unmount(&mount.target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) => debug!(target = %mount.target.display(), "detached our copy of a FUSE filesystem"),
                Err(error) => warn!("cannot detach our copy of {}: {error}", mount.target.display()),
            }
        }
    }
    Ok(())
}

fn take_lock(state: &Path) -> Result<File, ServeError> {
    let path = state.join("lock");
    let file = File::create(&path).map_err(step(format!("create {}", path.display())))?;
    // Not flock(2): its lock would be a helper's too, from fork to exec, and outlive us.
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK | Errno::ACCESS) => Err(ServeError::AlreadyRunning { path }),
        Err(errno) => Err(step(format!("lock {}", path.display()))(errno)),
    }
}

/// A socket that only root can connect to. It appears when it takes connections, and not before; one left behind by a
/// mounter that was killed is replaced (we hold the lock).
fn listen(socket: &Path) -> Result<UnixListener, ServeError> {
    let named = |what: &str| format!("{what} {}", socket.display());
    if let Some(directory) = socket.parent() {
        fs::create_dir_all(directory).map_err(step(named("create the directory of")))?;
    }
    let unfinished = socket.with_extension("new");
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(step(named("make room for"))(error)),
        _ => {}
    }
    let before = umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(&unfinished).map_err(step(named("listen on")));
    umask(before);
    let listener = listener?;
    listener.set_nonblocking(true).map_err(step(named("prepare")))?;
    fs::rename(&unfinished, socket).map_err(step(named("put in place")))?;
    Ok(listener)
}

fn event_descriptor() -> Result<OwnedFd, ServeError> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(step("create an event descriptor"))
}

/// What the main thread waits on.
struct Loop {
    mounter: Arc<Mounter>,
    events: OwnedFd,
    listener: UnixListener,
    signals: SignalFd,
    node_mounts: File,
    under_way: Arc<UnderWay>,
    /// When volumes are looked at next; never while there is none.
    next_look: Option<Instant>,
}

/// Requests that are not through yet.
struct UnderWay {
    count: AtomicUsize,
    done: OwnedFd,
}

/// One of them.
struct OneMore(Arc<UnderWay>);

impl Drop for OneMore {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        let _ = rustix::io::write(&self.0.done, &1u64.to_ne_bytes());
    }
}

impl Loop {
    fn new(mounter: Arc<Mounter>, events: OwnedFd, listener: UnixListener) -> Result<Self, ServeError> {
        let mut mask = SigSet::empty();
        mask.extend([Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]);
        mask.thread_block().map_err(step("block signals"))?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(step("create a signal descriptor"))?;
        let table = mounter.host_proc.join("1/mountinfo");
        let node_mounts = File::open(&table).map_err(step(format!("open {}", table.display())))?;
        let under_way = Arc::new(UnderWay { count: AtomicUsize::new(0), done: event_descriptor()? });
        let this = Self { mounter, events, listener, signals, node_mounts, under_way, next_look: None };
        this.add(&this.listener, CONNECTION, epoll::EventFlags::IN)?;
        this.add(&this.signals, SIGNAL, epoll::EventFlags::IN)?;
        // Any change of the table shows as an error condition (proc_pid_mounts(5)).
        this.add(&this.node_mounts, NODE_MOUNTS, epoll::EventFlags::PRI)?;
        this.add(&this.under_way.done, REQUEST_DONE, epoll::EventFlags::IN)?;
        Ok(this)
    }

    fn add(&self, fd: impl AsFd, token: u64, flags: epoll::EventFlags) -> Result<(), ServeError> {
        epoll::add(&self.events, fd, epoll::EventData::new_u64(token), flags).map_err(step("watch a descriptor"))
    }

    fn run(mut self) -> Result<(), ServeError> {
        // Those of an earlier mounter whose helper died meanwhile.
        self.in_background(self.mounter.registry.without_helper(), heal::settle);
        let mut stop = false;
        let mut buffer = Vec::with_capacity(64);
        while !stop || self.under_way.count.load(Ordering::Acquire) > 0 {
            buffer.clear();
            self.mounter.cgroups.sweep();
            self.in_background(self.mounter.registry.take_due(), heal::heal);
            let next = [self.mounter.registry.next_retry(), self.look_if_due()];
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
                        if self.heed_signals() && !stop {
                            stop = true;
                            self.begin_to_stop();
                        }
                    }
                    NODE_MOUNTS => self.in_background(self.mounter.registry.without_helper(), heal::settle),
                    REQUEST_DONE => {
                        let _ = rustix::io::read(&self.under_way.done, &mut [0; 8]);
                    }
                    token => {
                        let (id, channel) = registry::from_token(token);
                        if self.mounter.registry.heed(id, channel) {
                            self.in_background(vec![id], heal::settle);
                        }
                    }
                }
            }
        }
        info!("the mounter stops; volumes go on being served by their helpers");
        Ok(())
    }

    /// Has volumes looked at when it is time; how long until the next time?
    fn look_if_due(&mut self) -> Option<Duration> {
        let between = self.mounter.config.shortest_hang_time()? / hang::LOOKS;
        if !self.mounter.registry.has_any() {
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

    /// Whether one of them asks us to stop.
    fn heed_signals(&self) -> bool {
        let mut stop = false;
        while let Ok(Some(signal)) = self.signals.read_signal() {
            stop |= signal.ssi_signo != Signal::SIGCHLD as u32;
        }
        self.mounter.reaper.reap();
        stop
    }

    fn begin_to_stop(&self) {
        info!("stopping: requests under way give up");
        let _ = epoll::delete(&self.events, &self.listener);
        let _ = rustix::io::write(&self.mounter.stopping, &1u64.to_ne_bytes());
    }

    /// A thread for each of these volumes: `work` may take long.
    fn in_background(&self, ids: Vec<u64>, work: fn(&Mounter, u64)) {
        for id in ids {
            self.start("volume", move |mounter| work(mounter, id));
        }
    }

    /// Starts a thread that the mounter waits for before it stops.
    fn start(&self, name: &str, work: impl FnOnce(&Mounter) + Send + 'static) {
        self.under_way.count.fetch_add(1, Ordering::AcqRel);
        let one_more = OneMore(Arc::clone(&self.under_way));
        let mounter = Arc::clone(&self.mounter);
        let work = move || {
            let _one_more = one_more;
            work(&mounter);
        };
        if let Err(error) = thread::Builder::new().name(name.into()).spawn(work) {
            error!("cannot start a thread: {error}");
        }
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

/// One request and its reply, on a thread of its own.
fn converse(mounter: &Mounter, mut stream: UnixStream) {
    let refused: Reply<()> = match Caller::check(&stream) {
        Ok(()) => match message::receive::<Call>(&mut stream) {
            Ok(call) => return perform(mounter, call, Caller::new(stream)),
            Err(MessageError::Closed) => return,
            Err(error) => {
                warn!("{}", chain(&error));
                answer::to_nonsense(&error)
            }
        },
        Err(error @ CallerError::NotRoot { .. }) => {
            warn!("refused a caller: {error}");
            Err(Failure::new(Exit::Usage, error.to_string()))
        }
        Err(error) => return warn!("{}", chain(&error)),
    };
    send(&mut stream, &refused);
}

fn send<T: Serialize>(stream: &mut UnixStream, reply: &Reply<T>) {
    match message::send(stream, reply) {
        Ok(()) => {}
        // The caller has gone; what it asked for has been undone or is done, and there is nobody to tell.
        Err(MessageError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => warn!("cannot reply: {}", chain(&error)),
    }
}

fn perform(mounter: &Mounter, call: Call, mut caller: Caller) {
    match call {
        Call::Mount(asked) => {
            let request = asked.request;
            let _span = info_span!("volume", target = request.target, fstype = request.fstype).entered();
            let result = mount::mount(mounter, request, &caller);
            mounter.metrics.count(What::mount, &result);
            let reply = answer::to_mount(result);
            if let Err(Failure { message, .. }) = &reply {
                warn!("not mounted: {message}");
            }
            send(caller.stream(), &reply);
        }
        Call::Heal { target } => {
            let _span = info_span!("volume", target).entered();
            let result = replace::heal(mounter, Path::new(&target)).transpose();
            result.iter().for_each(|result| mounter.metrics.count(What::heal, result));
            send(caller.stream(), &answer::to_replace(result.transpose()));
        }
        Call::Swap { target, changes } => {
            let _span = info_span!("volume", target).entered();
            let result = replace::swap(mounter, Path::new(&target), changes);
            mounter.metrics.count(What::swap, &result);
            send(caller.stream(), &answer::to_replace(result.map(Some)));
        }
        Call::Status { target } => {
            let volume = registry::look(mounter, Path::new(&target)).map_err(|error| no_table(&error));
            let none = format!("no volume of hostmount's is or was at {target}, or it ended too long ago");
            let volume = volume.and_then(|volume| volume.ok_or_else(|| Failure::new(Exit::Usage, none)));
            send(caller.stream(), &volume);
        }
        Call::List => {
            let volumes = registry::views(mounter).map_err(|error| no_table(&error));
            send(caller.stream(), &volumes);
        }
        Call::Metrics => {
            let text = registry::views(mounter).map(|volumes| mounter.metrics.text(&volumes));
            send(caller.stream(), &text.map_err(|error| no_table(&error)));
        }
    }
}

fn no_table(error: &io::Error) -> Failure {
    Failure::new(Exit::System, format!("cannot read the node's mount table: {error}"))
}
