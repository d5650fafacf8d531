//! In the place of external-provisioner, whose image cannot be had everywhere: what it does for a claim and for a volume whose
//! claim is gone, in as few lines. It asks the API server as the controller's own account, so that the account's rights are tried.
//!
//! Runs in the test's process, on a thread that looks again and again.

use crate::calls;
use crate::cluster::Cluster;
use hostmount_csi::csi::controller_client::ControllerClient;
use hostmount_csi::csi::volume_capability::access_mode::Mode;
use hostmount_csi::csi::volume_capability::{AccessMode, AccessType, MountVolume};
use hostmount_csi::csi::{
    CapacityRange, CreateVolumeRequest, DeleteVolumeRequest, ListVolumesRequest, VolumeCapability,
};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// The controller's account.
const ACCOUNT: &str = "system:serviceaccount:kube-system:hostmount-csi-controller";
/// The driver.
pub(crate) const DRIVER: &str = "hostmount.csi";
/// A class's parameters for the provisioner itself: where the Secrets are.
const OF_PROVISIONER: &str = "csi.storage.k8s.io/";

/// Works until it is stopped.
pub(crate) fn work_until(cluster: &Cluster, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for claim in cluster.list("persistentvolumeclaims") {
            let ours = claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-provisioner"] == DRIVER;
            if ours && claim["status"]["phase"] == "Pending" && claim["metadata"]["deletionTimestamp"].is_null() {
                provision(cluster, &claim);
            }
        }
        for volume in cluster.list("persistentvolumes") {
            let policy = &volume["spec"]["persistentVolumeReclaimPolicy"];
            let ours = volume["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"] == DRIVER;
            if ours && volume["status"]["phase"] == "Released" && policy == "Delete" {
                delete(cluster, &volume);
            }
        }
        thread::sleep(Duration::from_millis(300));
    }
}

/// The controller's socket, where its pod runs.
fn socket(cluster: &Cluster) -> Option<String> {
    let name = "hostmount-csi-controller";
    let is_it = |pod: &Value| {
        pod["metadata"]["labels"]["app.kubernetes.io/name"] == name && pod["status"]["phase"] == "Running"
    };
    let pod = cluster.list("pods").into_iter().find(is_it)?;
    Some(format!("{}/csi.sock", Cluster::empty_dir(&crate::pod::Pod(pod), "calls")))
}

fn provision(cluster: &Cluster, claim: &Value) {
    let class = cluster.get("storageclass", text(&claim["spec"]["storageClassName"])).unwrap();
    let (metadata, name) = (&claim["metadata"], format!("pvc-{}", text(&claim["metadata"]["uid"])));
    let parameters: HashMap<String, String> = serde_json::from_value(class["parameters"].clone()).unwrap();
    let secret = |of: &str| {
        let part = |part: &str| parameters.get(&format!("{OF_PROVISIONER}{of}-secret-{part}")).cloned();
        part("name").zip(part("namespace"))
    };
    let mut for_driver: HashMap<_, _> = parameters
        .iter()
        .filter(|(key, _)| !key.starts_with(OF_PROVISIONER))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for (key, value) in
        [("pvc/name", text(&metadata["name"])), ("pvc/namespace", text(&metadata["namespace"])), ("pv/name", &name)]
    {
        for_driver.insert(format!("{OF_PROVISIONER}{key}"), value.to_owned());
    }
    let modes = claim["spec"]["accessModes"].as_array().unwrap();
    let mode = |mode: &Value| match text(mode) {
        "ReadWriteOnce" => Mode::SingleNodeWriter,
        "ReadOnlyMany" => Mode::MultiNodeReaderOnly,
        _ => Mode::MultiNodeMultiWriter,
    };
    let mount_flags: Vec<String> = serde_json::from_value(class["mountOptions"].clone()).unwrap_or_default();
    let capability = |one: &Value| VolumeCapability {
        access_mode: Some(AccessMode { mode: mode(one).into() }),
        access_type: Some(AccessType::Mount(MountVolume { mount_flags: mount_flags.clone(), ..Default::default() })),
    };
    let request = CreateVolumeRequest {
        name: name.clone(),
        capacity_range: Some(CapacityRange { required_bytes: 1 << 30, limit_bytes: 0 }),
        volume_capabilities: modes.iter().map(capability).collect(),
        parameters: for_driver,
        secrets: secret("provisioner").map(|of| secrets(cluster, of)).unwrap_or_default(),
        ..Default::default()
    };
    let Some(socket) = socket(cluster) else { return };
    let made = calls::call(&cluster.node, &socket, |channel| async move {
        ControllerClient::new(channel).create_volume(request).await
    });
    let volume = match made {
        Ok(made) => made.volume.unwrap(),
        Err(error) => return report(cluster, claim, &error),
    };
    let reference =
        |of: &str| secret(of).map_or(Value::Null, |(name, namespace)| json!({ "name": name, "namespace": namespace }));
    let object = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": { "name": name, "annotations": { "pv.kubernetes.io/provisioned-by": DRIVER } },
        "spec": {
            "capacity": { "storage": claim["spec"]["resources"]["requests"]["storage"] },
            "accessModes": modes,
            "persistentVolumeReclaimPolicy": class["reclaimPolicy"],
            "storageClassName": class["metadata"]["name"],
            "mountOptions": class["mountOptions"],
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"], "name": metadata["name"], "uid": metadata["uid"],
            },
            "csi": {
                "driver": DRIVER, "volumeHandle": volume.volume_id, "volumeAttributes": volume.volume_context,
                "nodeStageSecretRef": reference("node-stage"), "nodePublishSecretRef": reference("node-publish"),
            },
        },
    });
    // It may have been made by the round before.
    let made = cluster.with_objects_as(Some(ACCOUNT), &["create", "--validate=false"], &[object]);
    assert!(made.code == Some(0) || made.stderr.contains("AlreadyExists"), "{made:?}");
}

fn delete(cluster: &Cluster, volume: &Value) {
    let handle = text(&volume["spec"]["csi"]["volumeHandle"]).to_owned();
    let request = DeleteVolumeRequest { volume_id: handle, ..Default::default() };
    let Some(socket) = socket(cluster) else { return };
    let deleted = calls::call(&cluster.node, &socket, |channel| async move {
        ControllerClient::new(channel).delete_volume(request).await
    });
    match deleted {
        Ok(_) => {
            let name = text(&volume["metadata"]["name"]);
            cluster.kubectl(&["delete", "pv", name, "--wait=false", "--as", ACCOUNT]).ok("kubectl delete pv");
        }
        Err(error) => report(cluster, volume, &error),
    }
}

/// The volumes that the controller lists, by its own account's right to read PersistentVolumes.
pub(crate) fn listed(cluster: &Cluster) -> Vec<String> {
    let socket = socket(cluster).expect("the controller runs");
    let listed = calls::call(&cluster.node, &socket, |channel| async move {
        ControllerClient::new(channel).list_volumes(ListVolumesRequest::default()).await
    });
    let mut handles: Vec<_> =
        listed.unwrap().entries.into_iter().filter_map(|entry| Some(entry.volume?.volume_id)).collect();
    handles.sort();
    handles
}

fn secrets(cluster: &Cluster, (name, namespace): (String, String)) -> HashMap<String, String> {
    let template = "go-template={{range $key, $value := .data}}{{$key}}={{$value | base64decode}}\n{{end}}";
    let asked = ["get", "secret", &name, "--namespace", &namespace, "--output", template, "--as", ACCOUNT];
    let lines = cluster.kubectl(&asked).ok("read the Secret");
    lines
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// An event, which `kubectl describe` shows.
fn report(cluster: &Cluster, of: &Value, error: &tonic::Status) {
    let namespace = of["metadata"]["namespace"].as_str().unwrap_or("default");
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": "ProvisioningFailed",
        "metadata": { "generateName": "failed-", "namespace": namespace },
        "involvedObject": { "kind": of["kind"], "namespace": of["metadata"]["namespace"], "name": of["metadata"]["name"] },
        "message": format!("{:?}: {}", error.code(), error.message()),
    });
    cluster.with_objects_as(Some(ACCOUNT), &["create", "--validate=false"], &[event]).ok("make an event");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}
