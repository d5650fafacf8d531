//! Giving way to the volume's own filesystem in the mount namespace of who asks.
//!
//! Whose mount namespace that is, its mount table tells. On the node, and where the node's mounts show as well, somebody *looks*: an
//! agent, or a container runtime that is at work on a container, whose root is still the node's. Anywhere else it is a container.

use super::room;
use super::told::Told;
use crate::node::placeholder::is_as_on_node;
use crate::node::visible_mounts::{Fresh, VisibleMount, mounts_seen_by};
use linux::processes::Process;
use linux::sys::ask::Patience;
use rustix::process::Pid;
use std::io;
use std::os::fd::AsFd;

/// How many mounts are replaced for one request; the next one is for the next of them.
const AT_ONCE: usize = 64;

/// Who asks.
#[derive(Debug)]
pub(super) enum Asker {
    /// One who looks, and is shown what it takes.
    Looks,
    /// A container's process, with the mounts of the placeholder's that are there.
    Container(Vec<VisibleMount>),
    /// A process that has none, or none any more: it looks again.
    Elsewhere,
}

/// Who the thread is that asks.
pub(super) fn asker(told: &Told, thread: i32) -> Asker {
    let Some(thread) = Pid::from_raw(thread) else { return Asker::Looks };
    let process = Process::at(&told.host_proc, thread);
    let nodes = Process::first(&told.host_proc).mount_namespace();
    if nodes.is_ok_and(|nodes| process.mount_namespace().is_ok_and(|its| its == nodes)) {
        return Asker::Looks;
    }
    let mut mounts = mounts_seen_by(process, &told.host_proc, told.device);
    if mounts.iter().any(|mount| is_as_on_node(&mount.mount, &told.view)) {
        return Asker::Looks;
    }
    mounts.retain(|mount| !mount.is_covered());
    mounts.truncate(AT_ONCE);
    if mounts.is_empty() { Asker::Elsewhere } else { Asker::Container(mounts) }
}

/// Puts the volume's filesystem in the places of these mounts. Its owners show as they are stored: it does not allow another mapping.
pub(super) fn give_way(mut mounts: Vec<VisibleMount>) -> io::Result<()> {
    let root = room::volume()?;
    let fresh = Fresh { root: root.as_fd(), patience: Patience::USUAL, dead: None, cover: false };
    mounts.iter_mut().for_each(|mount| mount.copy_inner_mounts(fresh));
    let mut done = Ok(());
    let mut replaced = false;
    for mut mount in mounts {
        mount.show_stored_owners();
        match mount.replace_by(fresh, None, None) {
            Ok(_) => replaced = true,
            Err(error) => done = Err(io::Error::other(error)),
        }
    }
    if replaced { Ok(()) } else { done }
}
