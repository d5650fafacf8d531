//! The mounter on kernels that lack a feature, one feature at a time: docs/kernel-features.md describes them.

use crate::harness::{Test, tests};
use crate::node::mounter::{Mounter, SOCKET};
use crate::node::old_kernel::{self, Missing, without};
use crate::node::{NODE_BIN, TestNode, kept, preloaded};
use api::client::Client;
use api::message::Bind;
use hostmount::engine::preload::DEFAULT_OBJECT;
use hostmount::observe::events;
use rustix::io::Errno;
use testbed::machine::Propagation;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        without_move_mount_beneath.needs(&["make", "bindfs"]),
        without_mount_setattr.needs(&["make", "bindfs"]),
        without_killable_waits.needs(&["make", "bindfs"]),
        without_statmount.needs(&["make", "bindfs"]),
        without_openat2.needs(&["make", "bindfs"]),
        without_openat2_links_are_refused_all_the_same.needs(&["make", "bindfs"]).quick(),
        without_user_notification_the_preload_engine_is_taken.needs(&["make", "bindfs"]),
        without_pidfd_getfd_the_preload_engine_is_taken.needs(&["make", "bindfs"]),
        as_linux_5_10.needs(&["make", "bindfs"]).quick(),
        as_linux_5_10_with_the_preload_engine.needs(&["make", "bindfs"]).quick(),
        a_kernel_that_is_too_old_is_named_at_the_start,
        the_object_without_a_mounter_mounts_without_open_tree.needs(&["make", "bindfs"]),
        what_is_missing_is_missing.quick(),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";
const OTHER: &str = "/var/lib/kubelet/pods/p/other";
const SECCOMP: &str = "\"engine\":\"seccomp\"";

/// A node and its mounter, on a kernel without `missing`.
fn start(missing: &[Missing], arguments: &[&str]) -> (TestNode, Mounter) {
    let test = TestNode::start();
    preloaded::install(&test.container);
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.sh_ok("mkdir /tmp/source");
    let mounter = without(missing, || test.start_mounter(arguments, &[]));
    let status = test.node.sh_ok(&format!("cat /proc/{}/status", mounter.pid()));
    assert!(status.contains("Seccomp:\t2"), "{status}");
    (test, mounter)
}

/// Mounts, uses, swaps, heals and unmounts a volume; `said` is in the mounter's log.
#[track_caller]
fn everything_works(missing: &[Missing], arguments: &[&str], said: &str) {
    let (test, mounter) = start(missing, arguments);
    assert!(mounter.said().contains(said), "{}", mounter.said());
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    test.node.sh_ok(&format!(
        "set -e; cd {TARGET}
        echo hello >a; test \"$(cat a)\" = hello; mkdir sub; mv a sub/a; echo served >f"
    ));
    let plain = test.pod(&[(TARGET, "/data")], Propagation::None);
    let sub = test.pod(&[(&format!("{TARGET}/sub"), "/data")], Propagation::None);
    sub.sh_ok("mount -o remount,bind,ro,noexec,noatime /data");
    let following = test.pod(&[("/var/lib/kubelet/pods", "/pods")], Propagation::HostToContainer);
    let alive = [&plain, &sub, &following].map(|pod| pod.live());
    let shown = || -> Vec<_> {
        let rooms = [&test.node, &plain, &sub, &following].into_iter();
        let lines = rooms.flat_map(|room| room.fuse_mounts());
        lines.map(|line| kept(&line)).collect()
    };
    let before = shown();
    assert_eq!(before.len(), 4, "{before:?}");
    let check = || {
        assert_eq!(shown(), before);
        assert_eq!(plain.sh_ok("cat /data/f; echo more >/data/g; cat /data/g"), "served\nmore\n");
        assert_eq!(sub.sh_ok("cat /data/a"), "hello\n");
        assert!(sub.sh("touch /data/new").stderr.contains("Read-only file system"));
        assert_eq!(following.sh_ok("cat /pods/p/volumes/v/f"), "served\n");
        test.wait_for_processes("bindfs", 1);
    };
    // As CSI has it: one more place, read-only.
    test.node.visit(|| {
        let (source, target) = (TARGET.to_owned(), OTHER.to_owned());
        let bind = Bind { source, target, read_only: true, alone: false, make_target: true, pod: None };
        Client::at(SOCKET).bind(bind).unwrap();
    });
    assert!(test.node.sh(&format!("cat {OTHER}/f && touch {OTHER}/new")).stderr.contains("Read-only file system"));
    test.node.visit(|| assert!(Client::at(SOCKET).unmount(OTHER, true).unwrap().was_mounted));
    check();
    test.node.sh_ok(&format!("{NODE_BIN}/hostmount swap {TARGET}"));
    mounter.wait_for(events::DRAINED, 1);
    check();
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::HEALED, 1);
    // Nothing may wait that would then find the empty directory.
    if [old_kernel::BENEATH, old_kernel::PIDFD_GETFD].iter().any(|feature| missing.contains(feature)) {
        assert_eq!(mounter.count(events::HELD), 0);
    }
    check();
    drop(alive);
    drop((plain, sub, following));
    test.node.sh_ok(&format!("umount {TARGET}"));
    mounter.wait_for(events::UNMOUNTED, 1);
    assert_eq!(test.node.mount_at(TARGET), None);
    test.wait_for_processes("bindfs", 0);
}

fn without_move_mount_beneath() {
    everything_works(&[old_kernel::BENEATH], &[], SECCOMP);
}

fn without_mount_setattr() {
    everything_works(&[old_kernel::MOUNT_SETATTR], &[], SECCOMP);
}

fn without_killable_waits() {
    everything_works(&[old_kernel::WAIT_KILLABLE], &[], SECCOMP);
}

/// Every mount table is searched then.
fn without_statmount() {
    everything_works(&[old_kernel::STATMOUNT], &[], SECCOMP);
}

fn without_openat2() {
    everything_works(&[old_kernel::OPENAT2], &[], SECCOMP);
}

fn without_openat2_links_are_refused_all_the_same() {
    let (test, _mounter) = start(&[old_kernel::OPENAT2], &[]);
    test.node.sh_ok("mkdir -p /tmp/elsewhere/v && ln -s /tmp/elsewhere /var/lib/kubelet/pods/link");
    test.node.sh_ok(&format!("touch {TARGET}/file"));
    for (target, words) in [
        ("/var/lib/kubelet/pods/link/v", "below a symbolic link"),
        ("/var/lib/kubelet/pods/link", "below a symbolic link"),
        ("/var/lib/kubelet/pods/none", "mount point does not exist"),
        (&format!("{TARGET}/file"), "mount point is not a directory"),
    ] {
        let done = test.mount(&["-t", "fuse.bindfs", "/tmp/source", target]);
        assert!(done.code == Some(32) && done.stderr.contains(words), "{target}: {done:?}");
    }
}

fn without_user_notification_the_preload_engine_is_taken() {
    everything_works(&[old_kernel::USER_NOTIFICATION], &[], "the preload engine is used");
}

fn without_pidfd_getfd_the_preload_engine_is_taken() {
    everything_works(&[old_kernel::PIDFD_GETFD], &[], "the preload engine is used");
}

fn as_linux_5_10() {
    use old_kernel::{BENEATH, MOUNT_SETATTR, PEER_PIDFD, STATMOUNT, WAIT_KILLABLE};
    everything_works(&[BENEATH, MOUNT_SETATTR, WAIT_KILLABLE, PEER_PIDFD, STATMOUNT], &[], SECCOMP);
}

fn as_linux_5_10_with_the_preload_engine() {
    use old_kernel::{BENEATH, MOUNT_SETATTR, PEER_PIDFD, STATMOUNT};
    everything_works(&[BENEATH, MOUNT_SETATTR, PEER_PIDFD, STATMOUNT], &["--engine", "preload"], "it was asked for");
}

fn a_kernel_that_is_too_old_is_named_at_the_start() {
    let test = TestNode::start();
    for missing in [old_kernel::OPEN_TREE, old_kernel::MOVE_MOUNT, old_kernel::STATX] {
        let done = without(&[missing], || test.container.run("hostmount", &["serve"]));
        assert_eq!(done.code, Some(2), "{done:?}");
        let running = test.container.sh_ok("uname -r");
        for words in ["needs Linux 5.8 or later", running.trim(), "(2)"] {
            assert!(done.stderr.contains(words), "{words}: {done:?}");
        }
        let done = without(&[missing], || test.container.run("hostmount", &["doctor"]));
        assert!(done.code == Some(2) && done.stdout.contains("FAIL  mounts: hostmount needs Linux 5.8"), "{done:?}");
    }
    let arguments = ["serve", "--engine", "seccomp"];
    let done = without(&[old_kernel::USER_NOTIFICATION], || test.container.run("hostmount", &arguments));
    assert!(done.code == Some(2) && done.stderr.contains("try --engine preload"), "{done:?}");
}

fn the_object_without_a_mounter_mounts_without_open_tree() {
    let test = TestNode::start();
    preloaded::install(&test.container);
    for place in [&test.node, &test.container] {
        place.sh_ok(&format!("mkdir -p {TARGET} /tmp/source"));
    }
    let mount = format!("LD_PRELOAD={DEFAULT_OBJECT} bindfs /tmp/source {TARGET}");
    without(&[old_kernel::OPEN_TREE, old_kernel::MOVE_MOUNT], || test.container.sh_ok(&mount));
    test.node.sh_ok(&format!("echo served >{TARGET}/f"));
    assert_eq!(test.container.sh_ok("cat /tmp/source/f"), "served\n");
    // The helper does not see it, as docs/without-a-mounter.md states.
    assert_eq!(test.container.sh_ok(&format!("ls {TARGET}")), "");
    test.node.sh_ok(&format!("umount {TARGET}"));
    test.wait_for_processes("bindfs", 0);
}

fn what_is_missing_is_missing() {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
    use rustix::mount::{MoveMountFlags, move_mount};
    let look = || {
        let path = OFlags::PATH | OFlags::CLOEXEC;
        let opened = openat2(CWD, "/", path, Mode::empty(), ResolveFlags::empty());
        let beneath = MoveMountFlags::from_bits_retain(0x200);
        let moved = [MoveMountFlags::empty(), beneath].map(|flags| move_mount(CWD, "/none", CWD, "/none", flags));
        (opened.is_ok(), moved.map(Result::unwrap_err))
    };
    assert_eq!(look(), (true, [Errno::NOENT, Errno::NOENT]));
    let missing = [old_kernel::OPENAT2, old_kernel::BENEATH];
    assert_eq!(without(&missing, look), (false, [Errno::NOENT, Errno::INVAL]));
}
