//! `[filesystem.TYPE]`: programs that need more settings than their name.

use crate::harness::{Test, tests};
use crate::node::{self, NODE_BIN, TestNode};
use hostmount::observe::events;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_program_that_stays_in_the_foreground.needs(&["bindfs"]).quick(),
        a_fuse_program_for_a_type_of_the_kernels.needs(&["bindfs"]).quick(),
        environment_writable_directories_and_capabilities.quick(),
        options_that_the_caller_cannot_change.quick(),
        a_helper_that_writes_without_end,
        a_change_of_the_file_is_taken_over_or_the_old_one_stays.quick(),
        what_is_logged_changes_while_it_runs.quick(),
    ]
}

/// A mounter's container with this configuration, and with `fake` as the program /usr/bin/fake.
fn start(configuration: &str, fake: &str) -> (TestNode, node::mounter::Mounter) {
    let test = TestNode::start();
    test.container.visit(|| {
        fs::write("/tmp/config.toml", configuration).unwrap();
        fs::write("/usr/bin/fake", format!("#!/bin/sh\n{fake}\n")).unwrap();
    });
    test.container.sh_ok("chmod 755 /usr/bin/fake && mkdir -p /srv/data && echo hello >/srv/data/file");
    test.node.sh_ok("mkdir -p /mnt/v");
    let mounter = test.start_mounter(&["--config", "/tmp/config.toml"], &[]);
    (test, mounter)
}

fn a_program_that_stays_in_the_foreground() {
    let (test, _mounter) = start(
        "[filesystem.mine]\n\
         command = ['bindfs', '-f', '{source}', '{target}', '-o', '{options}']\n\
         foreground = true\n\
         ready_timeout_seconds = 20",
        "",
    );
    test.mount(&["-t", "fuse.mine", "/srv/data", "/mnt/v"]).ok("mount");
    assert_eq!(test.node.sh_ok("cat /mnt/v/file"), "hello\n");
    assert!(test.processes().values().any(|line| line.starts_with("/usr/bin/bindfs -f")), "{:?}", test.processes());
    test.umount(&["/mnt/v"]).ok("umount");
    // The type is in the node's list, so that its plain name is served, too.
    let install = ["install", "--to", "/opt/hostmount/other", "--config", "/tmp/config.toml"];
    test.container.run("/usr/local/bin/hostmount", &install).ok("install");
    assert!(test.node.sh_ok("cat /opt/hostmount/other/served-types").lines().any(|line| line == "mine"));
    // A helper that exits instead is not taken for a ready one.
    let done = test.mount(&["-t", "fuse.mine", "/srv/nothing", "/mnt/v"]);
    assert_eq!(done.code, Some(32), "{}", done.stderr);
    assert!(done.stderr.contains("bindfs could not mount /srv/nothing"), "{}", done.stderr);
}

/// As kubelet's own Ceph plugin calls it, on a node whose kernel has no Ceph.
fn a_fuse_program_for_a_type_of_the_kernels() {
    let (test, _mounter) = start(
        "[filesystem.ceph]\n\
         command = ['fake', '{source}', '{target}', '-o', '{options}']",
        "exec bindfs \"${1##*:}\" \"$2\"",
    );
    test.mount(&["-t", "ceph", "-o", "name=admin,secret=k3y", "192.0.2.1:6789:/srv/data", "/mnt/v"]).ok("mount");
    assert_eq!(test.node.sh_ok("cat /mnt/v/file"), "hello\n");
    test.umount(&["/mnt/v"]).ok("umount");
    test.wait_for_processes("bindfs", 0);
}

fn environment_writable_directories_and_capabilities() {
    let (test, _mounter) = start(
        "[filesystem.mine]\n\
         command = ['fake', '{source}', '{target}', '-o', '{options}']\n\
         environment = { COLOUR = 'green' }\n\
         writable = ['/var/cache', '/run']\n\
         capabilities = ['CAP_DAC_READ_SEARCH']\n",
        "mkdir /var/cache/made /run/made && ls /run
         echo colour $COLOUR
         grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status
         exec mount.memfs \"$@\"",
    );
    let done = test.mount(&["-t", "fuse.mine", "memory", "/mnt/v"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let kept = "0000000000000004";
    // Being no root, it has them as ambient ones.
    for set in ["Prm", "Eff", "Bnd", "Inh", "Amb"] {
        assert!(done.stderr.contains(&format!("Cap{set}:\t{kept}\n")), "{}", done.stderr);
    }
    assert!(done.stderr.contains("colour green\n"), "{}", done.stderr);
    assert!(!done.stderr.contains("hostmount.sock"), "its /run is its own: {}", done.stderr);
    test.node.sh_ok("echo hello >/mnt/v/file");
    for path in ["/var/cache/made", "/run/made"] {
        assert_ne!(test.container.sh(&format!("test -e {path}")).code, Some(0), "{path} is in the container");
    }
}

fn options_that_the_caller_cannot_change() {
    let (test, _mounter) = start(
        "[filesystem.memfs]\n\
         command = ['mount.memfs', '{source}', '{target}', '-o', '{options}']\n\
         default_options = 'size=1m,mode=0700'\n\
         forced_options = 'ro,noexec,uid=7'\n",
        "",
    );
    test.mount(&["-t", "fuse.memfs", "-o", "rw,exec,uid=9,mode=0755", "memory", "/mnt/v"]).ok("mount");
    assert_eq!(test.node.sh_ok("stat -c %a,%u /mnt/v && stat -f -c %b /mnt/v"), "755,7\n256\n");
    let line = test.node.mount_at("/mnt/v").unwrap();
    assert!(line.contains(" ro,nosuid,nodev,noexec,"), "{line}");
}

fn a_helper_that_writes_without_end() {
    let (test, mounter) = start(
        "[filesystem.loud]\n\
         command = ['fake', '{source}', '{target}', '-o', '{options}']\n\
         [filesystem.memfs]\n\
         command = ['mount.memfs', '{source}', '{target}', '-o', '{options}']\n\
         [filesystem.idle]\n\
         ready_timeout_seconds = 1\n\
         command = ['yes', '{source}{target}{options}']\n",
        "mount.memfs \"$@\" || exit 1; yes 'this is a fake helper that writes without end' & exit 0",
    );
    // A helper that writes a lot and mounts nothing is killed all the same.
    let done = test.mount(&["-t", "fuse.idle", "words", "/mnt/v"]);
    assert!(done.stderr.contains("it was not ready within 1 s (it has not mounted)"), "{}", done.stderr);
    test.mount(&["-t", "fuse.loud", "memory", "/mnt/v"]).ok("mount");
    test.node.sh_ok("mkdir /mnt/w && dd if=/dev/zero of=/mnt/v/file bs=1M count=20 2>/dev/null");
    test.mount(&["-t", "fuse.memfs", "memory", "/mnt/w"]).ok("a second volume");
    test.umount(&["/mnt/w", "/mnt/v"]).ok("umount");
    // Some seconds of `yes` are gigabytes.
    assert!(mounter.said().len() < 1 << 20, "the log has {} bytes", mounter.said().len());
    assert!(mounter.count(events::HELPER_QUIETED) > 0);
    let status = test.container.sh_ok(&format!("grep VmRSS /proc/{}/status", mounter.pid()));
    let kilobytes: u64 = status.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kilobytes < 100_000, "{status}");
}

fn a_change_of_the_file_is_taken_over_or_the_old_one_stays() {
    let test = TestNode::start();
    test.configure("[filesystem.talk]\nforced_options = 'size=1'\n");
    test.container.helper("fuse.talk", "exec mount.memfs x \"$2\"");
    let target = "/var/lib/kubelet/pods/u/volumes/v";
    let other = "/var/lib/kubelet/pods/u/volumes/w";
    test.node.sh_ok(&format!("mkdir -p {target} {other}"));
    let mounter = test.start_mounter(&[], &[]);
    let given = || {
        let explain = format!("{NODE_BIN}/hostmount mount --explain --output json -t fuse.talk x {target}");
        let explained: Value = serde_json::from_str(&test.node.sh_ok(&explain)).unwrap();
        explained["options"]["given"].as_str().unwrap().to_owned()
    };
    let doctor = |name: &str| {
        let found = test.container.sh("/usr/local/bin/hostmount doctor --output json").stdout;
        let found: Vec<Value> = serde_json::from_str(&found).unwrap();
        let found = found.into_iter().find(|found| found["name"] == name).unwrap();
        (found["level"].as_str().unwrap().to_owned(), found["message"].as_str().unwrap().to_owned())
    };
    let shown = || test.node.sh_ok(&format!("{NODE_BIN}/hostmount policy show"));
    test.mount(&["-t", "fuse.talk", "x", target]).ok("mount");
    assert_eq!((given().as_str(), doctor("in-force").0.as_str()), ("size=1", "ok"));
    assert_eq!(test.kubelets_mount(&["-t", "fuse.talk", "x", other]).code, Some(1));

    test.configure("[filesystem.talk]\nforced_options = 'size=2'\nheal = false\n[policy.kubelet.filesystem.talk]\nsources = ['x']\n");
    mounter.wait_for(events::CONFIGURATION_TAKEN, 1);
    assert_eq!(given(), "size=2");
    test.kubelets_mount(&["-t", "fuse.talk", "x", other]).ok("what the new rules allow");
    test.umount(&[other]).ok("umount");
    mounter.wait_for(events::UNMOUNTED, 1);
    // It holds for the volume that was there, as after a restart.
    // That of the other one may be going yet.
    test.node.sh_ok("pkill -9 -x mount.memfs");
    mounter.wait_for(events::NOT_HEALED, 1);
    test.umount(&[target]).ok("umount");

    // What is not valid, or gone, changes nothing, and whoever looks is told.
    test.configure("[filesystem.talk]\nforced_option = 'size=3'\n");
    mounter.wait_for(events::CONFIGURATION_REFUSED, 1);
    assert_eq!(given(), "size=2");
    let (level, message) = doctor("in-force");
    assert!(level == "warning" && message.contains("and not what is in /etc/hostmount/config.toml now"), "{message}");
    assert_eq!(doctor("configuration").0, "failure");
    assert!(shown().contains("\n# Not what is in /etc/hostmount/config.toml now: "), "{}", shown());
    test.container.sh_ok("rm /etc/hostmount/config.toml");
    mounter.wait_for(events::CONFIGURATION_REFUSED, 2);
    assert_eq!(given(), "size=2");

    // By rename, as editors do it; some settings wait for a restart.
    test.container.sh_ok(
        "cd /etc/hostmount && printf \"kubelet_dir = '/k'\n[filesystem.talk]\nforced_options = 'size=4'\n\" >new && mv new config.toml",
    );
    mounter.wait_for(events::CONFIGURATION_TAKEN, 2);
    assert_eq!(given(), "size=4");
    let (level, message) = doctor("in-force");
    assert!(level == "warning" && message.ends_with("kubelet_dir"), "{message}");
    assert!(shown().contains("# Taken over when the mounter is restarted: kubelet_dir\n"), "{}", shown());
    // By hand as well, where nothing is noticed.
    mounter.signal(Signal::SIGHUP);
    assert_eq!((given(), mounter.count(events::STOPPING)), ("size=4".to_owned(), 0));
}

fn what_is_logged_changes_while_it_runs() {
    let (test, mounter) = start("", "");
    test.container.helper("fuse.talk", "exec mount.memfs \"$@\"");
    let mut taken = 0;
    let mut log = |levels: &str| {
        test.container.visit(|| fs::write("/tmp/config.toml", format!("log = '{levels}'")).unwrap());
        taken += 1;
        mounter.wait_for(events::CONFIGURATION_TAKEN, taken);
    };
    let debugs = || mounter.said().matches(r#""level":"DEBUG""#).count();
    let mount = || {
        test.mount(&["-t", "fuse.talk", "m", "/mnt/v"]).ok("mount");
        test.umount(&["/mnt/v"]).ok("umount");
    };
    mount();
    mounter.wait_for(events::UNMOUNTED, 1);
    assert_eq!(debugs(), 0, "{}", mounter.said());
    log("debug");
    mount();
    mounter.wait_for(events::UNMOUNTED, 2);
    let before = debugs();
    assert_ne!(before, 0, "{}", mounter.said());
    // What was written is taken over before what follows it, and so is what is no level left alone.
    log("error");
    mount();
    test.container.visit(|| fs::write("/tmp/config.toml", "log = 'verbose'").unwrap());
    mounter.wait_for(events::CONFIGURATION_REFUSED, 1);
    assert_eq!((mounter.count(events::MOUNTED), debugs()), (2, before), "{}", mounter.said());
    let kept = test.node.sh_ok(&format!("{NODE_BIN}/hostmount events --event mounted --output json"));
    assert_eq!(kept.matches("volume.mounted").count(), 3, "what happened is known whatever is logged: {kept}");
    test.container.sh_ok("/usr/local/bin/hostmount policy show | grep -q verbose");
}
