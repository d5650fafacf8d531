//! The mounter: the daemon in the container, and the life of volumes.
//!
//! One process, privileged. Its main thread ([`server`]) waits for events; each request has a thread of its own for as
//! long as it lasts ([`mount`]); a volume that stands has none.

pub mod answer;
pub mod caller;
pub mod hang;
pub mod heal;
pub mod install;
pub mod mount;
pub mod raise;
pub mod ready;
pub mod record;
pub mod recover;
pub mod registry;
pub mod replace;
pub mod scrape;
pub mod server;
pub mod turns;
pub mod volume;

use crate::config::Config;
use crate::engine::Method;
use crate::helper::reaper::Reaper;
use crate::helper::scratch::Scratch;
use crate::node::cgroup::Cgroups;
use crate::node::connections::Connections;
use crate::observe::metrics::Metrics;
use hang::Hangs;
use linux::mount_namespace::MountNamespace;
use registry::Registry;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use turns::Turns;

/// What every request's thread needs.
#[derive(Debug)]
pub struct Mounter {
    /// The administrator's settings.
    pub config: Config,
    /// Where volumes appear.
    pub node: MountNamespace,
    /// Where helpers live, so that they do not end with the container.
    pub cgroups: Arc<Cgroups>,
    /// What helpers can write to.
    pub scratch: Scratch,
    /// The kernel's FUSE connections.
    pub connections: Connections,
    /// A proc filesystem that shows the node's processes.
    pub host_proc: PathBuf,
    /// The state directory.
    pub state: PathBuf,
    /// The volumes.
    pub registry: Registry,
    /// Which of them hang.
    pub hangs: Hangs,
    /// What has happened so far.
    pub metrics: Metrics,
    /// Who may change what is mounted where.
    pub turns: Turns,
    /// Who collects processes.
    pub reaper: Reaper,
    /// How helpers' calls reach us.
    pub method: Method,
    /// Readable once the mounter shall stop: requests under way give up then.
    pub stopping: OwnedFd,
}
