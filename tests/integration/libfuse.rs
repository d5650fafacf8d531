//! Daemons of libfuse 3.19, which ask for a synchronous INIT and mount by the new mount interface. `testbed` called as `libfuse`
//! makes the same calls.

use crate::harness::{Test, tests};
use crate::node::job::{TARGET, assert_confined, list, unmount_and_see_it_end, use_it};
use crate::node::preloaded::{DYNAMIC_TESTBED, install};
use crate::node::programs::TESTBED;
use crate::node::{Place, TestNode};
use hostmount::engine::preload::DEFAULT_OBJECT;
use std::fs;
use std::path::Path;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        what_stands_for_libfuse_gets_its_init_while_it_mounts.needs_linux(6, 18),
        a_daemon_that_asks_for_a_synchronous_init_mounts_by_the_old_interface,
        the_preload_engine_answers_it_likewise.needs(&["make"]),
        without_a_mounter_it_is_answered_likewise.needs(&["make"]),
    ]
}

const PROGRAM: &str = "/usr/local/bin/libfuse";
/// What it says when it is refused.
const REFUSED: [&str; 2] = ["a synchronous INIT is not to be had", "mount(2) is called"];

/// Puts it into a container, and makes it the helper of two types.
fn put(program: &Path, container: &Place) {
    let program = fs::read(program).unwrap();
    container.program(PROGRAM, program);
    container.helper("fuse.back", &format!("exec {PROGRAM} \"$1\" \"$2\""));
    container.helper("fuse.front", &format!("exec {PROGRAM} -f \"$1\" \"$2\""));
}

/// Else the other tests would show nothing.
fn what_stands_for_libfuse_gets_its_init_while_it_mounts() {
    let test = TestNode::start();
    put(&TESTBED, &test.container);
    let done = test.container.sh(&format!("mkdir /tmp/v && {PROGRAM} memory /tmp/v && echo word >/tmp/v/file"));
    assert_eq!((done.code, &*done.stderr), (Some(0), ""));
    let line = test.container.mount_at("/tmp/v").unwrap();
    assert!(line.contains(" - fuse.libfuse memory "), "{line}");
    assert_eq!(test.container.sh_ok("cat /tmp/v/file && umount /tmp/v"), "word\n");
}

fn is_served(test: &TestNode, engine: &str, arguments: &[&str]) {
    test.configure("[filesystem.front]\nforeground = true\n");
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    let mounter = test.start_mounter(arguments, &[]);
    let before = test.processes();
    for (times, fstype) in (1..).zip(["fuse.back", "fuse.front"]) {
        test.mount(&["-t", fstype, "memory", TARGET]).ok(fstype);
        for words in REFUSED {
            assert_eq!(mounter.said().matches(words).count(), times, "{fstype}: {}", mounter.said());
        }
        assert!(list(test).contains(fstype));
        assert_confined(test, engine, PROGRAM, &before);
        use_it(test);
        test.node.sh_ok(&format!("rm {TARGET}/kept"));
        unmount_and_see_it_end(test, &mounter, &before, times);
    }
}

fn a_daemon_that_asks_for_a_synchronous_init_mounts_by_the_old_interface() {
    let test = TestNode::start();
    put(&TESTBED, &test.container);
    is_served(&test, "seccomp", &[]);
}

fn the_preload_engine_answers_it_likewise() {
    let test = TestNode::start();
    install(&test.container);
    put(&DYNAMIC_TESTBED, &test.container);
    is_served(&test, "preload", &["--engine", "preload"]);
}

/// There the object is alone: no filter answers the ioctl.
fn without_a_mounter_it_is_answered_likewise() {
    let test = TestNode::start();
    install(&test.container);
    put(&DYNAMIC_TESTBED, &test.container);
    test.container.sh_ok(&format!("mkdir -p {TARGET}"));
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    let done = test.container.sh(&format!("LD_PRELOAD={DEFAULT_OBJECT} {PROGRAM} memory {TARGET}"));
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(REFUSED.iter().all(|words| done.stderr.contains(words)), "{}", done.stderr);
    use_it(&test);
    test.node.sh_ok(&format!("umount {TARGET}"));
}
