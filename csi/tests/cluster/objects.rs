//! Objects of the cluster: pods and claims, and hostmount's own as `kubectl kustomize` makes them of deploy/.
//!
//! Runs in the test's process. Pure, but for kubectl.

use crate::node::programs::target_directory;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// What containerd calls the image of busybox that `prepare` has made.
const BUSYBOX: &str = "hostmount.test/busybox:1";

/// For whom the driver gets pods' service-account tokens.
pub(crate) const AUDIENCE: &str = "sts.example.org";

/// Reads, writes and looks by path in /data, and ends at the first error.
pub(crate) const STEADY: &str = "trap 'exit 0' TERM; n=0; me=/data/of-$(id -u)-$(cat /proc/sys/kernel/random/uuid)
    while n=$((n + 1)); echo $n >$me && test \"$(cat $me)\" = $n && ls /data >/dev/null && test -e $me; do
        echo $n >/tmp/count; sleep 0.05
    done
    echo \"stopped at $n\" >&2; exit 1";
/// Only waits.
pub(crate) const WAIT: &str = "trap 'exit 0' TERM; while sleep 0.1; do :; done";

/// A pod of one container that runs `line` as `uid`, with a volume at /data.
pub(crate) fn pod(name: &str, uid: u32, line: &str, mut volume: Value) -> Value {
    volume["name"] = json!("data");
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": false,
            "securityContext": { "runAsUser": uid, "runAsNonRoot": uid != 0 },
            "containers": [{
                "name": "shell",
                "image": BUSYBOX,
                "imagePullPolicy": "Never",
                "command": ["sh", "-c", line],
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }, { "name": "tmp", "mountPath": "/tmp" }],
            }],
            "volumes": [volume, { "name": "tmp", "emptyDir": {} }],
        },
    })
}

/// A volume that is a claim.
pub(crate) fn claimed(claim: &str) -> Value {
    json!({ "persistentVolumeClaim": { "claimName": claim } })
}

/// A claim on a class.
pub(crate) fn claim(name: &str, class: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": { "name": name, "namespace": "default" },
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": class,
            "resources": { "requests": { "storage": "1Gi" } },
        },
    })
}

/// A volume that an administrator has made for a claim of the same name, and the claim.
pub(crate) fn made_by_hand(name: &str, attributes: Value) -> [Value; 2] {
    let mut claim = claim(name, "");
    claim["spec"]["volumeName"] = json!(name);
    let volume = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": { "name": name },
        "spec": {
            "capacity": { "storage": "1Gi" },
            "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": { "namespace": "default", "name": name },
            "csi": { "driver": "hostmount.csi", "volumeHandle": name, "volumeAttributes": attributes },
        },
    });
    [volume, claim]
}

/// A class.
pub(crate) fn class(name: &str, parameters: Value) -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": { "name": name },
        "provisioner": "hostmount.csi",
        "reclaimPolicy": "Delete",
        "parameters": parameters,
    })
}

/// A Secret.
pub(crate) fn secret(name: &str, namespace: &str, of: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name, "namespace": namespace },
        "stringData": of,
    })
}

/// What kustomize makes of deploy/base with deploy/components/api-access, with more lines in config.toml, and a directory of the node as what bindfs may show.
/// In the place of external-provisioner's image there is one that does nothing: `provisioner` says why.
pub(crate) fn deployment(config: &str, directory: &str, source: &str) -> Vec<Value> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let kubectl = target_directory().join("kubectl/kubectl");
    let made =
        Command::new(kubectl).args(["kustomize", "csi/tests/cluster/deploy"]).current_dir(project).output().unwrap();
    let text = String::from_utf8(made.stdout).unwrap();
    let documents = text.split("\n---\n").map(|one| serde_saphyr::from_str(one).unwrap());
    documents.map(|object| adapted(object, config, directory, source)).collect()
}

fn adapted(mut object: Value, config: &str, directory: &str, source: &str) -> Value {
    let add = |list: &mut Value, entry| list.as_array_mut().unwrap().push(entry);
    let kind = object["kind"].as_str().unwrap().to_owned();
    let pod = &mut object["spec"]["template"]["spec"];
    match kind.as_str() {
        "CSIDriver" => {
            object["spec"]["tokenRequests"] = json!([{ "audience": AUDIENCE, "expirationSeconds": 600 }]);
            object["spec"]["requiresRepublish"] = json!(true);
        }
        "ConfigMap" => {
            let text = object["data"]["config.toml"].as_str().unwrap().to_owned();
            object["data"]["config.toml"] = json!(text + config);
        }
        "DaemonSet" => {
            add(&mut pod["volumes"], json!({ "name": "shared", "hostPath": { "path": directory } }));
            let mounter = named(&mut pod["containers"], "mounter");
            add(&mut mounter["volumeMounts"], json!({ "name": "shared", "mountPath": source }));
            find_the_api_server(pod);
        }
        "Deployment" => {
            // Pods have no network of their own here.
            pod["hostNetwork"] = json!(true);
            find_the_api_server(pod);
            let provisioner = named(&mut pod["containers"], "provisioner");
            provisioner["image"] = json!(BUSYBOX);
            provisioner["command"] = json!(["sh", "-c", WAIT]);
            provisioner["args"] = json!([]);
        }
        _ => {}
    }
    object
}

/// Nobody forwards the addresses of services here.
fn find_the_api_server(pod: &mut Value) {
    let environment = named(&mut pod["containers"], "csi")["env"].as_array_mut().unwrap();
    for (name, value) in [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", "6443")] {
        environment.push(json!({ "name": name, "value": value }));
    }
}

fn named<'a>(list: &'a mut Value, name: &str) -> &'a mut Value {
    list.as_array_mut().unwrap().iter_mut().find(|one| one["name"] == name).unwrap()
}
