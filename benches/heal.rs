//! How long a volume is dead when its helper is killed, until a pod can read again, beside the time that a helper takes
//! to start (a mount through hostmount); and how long a swap takes.

#[path = "../tests/node/mod.rs"]
mod node;

use hostmount::demo::machine::Propagation;
use node::{NODE_BIN, TestNode, require};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;
use std::time::{Duration, Instant};

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";
const ROUNDS: usize = 50;

fn main() {
    if !require(&["bindfs"]) {
        return;
    }
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.sh_ok("mkdir /tmp/source && echo served >/tmp/source/f");
    let mounter = test.start_mounter(&[], &[]);
    let mount = || test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    let mut starts = Vec::new();
    for round in 1..=ROUNDS {
        let begin = Instant::now();
        mount();
        starts.push(begin.elapsed());
        test.node.sh_ok(&format!("umount {TARGET}"));
        mounter.wait_until_said("\"unmounted\"", round);
    }
    mount();
    let pod = test.pod(&[(TARGET, "/data")], Propagation::None);
    let mut sleep = hostmount::demo::machine::Room::command("sleep");
    sleep.arg("infinity");
    let _alive = pod.spawn(sleep);
    let (mut deaths, mut swaps, mut failed) = (Vec::new(), Vec::new(), 0);
    for _round in 0..ROUNDS {
        // Each life is followed by a swap, so that no death counts as an early one.
        let begin = Instant::now();
        test.node.sh_ok(&format!("{NODE_BIN}/hostmount swap {TARGET}"));
        swaps.push(begin.elapsed());
        let (took, errors) = kill_and_wait(&test, &pod);
        deaths.push(took);
        failed += errors;
    }
    println!("{ROUNDS} rounds, bindfs, medians:");
    println!("  a helper's start (mount, seen by the caller)          {:>8.2} ms", median(starts));
    println!("  from its death until a pod reads again                {:>8.2} ms", median(deaths));
    println!("  a swap (the whole command; a pod reads all the while) {:>8.2} ms", median(swaps));
    println!("  opens that answered something else than ENOTCONN meanwhile: {failed}");
}

/// Kills the helper and reads in the pod, over and over, until that works.
fn kill_and_wait(test: &TestNode, pod: &node::Place) -> (Duration, usize) {
    test.wait_for_processes("bindfs", 1);
    let helper = test.node.sh_ok("pidof bindfs");
    pod.visit(|| {
        std::thread::scope(|scope| {
            let old = statat(CWD, "/data", AtFlags::empty()).expect("the volume answers").st_dev;
            scope.spawn(|| test.node.sh_ok(&format!("kill -9 {}", helper.trim())));
            let mut dead = None;
            let mut others = 0;
            loop {
                match openat(CWD, "/data/f", OFlags::RDONLY, Mode::empty()) {
                    Err(Errno::NOTCONN | Errno::CONNABORTED) => dead = dead.or_else(|| Some(Instant::now())),
                    Err(_) => others += 1,
                    // Killed and healed between two of our looks: no time that could be seen.
                    Ok(file) if fstat(&file).is_ok_and(|file| file.st_dev != old) => {
                        return (dead.map_or(Duration::ZERO, |dead: Instant| dead.elapsed()), others);
                    }
                    Ok(_) => {}
                }
            }
        })
    })
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}
