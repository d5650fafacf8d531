//! How long a volume is dead when its helper is killed, until a pod can read again, beside the time that a helper takes
//! to start (a mount through hostmount); how long a swap takes; and its effects in a pod, with MOVE_MOUNT_BENEATH and
//! without.

#[allow(dead_code, reason = "only a part of it is used here")]
#[path = "../tests/node/mod.rs"]
mod node;

use hostmount::observe::events;
use node::gluster::{self, Gluster};
use node::mounter::Mounter;
use node::{NODE_BIN, Place, TestNode, missing, obstacle, old_kernel};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use testbed::machine::{Network, Process, Propagation};

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";
const ROUNDS: usize = 50;

/// A helper: what its processes are called, and how it is mounted.
struct Helper {
    name: &'static str,
    arguments: Vec<String>,
}

fn main() {
    if let Some(why) = obstacle().or_else(|| missing(&["bindfs"])).or_else(|| missing(gluster::PROGRAMS)) {
        println!("SKIP: {why}");
        return;
    }
    let network = Network::new().unwrap();
    let server = Gluster::start(&network);
    let arguments = |fstype: &str, source: &str| ["-t", fstype, source, TARGET].map(str::to_owned).to_vec();
    let helpers = [
        Helper { name: "bindfs", arguments: arguments("fuse.bindfs", "/tmp/source") },
        Helper { name: "glusterfs", arguments: arguments("glusterfs", &server.volume("gv0")) },
    ];
    println!("{ROUNDS} rounds each, medians:");
    for helper in helpers {
        let test = TestNode::start_in(&network);
        let mounter = start(&test, || test.start_mounter(&[], &[]));
        deaths(&test, &mounter, &helper);
        drop(mounter);
    }
    for (kernel, missing) in [("with MOVE_MOUNT_BENEATH", None), ("without it", Some(old_kernel::BENEATH))] {
        let test = TestNode::start_in(&network);
        let mounter = || test.start_mounter(&[], &[]);
        let _mounter = start(&test, || match missing {
            Some(missing) => old_kernel::without(&[missing], mounter),
            None => mounter(),
        });
        gaps(&test, kernel);
    }
}

fn start(test: &TestNode, mounter: impl FnOnce() -> Mounter) -> Mounter {
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.sh_ok("mkdir /tmp/source && echo served >/tmp/source/f");
    mounter()
}

fn pod(test: &TestNode) -> (Place, Process) {
    let pod = test.pod(&[(TARGET, "/data")], Propagation::None);
    let alive = pod.live();
    (pod, alive)
}

fn swap(test: &TestNode) {
    test.node.sh_ok(&format!("{NODE_BIN}/hostmount swap {TARGET}"));
}

/// Starts, deaths and swaps of one helper.
fn deaths(test: &TestNode, mounter: &Mounter, helper: &Helper) {
    let mount = || test.mount(&helper.arguments).ok("mount");
    let mut starts = Vec::new();
    for round in 1..=ROUNDS {
        let begin = Instant::now();
        mount();
        starts.push(begin.elapsed());
        test.node.sh_ok(&format!("umount {TARGET}"));
        mounter.wait_for(events::UNMOUNTED, round);
    }
    mount();
    test.node.sh_ok(&format!("echo served >{TARGET}/f"));
    let (pod, _alive) = pod(test);
    let (mut deaths, mut swaps, mut failed) = (Vec::new(), Vec::new(), 0);
    for round in 1..=ROUNDS {
        // Each life is followed by a swap, so that no death counts as an early one.
        let begin = Instant::now();
        swap(test);
        swaps.push(begin.elapsed());
        mounter.wait_for(events::DRAINED, round);
        let (took, errors) = kill_and_wait(test, &pod, helper.name);
        mounter.wait_for(events::HEALED, round);
        deaths.push(took);
        failed += errors;
    }
    println!("  {}", helper.name);
    println!("    a helper's start (mount, seen by the caller)          {:>8.2} ms", median(starts));
    println!("    from its death until a pod reads again                {:>8.2} ms", median(deaths));
    println!("    a swap (the whole command; a pod reads all the while) {:>8.2} ms", median(swaps));
    println!("    opens that answered something else than ENOTCONN meanwhile: {failed}");
}

/// Kills the helper and reads in the pod until that works; returns for how long it did not, and how many opens
/// failed otherwise than they should.
fn kill_and_wait(test: &TestNode, pod: &Place, name: &str) -> (Duration, usize) {
    // Without the one that has become a daemon.
    test.wait_for_processes(name, 1);
    let helper = test.node.sh_ok(&format!("pidof {name}"));
    // Both are the shell's own: nothing is started in between.
    let kill = format!("echo $EPOCHREALTIME; kill -9 {}", helper.trim());
    pod.visit(|| {
        std::thread::scope(|scope| {
            let old = statat(CWD, "/data", AtFlags::empty()).expect("the volume answers").st_dev;
            let killed = scope.spawn(|| test.node.run("/bin/bash", &["-c", &kill]).ok("kill"));
            let mut others = 0;
            loop {
                // The fresh helper must not share a processor with this process.
                std::thread::sleep(Duration::from_micros(100));
                match openat(CWD, "/data/f", OFlags::RDONLY, Mode::empty()) {
                    Err(Errno::NOTCONN | Errno::CONNABORTED) => {}
                    Err(_) => others += 1,
                    Ok(file) if fstat(&file).is_ok_and(|file| file.st_dev != old) => break,
                    Ok(_) => {}
                }
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            let killed: f64 = killed.join().unwrap().trim().parse().unwrap();
            (now.saturating_sub(Duration::from_secs_f64(killed)), others)
        })
    })
}

/// What a pod that opens a file over and over sees of swaps.
fn gaps(test: &TestNode, kernel: &str) {
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    let (pod, _alive) = pod(test);
    let enough = AtomicBool::new(false);
    let (opens, gaps) = pod.visit(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                (0..ROUNDS).for_each(|_| swap(test));
                enough.store(true, Ordering::Relaxed);
            });
            let (mut opens, mut gaps, mut gone) = (0, Vec::new(), None);
            while !enough.load(Ordering::Relaxed) {
                opens += 1;
                match openat(CWD, "/data/f", OFlags::RDONLY, Mode::empty()) {
                    Ok(_) => gaps.extend(gone.take().map(|since: Instant| since.elapsed())),
                    Err(_) => gone = gone.or_else(|| Some(Instant::now())),
                }
            }
            (opens, gaps)
        })
    });
    let (seen, longest) = (gaps.len(), gaps.iter().max().copied().unwrap_or_default());
    println!("  {ROUNDS} swaps {kernel}, bindfs, a pod that opens a file over and over ({opens} times):");
    println!("    swaps in which an open failed                         {seen:>8}");
    if seen > 0 {
        println!("    for how long, median                                  {:>8.3} ms", median(gaps));
        println!("    and at most                                           {:>8.3} ms", longest.as_secs_f64() * 1e3);
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}
