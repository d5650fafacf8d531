//! The preload engine's object with the libraries and programs of other Debian releases than the one that the other
//! tests run on: 11, with glibc 2.31, and 13, with glibc 2.41 and a libmount that knows the new mount interface.

use crate::harness::{Test, tests};
use crate::node::job::{TARGET, use_it};
use crate::node::mounter::Mounter;
use crate::node::preloaded::install;
use crate::node::programs::show_programs;
use crate::node::{Place, TestNode, fetched};
use hostmount::observe::events;
use std::fs;
use testbed::machine::{Network, Recipe};

const DEBIAN_11: &[&str] = &["make", "debian/bullseye/usr/bin/bindfs"];
const DEBIAN_13: &[&str] = &["make", "debian/trixie/usr/bin/bindfs"];

pub(crate) fn tests() -> Vec<Test> {
    tests![
        debian_11_with_a_mounter.needs(DEBIAN_11),
        debian_13_with_a_mounter.needs(DEBIAN_13),
        debian_11_without_a_mounter.needs(DEBIAN_11),
        debian_13_without_a_mounter.needs(DEBIAN_13),
    ]
}

fn debian_11_with_a_mounter() {
    with_a_mounter("bullseye");
}

fn debian_13_with_a_mounter() {
    with_a_mounter("trixie");
}

fn debian_11_without_a_mounter() {
    without_a_mounter("bullseye");
}

fn debian_13_without_a_mounter() {
    without_a_mounter("trixie");
}

/// A node, and a container with a release's programs and the object.
fn start(release: &str) -> (TestNode, Place) {
    let root = fetched(&format!("debian/{release}"));
    let test = TestNode::start_in(&Network::new().unwrap());
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    let recipe = Recipe::files_of(root).fuse().writable(["/run", "/tmp"]).share("socket", "/run/hostmount");
    let container = test.room(show_programs(recipe, "/usr/local/bin"));
    install(&container);
    container.sh_ok("mkdir /tmp/source");
    (test, container)
}

fn use_and_unmount(test: &TestNode) {
    use_it(test);
    test.node.sh_ok(&format!("umount {TARGET}"));
}

fn with_a_mounter(release: &str) {
    let (test, container) = start(release);
    container
        .sh_ok("mkdir /tmp/sealed; echo secret >/tmp/password; gocryptfs -q -init -passfile /tmp/password /tmp/sealed");
    let mounter = Mounter::start(&container, &["--engine", "preload"], &[]);
    // libfuse calls mount(2).
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("bindfs");
    use_and_unmount(&test);
    mounter.wait_for(events::UNMOUNTED, 1);
    // fusermount3 does, started with an empty environment.
    test.mount(&["-t", "fuse.gocryptfs", "-o", "passfile=/tmp/password", "/tmp/sealed", TARGET]).ok("gocryptfs");
    use_and_unmount(&test);
    mounter.wait_for(events::UNMOUNTED, 2);
}

fn without_a_mounter(release: &str) {
    let (test, container) = start(release);
    container.visit(|| fs::write("/etc/ld.so.preload", hostmount::engine::preload::DEFAULT_OBJECT).unwrap());
    container.sh_ok(&format!("mkdir -p {TARGET}"));
    // mount(8) runs mount.fuse3, which runs bindfs.
    container.sh_ok(&format!("mount -t fuse.bindfs /tmp/source {TARGET}"));
    use_and_unmount(&test);
    // mount(8) calls mount(2) itself; a newer one would rather call fsopen(2).
    container.sh_ok(&format!("HOSTMOUNT_PRELOAD_TYPES=tmpfs mount -t tmpfs -o size=8m,noexec mine {TARGET}"));
    let line = test.node.mount_at(TARGET).unwrap();
    assert!(
        line.contains(" rw,nosuid,nodev,noexec") && line.contains(" - tmpfs mine ") && line.contains("size=8192k"),
        "{line}"
    );
    use_and_unmount(&test);
    // And umount(8) for it.
    container.sh_ok(&format!("bindfs /tmp/source {TARGET}; umount {TARGET}"));
    assert_eq!(test.node.mount_at(TARGET), None);
}
