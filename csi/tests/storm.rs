//! Everything at once: calls that come twice, together, in no order and are given up, while helpers, the mounter and the driver are
//! killed. In the end kubelet takes everything away, and nothing is left.

use crate::driver::{Driver, Volume};
use crate::harness::{Test, tests};
use crate::node::chance;
use std::thread;
use tonic::{Code, Status};

pub(crate) fn tests() -> Vec<Test> {
    tests![calls_in_any_order_while_everything_is_killed.needs(&["bindfs"]).alone()]
}

const PODS: [&str; 3] = ["p", "q", "r"];
const ROUNDS: usize = 6;
const CALLS: usize = 12;

fn calls_in_any_order_while_everything_is_killed() {
    let mut chance = chance();
    let mut driver = Driver::start();
    let volumes = [
        Volume::bindfs("a"),
        Volume::bindfs("b"),
        Volume::of("c", &[("type", "bindfs"), ("source", "/srv/source"), ("mode", "pod")]),
        Volume::bindfs("d").ephemeral(),
    ];
    for _ in 0..ROUNDS {
        thread::scope(|scope| {
            for _ in 0..4 {
                let (mut chance, driver, volumes) = (chance.fork(), &driver, &volumes);
                scope.spawn(move || {
                    for _ in 0..CALLS {
                        check(call(driver, chance.choice(volumes).unwrap(), &mut chance));
                    }
                });
            }
            for _ in 0..2 {
                let helpers = driver.test.pids_of("bindfs");
                if let Some(helper) = chance.choice(helpers) {
                    driver.test.node.sh(&format!("kill -KILL {helper}"));
                }
            }
        });
        match chance.u8(..3) {
            0 => driver.start_mounter(),
            1 => driver.start_csi(),
            _ => {}
        }
    }
    // Kubelet goes on until it has what it wants.
    let until_done = |what: &dyn Fn() -> Result<(), Status>| {
        while let Err(error) = what() {
            assert_eq!(error.code(), Code::Aborted, "{error:?}");
        }
    };
    for volume in &volumes {
        PODS.iter().for_each(|pod| until_done(&|| driver.unpublish(volume, pod)));
        until_done(&|| driver.unstage(volume));
    }
    driver.wait_until_nothing_is_left("bindfs");
    driver.test.node.sh_ok("test -z \"$(find /var/lib/kubelet/pods -name mount)\"");
    // And all of it works again.
    driver.stage(&volumes[0]).unwrap();
    driver.publish(&volumes[0], "p").unwrap();
    driver.test.node.sh_ok(&format!("cat {}/f", volumes[0].target("p")));
}

fn call(driver: &Driver, volume: &Volume, chance: &mut fastrand::Rng) -> Result<(), Status> {
    let pod = chance.choice(PODS).unwrap();
    match chance.u8(..6) {
        0 | 1 => driver.stage(volume),
        2 | 3 => driver.publish(volume, pod),
        4 => driver.unpublish(volume, pod),
        _ if chance.u8(..4) == 0 => driver.unstage(volume),
        _ => driver.stats(volume, pod).map(drop),
    }
}

/// What a call in such a place may come to. A volume that was unstaged while a pod had it, and staged again, is another one: the pod keeps
/// the first.
fn check(done: Result<(), Status>) {
    if let Err(error) = done {
        let known = [Code::Aborted, Code::AlreadyExists, Code::FailedPrecondition, Code::NotFound];
        assert!(known.contains(&error.code()), "{error:?}");
    }
}
