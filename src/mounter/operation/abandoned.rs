//! Volumes that hold a pod which is to go: requests wait, the helper does nothing, and no process that lives has the volume.
//!
//! Who deletes a pod kills its processes. One that waits for a FUSE filesystem in the kernel cannot go before it has an answer, nor can
//! the pod, nor does kubelet unmount before that; and a kubelet that looks at the volume afterwards waits just so. While the server is
//! frozen there is no answer. The kernel gives one when the connection is aborted, which takes the filesystem from everybody who has
//! it: so that is done if nobody is left who has. Where others have it that live, the killed ones alone get an answer (`let_go`).
//! docs/hung-volumes.md says the same for administrators.
//!
//! Runs in the mounter, on a thread of its own from time to time. It never touches the filesystem.

use super::kill;
use super::let_go::let_go_of_killed;
use crate::helper::work::Work;
use crate::mounter::Mounter;
use crate::mounter::volume::{Volume, VolumeId};
use crate::node::dying::{Life, life_of};
use crate::node::mount_search::VisibleMounts;
use crate::node::visible_mounts::VisibleMount;
use crate::observe::events;
use linux::processes;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};
use tracing::{debug, error, warn};

/// How many looks the configured time has.
pub const LOOKS: u32 = 4;

/// So many times as long a volume is left to processes that have exited by themselves, and whose files are being closed.
const TO_CLOSE: u32 = 3;

/// What volumes looked like for which requests wait. Held for as long as a look lasts.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<HashMap<VolumeId, Since>>);

/// Requests wait.
#[derive(Debug)]
struct Since {
    waiting: u64,
    /// And the helper has done nothing since a look.
    still: Option<Still>,
}

#[derive(Debug)]
struct Still {
    since: Instant,
    /// How many have come since.
    more: u64,
    /// What the helper had done by then.
    work: Work,
}

/// Looks at all volumes once. If the look before is not over yet, that one will do.
pub fn look(mounter: &Mounter) {
    let mut seen = match mounter.waiting.0.try_lock() {
        Ok(seen) => seen,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => return,
    };
    let waiting = volumes_with_waiting(mounter);
    seen.retain(|id, _| waiting.iter().any(|(waits, ..)| waits == id));
    let again = waiting.into_iter().filter(|(id, _, waiting)| match seen.entry(*id) {
        Entry::Occupied(before) if before.get().waiting <= *waiting => true,
        // Requests have been answered, or it is the first look: with a busy volume some always wait.
        Entry::Occupied(mut before) => {
            before.insert(Since { waiting: *waiting, still: None });
            false
        }
        Entry::Vacant(new) => {
            new.insert(Since { waiting: *waiting, still: None });
            false
        }
    });
    let again: Vec<_> = again.collect();
    if again.is_empty() {
        return;
    }
    let now = Instant::now();
    let Ok(namespaces) = processes::mount_namespaces(Path::new(processes::OWN)) else { return };
    let mut idle = Vec::new();
    for (id, volume, waiting) in again {
        let home = namespaces.iter().find(|home| home.id == volume.processes.namespace());
        let Some(work) = home.map(|home| Work::of_processes(&home.processes)) else { continue };
        let Some(since) = seen.get_mut(&id) else { continue };
        let time = since.idle_for(now, waiting, work);
        if let (Some(time), Some(limit)) = (time, volume.plan.settings.abandoned_time)
            && time >= limit
        {
            idle.push((id, volume, time >= limit * TO_CLOSE));
        }
    }
    release_abandoned(mounter, &idle, &mut seen);
}

/// The volumes of kubelet's, with the number of requests that wait for each.
fn volumes_with_waiting(mounter: &Mounter) -> Vec<(VolumeId, Volume, u64)> {
    let kubelets = |volume: &Volume| {
        // Of others the node's own processes are the users, and those are always there.
        volume.plan.settings.abandoned_time.is_some() && volume.plan.target.starts_with(&mounter.kubelet_dir)
    };
    let filesystems = mounter.registry.filesystems(kubelets).into_iter();
    let waiting = filesystems.filter_map(|(id, filesystem)| {
        let waiting = mounter.connections.waiting(filesystem).ok().filter(|waiting| *waiting > 0)?;
        Some((id, mounter.registry.volume(id)?, waiting))
    });
    waiting.collect()
}

impl Since {
    /// How long its helper has done nothing.
    fn idle_for(&mut self, now: Instant, waiting: u64, work: Work) -> Option<Duration> {
        let more = waiting - std::mem::replace(&mut self.waiting, waiting);
        let Some(still) = &mut self.still else {
            self.still = Some(Still { since: now, more: 0, work });
            return None;
        };
        still.more += more;
        let time = now.duration_since(still.since);
        let done = work.since(&still.work);
        if done.is_work(time, still.more) {
            debug!(event = events::BUSY, waiting, ?done, "requests wait, and the helper works");
            self.still = Some(Still { since: now, more: 0, work });
            return None;
        }
        Some(time)
    }
}

/// Ends those of these volumes that no process has which lives, and lets go of processes that were killed where others live; each volume with
/// whether it was left to those that exit for long enough.
fn release_abandoned(mounter: &Mounter, idle: &[(VolumeId, Volume, bool)], seen: &mut HashMap<VolumeId, Since>) {
    if idle.is_empty() {
        return;
    }
    let filesystems: Vec<_> = idle.iter().map(|(_, volume, _)| volume.identity).collect();
    let found = match mounter.search.find_all(&filesystems, &mounter.connections) {
        Ok(found) => found,
        Err(error) => return warn!("cannot see who has volumes whose requests wait: {error}"),
    };
    for ((id, volume, closed), found) in idle.iter().zip(found) {
        let _span = volume.span().entered();
        let Some(visible) = found else { continue };
        match longest_life(mounter, &visible) {
            Life::Lives => {
                debug!(
                    event = events::IN_USE,
                    "requests wait, the helper does nothing, and a living process has the volume"
                );
                let until = if *closed { Life::Exits } else { Life::Killed };
                if let_go_of_killed(mounter, *id, volume, &visible, until)
                    && let Some(since) = seen.get_mut(id)
                {
                    // Not at every look: it costs, and the helper has had some requests once more.
                    since.still = None;
                }
            }
            Life::Exits if !closed => {
                debug!(
                    event = events::IN_USE,
                    "requests wait, the helper does nothing, and a process that exits closes its files"
                );
            }
            _ => release(mounter, volume),
        }
    }
}

/// The longest life of those whose volume it is: processes of pods, but not those to which it is shown because they see kubelet's
/// directory, or all of the node: agents, other drivers, a kubelet in a container; nor those of placeholders.
fn longest_life(mounter: &Mounter, visible: &VisibleMounts) -> Life {
    let node = mounter.node.id().ok();
    let is_nodes = |mount: &VisibleMount| node.is_none_or(|node| mount.is_in(node));
    let nodes = visible.mounts.iter().filter(|mount| is_nodes(mount)).map(|mount| &mount.mount.target);
    let places: Vec<_> = nodes.map(|target| below(target, &mounter.kubelet_dir)).collect();
    let is_nodes_view = |mount: &VisibleMount| places.iter().any(|place| mount.mount.target.ends_with(place));
    let is_placeholders = |mount: &VisibleMount| {
        mount.processes().first().is_some_and(|process| mounter.cgroups.is_placeholder(process.pid()))
    };
    let pods =
        visible.mounts.iter().filter(|mount| !is_nodes(mount) && !is_nodes_view(mount) && !is_placeholders(mount));
    pods.flat_map(|mount| mount.processes()).map(life_of).max().unwrap_or(Life::Ended)
}

/// What a path is called wherever `directory`, or the directory `pods` or `plugins` in it, is shown.
pub(in crate::mounter) fn below(path: &Path, directory: &Path) -> PathBuf {
    path.strip_prefix(directory).map_or_else(|_| path.to_owned(), |below| below.components().skip(1).collect())
}

fn release(mounter: &Mounter, volume: &Volume) {
    if mounter.target_locks.is_taken(&volume.plan.target) {
        return;
    }
    error!(
        event = events::ABANDONED,
        "requests wait, the helper does nothing, and no living process of a pod has the volume: it is ended, to hold neither the pod \
         nor kubelet"
    );
    kill::end(mounter, volume);
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux::processes::Process;

    #[test]
    fn where_kubelets_directory_is_shown() {
        let below = |path| below(Path::new(path), Path::new("/var/lib/kubelet"));
        let place = below("/var/lib/kubelet/pods/UID/volumes/v");
        for shown in
            ["/var/lib/kubelet/pods/UID/volumes/v", "/host/var/lib/kubelet/pods/UID/volumes/v", "/pods/UID/volumes/v"]
        {
            assert!(Path::new(shown).ends_with(&place), "{shown}");
        }
        assert!(!Path::new("/data").ends_with(&place) && !Path::new("/volumes/v").ends_with(&place));
    }

    #[test]
    fn idle_is_a_helper_that_does_nothing_while_requests_wait() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut since = Since { waiting: 1, still: None };
        assert_eq!(since.idle_for(at(0), 1, Work::default()), None);
        assert_eq!(since.idle_for(at(5), 2, Work::default()), Some(Duration::from_secs(5)));
        assert_eq!(since.idle_for(at(9), 2, Work::default()), Some(Duration::from_secs(9)));
        // One process did something.
        let this = [Process::at(Path::new("/proc"), rustix::process::getpid())];
        assert_eq!(since.idle_for(at(10), 2, Work::of_processes(&this)), None);
    }
}
