//! Starting the mounter, step by step, and stopping it.
//!
//! Runs in the mounter's main thread, before any other thread is there.

use super::Mounter;
use super::configuration::InForce;
use super::event_loop::EventLoop;
use super::operation::abandoned::Waiting;
use super::operation::hang::Hangs;
use super::operation::heirs::Heirs;
use super::operation::stats::Spaces;
use super::placeholders::{self, Placeholders};
use super::pods::{self, Pods};
use super::step::{StepError, step};
use super::target_locks::TargetLocks;
use super::threads::event_descriptor;
use super::to_do::ToDo;
use super::volume::pods::PodNames;
use super::volume::record::Records;
use super::volume::recovery::recover;
use super::volume::registry::Registry;
use super::volume::seconds;
use super::{door, install, metrics_http, process, state_dir};
use crate::config::Config;
use crate::config::settings::MemoryLimit;
use crate::engine::{self, Choice, NoEngine};
use crate::helper::reaper::Reaper;
use crate::helper::scratch::Scratch;
use crate::helper::uids::Uids;
use crate::helper::world::{World, WorldError};
use crate::helper::{confine, namespace};
use crate::node::cgroup::{self, Cgroups};
use crate::node::connections::Connections;
use crate::node::kernel::{self, TooOld};
use crate::node::mount_search::MountSearch;
use crate::node::programs::Places;
use crate::observe::events;
use crate::observe::journal::Journal;
use crate::observe::log::Levels;
use crate::observe::metrics::Metrics;
use api::about::{About, Configuration};
use api::exit::chain;
use linux::mount_namespace::{MountNamespace, NamespaceError};
use linux::sys::allocator;
use rustix::event::epoll;
use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use tracing::{debug, info, warn};

/// How the mounter is started.
#[derive(Debug)]
pub struct Settings {
    /// The administrator's settings.
    pub config: Config,
    /// The file that they are from; none: the default one, if it is there.
    pub config_file: Option<PathBuf>,
    /// The socket for operators; kubelet's are beside it.
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
    /// Where to serve the metrics over HTTP.
    pub metrics: Option<SocketAddr>,
    /// Where what happens to volumes is kept.
    pub journal: Arc<Journal>,
    /// What is logged.
    pub levels: Levels,
}

/// Why the mounter does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// What helpers see of the container.
    #[error(transparent)]
    World(#[from] WorldError),
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
    /// A step of the start, or a system call of the event loop.
    #[error(transparent)]
    Step(#[from] StepError),
}

/// Runs the mounter until SIGTERM or SIGINT. Volumes go on being served by their helpers after that.
pub fn serve(settings: Settings) -> Result<(), ServeError> {
    allocator::share_arenas();
    process::become_a_daemon()?;
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
    let mut kept = settings.config.capabilities();
    kept.extend(crate::heir::CAPABILITIES.into_iter().chain(crate::placeholder::CAPABILITIES));
    if let Err(error) = confine::limit_helpers(&kept) {
        debug!("capabilities are taken from each helper by itself: {error}");
    }
    process::enter_own_namespace()?;
    state_dir::prepare(&settings.state)?;
    let Some(_lock) = state_dir::take_lock(&settings.state, &settings.host_proc)? else {
        return Err(ServeError::AlreadyRunning { path: settings.state.join("lock") });
    };
    if let Err(error) = settings.journal.open(&settings.state) {
        warn!(
            "what happens to volumes is not kept for `hostmount events`: cannot open its files in {}: {error}",
            settings.state.display()
        );
    }
    let about = about(&settings);
    let Places { programs, plugins } = settings.places.clone();
    let sockets = door::sockets(&settings.config.doors, &settings.socket).into_iter().map(|(_, socket)| socket);
    let own_paths = sockets.chain([settings.state.clone()]).chain(programs).chain(plugins).collect();
    let method = engine::choose(settings.engine, settings.preload)?;
    namespace::create_directories(&settings.state).map_err(step("prepare the state directory"))?;
    let records = Records::below(&settings.state, &settings.host_proc).map_err(step("prepare the state directory"))?;
    let programs = pods::Records::below(&settings.state).map_err(step("prepare the state directory"))?;
    let pods = Pods::new(programs, settings.config.program_timeout).map_err(step("create an epoll descriptor"))?;
    install::install(&node, &settings.places, settings.types)?;
    let doors = door::open(&settings.config.doors, &settings.socket)?;
    let events = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(step("create an epoll descriptor"))?;
    let stopping = event_descriptor()?;
    let connections = Connections::open().map_err(step("open the kernel's list of FUSE connections (fusectl)"))?;
    let connections = Arc::new(connections);
    let placeholders = Placeholders::new(Arc::clone(&connections)).map_err(step("create an epoll descriptor"))?;
    let scratch = Scratch::new().map_err(step("look for the directories that helpers write to"))?;
    let world = World::new(&namespace::syslog_socket(&settings.state))?;
    let uids = Uids::new(settings.config.uids.clone());
    let registry = events.try_clone().map_err(step("copy a descriptor"))?;
    let registry = Registry::new(registry, records, Arc::clone(&connections));
    let mounter = Arc::new(Mounter {
        kubelet_dir: settings.config.kubelet_dir.clone(),
        configuration: InForce::new(settings.config, settings.config_file),
        node,
        cgroups: Arc::clone(&cgroups),
        world,
        scratch,
        uids,
        connections,
        can_hold: kernel::has_move_mount_beneath(),
        search: MountSearch::new(settings.host_proc.clone(), Arc::clone(&cgroups)),
        host_proc: settings.host_proc,
        state: settings.state,
        own_paths,
        registry,
        pods,
        placeholders,
        waiting: Waiting::default(),
        heirs: Heirs::default(),
        hangs: Hangs::default(),
        metrics: Metrics::default(),
        journal: settings.journal,
        levels: settings.levels,
        about: About { engine: method.to_string(), ..about },
        target_locks: TargetLocks::default(),
        to_do: ToDo::default(),
        places: TargetLocks::default(),
        pod_names: PodNames::default(),
        spaces: Spaces::default(),
        reaper: Reaper::default(),
        method,
        stopping,
    });
    mounter.cgroups.remove_empty();
    recover(&mounter).map_err(step("look for the volumes of an earlier mounter"))?;
    pods::recovery::recover(&mounter);
    placeholders::recovery::recover(&mounter);
    let event_loop = EventLoop::new(Arc::clone(&mounter), events, doors)?;
    // After it, as it blocks signals: a thread that does not would swallow them.
    if let Some(address) = settings.metrics {
        let listener = TcpListener::bind(address);
        let listener = listener.map_err(step(format!("listen on {address} for the metrics")))?;
        metrics_http::serve_on(listener, mounter).map_err(step("start a thread"))?;
    }
    info!(
        event = events::READY,
        socket = %settings.socket.display(),
        version = env!("CARGO_PKG_VERSION"),
        "the mounter is ready"
    );
    let result = event_loop.run();
    cgroups.close();
    Ok(result?)
}

/// What there is to say before the engine is chosen.
fn about(settings: &Settings) -> About {
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let sockets = door::sockets(&settings.config.doors, &settings.socket);
    About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: seconds(SystemTime::now()),
        engine: String::new(),
        sockets: sockets.iter().map(|(origin, path)| (*origin, text(path))).collect(),
        programs: settings.places.programs.as_ref().map(text),
        plugins: settings.places.plugins.as_ref().map(text),
        configuration: Configuration::default(),
    }
}

fn find_cgroups(node: &MountNamespace, settings: &Settings) -> Cgroups {
    let (cgroups, ends_with_container) = Cgroups::find(node, &settings.host_proc, cgroup::DIRECTORY);
    if let Some(why) = ends_with_container {
        warn!(event = events::ENDS_WITH_CONTAINER, "volumes end when the mounter's container does: {}", chain(&why));
    }
    let memory = settings.config.all_memory.map_or_else(half_of_the_nodes_memory, MemoryLimit::bytes);
    if let Err(error) = cgroups.limit_all(memory, settings.config.all_processes) {
        warn!("all helpers together are not limited: {}", chain(&error));
    }
    let (counts_memory, counts_processes) = cgroups.counted();
    if !(counts_memory && counts_processes) {
        info!(
            counts_memory,
            counts_processes, "the node's cgroups do not count all that helpers together are limited in"
        );
    }
    if settings.config.limits_memory() && !cgroups.can_limit() {
        warn!(
            event = events::ENDS_WITH_CONTAINER,
            "no memory_limit is in force: the node's cgroups cannot be used for it"
        );
    }
    cgroups
}

fn half_of_the_nodes_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total =
        text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    total.map_or(i64::MAX.unsigned_abs(), |kilobytes| kilobytes * 512)
}
