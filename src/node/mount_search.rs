//! Searching the mount tables of all mount namespaces for filesystems. One search answers every thread that waits for one:
//! when a hundred volumes die at once, the tables are not read a hundred times. And where the kernel says so (6.12), only those tables are
//! read that have one of them: for the others what is known (`known_namespaces`) is enough.
//!
//! Runs in the mounter, on the threads of operations.

use super::cgroup::Cgroups;
use super::connections::{Connections, Identity};
use super::known_namespaces::KnownNamespaces;
use super::tree::Tree;
use super::visible_mounts::{Namespace, VisibleMount, in_table};
use linux::mount_table::Device;
use linux::processes::{self, Process};
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The mounts of one filesystem, attached in any mount namespace.
#[derive(Debug)]
pub struct VisibleMounts {
    /// Those in the node's own namespace first, as pods may get theirs from there; then those of namespaces with few of them, so that who
    /// has made many keeps nobody else waiting.
    pub mounts: Vec<VisibleMount>,
    /// How many there are beside these: a pod makes as many as it likes in a mount namespace of its own.
    pub more: usize,
    /// A detached copy, which hinders no umount(2). While it is held the filesystem lives, and no other gets its device
    /// number. None if every mount is covered by another.
    pub pin: Option<Tree>,
}

impl VisibleMounts {
    /// A detached copy of one that shows this directory of the filesystem.
    pub fn copy_of(&self, root: &Path) -> Option<Tree> {
        self.mounts.iter().filter(|mount| mount.mount.root == root).find_map(|mount| mount.pin().ok())
    }
}

/// The mounts of filesystems, by device number.
type Found = HashMap<Device, InNamespaces>;

/// The mounts of a filesystem, of each mount namespace by itself, and how many more there are.
#[derive(Debug, Default)]
struct InNamespaces {
    mounts: Vec<Vec<VisibleMount>>,
    more: usize,
}

/// How often who does not answer on the way to a mount is waited for, when one of them is to be held.
const WAITS: usize = 4;

/// The one place that searches.
#[derive(Debug)]
pub struct MountSearch {
    /// A proc filesystem that shows the node's processes.
    host_proc: PathBuf,
    cgroups: Arc<Cgroups>,
    waiting: Mutex<Vec<Question>>,
    /// Held by the thread that searches.
    turn: Mutex<KnownNamespaces>,
    searches: AtomicU64,
    tables: AtomicU64,
}

#[derive(Debug)]
struct Question {
    devices: HashSet<Device>,
    asker: Sender<Found>,
}

/// How much was searched since the mounter started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Searched {
    /// Walks through the node's processes.
    pub searches: u64,
    /// Mount tables that were read.
    pub tables: u64,
}

impl MountSearch {
    /// A search of the namespaces of the processes that `host_proc` shows. Those of helpers, which the cgroups tell, are
    /// left out: a volume is let go of there as soon as it is mounted.
    pub fn new(host_proc: PathBuf, cgroups: Arc<Cgroups>) -> Self {
        let (searches, tables) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { host_proc, cgroups, waiting: Mutex::default(), turn: Mutex::default(), searches, tables }
    }

    /// All mounts of a filesystem, at some moment after the call. `None`: it has none that is visible. An error: /proc cannot
    /// be read.
    pub fn find(&self, filesystem: Identity, connections: &Connections) -> io::Result<Option<VisibleMounts>> {
        Ok(self.find_all(&[filesystem], connections)?.pop().flatten())
    }

    /// The same for several filesystems, with one search; in their order.
    pub fn find_all(
        &self,
        filesystems: &[Identity],
        connections: &Connections,
    ) -> io::Result<Vec<Option<VisibleMounts>>> {
        // In most cases it has just been unmounted, and no search is needed.
        let there = filesystems.iter().filter(|filesystem| connections.has(**filesystem));
        let devices: HashSet<_> = there.map(|filesystem| filesystem.device).collect();
        let mut found = if devices.is_empty() { Found::new() } else { self.mounts_of(&devices)? };
        let visible = filesystems.iter().map(|filesystem| {
            // Not to be had by one that is no more, whose device number another of them has got since.
            let there = connections.has(*filesystem).then(|| found.remove(&filesystem.device)).flatten()?;
            let (mounts, more) = (in_turn(there.mounts, &self.host_proc), there.more);
            let pin = pin_of(&mounts);
            // What had its device number was the filesystem itself, if that is there even now.
            connections.has(*filesystem).then_some(VisibleMounts { mounts, more, pin })
        });
        Ok(visible.collect())
    }

    fn mounts_of(&self, devices: &HashSet<Device>) -> io::Result<Found> {
        loop {
            let answer = self.ask(devices);
            let mut turn = locked(&self.turn);
            match answer.try_recv() {
                Ok(found) => return Ok(found),
                // A thread that had its turn before took the question, and failed.
                Err(TryRecvError::Disconnected) => {}
                Err(TryRecvError::Empty) => {
                    let questions = std::mem::take(&mut *locked(&self.waiting));
                    self.answer(questions, &mut turn)?;
                    return answer.recv().map_err(io::Error::other);
                }
            }
        }
    }

    /// What was searched so far.
    pub fn searched(&self) -> Searched {
        Searched { searches: self.searches.load(Ordering::Relaxed), tables: self.tables.load(Ordering::Relaxed) }
    }

    fn ask(&self, devices: &HashSet<Device>) -> Receiver<Found> {
        let (asker, answer) = channel();
        locked(&self.waiting).push(Question { devices: devices.clone(), asker });
        answer
    }

    /// Goes through the node's processes once.
    ///
    /// A process that exits meanwhile does not matter: its namespace lives on only if it has another process, which is asked
    /// then.
    fn answer(&self, questions: Vec<Question>, known: &mut KnownNamespaces) -> io::Result<()> {
        let wanted: HashSet<Device> = questions.iter().flat_map(|question| &question.devices).copied().collect();
        let mut found: Vec<Found> = questions.iter().map(|_| Found::new()).collect();
        self.searches.fetch_add(1, Ordering::Relaxed);
        known.begin();
        for populated in processes::mount_namespaces(&self.host_proc)? {
            if self.cgroups.is_helper(populated.processes[0].pid()) || !known.may_show(&populated, &wanted) {
                continue;
            }
            self.tables.fetch_add(1, Ordering::Relaxed);
            let table = populated.mounts();
            if !table.iter().any(|mount| wanted.contains(&mount.device)) {
                continue;
            }
            let Some(handle) = populated.open() else { continue };
            let namespace = Arc::new(Namespace { handle, populated, host_proc: self.host_proc.clone() });
            for (found, question) in found.iter_mut().zip(&questions) {
                let there = in_table(&table, &namespace, |device| question.devices.contains(&device));
                for (device, (mounts, more)) in there {
                    let all = found.entry(device).or_default();
                    all.mounts.push(mounts);
                    all.more += more;
                }
            }
        }
        known.end();
        for (question, found) in questions.into_iter().zip(found) {
            // Nobody waits for it any more if that thread has panicked.
            let _ = question.asker.send(found);
        }
        Ok(())
    }
}

/// All of them, in the order in which they are gone through.
fn in_turn(mut mounts: Vec<Vec<VisibleMount>>, host_proc: &Path) -> Vec<VisibleMount> {
    let node = Process::first(host_proc).mount_namespace().ok();
    let is_nodes = |mounts: &[VisibleMount]| node.is_some_and(|node| mounts.iter().any(|mount| mount.is_in(node)));
    mounts.sort_by_key(|mounts| (!is_nodes(mounts), mounts.len()));
    mounts.into_iter().flatten().collect()
}

/// A copy of the first mount that can be copied.
fn pin_of(mounts: &[VisibleMount]) -> Option<Tree> {
    let mut waits = 0;
    let pins = mounts.iter().map(VisibleMount::pin).take_while(|pin| {
        let late = pin.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut);
        waits += usize::from(late);
        waits < WAITS
    });
    pins.flatten().next()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half-done by a thread that panics while it holds one of them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
