//! Throw-away machines: a process tree with PID, mount and network namespaces of its own.
//!
//! Runs in `make demo`, the integration tests and the benches, as root with CAP_SYS_ADMIN, in any number of threads.
//! Each change of namespace happens on a thread made for it, so the process itself stays where it is; nothing is left
//! on the real disk or in the real mount table, and all of it ends with the handle or with this process.
//!
//! ```text
//! Network ── Machine ── node       the root of PID 1: /proc/1/ns/mnt seen from inside
//!               │ ├──── Room       a container beside it
//!               │ └──── Room       a pod that shows directories of the node
//!               └ scratch          a mount namespace that holds the disks of them all: one tmpfs
//! ```

mod cgroups;
mod network;
mod recipe;
mod room;

pub use network::Network;
pub use recipe::{Propagation, Recipe};
pub use room::{Process, Room};

use cgroups::Cgroups;
use linux::sys::fork::Init;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use recipe::DetachedMount;
use rustix::fs::{Mode, OFlags, openat};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// What went wrong with a machine, and at which step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step on a path; inside a room the path is the room's.
    #[error("cannot {step} {path}", path = path.display())]
    At {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A step that concerns no path.
    #[error("cannot {step}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The machine is gone, and no process can be started in it any more.
    #[error("the machine has ended")]
    Ended,
}

fn at<E: Into<io::Error>>(step: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> Error {
    move |source| Error::At { step, path: path.as_ref().to_owned(), source: source.into() }
}

fn step<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Error {
    move |source| Error::Step { step, source: source.into() }
}

/// Where a machine's scratch tmpfs is mounted, in a mount namespace of its own.
const SCRATCH: &str = "/mnt";

/// A machine. Dropped, it kills every process that was started in it.
///
/// It does not return before they are gone, unless a [`Process`] of it is still held: then the last one waits.
#[derive(Debug)]
pub struct Machine {
    node: Room,
    life: Arc<Life>,
    scratch: OwnedFd,
    rooms: AtomicU32,
}

/// A machine's resources, dropped in the order of the fields: no process is in a cgroup any more when it is removed.
#[derive(Debug)]
struct Life {
    init: Init,
    cgroups: Cgroups,
}

impl Machine {
    /// Starts a machine in `network` whose node has the root of `recipe`.
    pub fn start(network: &Network, recipe: Recipe) -> Result<Self, Error> {
        let scratch = on_new_thread(make_scratch)?;
        let cgroups = on_new_thread(Cgroups::make)?;
        let (mnt, pid, init) = on_new_thread(|| {
            cgroups.enter()?;
            let mnt = recipe.cgroups(&cgroups).build(scratch.as_fd(), 0, Vec::new(), None)?;
            let (init, pid) = fork_init(&mnt.thread)?;
            Ok((mnt.namespace, pid, init))
        })?;
        let life = Arc::new(Life { init, cgroups });
        let node = Room::new(mnt, pid, network.clone(), Arc::downgrade(&life));
        Ok(Self { node, life, scratch, rooms: AtomicU32::new(1) })
    }

    /// The node itself: the room of PID 1.
    pub fn node(&self) -> &Room {
        &self.node
    }

    /// Whether it has cgroups of its own.
    pub fn has_cgroups(&self) -> bool {
        self.life.cgroups.shown().next().is_some()
    }

    /// Makes another room: a container beside the node, or, with [`Recipe::from_node`], a pod on it.
    pub fn room(&self, mut recipe: Recipe) -> Result<Room, Error> {
        // Both must be copied where they are mounted: in the node's namespace.
        let (proc, from_node) = self.node.visit(|| {
            let proc = DetachedMount::copy("/proc", "/proc", Propagation::None, false)?;
            Ok((proc, recipe.copy_from_node()?))
        })??;
        let number = self.rooms.fetch_add(1, Ordering::Relaxed);
        let recipe = recipe.cgroups(&self.life.cgroups);
        let built = on_new_thread(|| recipe.build(self.scratch.as_fd(), number, from_node, Some(proc)))?;
        Ok(self.node.beside(built.namespace))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Also if a `Process` of this machine is still held elsewhere, and with it `life`.
        self.life.init.end();
    }
}

/// A mount namespace with a tmpfs in it, and cut off from the real one: the disk of all rooms.
fn make_scratch() -> Result<OwnedFd, Error> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(step("make a mount namespace"))?;
    let (none, all) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, all, none).map_err(at("cut off from the real mounts", "/"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("scratch"), SCRATCH, Some("tmpfs"), flags, Some("mode=755")).map_err(at("mount a tmpfs on", SCRATCH))?;
    open_namespace("/proc/thread-self/ns/mnt")
}

/// Forks PID 1 from a thread that stands in the finished root, and opens the PID namespace it made. `thread` is that
/// thread's directory in the real /proc, opened before the root was left.
fn fork_init(thread: &File) -> Result<(Init, OwnedFd), Error> {
    unshare(CloneFlags::CLONE_NEWPID).map_err(step("make a PID namespace"))?;
    let init = Init::fork(c"/proc").map_err(step("start PID 1 and mount its /proc"))?;
    let pid = openat(thread, "ns/pid_for_children", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(at("open", "/proc/thread-self/ns/pid_for_children"))?;
    Ok((init, pid))
}

fn open_namespace(path: &'static str) -> Result<OwnedFd, Error> {
    File::open(path).map(OwnedFd::from).map_err(at("open", path))
}

/// Runs `work` on a thread of its own, which may change its namespaces: they end with it.
fn on_new_thread<T: Send>(work: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().name("machine".into()).spawn_scoped(scope, work);
        match worker.map_err(step("start a thread"))?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
