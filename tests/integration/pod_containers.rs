//! A pod whose own program serves its volume, in real containers by runc, as `restricted` Pod Security has them: no capability, a user
//! that is not root, a read-only root, `no_new_privs`, no device but the usual ones.

use crate::harness::{Test, tests};
use crate::node::pod::{Pod, finish};
use crate::node::programs::TESTBED;
use crate::node::setting::Setting;
use crate::pods::{OPTIONS, start};
use hostmount::observe::events;
use serde_json::{Value, json};
use std::fs;
use std::process::Stdio;
use testbed::machine::{Process, Room};

pub(crate) fn tests() -> Vec<Test> {
    tests![containers_of_a_pod_without_any_privilege.needs(&["runc", "busybox"]).needs_linux(6, 9),]
        .into_iter()
        .map(Test::needs_cgroups)
        .collect()
}

/// A container. Dropped, it is removed.
struct Container<'a> {
    setting: &'a Setting,
    id: String,
}

impl<'a> Container<'a> {
    /// Starts one of the pod's, with these of the node's directories, that runs a program.
    fn start(setting: &'a Setting, pod: &Pod, mounts: &[(String, &str)], arguments: &[&str]) -> Self {
        let id = format!("hostmount-test-{}-{}", std::process::id(), fastrand::u32(..));
        let directory = format!("/run/{id}");
        setting.test.node.sh_ok(&format!(
            "set -e; mkdir -p {directory}/rootfs; cd {directory}/rootfs
            mkdir -p bin dev proc sys data run/hostmount; cp /usr/bin/busybox bin
            for name in sh cat sleep ls id grep stat; do ln -s busybox bin/$name; done"
        ));
        let testbed = fs::read(&*TESTBED).unwrap();
        setting.test.node.program(&format!("{directory}/rootfs/bin/pod-program"), testbed);
        let binds = mounts.iter().map(|(from, to)| {
            json!({ "type": "bind", "source": from, "destination": to, "options": ["rbind", "rprivate", "rw"] })
        });
        let usual = [
            json!({ "type": "proc", "source": "proc", "destination": "/proc" }),
            json!({ "type": "tmpfs", "source": "tmpfs", "destination": "/dev", "options": ["nosuid", "mode=755"] }),
        ];
        let namespaces: Vec<Value> =
            ["mount", "pid", "ipc", "uts", "network"].map(|name| json!({ "type": name })).to_vec();
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 1000, "gid": 1000 }, "cwd": "/", "env": ["PATH=/bin"], "noNewPrivileges": true, "args": arguments,
                "capabilities": { "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": [] },
            },
            "root": { "path": "rootfs", "readonly": true },
            "mounts": usual.into_iter().chain(binds).collect::<Vec<_>>(),
            "linux": { "cgroupsPath": format!("/kubepods/burstable/pod{}/{id}", pod.uid), "namespaces": namespaces },
        });
        setting.test.node.visit(|| fs::write(format!("{directory}/config.json"), config.to_string()).unwrap());
        let container = Self { setting, id };
        container.runc(&format!(
            "run --detach --bundle {directory} {} </dev/null >{directory}/said 2>&1 || {{ cat {directory}/said; false; }}",
            container.id
        ));
        container
    }

    fn runc(&self, arguments: &str) -> String {
        self.setting.test.node.sh_ok(&format!("runc --root /run/runc {arguments}"))
    }

    /// Runs a line of shell in it.
    fn sh(&self, line: &str) -> String {
        self.runc(&format!("exec {} sh -c '{line}' 2>&1", self.id))
    }

    /// The same in the background.
    fn begin(&self, line: &str) -> Process {
        let mut command = Room::command("/bin/sh");
        command.args(["-c", &format!("exec runc --root /run/runc exec {} sh -c '{line}' 2>&1", self.id)]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        self.setting.test.node.spawn(command)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let deleted = self.setting.test.node.sh(&format!("runc --root /run/runc delete --force {}", self.id));
        if !std::thread::panicking() {
            deleted.ok("runc delete");
        }
    }
}

fn containers_of_a_pod_without_any_privilege() {
    let (setting, pod) = start("");
    pod.publish(&setting.test).unwrap();
    let application = || Container::start(&setting, &pod, &[(pod.target(), "/data")], &["sleep", "infinity"]);
    let serve = ["pod-program", "/run/hostmount/volume.sock", "serve", OPTIONS];
    let program = || Container::start(&setting, &pod, &[(pod.empty_dir(), "/run/hostmount")], &serve);
    // The application's container comes first: the runtime is not held.
    let first = application();
    assert_eq!(
        first.sh("id -u; grep -E \"CapBnd|NoNewPrivs\" /proc/self/status"),
        "1000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n"
    );
    let early = first.begin("cat /data/f || echo one >/data/f");
    pod.wait_until_waiting(&setting.test, 1);
    let serving = program();
    setting.mounter.wait_for(events::PROGRAM_SERVES, 1);
    assert_eq!(finish(early).0, Some(0));
    assert_eq!(first.sh("cat /data/f"), "one\n");
    // The program's container is started again, and so is another one of the application's meanwhile.
    serving.runc(&format!("kill {} KILL", serving.id));
    setting.mounter.wait_for(events::PROGRAM_ENDED, 1);
    drop(serving);
    let second = application();
    let waits = [&first, &second].map(|container| container.begin("cat /data/f || echo two >>/data/f"));
    pod.wait_until_waiting(&setting.test, 2);
    let serving = program();
    setting.mounter.wait_for(events::PROGRAM_SERVES, 2);
    waits.into_iter().for_each(|waiting| assert_eq!(finish(waiting).0, Some(0)));
    assert!(first.sh("cat /data/f").starts_with("two\n") && second.sh("cat /data/f").starts_with("two\n"));
    // Kubelet ends the containers, and then unpublishes.
    drop((first, second, serving));
    pod.unpublish(&setting.test);
    assert_eq!(setting.test.node.fuse_mounts(), [""; 0]);
    assert_eq!(setting.test.node.sh_ok(&format!("ls -A {}", pod.empty_dir())), "");
}
