//! The mounter exits and is restarted: volumes are served meanwhile, and the next mounter lists them.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::notes::note;
use crate::node::{self, NODE_BIN, Place, TestNode, operators_mount};
use hostmount::observe::events;
use nix::sys::signal::Signal;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        volumes_are_served_while_the_mounter_is_away_and_known_to_the_next.needs(&["bindfs"]).quick(),
        what_happened_while_the_mounter_was_away.needs(&["bindfs"]).quick(),
        records_that_are_lost_or_nonsense.needs(&["bindfs"]).quick(),
        the_mounter_is_killed_at_any_moment.needs(&["bindfs"]),
        a_helper_that_writes_output_is_not_killed_with_the_mounter.quick(),
        the_mounter_is_restarted_over_and_over.needs(&["bindfs"]),
        volumes_that_died_together_are_known_to_the_next.needs(&["bindfs"]).quick(),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

fn start(targets: &[&str]) -> (TestNode, Mounter) {
    let test = TestNode::start();
    for target in targets {
        test.node.sh_ok(&format!("mkdir -p {target}"));
    }
    test.container.sh_ok("mkdir /tmp/source && echo served >/tmp/source/f");
    let mounter = test.start_mounter(&[], &[]);
    (test, mounter)
}

fn kill(mounter: &mut Mounter) {
    mounter.signal(Signal::SIGKILL);
    mounter.wait();
}

/// All volumes, without the numbers that change by themselves.
fn list(test: &TestNode) -> String {
    test.node.sh_ok(&format!("{NODE_BIN}/hostmount list --output json | grep -vE '\"(waiting|memory)\":'"))
}

/// Reads, over and over, in a process of its own; ends with an error at the first read that fails.
fn reader(place: &Place, file: &str) -> testbed::machine::Process {
    let mut command = testbed::machine::Room::command("/bin/sh");
    command.args(["-c", &format!("while [ ! -e /tmp/enough ]; do cat {file} >/dev/null || exit 1; done")]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    place.spawn(command)
}

fn volumes_are_served_while_the_mounter_is_away_and_known_to_the_next() {
    let (test, mut mounter) = start(&[TARGET, "/mnt/second"]);
    test.mount(&["-t", "fuse.bindfs", "-o", "ro,noexec", "/tmp/source", TARGET]).ok("mount");
    test.container.sh_ok("mkdir /tmp/second");
    test.mount(&["-t", "fuse.bindfs", "/tmp/second", "/mnt/second"]).ok("mount");
    let before = list(&test);
    let mut reader = reader(&test.node, &format!("{TARGET}/f"));
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL] {
        mounter.signal(signal);
        mounter.wait();
        test.node.sh_ok("echo while away >/mnt/second/a && cat /mnt/second/a");
        mounter = test.start_mounter(&[], &[]);
        assert_eq!(list(&test), before);
    }
    test.node.sh_ok("touch /tmp/enough");
    assert!(reader.wait().unwrap().success(), "a read failed");
    // The next mounter heals with the options of the first, and notices unmounts.
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::HEALED, 2);
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/f")), "served\n");
    assert!(test.node.mount_at(TARGET).unwrap().contains(" ro,nosuid,nodev,noexec"));
    test.node.sh_ok(&format!("umount {TARGET} /mnt/second"));
    mounter.wait_for(events::UNMOUNTED, 2);
    test.wait_for_processes("bindfs", 0);
    assert_eq!(list(&test), "[]\n");
    assert_eq!(test.container.sh_ok("ls /run/hostmount/volumes"), "");
}

fn what_happened_while_the_mounter_was_away() {
    let (test, mut mounter) = start(&[TARGET, "/mnt/unmounted"]);
    for target in [TARGET, "/mnt/unmounted"] {
        test.mount(&["-t", "fuse.bindfs", "/tmp/source", target]).ok("mount");
    }
    kill(&mut mounter);
    test.node.sh_ok("umount /mnt/unmounted");
    test.wait_for_processes("bindfs", 1);
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    test.wait_for_processes("bindfs", 0);
    let mounter = test.start_mounter(&[], &[]);
    mounter.wait_for(events::HEALED, 1);
    mounter.wait_for(events::UNMOUNTED, 1);
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/f")), "served\n");
    assert_eq!(list(&test).matches("\"target\"").count(), 1);
}

fn records_that_are_lost_or_nonsense() {
    for damage in [
        "rm -r /run/hostmount/volumes",
        "for f in /run/hostmount/volumes/*; do : >$f; done",
        "for f in /run/hostmount/volumes/*; do head -c 40 $f >/tmp/cut; cat /tmp/cut >$f; done",
        "for f in /run/hostmount/volumes/*; do sed -i 's/\"version\":2/\"version\":99/' $f; done",
        "for f in /run/hostmount/volumes/*; do head -c 5000 /dev/urandom >$f; mv $f /run/hostmount/volumes/x.json; done",
        "for f in /run/hostmount/volumes/*; do cp $f /run/hostmount/volumes/1-1.json; done",
    ] {
        let (test, mut mounter) = start(&[TARGET]);
        test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
        kill(&mut mounter);
        test.container.sh_ok(damage);
        let mounter = test.start_mounter(&[], &[]);
        // A live volume is neither lost nor killed.
        assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/f")), "served\n", "{damage}");
        let shown = list(&test);
        assert!(shown.contains(TARGET) && shown.contains("\"mounted\""), "{damage}: {shown}");
        test.node.sh_ok(&format!("umount {TARGET}"));
        mounter.wait_for(events::UNMOUNTED, 1);
        test.wait_for_processes("bindfs", 0);
    }
}

fn the_mounter_is_killed_at_any_moment() {
    let (test, mut mounter) = start(&[TARGET]);
    let mut chance = node::chance();
    let (mut stood, mut undone) = (0, 0);
    for _round in 0..60 {
        let mut command = operators_mount();
        command.args(["-t", "fuse.bindfs", "/tmp/source", TARGET]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut caller = test.node.spawn(command);
        // The moment itself: a mount takes some milliseconds.
        thread::sleep(Duration::from_micros(chance.u64(0..6000)));
        kill(&mut mounter);
        caller.wait().unwrap();
        mounter = test.start_mounter(&[], &[]);
        // All or nothing, and the next mounter detects which.
        let mounted = test.node.mount_at(TARGET).is_some();
        assert_eq!(list(&test).contains(TARGET), mounted, "{}", mounter.said());
        if mounted {
            test.node.sh_ok(&format!("cat {TARGET}/f && umount {TARGET}"));
            stood += 1;
        } else {
            undone += 1;
        }
        test.wait_for_processes("bindfs", 0);
    }
    note(format!("{stood} stood, {undone} were undone"));
    assert_eq!(list(&test), "[]\n");
    let deadline = Instant::now() + Duration::from_secs(30);
    while node::cgroups::all(&test.node).contains("/hostmount/") {
        assert!(Instant::now() < deadline, "{}", node::cgroups::all(&test.node));
        list(&test);
    }
}

fn a_helper_that_writes_output_is_not_killed_with_the_mounter() {
    let (test, mut mounter) = start(&[TARGET]);
    // Not a fault: a helper whose daemon keeps its output open, and keeps writing.
    let lines = "mount.memfs \"$1\" \"$2\" || exit 1\n(while sleep 0.01; do echo talking; done; echo ended) &\nexit 0";
    test.container.helper("fuse.talk", lines);
    test.mount(&["-t", "fuse.talk", "x", TARGET]).ok("mount");
    mounter.wait_for_helper("talking", 3);
    kill(&mut mounter);
    let mounter = test.start_mounter(&[], &[]);
    mounter.wait_for_helper("talking", 3);
    test.node.sh_ok(&format!("umount {TARGET}"));
}

fn the_mounter_is_restarted_over_and_over() {
    let (test, mut mounter) = start(&[TARGET, "/mnt/second"]);
    for target in [TARGET, "/mnt/second"] {
        test.mount(&["-t", "fuse.bindfs", "/tmp/source", target]).ok("mount");
    }
    let before = list(&test);
    let mut readers = [TARGET, "/mnt/second"].map(|target| reader(&test.node, &format!("{target}/f")));
    kill(&mut mounter);
    let mut chance = node::chance();
    for _start in 0..20 {
        let mut command = testbed::machine::Room::command("/usr/local/bin/hostmount");
        command.arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut started = test.container.spawn(command);
        // The moment itself: it is ready after some milliseconds.
        thread::sleep(Duration::from_micros(chance.u64(0..40_000)));
        started.kill().unwrap();
        started.wait().unwrap();
    }
    let mounter = test.start_mounter(&[], &[]);
    test.node.sh_ok("touch /tmp/enough");
    for reader in &mut readers {
        assert!(reader.wait().unwrap().success(), "a read failed");
    }
    assert_eq!(list(&test), before);
    test.wait_for_processes("bindfs", 2);
    // The last one heals them and notices their unmounts.
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::HEALED, 2);
    test.node.sh_ok(&format!("cat {TARGET}/f && umount {TARGET} /mnt/second"));
    mounter.wait_for(events::UNMOUNTED, 2);
    test.wait_for_processes("bindfs", 0);
}

/// Fresh helpers live in mount namespaces with the numbers that the dead ones had, those of other volumes too.
fn volumes_that_died_together_are_known_to_the_next() {
    let targets: Vec<String> = (0..8).map(|number| format!("{TARGET}{number}")).collect();
    let (test, mut mounter) = start(&targets.iter().map(String::as_str).collect::<Vec<_>>());
    for target in &targets {
        test.mount(&["-t", "fuse.bindfs", "/tmp/source", target]).ok("mount");
    }
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::HEALED, targets.len());
    kill(&mut mounter);
    let next = test.start_mounter(&[], &[]);
    next.wait_for(events::ADOPTED, targets.len());
    assert_eq!(next.count(events::FORGOTTEN), 0, "{}", next.said());
}
