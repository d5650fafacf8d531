//! A real kubelet calls hostmount: the mounter and the pods that use its volumes are static pods.
//!
//!     make test-kubelet
//!
//! Runs as root, step by step, on a node of its own, and prints a table; the first step that fails is the last. What
//! containerd, kubelet and the mounter have logged is in `kubelet/` of cargo's target directory then.

#[allow(dead_code, reason = "only a part of it is used here")]
#[path = "../node/mod.rs"]
mod node;

mod host;
mod kubelet;
mod pod;

use host::wait;
use kubelet::{KubeletNode, PROGRAMS};
use node::sshd::{self, Sshd};
use node::{Done, SERVER_ADDRESS};
use pod::{Pod, manifest};
use serde_json::{Value, json};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use testbed::machine::Network;

/// The node's directory that the mounter's pod has at /etc/hostmount.
const CONFIGURATION: &str = "/var/lib/kubelet/plugins/hostmount";
/// What the bindfs volumes show: a directory of the node's, and where the mounter's pod has it.
const DATA: &str = "/run/data";
const SOURCE: &str = "/srv/data";

/// The pod of the mounter.
const MOUNTER: &str = "hostmount";
/// Pods that write and read all the time, and end at the first error.
const STEADY: [&str; 3] = ["bindfs", "sshfs", "mounter-path"];
/// Pods that only wait, one with a FlexVolume volume and one with a volume through the mounter path. These may die.
const PATIENT: [&str; 2] = ["patient-flexvolume", "patient-mounter-path"];

const COUNT: &str = "trap 'exit 0' TERM; n=0
    while n=$((n + 1)); echo $n >/volume/count && test \"$(cat /volume/count)\" = $n; do sleep 0.05; done
    exit 1";
const WAIT: &str = "trap 'exit 0' TERM; while sleep 0.1; do :; done";

type Step = fn(&mut Story) -> String;

/// What happens, and what was seen then.
const STEPS: &[(&str, Step)] = &[
    ("the mounter's pod starts", the_mounter_starts),
    ("pods with a FlexVolume volume: bindfs, sshfs", flexvolume_pods_run),
    ("a pod with a volume through the mounter path", a_pod_through_the_mounter_path),
    ("a pod with an `nfs` volume through it", nfs_through_the_mounter_path),
    ("kubelet restarts", kubelet_restarts),
    ("two helpers are killed", two_helpers_are_killed),
    ("the mounter is killed", the_mounter_is_killed),
    ("the mounter's pod is removed, and comes back", the_mounters_pod_is_replaced),
    ("kubelet restarts over dead volumes", kubelet_restarts_over_dead_volumes),
    ("the mounter's pod is removed", the_mounters_pod_goes),
    ("the pods with dead volumes are removed", pods_with_dead_volumes_go),
    ("the other pods are removed", the_steady_pods_go),
    ("the mounter's pod comes back, and is removed", nothing_is_left),
];

struct Story {
    node: KubeletNode,
    server: Sshd,
    /// The names of the waiting pods, while there are some.
    patient: Vec<Pod>,
    work: PathBuf,
}

fn main() -> ExitCode {
    let work = std::env::args_os().nth(1).expect("the directory that prepare has filled");
    let work = fs::canonicalize(work).unwrap();
    println!("| step | seen |\n|---|---|");
    let network = Network::new().unwrap();
    let (server, node) = (Sshd::start(&network), KubeletNode::start(&network, &work));
    let mut story = Story { node, server, patient: Vec::new(), work };
    for (name, step) in STEPS {
        let seen = catch_unwind(AssertUnwindSafe(|| step(&mut story)));
        if let Ok(seen) = &seen {
            println!("| {name} | {seen} |");
        } else {
            println!("| {name} | **failed** |");
            story.keep_logs();
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

impl Story {
    fn start_mounter(&self) -> Pod {
        self.node.put(MOUNTER, &mounter());
        self.node.wait_until_running(MOUNTER)
    }

    fn stop_mounter(&self) {
        let pod = self.node.pod(MOUNTER).unwrap();
        self.node.remove(MOUNTER);
        self.node.wait_until_gone(MOUNTER, &pod);
        self.node.node.wait_for_processes("hostmount serve", 0);
    }

    fn volumes(&self) -> Vec<Value> {
        let list = self.node.node.sh_ok(&format!("{PROGRAMS}/hostmount list --output json"));
        serde_json::from_str(&list).unwrap()
    }

    /// Kills the helpers of the waiting pods' volumes, except the ones that have exited already.
    fn kill_helpers(&self) {
        let is_theirs = |line: &str| self.patient.iter().any(|pod| line.contains(pod.uid()));
        for (pid, _) in self.node.node.processes().iter().filter(|(_, line)| is_theirs(line)) {
            // It may have exited meanwhile.
            self.node.node.sh(&format!("kill -9 {pid}"));
        }
    }

    /// What the waiting pods see of their volumes, at both places.
    fn look(&self) -> Vec<Done> {
        self.patient.iter().map(|pod| self.node.exec(pod, "cat /volume/file /part/file")).collect()
    }

    fn assert_dead(&self) {
        let looks = self.look();
        assert!(looks.iter().all(|look| look.stderr.matches("not connected").count() == 2), "{looks:?}");
    }

    /// Waits until the waiting pods can read their volumes; they are still the same containers.
    fn wait_until_back(&self) {
        wait("the volumes are back in the pods", || self.look().iter().all(|look| look.stdout == "words\nwords\n"));
        for (name, pod) in PATIENT.iter().zip(&self.patient) {
            assert_eq!(self.node.wait_until_running(name).container(), pod.container());
        }
    }

    /// The mounter lists every volume as mounted.
    fn assert_all_known(&self) {
        let volumes = self.volumes();
        assert_eq!(volumes.len(), STEADY.len() + PATIENT.len());
        assert!(volumes.iter().all(|volume| volume["state"] == "mounted"), "{volumes:?}");
        assert_eq!(self.helpers_cgroups().len(), volumes.len(), "{:?}", self.helpers_cgroups());
    }

    /// Below the directory of the mounter's, one for each helper.
    fn helpers_cgroups(&self) -> Vec<String> {
        let all = self.node.node.sh_ok("find /sys/fs/cgroup -type d -path '*/hostmount/*'");
        all.lines().map(str::to_owned).collect()
    }

    /// The pods that read and write continuously have seen no error, and go on.
    fn assert_steady(&self) {
        for name in STEADY {
            // It is never restarted: a pod that has seen an error does not run.
            let pod = self.node.wait_until_running(name);
            let count = || self.node.exec(&pod, "cat /volume/count").stdout.trim().parse::<u64>().ok();
            let before = wait("the pod has counted", count);
            wait("the pod goes on counting", || count().is_some_and(|now| now > before));
        }
    }

    fn keep_logs(&self) {
        self.node.node.sh("cp /var/log/pods/*/mounter/*.log /opt/prepared/");
        println!("logs: {}/*.log", self.work.display());
    }
}

/// The pod that we ship, with a directory more: helpers may write to mounts of the container's only.
fn mounter() -> String {
    let mut pod: Value = serde_saphyr::from_str(include_str!("../../static-pods/mounter.yaml")).unwrap();
    let add = |list: &mut Value, entry| list.as_array_mut().unwrap().push(entry);
    add(&mut pod["spec"]["volumes"], json!({ "name": "data", "hostPath": { "path": DATA } }));
    add(&mut pod["spec"]["containers"][0]["volumeMounts"], json!({ "name": "data", "mountPath": SOURCE }));
    pod.to_string()
}

fn flexvolume(fstype: &str, source: &str, options: &str) -> Value {
    json!({ "flexVolume": {
        "driver": "hostmount/fuse",
        "options": { "fstype": fstype, "source": source, "options": options },
    } })
}

/// A volume of kubelet's own Ceph plugin, which runs the mounter path with `-t ceph`. [`config`] sets the helper.
fn through_the_mounter_path() -> Value {
    json!({ "cephfs": { "monitors": [format!("root@{SERVER_ADDRESS}")], "path": "/srv/export/mounter-path" } })
}

fn the_mounter_starts(story: &mut Story) -> String {
    let node = &story.node.node;
    node.sh_ok(&format!("mkdir -p {DATA} {CONFIGURATION}"));
    story.server.install_client(node);
    node.sh_ok(&format!("cp -r /root/.ssh {CONFIGURATION}/ssh"));
    node.visit(|| fs::write(format!("{CONFIGURATION}/config.toml"), config()).unwrap());
    story.start_mounter();
    assert_eq!(story.volumes().len(), 0);
    let versions =
        "/opt/prepared/kubelet --version; containerd --version | cut -d' ' -f1,3; runc --version | head -n 1";
    let versions = node.sh_ok(versions).trim().replace('\n', ", ");
    format!("it is ready, and its programs are on kubelet's node; {versions}")
}

/// `-t ceph` is served by sshfs, which has no use for the options of Ceph's.
fn config() -> String {
    let line = format!("exec sshfs \"$0\" \"$1\" -o {}", ssh_options());
    let command = format!("command = ['sh', '-c', '{line}', '{{source}}', '{{target}}', '{{options}}']");
    // What an administrator opens to kubelet, and to those who write pods.
    format!(
        "[filesystem.ceph]\n{command}\n\
         [filesystem.sshfs]\nreadable = ['/etc/hostmount/ssh']\n\
         [policy.kubelet.filesystem.ceph]\nsources = ['root@{SERVER_ADDRESS}:/srv/export/**']\noptions = ['secretfile']\n\
         [policy.flexvolume.filesystem.bindfs]\nsources = ['{SOURCE}']\n\
         [policy.flexvolume.filesystem.sshfs]\noptions = ['IdentityFile=/etc/hostmount/ssh/*', 'UserKnownHostsFile=/etc/hostmount/ssh/*']\n"
    )
}

fn ssh_options() -> String {
    let port = sshd::PORT;
    format!("port={port},IdentityFile=/etc/hostmount/ssh/id_ed25519,UserKnownHostsFile=/etc/hostmount/ssh/known_hosts")
}

fn flexvolume_pods_run(story: &mut Story) -> String {
    let source = format!("root@{SERVER_ADDRESS}:/srv/export");
    story.server.place.sh_ok("mkdir /srv/export/flexvolume /srv/export/mounter-path");
    let bindfs = flexvolume("fuse.bindfs", SOURCE, "");
    let sshfs = flexvolume("fuse.sshfs", &format!("{source}/flexvolume"), &ssh_options());
    story.node.put("bindfs", &manifest("bindfs", bindfs, COUNT));
    story.node.put("sshfs", &manifest("sshfs", sshfs, COUNT));
    for name in ["bindfs", "sshfs"] {
        let pod = story.node.wait_until_running(name);
        story.node.exec(&pod, "echo words | tee /volume/file >/part/file").ok("write in the pod");
        assert!(story.node.exec(&pod, "cat /proc/mounts").stdout.contains(" /volume fuse"));
    }
    assert_eq!(story.node.node.sh_ok(&format!("cd {DATA} && cat file part/file")), "words\nwords\n");
    assert_eq!(story.server.place.sh_ok("cd /srv/export/flexvolume && cat file part/file"), "words\nwords\n");
    "they run, and write and read continuously from here on; what they write is on the server".to_owned()
}

fn a_pod_through_the_mounter_path(story: &mut Story) -> String {
    story.server.place.sh_ok("cd /srv/export/mounter-path && mkdir part && echo words | tee file >part/file");
    story.node.put("mounter-path", &manifest("mounter-path", through_the_mounter_path(), COUNT));
    story.node.wait_until_running("mounter-path");
    story.assert_steady();
    assert!(story.server.place.sh("cat /srv/export/mounter-path/count").code == Some(0));
    "`-t ceph` of kubelet's own plugin, served by sshfs: it runs, writes and reads too".to_owned()
}

fn nfs_through_the_mounter_path(story: &mut Story) -> String {
    let nfs = json!({ "nfs": { "server": "127.0.0.1", "path": "/export" } });
    story.node.put("nfs", &manifest("nfs", nfs, WAIT));
    let words = if fs::read_to_string("/proc/filesystems").unwrap().contains("\tnfs\n") {
        "Connection refused"
    } else {
        "this node's kernel does not have it"
    };
    let event = |log: String| {
        let tells =
            |line: &&str| line.contains("\"FailedMount\"") && line.contains("mount.nfs") && line.contains(words);
        log.lines().find(tells).map(str::to_owned)
    };
    wait("kubelet's event has the error", || event(story.node.log()));
    let pod = story.node.pod("nfs").unwrap();
    assert!(!pod.is_running());
    story.node.remove("nfs");
    story.node.wait_until_gone("nfs", &pod);
    format!("no server here; the pod's event has the error (\"{words}\"), and the pod can be removed")
}

fn kubelet_restarts(story: &mut Story) -> String {
    story.node.stop_kubelet();
    story.node.start_kubelet();
    story.assert_steady();
    "no error in the pods, no container started again".to_owned()
}

fn the_mounter_is_killed(story: &mut Story) -> String {
    let before = story.node.pod(MOUNTER).unwrap().restarts();
    let processes = story.node.node.processes();
    let (mounter, _) = processes.iter().find(|(_, line)| line.contains("hostmount serve")).unwrap();
    story.node.node.sh_ok(&format!("kill -9 {mounter}"));
    let restarted = || story.node.pod(MOUNTER).is_some_and(|now| now.restarts() > before && now.is_running());
    wait("kubelet has started the mounter again", restarted);
    story.assert_steady();
    story.assert_all_known();
    "kubelet starts it again; no error in the pods, and it lists their volumes".to_owned()
}

fn the_mounters_pod_is_replaced(story: &mut Story) -> String {
    story.stop_mounter();
    story.assert_steady();
    story.start_mounter();
    story.assert_steady();
    story.assert_all_known();
    "no error in the pods meanwhile; the next one lists their volumes".to_owned()
}

fn two_helpers_are_killed(story: &mut Story) -> String {
    for (name, volume) in PATIENT.iter().zip([flexvolume("fuse.bindfs", SOURCE, ""), through_the_mounter_path()]) {
        story.node.put(name, &manifest(name, volume, WAIT));
    }
    story.patient = PATIENT.iter().map(|name| story.node.wait_until_running(name)).collect();
    story.kill_helpers();
    story.wait_until_back();
    story.assert_steady();
    "the volumes come back in the running pods, at `subPath`s too; the other pods see no error".to_owned()
}

fn kubelet_restarts_over_dead_volumes(story: &mut Story) -> String {
    story.stop_mounter();
    story.kill_helpers();
    story.assert_dead();
    story.node.stop_kubelet();
    story.node.start_kubelet();
    for name in PATIENT {
        story.node.wait_until_running(name);
    }
    story.assert_dead();
    story.start_mounter();
    story.wait_until_back();
    story.assert_steady();
    "the pods go on running; when the mounter runs again, the volumes come back in them".to_owned()
}

fn pods_with_dead_volumes_go(story: &mut Story) -> String {
    story.kill_helpers();
    story.assert_dead();
    for (name, pod) in PATIENT.iter().zip(story.patient.drain(..)) {
        story.node.remove(name);
        story.node.wait_until_gone(name, &pod);
    }
    story.assert_steady();
    "without a mounter: kubelet unmounts the volumes; no mount, process or directory of theirs is left".to_owned()
}

fn the_steady_pods_go(story: &mut Story) -> String {
    for name in STEADY {
        let pod = story.node.pod(name).unwrap();
        story.node.remove(name);
        story.node.wait_until_gone(name, &pod);
    }
    "the same; their helpers have exited".to_owned()
}

fn the_mounters_pod_goes(story: &mut Story) -> String {
    story.stop_mounter();
    story.assert_steady();
    "no error in the pods".to_owned()
}

fn nothing_is_left(story: &mut Story) -> String {
    story.start_mounter();
    assert_eq!(story.volumes().len(), 0);
    assert_eq!(story.helpers_cgroups(), [""; 0]);
    story.stop_mounter();
    let node = &story.node.node;
    let is_left = |line: &String| line.contains(" - fuse ") || line.contains(" - fuse.") || line.contains("/pods/");
    let left: Vec<_> = node.mountinfo().into_iter().filter(is_left).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(node.sh_ok("ctr --namespace k8s.io tasks list --quiet"), "");
    "it lists no volume; no mount, process or cgroup is left".to_owned()
}
