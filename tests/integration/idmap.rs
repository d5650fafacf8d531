//! Volumes that show other owners than their filesystems store.
//!
//! None of Debian 12's helpers allows it; mount.memfs, a real FUSE filesystem, does.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::{NODE_BIN, Place, TestNode};
use hostmount::node::tree::Tree;
use hostmount::observe::events;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Stdio;
use testbed::machine::{Propagation, Room};

/// The kernel maps ids of FUSE filesystems from this version on.
pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_volume_shows_owners_as_it_was_asked_to.needs(&["setpriv", "unshare", "bindfs"]).needs_linux(6, 12).quick(),
        a_pods_own_mapping_is_kept.needs(&["setpriv", "unshare", "bindfs"]).needs_linux(6, 12),
        a_filesystem_that_does_not_allow_it.needs(&["setpriv", "unshare", "bindfs"]).needs_linux(6, 12).quick(),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

fn start() -> (TestNode, Mounter) {
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET} && echo memfs >{NODE_BIN}/served-types"));
    test.container.sh_ok("mkdir /tmp/source");
    let mounter = test.start_mounter(&[], &[]);
    (test, mounter)
}

/// The owner of a directory, and whether uid 1000 may write there as its owner, and no process as root.
fn is_1000s(place: &Place, directory: &str) {
    assert_eq!(place.sh_ok(&format!("stat -c %u:%g {directory}")), "1000:1000\n");
    let write = format!("setpriv --reuid 1000 --regid 1000 --clear-groups touch {directory}/new");
    place.sh_ok(&format!("{write} && stat -c %u:%g {directory}/new | grep -x 1000:1000 && rm {directory}/new"));
    let refused = place.sh(&format!("touch {directory}/roots")).stderr;
    assert!(refused.contains("Value too large"), "root has no id there: {refused}");
}

fn a_volume_shows_owners_as_it_was_asked_to() {
    let (test, mounter) = start();
    let options = "mode=0755,X-mount.idmap=\"u:0:1000:1 g:0:1000:1\"";
    test.mount(&["-t", "memfs", "-o", options, "memory", TARGET]).ok("mount");
    let pod = test.pod(&[(TARGET, "/data")], Propagation::None);
    let _alive = pod.live();
    let check = || {
        is_1000s(&test.node, TARGET);
        is_1000s(&pod, "/data");
    };
    check();
    test.node.sh_ok(&format!("{NODE_BIN}/hostmount swap {TARGET}"));
    check();
    test.node.sh_ok("kill -9 $(pidof mount.memfs)");
    mounter.wait_for(events::HEALED, 1);
    check();
}

/// As a container runtime does it for a pod in a user namespace.
fn a_pods_own_mapping_is_kept() {
    let (test, mounter) = start();
    test.mount(&["-t", "memfs", "-o", "mode=0755", "memory", TARGET]).ok("mount");
    let pod = test.pod(&[(TARGET, "/data")], Propagation::None);
    let mut command = Room::command("unshare");
    command.args(["--user", "sleep", "infinity"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _alive = pod.spawn(command);
    test.wait_for_processes("sleep infinity", 1);
    test.wait_for_processes("unshare", 0);
    let processes = test.processes();
    let (pid, _) = processes.iter().find(|(_, line)| line.contains("sleep")).unwrap();
    test.node.sh_ok(&format!("echo 0 1000 1 >/proc/{pid}/uid_map && echo 0 1000 1 >/proc/{pid}/gid_map"));
    pod.visit(|| {
        let namespace = File::open(format!("/proc/{pid}/ns/user")).unwrap();
        let tree = Tree::whole_copy_of(Path::new("/data")).unwrap();
        tree.map_ids(namespace.as_fd()).unwrap();
        tree.graft_at(Path::new("/data")).unwrap();
    });
    is_1000s(&pod, "/data");
    test.node.sh_ok("kill -9 $(pidof mount.memfs)");
    mounter.wait_for(events::HEALED, 1);
    is_1000s(&pod, "/data");
    assert_eq!(test.node.sh_ok(&format!("stat -c %u:%g {TARGET}")), "0:0\n");
}

fn a_filesystem_that_does_not_allow_it() {
    let (test, mounter) = start();
    let done = test.mount(&["-t", "fuse.bindfs", "-o", "X-mount.idmap=b:0:1000:1", "/tmp/source", TARGET]);
    assert_eq!(done.code, Some(32));
    assert!(done.stderr.contains("does not allow X-mount.idmap") && done.stderr.contains("uid=, gid="), "{done:?}");
    assert_eq!(test.node.mount_at(TARGET), None);
    test.wait_for_processes("bindfs", 0);
    let done = test.mount(&["-t", "fuse.bindfs", "-o", "X-mount.idmap=b:0:1000", "/tmp/source", TARGET]);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.contains("takes ranges as u:0:1000:1"), "{done:?}");
    drop(mounter);
}
