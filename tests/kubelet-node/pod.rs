//! Pods: their manifests, and their states from kubelet.
//!
//! Runs in the test's process. Pure: words alone.

use serde_json::{Value, json};

/// What containerd calls the image of busybox that `prepare` has made.
const BUSYBOX: &str = "hostmount.test/busybox:1";

/// A pod of one container that runs a line of shell, with a volume at /volume, and its directory `part` at /part too.
pub(crate) fn manifest(name: &str, mut volume: Value, line: &str) -> String {
    volume["name"] = json!("volume");
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "hostNetwork": true,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "containers": [{
                "name": "busybox",
                "image": BUSYBOX,
                "imagePullPolicy": "Never",
                "command": ["sh", "-c", line],
                "volumeMounts": [
                    { "name": "volume", "mountPath": "/volume" },
                    { "name": "volume", "mountPath": "/part", "subPath": "part" },
                ],
            }],
            "volumes": [volume],
        },
    })
    .to_string()
}

/// A pod, as kubelet has shown it.
#[derive(Debug)]
pub(crate) struct Pod(pub(crate) Value);

impl Pod {
    /// Whether its container runs and is ready.
    pub(crate) fn is_running(&self) -> bool {
        let is_ready = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
        let ready = self.0["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(is_ready));
        ready && self.0["status"]["phase"] == "Running"
    }

    /// Its UID, which names its directory.
    pub(crate) fn uid(&self) -> &str {
        self.0["metadata"]["uid"].as_str().unwrap()
    }

    /// How often its container was started again.
    pub(crate) fn restarts(&self) -> u64 {
        self.0["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap()
    }

    /// Its container, as containerd knows it.
    pub(crate) fn container(&self) -> &str {
        let id = self.0["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
        id.trim_start_matches("containerd://")
    }
}
