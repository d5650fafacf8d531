//! Filesystems with their real programs and servers, one test for each row of `node::filesystems`.
//!
//! Each row is tried with both engines, on one node and with one server. Each prints a row of docs/filesystems.md:
//! `cargo test filesystems:: -- --nocapture | grep '^|'`.

use crate::harness::{Test, tests};
use crate::node::filesystems::{self, Access, Filesystem, User, Volume};
use crate::node::job::{TARGET, assert_confined, unmount_and_see_it_end, use_it};
use crate::node::mounter::Mounter;
use crate::node::notes::note;
use crate::node::old_kernel::{self, without};
use crate::node::preloaded;
use crate::node::{Done, NODE_BIN, TestNode};
use hostmount::config::user::UidRange;
use nix::sys::signal::Signal;
use std::fs;
use testbed::machine::Network;

pub(crate) fn tests() -> Vec<Test> {
    let row = |filesystem: &'static Filesystem| {
        Test::new(filesystem.name, || run(filesystem)).needs(filesystem.programs).needs(&["make"])
    };
    let others = tests![filesystems_of_the_kernels_own.needs(&["mount.nfs", "mount.cifs", "make"])];
    filesystems::all().map(row).chain(others).collect()
}

/// Filesystems of the kernel's own, whose helper is in the container. If the kernel lacks them, its error reaches the
/// caller; if it has them, there is no server.
fn filesystems_of_the_kernels_own() {
    let test = TestNode::start_in(&Network::new().unwrap());
    test.container.visit(|| fs::write("/tmp/config.toml", "").unwrap());
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    preloaded::install(&test.container);
    // Asked afterwards: the kernel loads a module for the mount.
    let has = |fstype| {
        let known = test.node.sh_ok("cat /proc/filesystems");
        known.lines().any(|line| line.split_whitespace().next_back() == Some(fstype))
    };
    for engine in ["seccomp", "preload"] {
        let mut mounter = start_mounter(&test, &["--engine", engine]);
        for (fstype, options, source) in [
            ("nfs", "vers=4,retry=0,soft", "127.0.0.1:/export"),
            // mount.cifs gives itself CAP_SYS_ADMIN: the call returns success.
            ("cifs", "username=me,password=k3y,vers=3.0", "//127.0.0.1/share"),
        ] {
            let done = test.mount(&["-t", fstype, "-o", options, source, TARGET]);
            assert_eq!(done.code, Some(32), "{engine}: {}", done.stderr);
            assert!(done.stderr.contains(&format!("mount.{fstype} could not mount {source}")), "{}", done.stderr);
            assert!(has(fstype) || done.stderr.contains("this node's kernel does not have it"), "{}", done.stderr);
            assert!(!done.stderr.contains("k3y") && !mounter.said().contains("k3y"), "{}", done.stderr);
            assert_eq!(test.node.mount_at(TARGET), None);
        }
        mounter.signal(Signal::SIGTERM);
        mounter.wait();
    }
}

fn run(filesystem: &Filesystem) {
    let test = TestNode::start_in(&Network::new().unwrap());
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.visit(|| fs::write("/tmp/config.toml", filesystem.config).unwrap());
    preloaded::install(&test.container);
    let volume = (filesystem.prepare)(&test);
    // As `hostmount install` lists them on the node: types by their own names.
    test.node.sh_ok(&format!("echo {} >{NODE_BIN}/served-types", volume.fstype));

    with_seccomp(&test, filesystem, &volume);
    with_preload(&test, filesystem, &volume);
    let version = test.container.sh(filesystem.version);
    let version = version.stdout.lines().chain(version.stderr.lines()).next().unwrap_or_default().trim().to_owned();
    note(format!("| {} | {version} | seccomp, preload | none | {:?} |", filesystem.name, filesystem.user));
}

fn start_mounter(test: &TestNode, arguments: &[&str]) -> Mounter {
    test.start_mounter(&[&["--config", "/tmp/config.toml"][..], arguments].concat(), &[])
}

/// All that can be tried.
fn with_seccomp(test: &TestNode, filesystem: &Filesystem, volume: &Volume) {
    let mounter = start_mounter(test, &["--engine", "seccomp"]);
    let before = test.processes();
    mount_and_use(test, "seccomp", filesystem, volume);
    unmount_and_see_it_end(test, &mounter, &before, 1);
    if filesystem.access == Access::Full {
        // What was written is there when it is mounted again.
        test.mount(&["-t", volume.fstype, "-r", "-o", &volume.options, &volume.source, TARGET]).ok("mount again");
        assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/kept")), "stays\n");
        let denied: Done = test.node.sh(&format!("touch {TARGET}/new"));
        assert!(denied.stderr.contains("Read-only file system"), "{}", denied.stderr);
        unmount_and_see_it_end(test, &mounter, &before, 2);
    }
}

/// The same source, server and node, on a kernel without all optional features: it gets the other engine.
fn with_preload(test: &TestNode, filesystem: &Filesystem, volume: &Volume) {
    use old_kernel::{BENEATH, MOUNT_SETATTR, OPENAT2, PIDFD_GETFD, USER_NOTIFICATION};
    let missing = [USER_NOTIFICATION, PIDFD_GETFD, OPENAT2, MOUNT_SETATTR, BENEATH];
    let mounter = without(&missing, || start_mounter(test, &[]));
    assert!(mounter.said().contains("the preload engine is used"), "{}", mounter.said());
    let before = test.processes();
    mount_and_use(test, "preload", filesystem, volume);
    unmount_and_see_it_end(test, &mounter, &before, 1);
}

fn mount_and_use(test: &TestNode, engine: &str, filesystem: &Filesystem, volume: &Volume) {
    let before = test.processes();
    test.mount(&["-t", volume.fstype, "-o", &volume.options, &volume.source, TARGET]).ok("mount");
    let line = test.node.mount_at(TARGET).unwrap();
    assert!(line.contains("nosuid,nodev") && line.contains(" fuse") && line.contains("allow_other"), "{line}");
    let uid = assert_confined(test, engine, filesystem.helper, &before);
    match filesystem.user {
        User::Own => assert!(UidRange::default().numbers().contains(&uid), "{uid}"),
        User::Root(_) => assert_eq!(uid, 0),
    }
    match filesystem.access {
        Access::Full => use_it(test),
        Access::ReadOnly => assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/f")), "packed\n"),
    }
}
