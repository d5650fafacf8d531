//! Pods with user namespaces: real containers by runc, whose root is unprivileged on the node, and whose mount
//! namespaces belong to them.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::{self, NODE_BIN, Place, TestNode};
use hostmount::observe::events;
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::process::Stdio;
use testbed::machine::{Process, Propagation, Room};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_pod_with_a_user_namespace_gets_its_volume_back.needs(&["bindfs", "runc", "busybox"]),
        a_user_namespace_inside_a_pod_gets_the_volume_back.needs(&["bindfs", "unshare"]),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

/// A container with a volume at three places. Dropped, it is removed.
struct Pod<'a> {
    test: &'a TestNode,
    id: String,
}

impl<'a> Pod<'a> {
    fn start(test: &'a TestNode) -> Self {
        let id = format!("hostmount-test-{}-{}", std::process::id(), fastrand::u32(..));
        let directory = format!("/run/{id}");
        test.node.sh_ok(&format!(
            "set -e; mkdir -p {directory}/rootfs; chmod 755 /run {directory}; cd {directory}/rootfs
            mkdir bin dev proc data sub ro; cp /usr/bin/busybox bin
            for name in sh cat sleep touch rm; do ln -s busybox bin/$name; done"
        ));
        let bind = |from: &str, to: &str, how: &str| json!({ "type": "bind", "source": format!("{TARGET}{from}"), "destination": to, "options": ["bind", "nosuid", "nodev", "relatime", how] });
        let mapping = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
        let namespaces: Vec<Value> =
            ["user", "mount", "pid", "ipc", "uts", "network"].map(|name| json!({ "type": name })).to_vec();
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 }, "cwd": "/", "env": ["PATH=/bin"], "noNewPrivileges": true,
                "args": ["sleep", "infinity"],
            },
            "root": { "path": "rootfs" },
            "mounts": [
                { "type": "proc", "source": "proc", "destination": "/proc" },
                { "type": "tmpfs", "source": "tmpfs", "destination": "/dev", "options": ["nosuid", "mode=755"] },
                bind("", "/data", "rw"), bind("/sub", "/sub", "rw"), bind("", "/ro", "ro"),
            ],
            "linux": { "uidMappings": mapping, "gidMappings": mapping, "namespaces": namespaces },
        });
        test.node.visit(|| fs::write(format!("{directory}/config.json"), config.to_string()).unwrap());
        let pod = Self { test, id };
        pod.runc(&format!(
            "run --detach --bundle {directory} {} </dev/null >/run/said 2>&1 || {{ cat /run/said; false; }}",
            pod.id
        ));
        pod
    }

    fn runc(&self, arguments: &str) -> String {
        self.test.node.sh_ok(&format!("runc --root /run/runc {arguments}"))
    }

    fn sh(&self, line: &str) -> String {
        self.runc(&format!("exec {} sh -c '{line}' 2>&1", self.id))
    }

    fn mounts(&self) -> Vec<Vec<String>> {
        let table = self.sh("cat /proc/self/mountinfo");
        table.lines().filter(|line| node::is_fuse(line)).map(node::kept).collect()
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // Its cgroups are the real machine's.
        let deleted = self.test.node.sh(&format!("runc --root /run/runc delete --force {}", self.id));
        if !std::thread::panicking() {
            deleted.ok("runc delete");
        }
    }
}

fn start() -> (TestNode, Mounter) {
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container
        .sh_ok("mkdir -p /tmp/source/sub; cd /tmp/source; echo served >f; echo served too >sub/g; chmod -R a+rwX .");
    let mounter = test.start_mounter(&[], &[]);
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    (test, mounter)
}

fn a_pod_with_a_user_namespace_gets_its_volume_back() {
    let (test, mounter) = start();
    let pod = Pod::start(&test);
    assert_eq!(pod.sh("cat /proc/self/uid_map").split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    let before = pod.mounts();
    assert_eq!(before.len(), 3, "{before:?}");
    let check = || {
        assert_eq!(pod.sh("cat /data/f /sub/g /ro/f"), "served\nserved too\nserved\n");
        assert_eq!(pod.sh("touch /data/new && rm -f /data/new && echo written"), "written\n");
        assert!(pod.sh("touch /ro/new; true").contains("Read-only file system"));
        assert_eq!(pod.mounts(), before);
    };
    check();
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::HEALED, 1);
    assert!(mounter.said().contains("\"places\":4"), "{}", mounter.said());
    check();
    let said = test.node.sh_ok(&format!("{NODE_BIN}/hostmount swap {TARGET}"));
    assert!(said.contains("in 4 places"), "{said}");
    mounter.wait_for(events::DRAINED, 1);
    check();
    drop(pod);
    test.node.sh_ok(&format!("umount {TARGET}"));
    mounter.wait_for(events::UNMOUNTED, 1);
    test.wait_for_processes("bindfs", 0);
}

fn a_user_namespace_inside_a_pod_gets_the_volume_back() {
    let (test, mounter) = start();
    let pod = test.pod(&[(TARGET, "/data"), (&format!("{TARGET}/sub"), "/sub")], Propagation::None);
    let _alive = start_in(&pod, "exec sleep infinity");
    // As sandboxes in pods do: the mounts that they have copied are locked.
    let mut sandbox =
        start_in(&pod, "exec unshare --user --map-root-user --mount sh -c 'echo here; exec sleep 1000000'");
    sandbox.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    let inside = |line: &str| {
        let enter = "nsenter --user --mount --target $(pgrep -x -f 'sleep 1000000') --preserve-credentials sh -c";
        test.node.sh(&format!("{enter} '{line}'"))
    };
    assert_eq!(inside("umount /data").code, Some(32), "it is locked");
    let read = || assert_eq!(inside("cat /data/f /sub/g").ok("read"), "served\nserved too\n");
    let shown = || inside("cat /proc/self/mountinfo").stdout.lines().filter(|line| node::is_fuse(line)).count();
    read();
    assert_eq!(shown(), 2);
    for round in 1..=3 {
        test.node.sh_ok("kill -9 $(pidof bindfs)");
        mounter.wait_for(events::HEALED, round);
        read();
        assert_eq!(pod.sh_ok("cat /data/f"), "served\n");
        assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/f")), "served\n");
        // What could not be detached is below what covers it, once.
        assert_eq!(shown(), 4);
    }
    assert_eq!(mounter.count(events::PLACE_LEFT), 0, "{}", mounter.said());
    drop(sandbox);
    test.node.sh_ok(&format!("umount {TARGET}"));
    drop(_alive);
    drop(pod);
    mounter.wait_for(events::UNMOUNTED, 1);
}

fn start_in(pod: &Place, line: &str) -> Process {
    let mut command = Room::command("/bin/sh");
    command.args(["-c", line]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    pod.spawn(command)
}
