//! The driver's own life: it keeps nothing, so it may end at any moment.

use crate::driver::{CALLS, Driver, Volume, fails};
use crate::harness::{Test, tests};
use nix::sys::signal::Signal;
use tonic::Code;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_restart_of_each_side_between_all_calls.needs(&["bindfs"]).quick(),
        what_was_granted_stays_granted.needs(&["bindfs"]).quick(),
        it_stops_when_it_is_told_to_and_its_sockets_stay.quick(),
        it_cannot_do_more_than_its_user.quick(),
    ]
}

fn a_restart_of_each_side_between_all_calls() {
    let mut driver = Driver::start();
    let volume = Volume::bindfs("v");
    let restart = |driver: &mut Driver| {
        driver.start_csi();
        driver.start_mounter();
    };
    driver.stage(&volume).unwrap();
    restart(&mut driver);
    driver.stage(&volume).unwrap();
    driver.publish(&volume, "p").unwrap();
    restart(&mut driver);
    driver.publish(&volume, "p").unwrap();
    assert!(!driver.stats(&volume, "p").unwrap().usage.is_empty());
    assert_eq!(driver.test.pids_of("bindfs").len(), 1);
    restart(&mut driver);
    driver.unpublish(&volume, "p").unwrap();
    restart(&mut driver);
    driver.unpublish(&volume, "p").unwrap();
    driver.unstage(&volume).unwrap();
    driver.wait_until_nothing_is_left("bindfs");
}

/// Kubelet repeats its calls after its own restart: an error would cost a running pod its volume.
fn what_was_granted_stays_granted() {
    let mut driver = Driver::start();
    let volumes = [Volume::bindfs("v"), Volume::bindfs("w").ephemeral()];
    driver.stage(&volumes[0]).unwrap();
    volumes.iter().for_each(|volume| driver.publish(volume, "p").unwrap());
    driver.test.container.sh_ok(
        "sed -i 's/^.policy.csi.filesystem.*/[policy.csi]\\nforced_options = \"noexec\"\\n&/; /bindfs/d' /etc/hostmount/config.toml",
    );
    driver.start_mounter();
    driver.stage(&volumes[0]).unwrap();
    volumes.iter().for_each(|volume| driver.publish(volume, "p").unwrap());
    driver.publish(&volumes[0], "q").unwrap();
    fails(driver.publish(&volumes[1], "q"), Code::PermissionDenied, "policy");
    fails(driver.stage(&Volume::bindfs("new")), Code::PermissionDenied, "policy");
    assert_eq!(driver.test.node.fuse_mounts().len(), 4);
    driver.unpublish(&volumes[1], "p").unwrap();
    ["p", "q"].iter().for_each(|pod| driver.unpublish(&volumes[0], pod).unwrap());
    driver.unstage(&volumes[0]).unwrap();
    driver.wait_until_nothing_is_left("bindfs");
}

fn it_stops_when_it_is_told_to_and_its_sockets_stay() {
    let mut driver = Driver::start();
    let mut csi = driver.csi.take().unwrap();
    csi.signal(Signal::SIGTERM);
    assert!(csi.wait().success());
    driver.test.node.sh_ok(&format!("test -S {CALLS}"));
    fails(driver.stage(&Volume::bindfs("v")), Code::Unavailable, "Connection refused");
    driver.start_csi();
    assert!(driver.ready());
}

fn it_cannot_do_more_than_its_user() {
    let driver = Driver::start();
    let pid = driver.csi.as_ref().unwrap().pid();
    let status = driver.test.node.sh_ok(&format!("cat /proc/{pid}/status"));
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t65532\t65532"] {
        assert!(status.contains(line), "{line} is not in {status}");
    }
    // Without its name, or with one that would lead elsewhere, it does not start.
    for (arguments, words) in
        [("", "--node-id is missing"), ("--node-id n --driver-name ../x", "not the name of a driver")]
    {
        let done = driver.room.sh(&format!("/usr/local/bin/hostmount-csi {arguments}"));
        assert!(done.code == Some(1) && done.stderr.contains(words), "{done:?}");
    }
    let done = driver.room.sh("/usr/local/bin/hostmount-csi --node-id n --kubelet-dir /nowhere");
    assert!(
        done.code == Some(2) && done.stderr.contains("cannot listen at /nowhere/plugins/hostmount.csi/csi.sock"),
        "{done:?}"
    );
}
