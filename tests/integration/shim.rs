//! The program that kubelet runs for every mount of the node's, as it is shipped: what it does, and how little of it there is
//! where it has nothing to do.

use crate::harness::{Test, tests};
use crate::node::old_kernel::{self, without};
use crate::node::opened;
use crate::node::programs::{SHIPPED_SHIM, show_shipped};
use crate::node::setting::{Setting, TARGET};
use hostmount::observe::events;
use std::process::Command;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        what_is_shipped_does_all_of_it.needs(&["make", "bindfs"]).quick(),
        it_is_small_and_needs_no_library.needs(&["make", "readelf"]).anywhere(),
        umount_looks_at_one_mount.needs(&["make", "bindfs", "strace"]).needs_linux(6, 8),
        umount_without_statmount.needs(&["make", "bindfs", "strace"]),
    ]
}

/// Where the node has it, beside the other: see [`show_shipped`].
const SHIPPED: &str = "/opt/hostmount/shipped";

fn start() -> Setting {
    let setting = Setting::with_config(&["kubelet", "flexvolume"].map(|origin| opened(origin, &["bindfs"])).concat());
    show_shipped(&setting.test.node);
    setting
}

fn mount(setting: &Setting) {
    setting.test.node.sh_ok(&format!("{SHIPPED}/mount -t fuse.bindfs /tmp/source {TARGET}"));
}

fn what_is_shipped_does_all_of_it() {
    let setting = start();
    let node = &setting.test.node;
    mount(&setting);
    node.sh_ok(&format!("touch {TARGET}/f && {SHIPPED}/umount {TARGET}"));
    setting.mounter.wait_for(events::UNMOUNTED, 1);
    let volume = r#"{"fstype":"fuse.bindfs","source":"/tmp/source"}"#;
    let success = "{\"status\":\"Success\"}\n";
    assert_eq!(node.sh_ok(&format!("{SHIPPED}/fuse mount {TARGET} '{volume}'")), success);
    assert_eq!(node.sh_ok(&format!("test -e {TARGET}/f && {SHIPPED}/fuse unmount {TARGET}")), success);
    setting.mounter.wait_for(events::UNMOUNTED, 2);
    // The node's own.
    let path = format!("PATH={SHIPPED}:$PATH");
    node.sh_ok(&format!("{path}; mount -t tmpfs x {TARGET} && findmnt -t tmpfs {TARGET} && umount {TARGET}"));
    for arguments in ["--version", "-t nosuchtype a /mnt", "-l -t proc", "--no-such", ""] {
        let [ours, theirs] = [&*path, "true"].map(|first| node.sh(&format!("{first}; mount {arguments}")));
        assert_eq!((ours.code, ours.stdout, ours.stderr), (theirs.code, theirs.stdout, theirs.stderr));
    }
    // It ignores SIGPIPE, and what it becomes does not.
    node.program("/tmp/mount", "#!/bin/sh\necho $1 $VARIABLE; grep SigIgn /proc/self/status\n");
    let printed = ["/tmp", SHIPPED].map(|at| node.sh_ok(&format!("VARIABLE=v PATH=/tmp:$PATH {at}/mount --any")));
    assert!(printed[0].starts_with("--any v\nSigIgn:"), "{}", printed[0]);
    assert_eq!(printed[0], printed[1]);
    // Without a mounter it is an error with words.
    let done = node.sh(&format!("HOSTMOUNT_SOCKET=/none {SHIPPED}/mount -t fuse.bindfs /tmp/source {TARGET}"));
    assert!(done.code == Some(32) && done.stderr.contains("the mounter is not running"), "{}", done.stderr);
    let done = node.sh(&format!("{SHIPPED}/umount {TARGET}"));
    assert!(done.code == Some(32) && done.stderr.contains("not mounted"), "{}", done.stderr);
}

fn it_is_small_and_needs_no_library() {
    let program = &*SHIPPED_SHIM;
    assert!(std::fs::metadata(program).unwrap().len() < 1 << 20);
    let needed = Command::new("readelf").args(["--dynamic", "--segments"]).arg(program).output().unwrap();
    let needed = String::from_utf8_lossy(&needed.stdout).into_owned();
    assert!(needed.contains("LOAD") && !needed.contains("NEEDED") && !needed.contains("INTERP"), "{needed}");
    let done = Command::new(program).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "hostmount-shim 0.1.0\n");
}

/// Our umount's calls for a volume, and for a filesystem that is the node's own to unmount, until it executes that program.
fn calls(setting: &Setting) -> [String; 2] {
    let trace = |target: &str| {
        let line = format!("strace -qq -o /tmp/trace {SHIPPED}/umount {target} && cat /tmp/trace");
        let trace = setting.test.node.sh_ok(&line);
        // The first is our own.
        let ends = trace.match_indices("execve(").nth(1).map_or(trace.len(), |(at, _)| at);
        trace[..ends].to_owned()
    };
    mount(setting);
    let volume = trace(TARGET);
    setting.mounter.wait_for(events::UNMOUNTED, 1);
    setting.test.node.sh_ok(&format!("mount -t tmpfs x {TARGET}"));
    let other = trace(TARGET);
    assert_eq!(setting.test.node.mount_at(TARGET), None);
    [volume, other]
}

/// Not at the table, which may be long.
fn umount_looks_at_one_mount() {
    for calls in calls(&start()) {
        assert!(calls.contains("execve(") && !calls.contains("mountinfo"), "{calls}");
    }
}

fn umount_without_statmount() {
    let setting = start();
    for calls in without(&[old_kernel::STATMOUNT], || calls(&setting)) {
        assert_eq!(calls.matches("/proc/self/mountinfo").count(), 1, "{calls}");
    }
}
