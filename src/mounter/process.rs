//! What the mounter's process is: without what it inherited, in a mount namespace of its own.
//!
//! Runs in the mounter's main thread, before any other thread is there.

use super::step::{StepError, step};
use linux::mount_table;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::Mode;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{Resource, Rlimit, getrlimit, set_child_subreaper, setrlimit, umask};
use std::fs;
use std::path::Path;
use tracing::{debug, warn};

/// What the process must be before it has threads: no helper may inherit a descriptor or a directory.
pub(super) fn become_a_daemon() -> Result<(), StepError> {
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

/// Leaves the container's mount namespace for a slave copy of it, and detaches every FUSE filesystem in the copy:
/// volumes that happen to be visible in the container must not be kept alive by it.
pub(super) fn enter_own_namespace() -> Result<(), StepError> {
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
