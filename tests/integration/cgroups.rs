//! Where helpers live: in cgroups of their own on the node, outside of the container's, which end with them.
//!
//! Each machine has cgroups of its own; the container's are made here, as a runtime would make them.

use crate::harness::{Test, tests};
use crate::node::cgroups::{HIERARCHIES, all, enter};
use crate::node::mounter::Mounter;
use crate::node::preloaded::install;
use crate::node::{NODE_BIN, TestNode};
use hostmount::observe::events;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_helper_has_a_cgroup_of_its_own_from_its_first_instruction.needs(&["make", "bindfs"]).needs_cgroups(),
        no_cgroup_is_left_by_heals_swaps_failures_and_restarts.needs(&["bindfs"]).needs_cgroups().quick(),
        a_helper_lives_in_the_systemd_scope_of_its_caller.needs(&["make", "bindfs"]).needs_cgroups(),
        a_helper_at_its_memory_limit_is_killed_alone_and_its_volume_comes_back.needs(&["bindfs"]).needs_cgroups(),
        a_helper_that_reaches_its_memory_limit_while_it_starts.needs_cgroups().quick(),
        without_cgroups_volumes_mount_and_the_consequence_is_logged.needs(&["bindfs"]).needs_cgroups().quick(),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";
const BINDFS: [&str; 4] = ["-t", "fuse.bindfs", "/tmp/source", TARGET];

/// A node whose mounter is in cgroups of its container's, as `container` in each hierarchy.
fn start(config: &str, engine: &str) -> (TestNode, Mounter) {
    let test = TestNode::start();
    install(&test.container);
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.visit(|| {
        fs::create_dir_all("/etc/hostmount").unwrap();
        fs::write("/etc/hostmount/config.toml", config).unwrap();
        fs::create_dir("/tmp/source").unwrap();
    });
    let mounter = in_container(&test, engine);
    (test, mounter)
}

fn in_container(test: &TestNode, engine: &str) -> Mounter {
    let mounter = test.start_mounter(&["--engine", engine], &[]);
    test.node.sh_ok(&enter("container", &mounter.pid().to_string()));
    mounter
}

/// The cgroups of a process of the machine, one for each hierarchy, below the machine's.
fn cgroups_of(test: &TestNode, pid: u32) -> BTreeSet<String> {
    let text = test.node.sh_ok(&format!("cat /proc/{pid}/cgroup"));
    text.lines().map(|line| line.splitn(3, ':').nth(2).unwrap().to_owned()).collect()
}

/// Waits until there are these cgroups and no others.
#[track_caller]
fn wait_for(test: &TestNode, expected: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while all(&test.node) != expected {
        assert!(Instant::now() < deadline, "cgroups are {:?}, not {expected:?}", all(&test.node));
        std::thread::yield_now();
    }
}

fn a_helper_has_a_cgroup_of_its_own_from_its_first_instruction() {
    for engine in ["seccomp", "preload"] {
        let (test, mounter) = start("", engine);
        let before = all(&test.node);
        // Its first line is where it is.
        test.container.visit(|| {
            let path = "/usr/sbin/mount.fuse.tell";
            fs::write(path, "#!/bin/sh\ncat /proc/self/cgroup\n(sleep infinity) &\nexec bindfs \"$@\"\n").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        });
        test.mount(&["-t", "fuse.tell", "/tmp/source", TARGET]).ok("mount");
        let name = "/hostmount/var-lib-kubelet-pods-p-volumes-v.";
        mounter.wait_for(events::MOUNTED, 1);
        let words = mounter.said();
        assert!(words.contains(name) && !words.contains("/container"), "{words}");
        // The shell's child may not have become it yet.
        test.wait_for_processes("sleep infinity", 1);
        let helpers = [test.pids_of("bindfs"), test.pids_of("sleep infinity")].concat();
        assert_eq!(helpers.len(), 2);
        for pid in helpers {
            let places = cgroups_of(&test, pid);
            assert!(!places.iter().any(|place| place.contains("/container")), "{engine}: {places:?}");
            assert_eq!(places.iter().filter(|place| place.contains(name)).count(), 1, "{engine}: {places:?}");
        }
        assert!(cgroups_of(&test, mounter.pid()).iter().any(|place| place.ends_with("/container")));
        test.node.sh_ok(&format!("kill $(pgrep -x sleep); umount {TARGET}"));
        mounter.wait_for(events::UNMOUNTED, 1);
        wait_for(&test, &before);
    }
}

fn no_cgroup_is_left_by_heals_swaps_failures_and_restarts() {
    let (test, mut mounter) = start("", "seccomp");
    let before = all(&test.node);
    let one_more = |test: &TestNode| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while all(&test.node).lines().count() != before.lines().count() + 1 {
            assert!(Instant::now() < deadline, "{}", all(&test.node));
            std::thread::yield_now();
        }
    };
    test.mount(&BINDFS).ok("mount");
    one_more(&test);
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::HEALED, 1);
    one_more(&test);
    test.node.sh_ok(&format!("{NODE_BIN}/hostmount swap {TARGET}"));
    one_more(&test);
    assert_eq!(test.mount(&["-t", "fuse.bindfs", "/tmp/nowhere", "/mnt"]).code, Some(32));
    one_more(&test);
    // The next mounter finds each helper's cgroup, and removes the cgroups without a process.
    for while_away in ["true".to_owned(), format!("umount {TARGET}")] {
        mounter.signal(nix::sys::signal::Signal::SIGKILL);
        mounter.wait();
        test.node.sh_ok(&while_away);
        if while_away != "true" {
            test.wait_for_processes("bindfs", 0);
        }
        one_more(&test);
        mounter = in_container(&test, "seccomp");
        if while_away == "true" {
            one_more(&test);
            test.node.sh_ok("kill -9 $(pidof bindfs)");
            mounter.wait_for(events::HEALED, 1);
            one_more(&test);
        }
    }
    wait_for(&test, &before);
    // A mounter that stops without a volume leaves no cgroup.
    mounter.signal(nix::sys::signal::Signal::SIGTERM);
    mounter.wait();
    assert!(!all(&test.node).contains("/hostmount"), "{}", all(&test.node));
}

fn a_helper_lives_in_the_systemd_scope_of_its_caller() {
    for engine in ["seccomp", "preload"] {
        let (test, mounter) = start("", engine);
        // As systemd makes them; a login session's scope is not the mount's.
        for (scope, joined) in [("system.slice/run-r0.scope", true), ("user.slice/user-0.slice/session-1.scope", false)]
        {
            let mount = format!("{NODE_BIN}/hostmount mount {}", BINDFS.join(" "));
            test.node.sh_ok(&format!("{}; {mount}", enter(scope, "$$")));
            let places = cgroups_of(&test, test.pids_of("bindfs")[0]);
            let there = places.iter().filter(|place| place.ends_with(scope)).count();
            if joined {
                assert_eq!(there, places.len(), "{engine}: not everywhere in the scope: {places:?}");
            } else {
                assert_eq!(there, 0, "{engine}: {places:?}");
            }
            test.node.sh_ok(&format!("umount {TARGET}"));
            test.wait_for_processes("bindfs", 0);
            // systemd removes it when the last process is gone.
            for hierarchy in test.node.sh_ok(HIERARCHIES).lines() {
                test.node.sh_ok(&format!("rmdir {hierarchy}/{scope}"));
            }
        }
        mounter.wait_for(events::UNMOUNTED, 2);
    }
}

fn a_helper_at_its_memory_limit_is_killed_alone_and_its_volume_comes_back() {
    let (test, mounter) = start("[filesystem.memfs]\nmemory_limit = '32Mi'\n", "seccomp");
    test.node.sh_ok(&format!("echo memfs >{NODE_BIN}/served-types; mkdir /mnt/other"));
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", "/mnt/other"]).ok("mount another");
    test.mount(&["-t", "memfs", "-o", "size=1g", "memory", TARGET]).ok("mount");
    // It keeps written data in its memory.
    let fill = format!("dd if=/dev/zero of={TARGET}/f bs=1M count=64");
    for round in 1..=2 {
        let done = test.node.sh(&fill);
        assert_ne!(done.code, Some(0), "{done:?}");
        mounter.wait_for(events::HELPER_OUT_OF_MEMORY, round);
        mounter.wait_for(events::HEALED, round);
        assert_eq!(test.node.sh_ok(&format!("ls {TARGET}; echo again >{TARGET}/g; cat {TARGET}/g")), "again\n");
    }
    mounter.wait_for(events::HEAL_LATER, 1);
    test.node.sh_ok("echo still >/mnt/other/f; cat /mnt/other/f");
    assert_eq!(mounter.count(events::DEAD), 2, "the other one lives");
}

fn a_helper_that_reaches_its_memory_limit_while_it_starts() {
    let (test, _mounter) = start("[filesystem.eater]\nmemory_limit = '32Mi'\n", "seccomp");
    // A fake, in place of a helper that needs more memory than it may have.
    test.container.visit(|| {
        let path = "/usr/sbin/mount.fuse.eater";
        fs::write(path, "#!/bin/sh\nexec tail /dev/zero\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    });
    let done = test.mount(&["-t", "fuse.eater", "x", TARGET]);
    assert_eq!(done.code, Some(32));
    assert!(done.stderr.contains("it hit its memory limit of 32 MiB"), "{}", done.stderr);
}

fn without_cgroups_volumes_mount_and_the_consequence_is_logged() {
    let test = TestNode::start();
    test.node.sh_ok(&format!(
        "mkdir -p {TARGET}; for h in $({HIERARCHIES}); do mount -o remount,bind,ro $h || exit 1; done"
    ));
    test.container.visit(|| {
        fs::create_dir("/tmp/source").unwrap();
        fs::write("/tmp/config.toml", "[filesystem.bindfs]\nmemory_limit = '32Mi'\n").unwrap();
    });
    let mounter = test.start_mounter(&["--config", "/tmp/config.toml"], &[]);
    test.mount(&BINDFS).ok("mount");
    test.node.sh_ok(&format!("umount {TARGET}"));
    test.mount(&BINDFS).ok("mount again");
    let said = mounter.said();
    // Once for the volumes, once for the limit.
    assert_eq!(mounter.count(events::ENDS_WITH_CONTAINER), 2, "{said}");
    assert!(said.contains("Read-only file system") && said.contains("memory_limit"), "{said}");
    assert!(!all(&test.node).contains("/hostmount"));
    let doctor = test.container.sh("/usr/local/bin/hostmount doctor");
    assert_eq!(doctor.code, Some(0), "{doctor:?}");
    assert!(doctor.stdout.contains("warn  outliving: cannot use "), "{}", doctor.stdout);
}
