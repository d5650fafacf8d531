//! Showing a volume to pods with a user namespace (`hostUsers: false`): its placeholder is what is attached at the target
//! (`crate::placeholder`).
//!
//! Runs in the mounter, on the thread of an operation; the placeholder's process is started by a thread that takes off what that has no use
//! for. It is in a cgroup among the helpers': like them it outlives the mounter.

use super::abandoned::below;
use super::own_process::{OwnProcessError, start_own};
use super::place::mounts_of;
use crate::helper::output::HelperOutput;
use crate::mounter::Mounter;
use crate::mounter::placeholders::{Placeholder, Served};
use crate::node::cgroup::{EndsWithContainer, Resident, has_own_pid_namespace};
use crate::node::connections::Identity;
use crate::node::fuse_device::FuseDevice;
use crate::node::placeholder;
use crate::node::tree::Tree;
use crate::observe::events;
use crate::placeholder::CAPABILITIES;
use crate::placeholder::told::Told;
use linux::mount_table::{Device, Mount};
use linux::sys::ask;
use linux::sys::spawn::SpawnError;
use linux::sys::user_namespace::new_user_namespace;
use rustix::io::ioctl_fionbio;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::Instant;
use tracing::info;

/// Why there is none. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
pub enum PlaceholderError {
    /// Requests name the process that asks by its id in the mounter's PID namespace.
    #[error(
        "x-hostmount.host-users=false needs a mounter that lives among the node's processes (hostPID: true), to see which pod a \
         process belongs to"
    )]
    PidNamespace,
    /// A filesystem of ours.
    #[error("cannot mount the placeholder of the volume")]
    Mount(#[source] io::Error),
    /// Linux before 6.12.
    #[error(
        "the kernel does not map ids of FUSE filesystems, which pods with a user namespace need: x-hostmount.host-users=false takes \
         Linux 6.12 or later"
    )]
    Kernel(#[source] io::Error),
    /// Its process has no cgroup.
    #[error("the placeholder of the volume cannot outlive the mounter")]
    Cgroup(#[from] EndsWithContainer),
    /// Its process.
    #[error("cannot start the process that serves the placeholder of the volume")]
    Start(#[from] OwnProcessError),
    /// Its answer.
    #[error("the placeholder of the volume does not answer")]
    Silent(#[source] io::Error),
}

/// A volume that is to be shown, by one of its names.
#[derive(Debug, Clone, Copy)]
pub struct Behind<'a> {
    /// The target that it was mounted at, by which it is known.
    pub volume: &'a Path,
    /// Where the placeholder will be.
    pub target: &'a Path,
    /// Nobody writes.
    pub read_only: bool,
}

/// Whether a volume at this place is for pods themselves: what kubelet has staged elsewhere is shown to them from there.
pub fn is_for_pods(mounter: &Mounter, target: &Path) -> bool {
    !target.starts_with(mounter.kubelet_dir.join("plugins"))
}

/// What is to be attached for pods with a user namespace: `tree` itself where its filesystem lets ids be mapped, or else a placeholder
/// that `tree` is behind.
pub fn for_users_of_pods(mounter: &Mounter, tree: Tree, behind: Behind<'_>) -> Result<Tree, PlaceholderError> {
    let mapping = new_user_namespace(ANY, ANY).map_err(PlaceholderError::Mount)?;
    let (tree, may) = tree.may_map_ids(mapping.as_fd()).map_err(PlaceholderError::Mount)?;
    if may.is_ok() {
        return Ok(tree);
    }
    if has_own_pid_namespace(&mounter.host_proc) {
        return Err(PlaceholderError::PidNamespace);
    }
    let (placeholder, served) = bring_up(mounter, tree, behind)?;
    let (placeholder, may) = placeholder.may_map_ids(mapping.as_fd()).map_err(PlaceholderError::Mount)?;
    may.map_err(PlaceholderError::Kernel)?;
    let device = served.placeholder.filesystem.device;
    mounter.placeholders.add(served);
    info!(event = events::PLACEHOLDER, %device, "pods with a user namespace get a placeholder, which gives way in each");
    Ok(placeholder)
}

/// Mounts a placeholder that `tree` is behind, visible nowhere yet, and starts its process.
pub fn bring_up(mounter: &Mounter, tree: Tree, behind: Behind<'_>) -> Result<(Tree, Served), PlaceholderError> {
    let Behind { volume, target, read_only } = behind;
    let (connection, placeholder) = placeholder::mount(volume, read_only).map_err(PlaceholderError::Mount)?;
    let device = placeholder.device().map_err(PlaceholderError::Mount)?;
    let filesystem = mounter.connections.identify(device);
    let view = below(target, &mounter.kubelet_dir);
    let told = Told { host_proc: mounter.host_proc.clone(), device, target: target.to_owned(), view };
    let (process, words) = start(mounter, &told, connection.as_fd(), tree.as_fd())?;
    // Held here as well, the volume's filesystem would not end with the placeholder's.
    drop(tree);
    ask::answers_at(placeholder.as_fd(), mounter.patience()).map_err(PlaceholderError::Silent)?;
    let served = Served {
        placeholder: Placeholder { filesystem, volume: volume.to_owned(), target: target.to_owned() },
        process,
        connection: Some(FuseDevice::new(connection, filesystem, &mounter.connections)),
        words: Some(words),
        since: Instant::now(),
        failures: 0,
    };
    Ok((placeholder, served))
}

/// A mapping like that of a pod.
const ANY: &str = "0 65536 65536";

/// Starts its process, with these as its standard input and output. Returns it, and what it says.
fn start(
    mounter: &Mounter,
    told: &Told,
    connection: BorrowedFd<'_>,
    volume: BorrowedFd<'_>,
) -> Result<(OwnedFd, HelperOutput), PlaceholderError> {
    let prepare = |error| OwnProcessError::from(SpawnError::Prepare(error));
    let (output, words) = HelperOutput::new("").map_err(prepare)?;
    // Nobody may be there to read it.
    ioctl_fionbio(&words, true).map_err(|errno| prepare(errno.into()))?;
    let given = [connection, volume];
    let starts = || {
        let placement = mounter.cgroups.placement(Resident::Placeholder, &told.target, None, None)?;
        let words = Some(words.as_fd());
        let started = start_own(mounter, &placement, &CAPABILITIES, told.command_line(), given, words)?;
        Ok((started.process().map_err(prepare)?, output))
    };
    thread::scope(|scope| {
        let started = thread::Builder::new().name("placeholder".into()).spawn_scoped(scope, starts);
        let started = started.map_err(prepare)?.join();
        started.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The filesystem that shows at a place where `device` is mounted: of a placeholder's, the volume's own.
pub fn filesystem_at(mounter: &Mounter, place: &Path, device: Device) -> Identity {
    let mounts = mounts_of(mounter, device).unwrap_or_default();
    let behind = volume_behind(&mounts, place).and_then(|volume| {
        let of_helper = mounter.registry.at(volume).and_then(|(id, _)| mounter.registry.volume(id));
        of_helper.map(|volume| volume.identity).or_else(|| mounter.pods.filesystem_of(volume))
    });
    behind.unwrap_or_else(|| mounter.connections.identify(device))
}

/// The target of the volume that shows at a place by a placeholder, by the mounts there.
pub fn volume_behind<'a>(mounts: &'a [Mount], place: &Path) -> Option<&'a Path> {
    mounts.iter().rfind(|mount| mount.target == place).and_then(placeholder::volume_of)
}
