//! Helpers and pods that attack: what they can rename, link and leave unanswered gets them nothing.
//!
//! Each attack succeeded before what stops it was there; docs/threat-model.md says what that is.

use crate::harness::{Test, tests};
use crate::node::fault::hostile;
use crate::node::mounter::Mounter;
use crate::node::preloaded::install;
use crate::node::{Done, NODE_BIN, TestNode};
use hostmount::observe::events;
use nix::sys::signal::Signal;
use std::fs;
use std::time::{Duration, Instant};
use testbed::machine::Propagation;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_helper_that_moves_its_mount_point_shows_nothing_else.needs(&["make", "bindfs"]).quick(),
        a_pods_directory_that_became_a_link_is_not_followed.needs(&["make", "bindfs"]).quick(),
        a_pods_directory_that_was_deleted_is_not_looked_for.needs(&["make", "bindfs"]).quick(),
        an_argument_in_its_own_filesystem_is_not_read.needs(&["perl"]).quick(),
        a_place_in_its_own_filesystem_does_not_stop_the_next_mounter.needs(&["perl"]).quick(),
        a_lookup_that_is_not_answered_locks_nothing.needs(&["make", "perl"]).quick(),
        a_lookup_that_is_not_answered_does_not_keep_the_mounter_from_stopping.needs(&["perl"]).quick(),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";
const FAULT: [&str; 4] = ["-t", "fuse.fault", "source", TARGET];
const ENGINES: [&str; 2] = ["seccomp", "preload"];
/// Longer than any answer takes that has a bound; what has none takes for ever.
const BOUND: Duration = Duration::from_secs(15);

struct Attack {
    test: TestNode,
    mounter: Mounter,
}

impl Attack {
    fn start(engine: &str, extra: &[&str]) -> Self {
        let test = TestNode::start();
        if engine == "preload" {
            install(&test.container);
        }
        test.node.sh_ok(&format!("mkdir -p {TARGET}"));
        test.container.visit(|| {
            fs::create_dir_all("/etc/hostmount").unwrap();
            fs::write("/etc/hostmount/config.toml", "ready_timeout_seconds = 2\n").unwrap();
            fs::create_dir_all("/tmp/source/sub").unwrap();
            // What a node must never be shown.
            fs::write("/of-the-container", "").unwrap();
        });
        let mounter = test.start_mounter(&[&["--engine", engine], extra].concat(), &[]);
        Self { test, mounter }
    }

    fn helper(&self, lines: &str) {
        self.test.container.helper("fuse.fault", lines);
    }

    /// A line on the node, which is given up after a time.
    fn within_bound(&self, line: &str) -> Done {
        let begun = Instant::now();
        let done = self.test.node.sh(&format!("timeout -s KILL {} {line}", BOUND.as_secs()));
        assert!(begun.elapsed() < BOUND, "it waits without a bound: {done:?}\n{}", self.mounter.said());
        done
    }

    fn bounded_mount(&self) -> Done {
        self.within_bound(&format!("{NODE_BIN}/hostmount mount {}", FAULT.join(" ")))
    }
}

/// It puts a link in the place of a directory above its mount point, to where the container's root would be found.
fn a_helper_that_moves_its_mount_point_shows_nothing_else() {
    for engine in ENGINES {
        // In a directory that the helper can write to.
        for state in ["/run/hostmount", "/var/log/deep/state"] {
            let arguments = ["--state", state, "--socket", "/run/hostmount/hostmount.sock"];
            let attack = Attack::start(engine, &arguments);
            attack.helper(
                r#"exec 2>&1
                bindfs "$1" "$2" || exit 7
                mkdir -p "/tmp/evil$(dirname "$2")"; ln -s / "/tmp/evil$2"
                for above in $(dirname "$2") "${2%/mnt/*}/mnt" "${2%/mnt/*}" /var/log/deep; do
                    mv "$above" "$above.away" && ln -s "/tmp/evil$above" "$above" && echo "MOVED $above"
                done; exit 0"#,
            );
            let done = attack.test.mount(&["-t", "fuse.fault", "/tmp/source", TARGET]);
            let node = &attack.test.node;
            let line = node.mount_at(TARGET).unwrap_or_default();
            let what = format!("{engine}, {state}: {done:?}: {line}\n{}", attack.mounter.said());
            assert_ne!(node.sh(&format!("test -e {TARGET}/of-the-container")).code, Some(0), "{what}");
            done.ok(&what);
            assert!(line.contains("nosuid,nodev") && line.contains(" - fuse /tmp/source "), "{what}");
            let inside = attack.mounter.said().contains(&format!("MOVED {state}/mnt/"));
            assert!(!inside, "a directory above its mount point was writable: {what}");
            // Its own copy is detached: nothing but the node's holds it.
            node.sh_ok(&format!("umount {TARGET}"));
            attack.mounter.wait_for(events::UNMOUNTED, 1);
            attack.test.wait_for_processes("bindfs", 0);
        }
    }
}

/// A pod has a directory of the volume as subPath, and another client of the storage makes a link of it.
fn a_pods_directory_that_became_a_link_is_not_followed() {
    for engine in ENGINES {
        let attack = Attack::start(engine, &[]);
        let test = &attack.test;
        test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
        let links = ["/", "/dev", "/run/hostmount", "/proc", "../../../../../../../../../..", "/proc/self/root"];
        for (round, link) in (1..).zip(links) {
            let pod = test.pod(&[(&format!("{TARGET}/sub"), "/sub")], Propagation::None);
            let _alive = pod.live();
            test.container.sh_ok(&format!("cd /tmp/source && mv sub away && ln -s {link} sub"));
            let told = if round % 2 == 0 {
                let done = test.node.sh(&format!("{NODE_BIN}/hostmount swap {TARGET}"));
                format!("{}{}", done.stdout, done.stderr)
            } else {
                test.node.sh_ok("kill -9 $(pidof bindfs)");
                attack.mounter.wait_for(events::HEALED, round / 2 + 1);
                attack.mounter.said()
            };
            let after = pod.mount_at("/sub").unwrap();
            assert!(after.contains(" - fuse /tmp/source "), "{engine}, {link}: {after}");
            // Not what is in it: bindfs goes by paths, and follows the link itself as the confined helper that it is.
            assert!(told.contains("/sub of "), "{engine}, {link}: it is not said: {told}");
            // The link is known for a second.
            test.container.sh_ok("cd /tmp/source && rm sub && mv away sub && sleep 2");
        }
    }
}

/// The kernel shows the root of a mount of a deleted directory as `/sub//deleted`: that names something else.
fn a_pods_directory_that_was_deleted_is_not_looked_for() {
    for engine in ENGINES {
        let attack = Attack::start(engine, &[]);
        let test = &attack.test;
        test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
        for instead in ["ln -s / sub/deleted", "mkdir sub/deleted && touch sub/deleted/others"] {
            let pod = test.pod(&[(&format!("{TARGET}/sub"), "/sub")], Propagation::None);
            let _alive = pod.live();
            test.node.sh_ok(&format!("cd {TARGET} && rmdir sub && mkdir sub && {instead}"));
            let done = test.node.sh(&format!("{NODE_BIN}/hostmount swap {TARGET}"));
            let after = pod.mount_at("/sub").unwrap();
            assert!(after.contains("//deleted /sub ") && after.contains(" - fuse /tmp/source "), "{engine}: {after}");
            assert_eq!(pod.sh("ls -A /sub").stdout, "", "{engine}: {after}");
            let told = format!("{}{}", done.stdout, done.stderr);
            assert!(told.contains("was deleted"), "{engine}: it is not said: {told}");
            test.node.sh_ok(&format!("cd {TARGET} && rm -r sub && mkdir sub"));
        }
    }
}

/// umount2(2) of a name that stands in a file of its own filesystem, which it never answers for.
fn an_argument_in_its_own_filesystem_is_not_read() {
    let attack = Attack::start("seccomp", &[]);
    for call in ["166, $page, 0", "165, $page, $page, $page, 0, $page"] {
        let then = format!(
            r"open(my $file, '<', qq($target/f)) or die 'open';
            my $page = syscall(9, 0, 4096, 1, 2, fileno $file, 0);
            print qq(the page is there\n) if $page > 0;
            syscall({call}); exit 3;"
        );
        // READ
        attack.helper(&hostile("$op == 15", &then));
        let done = attack.bounded_mount();
        assert_eq!(done.code, Some(32), "{done:?}");
        assert!(attack.mounter.said().contains("the page is there"), "{}", attack.mounter.said());
        attack.test.wait_for_processes("perl", 0);
    }
    // A stuck thread would keep the lock.
    let mut mounter = attack.mounter;
    mounter.signal(Signal::SIGKILL);
    mounter.wait();
    drop(attack.test.start_mounter(&[], &[]));
}

/// A link above its mount point leads into its own filesystem, where a lookup is never answered.
fn a_place_in_its_own_filesystem_does_not_stop_the_next_mounter() {
    let arguments = ["--state", "/var/log/deep/state", "--socket", "/run/hostmount/hostmount.sock"];
    let attack = Attack::start("seccomp", &arguments);
    let then = r"if (!fork) { setpgrp; chdir qq($target/sub) or die; sleep 1; rename '/var/log/deep', '/var/log/away' or die;
        symlink qq(/proc/$$/cwd), '/var/log/deep' or die; print qq(MOVED\n); sleep 1000; } select undef, undef, undef, 0.3; exit 0;";
    attack.helper(&hostile("$op == 1 && $name ne 'sub'", then));
    attack.bounded_mount().ok("mount");
    attack.mounter.wait_for_helper("MOVED", 1);
    let Attack { test, mut mounter } = attack;
    for records in ["true", "rm -f /var/log/deep/state/volumes/*"] {
        mounter.signal(Signal::SIGKILL);
        mounter.wait();
        test.container.sh_ok(records);
        // It panics if it is not ready in time.
        mounter = test.start_mounter(&arguments, &[]);
        test.node.sh_ok(&format!("timeout 10 {NODE_BIN}/hostmount list"));
    }
}

/// The fresh helper of a swap does not answer for the directory that a pod shows.
fn a_lookup_that_is_not_answered_locks_nothing() {
    for engine in ENGINES {
        let attack = Attack::start(engine, &[]);
        let test = &attack.test;
        attack.helper(&hostile("$op == 1 && -e '/tmp/silent'", "exit 0;"));
        attack.bounded_mount().ok("mount");
        let pod = test.pod(&[(&format!("{TARGET}/sub"), "/sub")], Propagation::None);
        let _alive = pod.live();
        test.container.sh_ok("touch /tmp/silent");
        let swapped = attack.within_bound(&format!("{NODE_BIN}/hostmount swap {TARGET}"));
        assert_ne!(swapped.code, Some(137), "{engine}: {swapped:?}");
        test.container.sh_ok("rm /tmp/silent");
        let again = attack.within_bound(&format!("{NODE_BIN}/hostmount swap {TARGET}"));
        again.ok(&format!("{engine}: the target is locked; before: {swapped:?}"));
        test.node.sh_ok(&format!("timeout 5 stat {TARGET}/sub"));
    }
}

/// The same with a time that is long: SIGTERM ends the wait.
fn a_lookup_that_is_not_answered_does_not_keep_the_mounter_from_stopping() {
    let attack = Attack::start("seccomp", &[]);
    attack.test.container.visit(|| fs::write("/etc/hostmount/config.toml", "ready_timeout_seconds = 600\n").unwrap());
    let Attack { test, mut mounter } = attack;
    mounter.signal(Signal::SIGTERM);
    mounter.wait();
    let mut mounter = test.start_mounter(&[], &[]);
    test.container.helper("fuse.fault", &hostile("$op == 1 && -e '/tmp/silent'", "exit 0;"));
    test.mount(&FAULT).ok("mount");
    let pod = test.pod(&[(&format!("{TARGET}/sub"), "/sub")], Propagation::None);
    let _alive = pod.live();
    test.container.sh_ok("touch /tmp/silent");
    test.node.sh_ok(&format!("({NODE_BIN}/hostmount swap {TARGET} >/dev/null 2>&1 &); sleep 3"));
    let begun = Instant::now();
    mounter.signal(Signal::SIGTERM);
    mounter.wait();
    assert!(begun.elapsed() < BOUND, "{}", mounter.said());
}
