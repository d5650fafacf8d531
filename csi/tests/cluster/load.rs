//! Pods that come and go while all is killed.
//!
//! Runs in the test's process.

use crate::host::wait;
use crate::node::chance;
use crate::objects::{WAIT, claimed, pod};
use crate::pod::Pod;
use crate::steps::{Story, s3fs, sshfs};

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
    let mut kills = 0;
    for round in 0..rounds {
        let names: Vec<_> = (0..3).map(|n| format!("again-{n}")).collect();
        let objects: Vec<_> = (0..3).map(|n| pod(&names[n], 1000, WAIT, volumes(round + n))).collect();
        story.cluster.apply(&objects);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(chance.u64(0..1500)));
            let processes = story.processes();
            if let Some((pid, _)) = processes.get(chance.usize(0..processes.len().max(1))) {
                story.cluster.node.sh(&format!("kill -9 {pid}"));
                kills += 1;
            }
        }
        for name in &names {
            story.cluster.wait_until_running(name);
            wait(&format!("{name} uses its volume"), || looks(story, name));
        }
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let pods: Vec<_> = names.iter().map(|name| Pod(story.cluster.get("pod", name).unwrap())).collect();
        story.cluster.kubectl(&[&["delete", "pod", "--wait=false"][..], &names].concat()).ok("kubectl delete");
        let processes = story.processes();
        if let Some((pid, _)) = processes.get(chance.usize(0..processes.len().max(1))) {
            story.cluster.node.sh(&format!("kill -9 {pid}"));
            kills += 1;
        }
        pods.iter().for_each(|pod| story.cluster.host.wait_until_nothing_is_left(pod));
        for name in names {
            wait("the API server forgets the pod", || story.cluster.get("pod", name).is_none());
        }
    }
    format!("{} pods made and deleted, {kills} kills: each one came to run, nothing is left of any", rounds * 3)
}
