//! What happens in the cluster, and what was seen then.
//!
//! Runs in the test's process.

use crate::calls;
use crate::cluster::{Cluster, NODE, TAINT};
use crate::frozen;
use crate::host::{KUBELET, wait};
use crate::load::{looks, made_again_and_again, two_hundred_claims};
use crate::node::SERVER_ADDRESS;
use crate::node::servers::{CURRENT_RCLONE, install_rclone};
use crate::node::sshd::{self, Sshd};
use crate::objects::{self, STEADY, WAIT, claim, claimed, class, pod, secret};
use crate::pod::Pod;
use crate::provisioner::{self, DRIVER};
use crate::tokens;
use hostmount_csi::csi::NodeGetVolumeStatsRequest;
use hostmount_csi::csi::node_client::NodeClient;
use serde_json::{Value, json};
use std::fs;
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Instant;
use testbed::machine::{Process, Room};

type Step = fn(&Story) -> String;

/// What happens, in this order.
pub(crate) const STEPS: &[(&str, Step)] = &[
    ("`kubectl apply -k`: deploy/base, with deploy/components/api-access", the_driver_is_deployed),
    ("a claim, and three pods of different users on it", a_claim_for_many_users),
    ("the same, read-only, as a `subPath`, with `fsGroup`", the_claim_in_other_ways),
    ("volumes of sshfs in pods' own specifications, with a Secret", inline_volumes),
    ("a server is frozen while pods that share its volume are deleted", frozen::it_holds_no_pod),
    ("`kubectl hostmount`, with the rights of deploy/operators.yaml", all_nodes_are_asked),
    ("a wrong key, no such bucket, a server that is down", errors_are_in_the_events),
    ("the helpers, the mounter and the driver are killed", all_is_killed),
    ("pods are deleted and made again while all is killed", made_again_and_again),
    ("200 claims on the node, in 8 pods", two_hundred_claims),
    ("a volume whose helper reads a service-account token", tokens::a_helper_has_its_pods_token),
    ("kubelet restarts", kubelet_restarts),
    ("the DaemonSet is updated", the_daemonset_is_updated),
    ("the pods and the claims are deleted", the_claims_are_deleted),
    ("`kubectl delete -k` of the same", the_driver_goes),
];

/// What bindfs may show: a directory of the node's, and where the mounter's container has it.
const DATA: &str = "/run/data";
pub(crate) const SOURCE: &str = "/srv/shared";
/// The pods that use volumes all the time, from the step that starts them on; they must not see one error.
const STEADY_PODS: [&str; 4] = ["of-1000", "of-2000", "of-3000", "inline"];

/// The cluster, and what the steps know of it.
pub(crate) struct Story {
    pub(crate) cluster: Cluster,
    pub(crate) server: Sshd,
    s3: Mutex<Option<Process>>,
}

impl Story {
    pub(crate) fn new(cluster: Cluster, server: Sshd) -> Self {
        Self { cluster, server, s3: Mutex::new(None) }
    }

    fn exec(&self, name: &str, line: &str) -> String {
        let pod = Pod(self.cluster.get("pod", name).unwrap());
        self.cluster.host.exec(&pod, line).ok(line)
    }

    pub(crate) fn start(&self, name: &str, uid: u32, line: &str, volume: Value) {
        self.cluster.apply(&[pod(name, uid, line, volume)]);
        self.cluster.wait_until_running(name);
    }

    /// The pods that use volumes have seen no error, and go on.
    pub(crate) fn assert_steady(&self, names: &[&str]) {
        for name in names {
            let pod = Pod(self.cluster.get("pod", name).unwrap());
            let log = || self.cluster.kubectl(&["logs", name]);
            assert!(pod.is_running() && pod.restarts() == 0, "{name}: {} {:?}", pod.0["status"], log());
            let count = || self.exec(name, "cat /tmp/count").trim().parse::<u64>().unwrap_or(0);
            let before = count();
            wait(&format!("{name} goes on"), || count() > before);
        }
    }

    fn objects(&self) -> Vec<Value> {
        objects::deployment(&self.config(), DATA, SOURCE)
    }

    /// What an administrator adds for these servers.
    fn config(&self) -> String {
        "\n[filesystem.sshfs.files.known-hosts]\ncontent = '{secret:known-hosts}'\noption = 'UserKnownHostsFile'\n"
            .to_owned()
            + &tokens::config()
    }

    /// The processes of the mounter's, the driver's, and all helpers'.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let is_ours = |line: &str| {
            let program = line.split(' ').next().unwrap_or_default();
            let helper = ["bindfs", "sshfs", "s3fs"].iter().any(|name| program.ends_with(name));
            helper || line.starts_with("/usr/local/bin/hostmount serve") || line == "hostmount-csi"
        };
        self.cluster.node.processes().into_iter().filter(|(_, line)| is_ours(line)).collect()
    }

    fn start_s3(&self) {
        let mut command = Room::command(CURRENT_RCLONE);
        command.args(["serve", "s3", "/srv/s3", "--addr", ":8081", "--auth-key", "key,secret"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        *self.s3.lock().unwrap() = Some(self.server.place.spawn(command));
    }
}

pub(crate) fn sshfs(directory: &str, secret: &str) -> Value {
    json!({ "csi": {
        "driver": DRIVER,
        "nodePublishSecretRef": { "name": secret },
        "volumeAttributes": {
            "type": "sshfs",
            "source": format!("root@{SERVER_ADDRESS}:/srv/export/{directory}"),
            "options": format!("port={},StrictHostKeyChecking=yes,umask=0000", sshd::PORT),
        },
    } })
}

pub(crate) fn s3fs(bucket: &str, secret: &str) -> Value {
    json!({ "csi": {
        "driver": DRIVER,
        "nodePublishSecretRef": { "name": secret },
        "volumeAttributes": {
            "type": "s3fs",
            "source": bucket,
            "options": format!("url=http://{SERVER_ADDRESS}:8081,use_path_request_style,umask=0000,retries=1"),
        },
    } })
}

fn the_driver_is_deployed(story: &Story) -> String {
    let cluster = &story.cluster;
    cluster.node.sh_ok(&format!("mkdir -m 777 {DATA}"));
    assert!(cluster.is_tainted());
    cluster.apply(&story.objects());
    let csi = || cluster.get("csinode", NODE).map(|node| node["spec"]["drivers"].to_string());
    wait("CSINode lists the driver", || csi().is_some_and(|drivers| drivers.contains(DRIVER)));
    let ready = |kind: &str, name: &str, field: &str| {
        let done = cluster.kubectl(&["get", kind, name, "--namespace", "kube-system", "--output", "json"]);
        serde_json::from_str::<Value>(&done.stdout).is_ok_and(|object| object["status"][field] == 1)
    };
    wait("the DaemonSet is ready", || ready("daemonset", "hostmount-csi", "numberReady"));
    wait("the node's start-up taint is gone", || !cluster.is_tainted());
    wait("the controller is ready", || ready("deployment", "hostmount-csi-controller", "readyReplicas"));
    let version = cluster.kubectl(&["get", "node", NODE, "--output", "jsonpath={.status.nodeInfo.kubeletVersion}"]);
    format!("the driver is in CSINode, the start-up taint is gone, the pods are ready; Kubernetes {}", version.stdout)
}

fn a_claim_for_many_users(story: &Story) -> String {
    // The helper, which has a uid of its own, owns the files; each pod may write them.
    let parameters = json!({
        "type": "bindfs", "source": SOURCE, "options": "perms=a+rwX",
        "subDir": "${pvc.namespace}-${pvc.name}-${pv.name}",
    });
    story.cluster.apply(&[class("shared", parameters), claim("shared", "shared")]);
    for uid in [1000, 2000, 3000] {
        story.start(&format!("of-{uid}"), uid, STEADY, claimed("shared"));
    }
    for uid in [1000, 2000, 3000] {
        story.exec(&format!("of-{uid}"), &format!("echo words-of-{uid} >/data/of-{uid}"));
    }
    let seen = story.exec("of-3000", "cat /data/of-1000 /data/of-2000 && echo more >>/data/of-1000");
    assert_eq!(seen, "words-of-1000\nwords-of-2000\n");
    let directories = story.cluster.node.sh_ok(&format!("ls {DATA}"));
    assert!(directories.starts_with("default-shared-pvc-") && directories.lines().count() == 1, "{directories}");
    assert_eq!(story.processes().iter().filter(|(_, line)| line.contains("bindfs")).count(), 1);
    let handle = |volume: &Value| volume["spec"]["csi"]["volumeHandle"].as_str().unwrap().to_owned();
    let mut made: Vec<_> = story.cluster.list("persistentvolumes").iter().map(handle).collect();
    made.sort();
    assert!(!made.is_empty() && provisioner::listed(&story.cluster) == made, "{made:?}");
    "each writes, and reads what the others wrote; one helper for all; ListVolumes has the volume".to_owned()
}

fn the_claim_in_other_ways(story: &Story) -> String {
    let mut read_only =
        pod("reads", 2000, WAIT, json!({ "persistentVolumeClaim": { "claimName": "shared", "readOnly": true } }));
    let mount = json!({ "name": "data", "mountPath": "/part", "subPath": "part" });
    let mut part = pod("part", 1000, WAIT, claimed("shared"));
    part["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap().push(mount);
    part["spec"]["securityContext"]["fsGroup"] = json!(4000);
    read_only["metadata"]["labels"] = json!({ "reads": "only" });
    story.cluster.apply(&[read_only, part]);
    ["reads", "part"].iter().for_each(|name| drop(story.cluster.wait_until_running(name)));
    assert_eq!(
        story.exec("reads", "cat /data/of-1000; touch /data/none 2>&1 | grep -o Read-only"),
        "words-of-1000\nmore\nRead-only\n"
    );
    story.exec("part", "echo more >/data/part/file 2>/tmp/error || cat /tmp/error");
    assert!(story.exec("part", "id -G").contains("4000"));
    assert_eq!(story.exec("of-1000", "ls -d /data/part"), "/data/part\n");
    ["reads", "part"].iter().for_each(|name| story.cluster.remove(name));
    story.assert_steady(&STEADY_PODS[..3]);
    "the one cannot write, the other sees a part; a group in a pod changes no file's owner".to_owned()
}

fn inline_volumes(story: &Story) -> String {
    story.server.place.sh_ok("mkdir -m 777 /srv/export/inline");
    let keys = json!({ "ssh-privatekey": story.server.client_key(), "known-hosts": story.server.known_hosts() });
    story.cluster.apply(&[secret("ssh-key", "default", keys)]);
    story.start("inline", 1000, STEADY, sshfs("inline", "ssh-key"));
    story.exec("inline", "echo words >/data/file");
    assert_eq!(story.server.place.sh_ok("cat /srv/export/inline/file"), "words\n");
    "what the pod writes is on the server".to_owned()
}

fn all_nodes_are_asked(story: &Story) -> String {
    let rights = include_str!("../../../deploy/operators.yaml");
    story.cluster.node.visit(|| fs::write("/tmp/operators.yaml", rights).unwrap());
    let change = |verb: &str| story.cluster.kubectl(&[verb, "--filename", "/tmp/operators.yaml"]).ok(verb);
    change("apply");
    let ask = |words: &str| story.cluster.kubectl_hostmount("operator", words);
    let documents = |words: &str| serde_json::from_str::<Vec<Value>>(&ask(words).ok(words)).unwrap();
    let pod = Pod(story.cluster.get("pod", "inline").unwrap());
    let target = Cluster::csi_volume(&pod, "data");
    let listed = documents("list -o json --namespace default --pod inline");
    let [volume] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((&volume["node"], &volume["type"]), (&json!(NODE), &json!("sshfs")), "{volume}");
    assert_eq!((&volume["state"], &volume["origin"]), (&json!("mounted"), &json!("csi")), "{volume}");
    let table = ask("list").ok("list");
    assert!(table.starts_with("NODE  NAMESPACE  POD ") && table.contains("\nnode  default    inline "), "{table}");
    let count = documents("list -o json").len();
    assert!(ask(&format!("status {target}")).ok("status").starts_with("Node        node\n"));
    ask(&format!("logs {target}")).ok("logs");
    assert_eq!(documents("top -o json").len(), count);
    ask("doctor").ok("doctor");
    let swapped = ask("swap --all").ok("swap");
    assert!(swapped.contains(&format!("  {target}: a fresh helper serves it, in ")), "{swapped}");
    assert!(swapped.ends_with("\n1 node: 1 done\n"), "{swapped}");
    let events = documents("events --event swapped -o json");
    assert_eq!(events.len(), count, "{events:?}");
    story.assert_steady(&["inline"]);
    change("delete");
    let refused = ask("list");
    assert!(refused.code == Some(2) && refused.stderr.contains("forbidden"), "{refused:?}");
    assert!(refused.stderr.contains("may you list pods there?"), "{refused:?}");
    format!(
        "{count} volumes, with their pods, in one table; all of them swapped, and no error in the pods; without the rights it is kubectl that says so"
    )
}

/// The pod does not start, and an event names the cause.
fn fails(story: &Story, name: &str, volume: Value, causes: &[&str]) -> String {
    story.cluster.apply(&[pod(name, 1000, WAIT, volume)]);
    let begin = Instant::now();
    let told = |event: &str| causes.iter().any(|cause| event.to_lowercase().contains(cause));
    let event = wait(&format!("an event of {name} names {causes:?}"), || {
        story.cluster.events_of(name).lines().find(|line| told(line)).map(str::to_owned)
    });
    format!("{} s: {}", begin.elapsed().as_secs(), event)
}

fn errors_are_in_the_events(story: &Story) -> String {
    let place = &story.server.place;
    place.sh_ok("ssh-keygen -q -t ed25519 -N '' -f /tmp/other && mkdir -p /srv/s3/bucket");
    let other = place.sh_ok("cat /tmp/other");
    let keys = json!({ "ssh-privatekey": other, "known-hosts": story.server.known_hosts() });
    let s3 = json!({ "access-key": "key", "secret-key": "secret" });
    let wrong = json!({ "access-key": "key", "secret-key": "wrong" });
    let secrets = [("other-key", keys), ("s3", s3), ("wrong-s3", wrong)];
    story.cluster.apply(&secrets.map(|(name, of)| secret(name, "default", of)));
    install_rclone(place);
    // A server that is down, and comes up.
    let mut seen = vec![("server down", fails(story, "down", s3fs("bucket", "s3"), &["connect"]))];
    story.start_s3();
    story.cluster.wait_until_running("down");
    seen.push(("wrong key (sshfs)", fails(story, "key", sshfs("inline", "other-key"), &["permission denied"])));
    seen.push(("no directory (sshfs)", fails(story, "none", sshfs("nosuch", "ssh-key"), &["no such file"])));
    seen.push(("no bucket (s3fs)", fails(story, "away", s3fs("nosuch", "s3"), &["bucket"])));
    let causes = ["credential", "forbidden", "bad request", "invalid"];
    seen.push(("wrong key (s3fs)", fails(story, "secret", s3fs("bucket", "wrong-s3"), &causes)));
    for (what, event) in &seen {
        eprintln!("{what}: {event}");
        assert!(!event.contains("IDENTITY") && !event.contains("wrong\""), "a secret is in {event}");
    }
    ["down", "key", "none", "away", "secret"].iter().for_each(|name| story.cluster.remove(name));
    "the event has the helper's own words; the pod whose server comes up starts by itself".to_owned()
}

fn all_is_killed(story: &Story) -> String {
    // What was open fails: the others may end.
    STEADY_PODS.iter().for_each(|name| story.cluster.remove(name));
    let names = ["waits-1000", "waits-2000", "waits-inline"];
    for (name, volume) in names.iter().zip([claimed("shared"), claimed("shared"), sshfs("inline", "ssh-key")]) {
        story.start(name, 1000, WAIT, volume);
    }
    let processes = story.processes();
    for (pid, line) in &processes {
        story.cluster.node.sh(&format!("kill -9 {pid}"));
        let is_new = |(other, now): &(u32, String)| now == line && other != pid;
        wait(&format!("{line} is back"), || story.processes().iter().any(is_new));
        wait("the volumes are there", || names.iter().all(|name| looks(story, name)));
    }
    // As kubelet does every few seconds, so that what follows is a change.
    let request = NodeGetVolumeStatsRequest {
        volume_id: "any".to_owned(),
        volume_path: Cluster::csi_volume(&Pod(story.cluster.get("pod", names[2]).unwrap()), "data"),
        ..Default::default()
    };
    let socket = format!("{KUBELET}/plugins/{DRIVER}/csi.sock");
    let stats = calls::call(&story.cluster.node, &socket, |channel| async move {
        NodeClient::new(channel).node_get_volume_stats(request).await
    });
    assert!(!stats.unwrap().volume_condition.unwrap().abnormal);
    let processes_now = story.processes();
    let (helper, _) = processes_now.iter().find(|(_, line)| line.contains("sshfs")).unwrap();
    story.cluster.node.sh_ok(&format!("kill -9 {helper}"));
    let said = || story.cluster.events_of(names[2]).contains("the volume is served");
    wait("an event says that the volume was healed", said);
    names.iter().for_each(|name| story.cluster.remove(name));
    format!(
        "{} processes, one after the other: each is back, and the volumes are, in the running pods, which get events of it",
        processes.len()
    )
}

fn kubelet_restarts(story: &Story) -> String {
    for (name, uid) in STEADY_PODS.iter().zip([1000, 2000, 3000]) {
        story.start(name, uid, STEADY, claimed("shared"));
    }
    story.start("inline", 1000, STEADY, sshfs("inline", "ssh-key"));
    let token = tokens::before(story);
    // As with a node that comes back.
    let taint = format!("{TAINT}=:NoSchedule");
    story.cluster.kubectl(&["taint", "node", NODE, &taint]).ok("kubectl taint");
    story.cluster.stop_kubelet();
    story.cluster.start_kubelet();
    let csi = || story.cluster.get("csinode", NODE).map(|node| node["spec"]["drivers"].to_string());
    wait("the driver is registered again", || csi().is_some_and(|drivers| drivers.contains(DRIVER)));
    wait("the start-up taint is gone", || !story.cluster.is_tainted());
    token.wait(story);
    story.assert_steady(&STEADY_PODS);
    story.start("after", 1000, WAIT, claimed("shared"));
    story.cluster.remove("after");
    "no error in the pods; the driver is registered again, a taint that was put back is gone, the helper has a fresh token".to_owned()
}

fn the_daemonset_is_updated(story: &Story) -> String {
    let pods = || {
        let is_it = |pod: &Value| pod["metadata"]["labels"]["app.kubernetes.io/name"] == "hostmount-csi";
        let names = story.cluster.list("pods").into_iter().filter(is_it).map(|pod| pod["metadata"]["name"].to_string());
        names.collect::<Vec<_>>()
    };
    let before = pods();
    let restart = ["rollout", "restart", "daemonset/hostmount-csi", "--namespace", "kube-system"];
    story.cluster.kubectl(&restart).ok("kubectl rollout");
    let status = ["rollout", "status", "daemonset/hostmount-csi", "--namespace", "kube-system", "--timeout=120s"];
    story.cluster.kubectl(&status).ok("kubectl rollout");
    wait("the pod is another one", || pods().len() == 1 && pods() != before);
    story.assert_steady(&STEADY_PODS);
    story.start("after", 1000, WAIT, claimed("shared"));
    story.cluster.remove("after");
    "no error in the pods; the next pod starts".to_owned()
}

fn the_claims_are_deleted(story: &Story) -> String {
    STEADY_PODS.iter().chain([&tokens::POD]).for_each(|name| story.cluster.remove(name));
    story.cluster.kubectl(&["delete", "pvc", "shared"]).ok("kubectl delete");
    wait("the volume is deleted", || story.cluster.list("persistentvolumes").is_empty());
    assert_eq!(story.cluster.node.sh_ok(&format!("ls {DATA}")), "");
    wait("all helpers have ended", || story.processes().iter().all(|(_, line)| line.contains("hostmount")));
    "the directory is gone, no helper runs".to_owned()
}

fn the_driver_goes(story: &Story) -> String {
    let done = story.cluster.with_objects_as(None, &["delete", "--timeout=120s"], &story.objects());
    done.ok("kubectl delete");
    wait("its pods are gone", || story.cluster.list("pods").is_empty());
    wait("nothing of it runs", || story.processes().is_empty());
    let is_left = |line: &String| line.contains(" - fuse ") || line.contains(" - fuse.") || line.contains("/pods/");
    let left: Vec<_> = story.cluster.node.mountinfo().into_iter().filter(is_left).collect();
    assert!(left.is_empty(), "{left:?}");
    let cgroups = story.cluster.node.sh_ok("find /sys/fs/cgroup -type d -path '*/hostmount/*'");
    assert_eq!(cgroups, "");
    "no pod, process, mount or cgroup is left".to_owned()
}
