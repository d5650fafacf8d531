//! Anything at any time: mounts, unmounts, deaths of helpers and of the mounter, swaps, pods that start and end, in an
//! order that chance chooses. After each round everything must be right.
//!
//! `make chaos ROUNDS=1000` for longer; `HOSTMOUNT_SEED` repeats a run.

use crate::harness::{self, Test, tests};
use crate::node::mounter::Mounter;
use crate::node::{self, NODE_BIN, Place, TestNode};
use nix::sys::signal::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};
use testbed::machine::{Process, Propagation};

pub(crate) fn tests() -> Vec<Test> {
    tests![anything_at_any_time.needs(&["bindfs"])]
}

const TARGETS: usize = 4;

/// The expected state, and the node.
struct World {
    test: TestNode,
    mounter: Option<Mounter>,
    /// Which source is mounted at each target. Every mount has a source of its own.
    mounted: BTreeMap<usize, u32>,
    pods: Vec<Pod>,
    /// Sources whose helper was killed while no mounter was there to heal them.
    dead: BTreeSet<u32>,
    last_source: u32,
    has_cgroups: bool,
}

struct Pod {
    place: Place,
    source: u32,
    _alive: Process,
}

fn target(number: usize) -> String {
    format!("/var/lib/kubelet/pods/p/volumes/v{number}")
}

impl World {
    fn new() -> Self {
        let test = TestNode::start();
        for number in 0..TARGETS {
            test.node.sh_ok(&format!("mkdir -p {}", target(number)));
        }
        let mounter = Some(test.start_mounter(&[], &[]));
        let (mounted, pods, dead) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        let has_cgroups = node::cgroups::obstacle().is_none();
        assert!(has_cgroups || !harness::must_run(), "cgroups cannot be made here");
        Self { test, mounter, mounted, pods, dead, last_source: 0, has_cgroups }
    }

    /// Performs an operation, if it is possible now, and returns its name.
    fn act(&mut self, chance: &mut fastrand::Rng) -> Option<String> {
        let number = chance.usize(0..TARGETS);
        let place = target(number);
        let here = self.mounted.get(&number).copied();
        match (chance.u8(0..8), here) {
            (0, None) if self.mounter.is_some() => {
                self.last_source += 1;
                let source = self.last_source;
                self.test.container.sh_ok(&format!("mkdir /tmp/s{source} && echo {source} >/tmp/s{source}/f"));
                self.test.mount(&["-t", "fuse.bindfs", &format!("/tmp/s{source}"), &place]).ok("mount");
                self.mounted.insert(number, source);
                Some(format!("mount {source} at {number}"))
            }
            (1, Some(source)) => {
                self.test.node.sh_ok(&format!("umount {place}"));
                self.mounted.remove(&number);
                Some(format!("umount {source} at {number}"))
            }
            (2, Some(source)) => {
                for pid in self.helpers_of(source) {
                    self.test.node.sh_ok(&format!("kill -9 {pid}"));
                }
                if self.mounter.is_none() {
                    self.dead.insert(source);
                }
                Some(format!("kill the helper of {source}"))
            }
            (3, _) => {
                let mut mounter = self.mounter.take()?;
                let signal = if chance.bool() { Signal::SIGKILL } else { Signal::SIGTERM };
                mounter.signal(signal);
                mounter.wait();
                Some(format!("{signal} to the mounter"))
            }
            (4 | 5, _) if self.mounter.is_none() => {
                self.mounter = Some(self.test.start_mounter(&[], &[]));
                self.dead.clear();
                Some("start the mounter".to_owned())
            }
            (5, Some(source)) => {
                self.test.node.sh_ok(&format!("{NODE_BIN}/hostmount swap {place}"));
                Some(format!("swap the helper of {source}"))
            }
            (6, Some(source)) if !self.dead.contains(&source) => {
                let place = self.test.pod(&[(&place, "/data")], Propagation::None);
                let alive = place.live();
                self.pods.push(Pod { place, source, _alive: alive });
                Some(format!("a pod starts with {source}"))
            }
            (7, _) if !self.pods.is_empty() => {
                let pod = self.pods.swap_remove(chance.usize(0..self.pods.len()));
                Some(format!("a pod with {} ends", pod.source))
            }
            _ => None,
        }
    }

    fn helpers_of(&self, source: u32) -> Vec<u32> {
        let line = format!("/tmp/s{source} ");
        let processes = self.test.processes().into_iter();
        processes.filter(|(_, words)| words.contains("bindfs") && words.contains(&line)).map(|(pid, _)| pid).collect()
    }

    /// The differences from the expected state.
    fn wrong(&self) -> Option<String> {
        let served: BTreeSet<u32> =
            self.mounted.values().copied().chain(self.pods.iter().map(|pod| pod.source)).collect();
        for (number, source) in self.mounted.iter().filter(|(_, source)| !self.dead.contains(source)) {
            let read = self.test.node.sh(&format!("cat {}/f", target(*number)));
            if read.stdout != format!("{source}\n") {
                return Some(format!("the node reads {read:?} at {number}, not {source}"));
            }
        }
        for pod in self.pods.iter().filter(|pod| !self.dead.contains(&pod.source)) {
            let read = pod.place.sh("cat /data/f");
            if read.stdout != format!("{}\n", pod.source) {
                return Some(format!("a pod reads {read:?}, not {}", pod.source));
            }
            let mounts = pod.place.fuse_mounts().len();
            if mounts != 1 {
                return Some(format!("a pod has {mounts} FUSE mounts"));
            }
        }
        let on_node = self.test.node.fuse_mounts();
        if on_node.len() != self.mounted.len() {
            return Some(format!("the node shows {on_node:?}, not {:?}", self.mounted));
        }
        let helpers = self.test.processes().values().filter(|line| line.contains("bindfs")).count();
        if helpers != served.difference(&self.dead).count() {
            return Some(format!("{helpers} helpers run for {served:?}: {:?}", self.test.processes()));
        }
        self.mounter.as_ref()?;
        let list = self.test.node.sh_ok(&format!("{NODE_BIN}/hostmount list --output json"));
        let volumes: serde_json::Value = serde_json::from_str(&list).unwrap();
        let volumes = volumes.as_array().unwrap();
        if volumes.len() != served.len() || list.contains("\"dead\"") {
            return Some(format!("{served:?} are there, and listed are {list}"));
        }
        let records = self.test.container.sh_ok("ls /run/hostmount/volumes | wc -l");
        if records.trim() != served.len().to_string() {
            return Some(format!("{records} records for {served:?}"));
        }
        let cgroups = node::cgroups::all(&self.test.node);
        let own = cgroups.lines().filter(|line| line.contains("/hostmount/")).count();
        (own != helpers && self.has_cgroups).then(|| format!("{helpers} helpers run, and cgroups are {cgroups}"))
    }

    /// Waits until the state is as expected.
    fn check(&self, story: &[String]) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Some(wrong) = self.wrong() {
            if Instant::now() > deadline {
                panic!("{wrong}\nafter {story:#?}");
            }
            if self.mounter.is_some() {
                // A helper that dies often is healed after longer and longer waits: not now.
                self.test.node.sh(&format!("{NODE_BIN}/hostmount heal --all"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn anything_at_any_time() {
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(50);
    let mut chance = node::chance();
    let mut world = World::new();
    let mut story = Vec::new();
    while story.len() < rounds {
        if let Some(done) = world.act(&mut chance) {
            story.push(done);
            world.check(&story);
        }
    }
    // And in the end nothing is left.
    world.pods.clear();
    for number in std::mem::take(&mut world.mounted).into_keys() {
        world.test.node.sh_ok(&format!("umount {}", target(number)));
    }
    world.dead.clear();
    if world.mounter.is_none() {
        world.mounter = Some(world.test.start_mounter(&[], &[]));
    }
    world.check(&story);
    let fresh = TestNode::start();
    let descriptors = |test: &TestNode, mounter: &Mounter| test.descriptors(mounter.pid());
    let fresh_mounter = fresh.start_mounter(&[], &[]);
    let expected = descriptors(&fresh, &fresh_mounter).len();
    // A thread that has just handled a volume may not have ended yet.
    let deadline = Instant::now() + Duration::from_secs(30);
    while let left = descriptors(&world.test, world.mounter.as_ref().unwrap())
        && left.len() != expected
    {
        assert!(Instant::now() < deadline, "{left:?}, not {expected} of them");
        thread::yield_now();
    }
}
