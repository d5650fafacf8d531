//! Pods that come and go while all is killed, and a node with many claims.
//!
//! Runs in the test's process.

use crate::host::wait;
use crate::node::chance;
use crate::objects::{WAIT, claimed, made_by_hand, pod};
use crate::pod::Pod;
use crate::steps::{SOURCE, Story, s3fs, sshfs};
use serde_json::{Value, json};
use std::time::Instant;

/// Whether a pod can use its volume.
pub(crate) fn looks(story: &Story, name: &str) -> bool {
    let pod = Pod(story.cluster.get("pod", name).unwrap());
    pod.is_running() && story.cluster.host.exec(&pod, "ls /data").code == Some(0)
}

pub(crate) fn made_again_and_again(story: &Story) -> String {
    let (mut chance, rounds) = (chance(), std::env::var("ROUNDS").ok().map_or(6, |value| value.parse().unwrap()));
    let volumes = |round: usize| match round % 3 {
        0 => claimed("shared"),
        1 => sshfs("inline", "ssh-key"),
        _ => s3fs("bucket", "s3"),
    };
    let mut kills = Kills::default();
    for round in 0..rounds {
        let names: Vec<_> = (0..3).map(|n| format!("again-{n}")).collect();
        let objects: Vec<_> = (0..3).map(|n| pod(&names[n], 1000, WAIT, volumes(round + n))).collect();
        story.cluster.apply(&objects);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(chance.u64(0..1500)));
            kills.kill_one(story, &mut chance);
        }
        for name in &names {
            story.cluster.wait_until_running(name);
            wait(&format!("{name} uses its volume"), || looks(story, name));
        }
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let pods: Vec<_> = names.iter().map(|name| Pod(story.cluster.get("pod", name).unwrap())).collect();
        story.cluster.kubectl(&[&["delete", "pod", "--wait=false"][..], &names].concat()).ok("kubectl delete");
        kills.kill_one(story, &mut chance);
        pods.iter().for_each(|pod| story.cluster.host.wait_until_nothing_is_left(pod));
        for name in names {
            wait("the API server forgets the pod", || story.cluster.get("pod", name).is_none());
        }
    }
    let Kills { helpers, containers } = kills;
    format!(
        "{} pods made and deleted, {helpers} kills of helpers and {containers} of the mounter and the driver: each pod came to run, nothing is left of any",
        rounds * 3
    )
}

/// How often kubelet starts a container again before it waits longer than this test does: the waits double from 10 s on.
const CONTAINERS: usize = 4;

#[derive(Default)]
struct Kills {
    helpers: usize,
    containers: usize,
}

impl Kills {
    /// Kills any of the processes.
    fn kill_one(&mut self, story: &Story, chance: &mut fastrand::Rng) {
        let is_container = |line: &str| line.contains("hostmount-csi") || line.contains("hostmount serve");
        let may = |(_, line): &(u32, String)| self.containers < CONTAINERS || !is_container(line);
        let processes: Vec<_> = story.processes().into_iter().filter(may).collect();
        if let Some((pid, line)) = chance.choice(&processes) {
            story.cluster.node.sh(&format!("kill -9 {pid}"));
            *(if is_container(line) { &mut self.containers } else { &mut self.helpers }) += 1;
        }
    }
}

/// As many as it says, in a few pods, as a node has 110 at most; each with a helper of its own.
pub(crate) fn two_hundred_claims(story: &Story) -> String {
    const PODS: usize = 8;
    const CLAIMS: usize = 25;
    let name = |pod: usize, claim: usize| format!("many-{pod}-{claim}");
    let attributes = json!({ "type": "bindfs", "source": SOURCE });
    let add = |list: &mut Value, entry| list.as_array_mut().unwrap().push(entry);
    let (mut claims, mut pods) = (Vec::new(), Vec::new());
    for n in 0..PODS {
        let mut pod = pod(&format!("many-{n}"), 1000, WAIT, claimed(&name(n, 0)));
        for claim in 0..CLAIMS {
            claims.extend(made_by_hand(&name(n, claim), attributes.clone()));
            if claim > 0 {
                let mut volume = claimed(&name(n, claim));
                volume["name"] = json!(format!("data-{claim}"));
                add(&mut pod["spec"]["volumes"], volume);
                let mount = json!({ "name": format!("data-{claim}"), "mountPath": format!("/data-{claim}") });
                add(&mut pod["spec"]["containers"][0]["volumeMounts"], mount);
            }
        }
        pods.push(pod);
    }
    let helpers = || story.processes().iter().filter(|(_, line)| line.contains("bindfs")).count();
    let before = helpers();
    let begin = Instant::now();
    story.cluster.apply(&[claims.clone(), pods].concat());
    let names: Vec<_> = (0..PODS).map(|n| format!("many-{n}")).collect();
    names.iter().for_each(|name| drop(story.cluster.wait_until_running(name)));
    let took = begin.elapsed().as_secs();
    assert_eq!(helpers() - before, PODS * CLAIMS);
    let processes = story.processes();
    let memory = |program: &str, field: &str| {
        let (pid, _) = processes.iter().rfind(|(_, line)| line.starts_with(program)).unwrap();
        let line = format!("sed -n 's/^{field}: *\\t* *\\([0-9]*\\) kB/\\1/p' /proc/{pid}/status");
        story.cluster.node.sh_ok(&line).trim().parse::<u64>().unwrap()
    };
    let (csi, mounter) = (memory("hostmount-csi", "VmHWM"), memory("/usr/local/bin/hostmount serve", "VmHWM"));
    assert!(csi < 15 << 10, "the driver takes {csi} KiB");
    names.iter().for_each(|name| story.cluster.remove(name));
    story.cluster.with_objects_as(None, &["delete", "--wait=false"], &claims).ok("kubectl delete");
    let is_left = |object: &Value| object["metadata"]["name"].as_str().unwrap().starts_with("many-");
    wait("the volumes are gone", || !story.cluster.list("persistentvolumes").iter().any(is_left));
    wait("the helpers have ended", || helpers() == before);
    format!(
        "each has a helper; all pods run after {took} s. The driver has {csi} KiB at most, the mounter {mounter} KiB"
    )
}
