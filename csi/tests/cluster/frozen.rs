//! A server that is frozen: pods that share a volume of it are deleted in seconds, and those that stay notice nothing but the wait.
//!
//! Runs in the test's process.

use crate::node::{SERVER_ADDRESS, sshd};
use crate::objects::{WAIT, claimed, made_by_hand};
use crate::steps::Story;
use serde_json::json;
use std::time::{Duration, Instant};

/// Reads without the kernel's cache, and ends at the first error.
const READS: &str = "trap 'exit 0' TERM; n=0; while test \"$(cat /data/file)\" = words; do
        n=$((n + 1)); echo $n >/tmp/count; sleep 0.05
    done
    echo \"stopped at $n\" >&2; exit 1";

/// Five for the pod's own end, ten until the volume is looked after, and what a busy machine takes for kubelet's part.
const SECONDS: Duration = Duration::from_secs(60);

pub(crate) fn it_holds_no_pod(story: &Story) -> String {
    let on_server = |line: &str| story.server.place.sh_ok(line);
    on_server("mkdir -m 777 /srv/export/frozen && echo words >/srv/export/frozen/file");
    let options = "StrictHostKeyChecking=yes,umask=0000,dir_cache=no,direct_io,attr_timeout=0,entry_timeout=0";
    let attributes = json!({
        "type": "sshfs",
        "source": format!("root@{SERVER_ADDRESS}:/srv/export/frozen"),
        "options": format!("port={},{options}", sshd::PORT),
    });
    let [mut volume, claim] = made_by_hand("frozen", attributes);
    volume["spec"]["csi"]["nodeStageSecretRef"] = json!({ "name": "ssh-key", "namespace": "default" });
    story.cluster.apply(&[volume, claim]);
    for (name, line) in [("leaves", READS), ("idle", WAIT), ("stays", READS)] {
        story.start(name, 1000, line, claimed("frozen"));
    }
    story.assert_steady(&["leaves", "stays"]);
    let mut took = Vec::new();
    let mut remove = |name: &str| {
        let begin = Instant::now();
        story.cluster.remove(name);
        assert!(begin.elapsed() < SECONDS, "{name} took {:?}", begin.elapsed());
        took.push(format!("{} s", begin.elapsed().as_secs()));
    };
    on_server("kill -STOP $(pidof sshd)");
    ["leaves", "idle"].iter().for_each(|name| remove(name));
    on_server("kill -CONT $(pidof sshd)");
    story.assert_steady(&["stays", "inline"]);
    on_server("kill -STOP $(pidof sshd)");
    remove("stays");
    on_server("kill -CONT $(pidof sshd)");
    for kind in ["pvc", "pv"] {
        story.cluster.kubectl(&["delete", kind, "frozen"]).ok("kubectl delete");
    }
    story.assert_steady(&["inline"]);
    format!(
        "a pod that reads, one that does not, and the last one are gone after {}; the others go on",
        took.join(", ")
    )
}
