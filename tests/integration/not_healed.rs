//! Dead volumes that are left dead: healing is off for their type, or their options are not known any more.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::{NODE_BIN, TestNode};
use hostmount::observe::events;
use nix::sys::signal::Signal;
use std::fs;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        healing_is_off_for_a_type.needs(&["bindfs"]).quick(),
        a_volume_that_is_not_known_any_more_is_not_tried.needs(&["bindfs"]).quick(),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

fn start(config: &str) -> (TestNode, Mounter) {
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET} /mnt/other"));
    test.container.visit(|| {
        fs::create_dir_all("/etc/hostmount").unwrap();
        fs::write("/etc/hostmount/config.toml", config).unwrap();
        fs::create_dir_all("/tmp/source").unwrap();
        fs::write("/tmp/source/f", "served\n").unwrap();
    });
    test.container.helper("fuse.other", "exec mount.memfs \"$1\" \"$2\"");
    let mounter = test.start_mounter(&[], &[]);
    (test, mounter)
}

fn hostmount(test: &TestNode, arguments: &str) -> String {
    let done = test.node.sh(&format!("{NODE_BIN}/hostmount {arguments}"));
    done.stdout + &done.stderr
}

fn healing_is_off_for_a_type() {
    let (test, mounter) = start("[filesystem.bindfs]\nheal = false\n");
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    test.mount(&["-t", "fuse.other", "x", "/mnt/other"]).ok("mount");
    test.node.sh_ok("kill -9 $(pidof bindfs) $(pidof mount.memfs)");
    mounter.wait_for(events::HEALED, 1);
    mounter.wait_for(events::NOT_HEALED, 1);
    let status = hostmount(&test, &format!("status {TARGET}"));
    assert!(
        status.contains("State       dead") && status.contains("Note        not healed: healing is off"),
        "{status}"
    );
    assert!(hostmount(&test, "status /mnt/other").contains("State       mounted"));
    // On request it is healed.
    hostmount(&test, "heal --all");
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/f")), "served\n");
    assert!(!hostmount(&test, "list").contains("not healed"));
}

fn a_volume_that_is_not_known_any_more_is_not_tried() {
    let (test, mut mounter) = start("");
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    test.mount(&["-t", "fuse.other", "x", "/mnt/other"]).ok("mount");
    mounter.signal(Signal::SIGKILL);
    mounter.wait();
    test.container.sh_ok("rm /run/hostmount/volumes/*");
    let mounter = test.start_mounter(&[], &[]);
    assert_eq!(hostmount(&test, "list").matches("its options are not known any more").count(), 2);
    let done = hostmount(&test, &format!("swap {TARGET}"));
    assert!(done.contains("its record is lost") && done.contains("mount it again"), "{done}");
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/f")), "served\n");
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::NOT_HEALED, 1);
    // Changes of the mount table bring the mounter back to it, and the other volume's end comes after them.
    for _change in 0..3 {
        test.node.sh_ok("mount -t tmpfs none /tmp && umount /tmp");
    }
    test.node.sh_ok("umount /mnt/other");
    mounter.wait_for(events::UNMOUNTED, 1);
    assert_eq!(mounter.count(events::NOT_HEALED), 1);
    for never in [events::HEAL_LATER, events::HEAL_FAILED] {
        assert_eq!(mounter.count(never), 0, "{never}");
    }
    let status = hostmount(&test, &format!("status {TARGET}"));
    assert!(
        status.contains("State       dead") && status.contains("not healed: its options are not known"),
        "{status}"
    );
    test.umount(&[TARGET]).ok("umount");
    mounter.wait_for(events::UNMOUNTED, 2);
}
