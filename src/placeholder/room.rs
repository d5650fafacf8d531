//! The mount namespace of a placeholder's process: the volume's filesystem, the node's processes, and nothing else, so that it holds
//! nothing of the container that it was started in.

use rustix::fs::{CWD, Mode, OFlags, mkdir, open};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::mount::{mount, mount_change, move_mount, open_tree, unmount};
use rustix::process::{chdir, pivot_root};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Where the volume's filesystem is.
pub(super) const VOLUME: &str = "/volume";
/// Where the node's processes are.
pub(super) const PROC: &str = "/proc";

/// Moves the process there. To be called while it has one thread.
pub(super) fn enter(host_proc: &Path, volume: OwnedFd) -> io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let proc = open_tree(CWD, host_proc, flags)?;
    // Any directory will do to begin with: this one is in every container.
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(c"hostmount", "/proc", c"tmpfs", flags, c"mode=0755,size=64k")?;
    chdir("/proc")?;
    for (tree, name) in [(proc.as_fd(), "proc"), (volume.as_fd(), "volume")] {
        mkdir(name, Mode::from_raw_mode(0o755))?;
        attach(tree, name)?;
    }
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    // Of a volume that shows elsewhere as well it would be a peer: what is mounted inside there is nobody's business here.
    Ok(mount_change(VOLUME, MountPropagationFlags::PRIVATE)?)
}

fn attach(tree: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    Ok(move_mount(tree, c"", CWD, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// The root of the volume's filesystem: after a heal or a swap that is another one. Nothing is asked.
pub(super) fn volume() -> io::Result<OwnedFd> {
    Ok(open(VOLUME, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}
