//! The contract with helpers is mount(8)'s: hostmount passes the arguments that the machine's own mount(8) passes.
//!
//! The deliberate differences, each with its reason, are in docs/mount8.md; the generators below leave them out, and
//! `deliberate_differences` shows each of them.

use crate::harness::{Test, tests};
use crate::node::{self, TestNode};
use api::origin::Origin;
use hostmount::config::Config as Configuration;
use hostmount::helper::arguments::{Style, arguments};
use hostmount::observe::events;
use hostmount::policy::Plan;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};
use shims::mount8::{Invocation, invocation};
use std::ffi::OsString;
use std::path::Path;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        helpers_get_the_arguments_that_mount8_passes.quick(),
        deliberate_differences.quick(),
        remount_of_a_served_volume.needs(&["bindfs"]).quick(),
        a_directory_of_a_filesystem_is_shown.needs(&["bindfs"]).quick(),
    ]
}

const TARGET: &str = "/mnt";

/// A type, and the helper that mount(8) takes for it. In the test's container each of them is a recorder.
const TYPES: [(&str, &str); 3] =
    [("glusterfs", "mount.glusterfs"), ("fuse.rec", "mount.fuse"), ("fuse.own", "mount.fuse.own")];

/// A container whose mount helpers do nothing but write their arguments to standard output, each with a NUL behind it.
fn recorder() -> TestNode {
    let test = TestNode::start();
    test.container.sh_ok(
        r#"set -e; cd /usr/sbin
        for helper in mount.glusterfs mount.fuse mount.fuse.own; do
            rm -f $helper; printf '#!/bin/sh\nprintf "%%s\\0" "$@"\n' >$helper; chmod 755 $helper
        done"#,
    );
    test
}

/// The arguments that the machine's own mount(8) passes.
fn theirs(test: &TestNode, words: &[String]) -> Vec<String> {
    let done = test.container.run("/bin/mount", words);
    assert_eq!(done.code, Some(0), "{words:?}: {}", done.stderr);
    done.stdout.split_terminator('\0').map(str::to_owned).collect()
}

/// The arguments that hostmount passes.
fn ours(words: &[String], helper: &str) -> Vec<String> {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    let Invocation::Ours(request) = invocation(&words) else { panic!("{words:?} is not ours") };
    let told = arguments(&Style::Mount8, helper, &request, Path::new(TARGET), Path::new("/files"));
    told.unwrap().into_iter().map(|word| word.into_string().unwrap()).collect()
}

/// Words with a meaning for mount(8) or the kernel.
const KNOWN: [&str; 44] = [
    "ro",
    "rw",
    "noexec",
    "exec",
    "nosuid",
    "nodev",
    "sync",
    "async",
    "dirsync",
    "silent",
    "loud",
    "mand",
    "nomand",
    "noatime",
    "atime",
    "iversion",
    "noiversion",
    "nodiratime",
    "diratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "nosymfollow",
    "symfollow",
    "defaults",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "noowner",
    "group",
    "nogroup",
    "_netdev",
    "nofail",
    "comment=abc",
    "comment",
    "user=bob",
    "x-systemd.requires=a",
    "X-other",
];

fn option() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => select(&KNOWN[..]).prop_map(str::to_owned),
        // A filesystem's own: `own-` cannot be a word of mount(8)'s.
        2 => "own-[a-z_.-]{1,6}",
        1 => "own-[a-z]{1,3}=[a-zA-Z0-9:/@ =+_-]{0,10}",
        1 => "own-[a-z]{1,3}=\"[a-z:, =]{0,10}\"",
        1 => "(log-level=ERROR|backup-volfile-servers=a:b|uid=1000|gid=5|allow_other|auto_unmount|context2=x|_rnetdev)",
        1 => Just(String::new()),
    ]
}

fn word() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        4 => vec(option(), 1..5).prop_map(|options| vec!["-o".to_owned(), options.join(",")]),
        1 => "(-r|-w|-s|-n|-v|-nsv|-rw|--rw|--read-only|--verbose|--no-mtab)".prop_map(|switch| vec![switch]),
    ]
}

fn helpers_get_the_arguments_that_mount8_passes() {
    let test = recorder();
    let cases = (vec(word(), 0..4), select(&TYPES[..]), select(&["host:/vol", "bucket:", "a b:", "[fd00::1]:v"][..]));
    let config = Config { failure_persistence: None, ..Config::with_cases(800) };
    let done = TestRunner::new(config).run(&cases, |(words, (fstype, helper), source)| {
        let mut words = words.concat();
        words.extend(["-t".to_owned(), fstype.to_owned(), source.to_owned(), TARGET.to_owned()]);
        prop_assert_eq!(ours(&words, helper), theirs(&test, &words));
        Ok(())
    });
    if let Err(error) = done {
        panic!("{error}");
    }
}

/// The rows of docs/mount8.md.
fn deliberate_differences() {
    let test = recorder();
    let both = |options: &str| {
        let words = ["-t", "glusterfs", "-o", options, "src:", TARGET].map(str::to_owned);
        (ours(&words, "mount.glusterfs")[3].clone(), theirs(&test, &words)[3].clone())
    };
    let pair = |ours: &str, theirs: &str| (ours.to_owned(), theirs.to_owned());
    // A machine without SELinux: mount(8) drops them. The mounter cannot know what the node has.
    let context = "rw,context=\"a:b:c0,c1\"";
    let selinux = Path::new("/sys/fs/selinux/enforce").exists();
    assert_eq!(both("context=\"a:b:c0,c1\""), pair(context, if selinux { context } else { "rw" }));
    // Names of users: the helper's container has its own.
    assert_eq!(both("uid=root,gid=root"), pair("rw,uid=root,gid=root", "rw,uid=0,gid=0"));
    // A value where mount(8) knows a word without one: what the caller wrote is not dropped.
    assert_eq!(both("defaults=3,auto=1"), pair("rw,defaults=3,auto=1", "rw"));
    assert_eq!(both("encryption=x"), pair("rw,encryption=x", "rw"));
    // Loop devices are the node's; an offset may be a filesystem's own option (squashfuse).
    assert_eq!(both("offset=3"), pair("rw,offset=3", "rw"));
    // A quote that is never closed: mount(8) drops the rest.
    let words = ["-t", "glusterfs", "-o", "a=\"b", "src:", TARGET].map(str::to_owned);
    assert_eq!(theirs(&test, &words)[3], "rw");
    assert!(matches!(invocation(&words.map(OsString::from)), Invocation::Bad(..)));
    // With `-f` no helper runs: it could try nothing without a mounter.
    let words = ["-f", "-t", "glusterfs", "src:", TARGET].map(str::to_owned);
    assert!(theirs(&test, &words).contains(&"-f".to_owned()));
    assert!(matches!(invocation(&words.map(OsString::from)), Invocation::Faked));
    // mount(8) makes the target and does not pass it; hostmount's error (`bad_luck`) avoids a missing target.
    let words = ["-t", "glusterfs", "-o", "X-mount.mkdir", "src:", "/tmp/made"].map(str::to_owned);
    assert_eq!(theirs(&test, &words)[3], "rw");
    test.container.sh_ok("test -d /tmp/made");
    let Invocation::Ours(request) = invocation(&words.map(OsString::from)) else { panic!("not ours") };
    assert!(Plan::new(&Configuration::default(), Origin::Operator, request).is_err());
    // Sources are the container's: a path is not resolved on the node.
    let words = ["-t", "fuse.own", "/usr/../usr/bin", TARGET].map(str::to_owned);
    assert_eq!((ours(&words, "x")[0].as_str(), theirs(&test, &words)[0].as_str()), ("/usr/../usr/bin", "/usr/bin"));
}

/// Changing a volume that is there needs no helper: it goes to the node's own mount(8).
fn remount_of_a_served_volume() {
    let test = TestNode::start();
    test.node.sh_ok("mkdir /mnt/v");
    test.container.sh_ok("mkdir /tmp/source");
    let mounter = test.start_mounter(&[], &[]);
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", "/mnt/v"]).ok("mount");
    test.node.sh_ok("touch /mnt/v/before");
    let ways: [(&[&str], &[&str]); 2] = [
        (&["-o", "remount,ro", "/mnt/v"], &["-o", "remount,rw", "/mnt/v"]),
        // As kubelet does it for a read-only bind mount.
        (&["-o", "bind,remount,ro", "/mnt/v"], &["-o", "bind,remount,rw", "/mnt/v"]),
    ];
    for (read_only, read_write) in ways {
        test.mount(read_only).ok("remount read-only");
        let line = test.node.mount_at("/mnt/v").unwrap();
        assert!(line.contains(" ro,nosuid,nodev"), "{line}");
        assert!(test.node.sh("touch /mnt/v/meanwhile").stderr.contains("Read-only file system"));
        test.mount(read_write).ok("remount read-write");
        test.node.sh_ok("touch /mnt/v/after && rm /mnt/v/after");
        assert!(test.node.mount_at("/mnt/v").unwrap().contains(" rw,nosuid,nodev"));
    }
    // It is still hostmount's volume, and is unmounted as before.
    assert!(test.node.sh_ok(&format!("{}/hostmount status /mnt/v", node::NODE_BIN)).contains("State       mounted"));
    test.umount(&["/mnt/v"]).ok("umount");
    mounter.wait_for(events::UNMOUNTED, 1);
}

fn a_directory_of_a_filesystem_is_shown() {
    const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.sh_ok(
        "mkdir -p /tmp/source/a/b && cd /tmp/source && touch top file a/b/below && ln -s a link && ln -s / root",
    );
    let mounter = test.start_mounter(&[], &[]);
    let mount = |subdir: &str| {
        let option = format!("ro,X-mount.subdir={subdir}");
        test.mount(&["-t", "fuse.bindfs", "-o", &option, "/tmp/source", TARGET])
    };
    for (bad, words) in [
        ("none", "No such file or directory"),
        ("link/b", "symbolic link"),
        ("root/etc", "symbolic link"),
        ("file", "not a directory"),
    ] {
        let done = mount(bad);
        assert!(done.code == Some(32) && done.stderr.contains(words), "{bad}: {done:?}");
        test.wait_for_processes("bindfs", 0);
    }
    assert_eq!(test.node.fuse_mounts(), [""; 0]);
    mount("/a//b/").ok("mount");
    let shown = || {
        assert_eq!(test.node.sh_ok(&format!("ls {TARGET}")), "below\n");
        assert!(test.node.mount_at(TARGET).unwrap().contains(" /a/b "));
    };
    shown();
    let pod = test.pod(&[(TARGET, "/data")], testbed::machine::Propagation::None);
    let _life = pod.live();
    let helper = test.pids_of("bindfs")[0];
    test.node.sh_ok(&format!("kill -9 {helper}"));
    mounter.wait_for(events::HEALED, 1);
    shown();
    assert_eq!(pod.sh_ok("ls /data"), "below\n");
    test.node.sh_ok(&format!("{}/hostmount swap {TARGET}", node::NODE_BIN));
    shown();
    drop(mounter);
    let mounter = test.start_mounter(&[], &[]);
    let helper = test.pids_of("bindfs")[0];
    test.node.sh_ok(&format!("kill -9 {helper}"));
    mounter.wait_for(events::HEALED, 1);
    shown();
    assert_eq!(pod.sh_ok("ls /data"), "below\n");
}
