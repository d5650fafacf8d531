//! The mounter: the daemon in the container, and the life of volumes.
//!
//! One process, privileged. It [starts](start); its main thread then waits for events ([`event_loop`]); each request has a
//! thread of its own for as long as it lasts ([`requests`]), and so has each [`operation`] on a [`volume`]. A volume that is
//! mounted has none.

pub mod configuration;
pub mod connection;
pub mod door;
mod event_loop;
mod explain;
mod in_time;
mod install;
mod looks;
mod metrics_http;
pub mod operation;
pub mod peer;
pub mod placeholders;
pub mod pods;
mod process;
mod reasons;
mod replies;
mod requests;
pub mod start;
mod state_dir;
mod step;
pub mod target_locks;
mod threads;
mod to_do;
pub mod volume;

use crate::engine::Method;
use crate::helper::reaper::Reaper;
use crate::helper::scratch::Scratch;
use crate::helper::uids::Uids;
use crate::helper::world::World;
use crate::node::cgroup::Cgroups;
use crate::node::connections::Connections;
use crate::node::mount_search::MountSearch;
use crate::observe::journal::Journal;
use crate::observe::log::Levels;
use crate::observe::metrics::Metrics;
use api::about::About;
use configuration::InForce;
use linux::mount_namespace::MountNamespace;
use linux::sys::ask::Patience;
use operation::abandoned::Waiting;
use operation::hang::Hangs;
use operation::heirs::Heirs;
use operation::stats::Spaces;
use placeholders::Placeholders;
use pods::Pods;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use target_locks::TargetLocks;
use to_do::ToDo;
use volume::pods::PodNames;
use volume::registry::Registry;

/// What every thread of the mounter needs.
#[derive(Debug)]
pub struct Mounter {
    /// The administrator's settings.
    pub configuration: InForce,
    /// Kubelet's directory on the node, which is the same for as long as the mounter runs.
    pub kubelet_dir: PathBuf,
    /// Where volumes appear.
    pub node: MountNamespace,
    /// Where helpers live, so that they do not end with the container.
    pub cgroups: Arc<Cgroups>,
    /// What helpers see of the container.
    pub world: World,
    /// What helpers can write to.
    pub scratch: Scratch,
    /// The uids that they have for themselves.
    pub uids: Uids,
    /// The kernel's FUSE connections.
    pub connections: Arc<Connections>,
    /// Whether the kernel lets a fresh filesystem take the place of one whose requests wait.
    pub can_hold: bool,
    /// Finds the mounts of filesystems.
    pub search: MountSearch,
    /// A proc filesystem that shows the node's processes.
    pub host_proc: PathBuf,
    /// The state directory.
    pub state: PathBuf,
    /// What the mounter needs on the node: nothing is mounted there.
    pub own_paths: Vec<PathBuf>,
    /// The volumes.
    pub registry: Registry,
    /// Those that programs of pods serve.
    pub pods: Pods,
    /// What shows in volumes' places, for pods with a user namespace.
    pub placeholders: Placeholders,
    /// What is to be done about volumes without a helper.
    pub to_do: ToDo,
    /// For which of them requests wait.
    pub waiting: Waiting,
    /// What serves files that are open in filesystems whose helpers are gone.
    pub heirs: Heirs,
    /// Which of them hang.
    pub hangs: Hangs,
    /// What has happened so far.
    pub metrics: Metrics,
    /// What it says of itself.
    pub about: About,
    /// What has happened to which volume.
    pub journal: Arc<Journal>,
    /// What is logged.
    pub levels: Levels,
    /// What callers have said of pods.
    pub pod_names: PodNames,
    /// What filesystems have said of their space.
    pub spaces: Spaces,
    /// The targets whose volumes are brought up, or given a fresh helper.
    pub target_locks: TargetLocks,
    /// The places at which something is mounted or unmounted. Taken before a target's.
    pub places: TargetLocks,
    /// Collects processes that have ended.
    pub reaper: Reaper,
    /// How helpers' calls reach us.
    pub method: Method,
    /// Readable once the mounter shall stop: requests under way give up then.
    pub stopping: OwnedFd,
}

impl Mounter {
    /// How long anybody's filesystem may take for an answer that an operation waits for.
    pub fn patience(&self) -> Patience<'_> {
        Patience { stopping: Some(self.stopping.as_fd()), ..Patience::USUAL }
    }
}
