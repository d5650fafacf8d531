//! The CSI driver's chart: Helm makes of it what kustomize makes of the manifests, and its values are checked.
//!
//! Runs the real kubectl and helm, which need no cluster for it.

use crate::csi_manifests::{config, container, kustomized, of_kind, run};
use crate::deployment::{documents, valid};
use crate::harness::{Test, tests};
use serde_json::{Value, json};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        the_drivers_account_has_the_rights_that_it_uses.anywhere().needs(&["kubectl/kubectl", "kubectl/helm"]).quick(),
        the_chart_makes_what_kustomize_makes.anywhere().needs(&["kubectl/kubectl", "kubectl/helm"]).quick(),
        the_charts_values_are_checked_and_used.anywhere().needs(&["kubectl/helm"]).quick(),
    ]
}

/// The base with deploy/components/api-access.
const WITH_API_ACCESS: &str = "csi/tests/cluster/deploy";
/// Volumes are mounted with their pods' SELinux labels.
const LABELS: &str = "csiDriver.seLinuxMount=true";
const CHART: &str = "deploy/chart/hostmount-csi";

/// What Helm makes of the chart; all of it is what Kubernetes knows.
fn rendered(namespace: &str, values: &[&str]) -> Result<Vec<Value>, String> {
    let set = values.iter().flat_map(|value| ["--set", value]);
    let arguments: Vec<_> = ["template", "hostmount", CHART, "--namespace", namespace].into_iter().chain(set).collect();
    let objects = documents(&run("helm", &arguments)?);
    let objects: Vec<_> = objects.into_iter().filter(|object| !object.is_null()).collect();
    objects.iter().for_each(valid);
    Ok(objects)
}

/// Without what is each tool's own: labels that name the tool, and how a change of the configuration starts the pods anew.
fn plain(objects: Vec<Value>) -> Vec<Value> {
    let keep = |object: &Value| !["ConfigMap", "Namespace"].map(Some).contains(&object["kind"].as_str());
    let mut plain: Vec<_> = objects.into_iter().filter(keep).collect();
    for object in &mut plain {
        let labels = object["metadata"].as_object_mut().unwrap().remove("labels");
        let named = |key: &str| labels.as_ref().map_or(Value::Null, |labels| labels[key].clone());
        let ours =
            json!([named("app.kubernetes.io/name"), named("security.openshift.io/csi-ephemeral-volume-profile")]);
        object["metadata"]["ours"] = ours;
        if let Some(template) = object["spec"]["template"]["metadata"].as_object_mut() {
            template.remove("annotations");
        }
        // kustomize puts those that it has patched first.
        let pod = &mut object["spec"]["template"]["spec"];
        sort(&mut pod["containers"], "name");
        sort(&mut pod["volumes"], "name");
        for container in pod["containers"].as_array_mut().into_iter().flatten() {
            sort(&mut container["env"], "name");
            sort(&mut container["volumeMounts"], "mountPath");
        }
        let volumes = object["spec"]["template"]["spec"]["volumes"].as_array_mut();
        for name in volumes.into_iter().flatten().filter_map(|volume| volume.pointer_mut("/configMap/name")) {
            *name = json!(name.as_str().unwrap().split_at("hostmount-csi".len()).0);
        }
    }
    plain.sort_by_key(|object| format!("{}/{}", object["kind"], object["metadata"]["name"]));
    plain
}

fn sort(list: &mut Value, key: &str) {
    if let Some(list) = list.as_array_mut() {
        list.sort_by_key(|one| one[key].to_string());
    }
}

/// The driver's account has no right but those that `--api-access` says, and the driver's container alone has its token.
fn the_drivers_account_has_the_rights_that_it_uses() {
    let rights = |objects: &[Value]| {
        let roles = objects.iter().filter(|object| object["kind"] == "ClusterRole");
        let rules = roles.filter(|role| role["metadata"]["name"] == "hostmount-csi").flat_map(|role| {
            let rules = role["rules"].as_array().unwrap().clone();
            rules.into_iter().map(|rule| format!("{}/{}: {}", rule["apiGroups"][0], rule["resources"], rule["verbs"]))
        });
        rules.collect::<Vec<_>>().join("; ").replace('"', "")
    };
    let (events, taint) = ("/[events]: [create]", "storage.k8s.io/[csinodes]: [get]; /[nodes]: [get,patch]");
    for (objects, expected, word) in [
        (kustomized("deploy/base"), String::new(), Value::Null),
        (kustomized(WITH_API_ACCESS), format!("{events}; {taint}"), json!("events,taint")),
        (rendered("kube-system", &["node.apiAccess={events}"]).unwrap(), events.to_owned(), json!("events")),
        (rendered("kube-system", &["node.apiAccess={taint}"]).unwrap(), taint.to_owned(), json!("taint")),
    ] {
        assert_eq!(rights(&objects), expected);
        let pod = &of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        for container in pod["containers"].as_array().unwrap().iter().chain(pod["initContainers"].as_array().unwrap()) {
            let named = |list: &str, name: &str| {
                let found = container[list].as_array().and_then(|all| all.iter().find(|one| one["name"] == name));
                found.cloned().unwrap_or_default()
            };
            let word = if container["name"] == "csi" { &word } else { &Value::Null };
            assert_eq!(&named("env", "API_ACCESS")["value"], word);
            assert_eq!(named("volumeMounts", "account").is_null(), word.is_null());
        }
        let binding = objects
            .iter()
            .find(|object| object["kind"] == "ClusterRoleBinding" && object["metadata"]["name"] == "hostmount-csi");
        assert_eq!(binding.is_some(), !word.is_null());
        if let Some(binding) = binding {
            assert_eq!(binding["subjects"][0]["name"], pod["serviceAccountName"]);
        }
    }
}

fn the_chart_makes_what_kustomize_makes() {
    run("helm", &["lint", "--strict", CHART]).unwrap_or_else(|error| panic!("{error}"));
    for (directory, namespace, values) in [
        ("deploy/base", "kube-system", &[][..]),
        (WITH_API_ACCESS, "kube-system", &["node.apiAccess={events,taint}"]),
        ("deploy/overlays/k3s", "kube-system", &[]),
        ("deploy/overlays/rke2", "kube-system", &["seLinuxType=spc_t", LABELS]),
        ("deploy/overlays/microk8s", "kube-system", &["kubeletDir=/var/snap/microk8s/common/var/lib/kubelet"]),
        ("deploy/overlays/talos", "hostmount", &[]),
        ("deploy/overlays/bottlerocket", "kube-system", &["seLinuxType=control_t", LABELS]),
        ("deploy/overlays/openshift", "hostmount", &["openshift=true", "seLinuxType=spc_t", LABELS]),
    ] {
        let (theirs, ours) = (kustomized(directory), rendered(namespace, values).unwrap());
        assert_eq!(format!("{:?}", config(&ours)), format!("{:?}", config(&theirs)), "{directory}");
        let (theirs, ours) = (plain(theirs), plain(ours));
        assert_eq!(theirs.len(), ours.len(), "{directory}");
        for (their, our) in theirs.iter().zip(&ours) {
            assert_eq!(their, our, "{directory}");
        }
    }
    // A change of the configuration starts the pods anew.
    let hash = |values: &[&str]| {
        let objects = rendered("x", values).unwrap();
        of_kind(&objects, "DaemonSet")["spec"]["template"]["metadata"]["annotations"]["hostmount/config"].clone()
    };
    assert_ne!(hash(&[]), hash(&["config=hang_seconds = 7"]));
}

fn the_charts_values_are_checked_and_used() {
    for wrong in [
        "kubeletDir=/a/../b",
        "kubeletDir=k",
        "driverName=../x",
        "driverUid=0",
        "config=[doors]",
        "config=kubelet_dir = 1",
        "image.pullPolicy=Sometimes",
        "node.apiAccess={secrets}",
        "csiDriver.volumeLifecycleModes={Block}",
        "storageClasses[0].name=x",
        "misspelt=x",
    ] {
        let error = rendered("x", &[wrong]).unwrap_err();
        assert!(error.contains("don't meet the specifications of the schema"), "{wrong}: {error}");
    }
    let objects = rendered(
        "x",
        &[
            "driverName=d.example.org",
            "driverUid=7",
            "image.repository=r/i,image.tag=t",
            "config=hang_seconds = 7",
            "controller.provisionerSecrets={keys}",
            "csiDriver.tokenRequests[0].audience=a",
            "csiDriver.volumeLifecycleModes={Persistent}",
            "storageClasses[0].name=c,storageClasses[0].parameters.type=nfs,storageClasses[0].parameters.source=h:/e",
            "node.mounterExtraArgs={--install-flexvolume=/f}",
            "node.extraArgs={--max-volumes=9}",
            "node.extraVolumes[0].name=e,node.extraVolumes[0].hostPath.path=/e",
            "node.extraVolumeMounts[0].name=e,node.extraVolumeMounts[0].mountPath=/e",
        ],
    );
    let objects = objects.unwrap();
    let settings = config(&objects);
    assert_eq!(settings.doors.csi.as_ref().unwrap().uid, 7);
    let driver = of_kind(&objects, "CSIDriver");
    assert_eq!(driver["spec"]["tokenRequests"], json!([{"audience": "a"}]));
    assert_eq!(
        (&driver["spec"]["requiresRepublish"], &driver["spec"]["volumeLifecycleModes"]),
        (&json!(true), &json!(["Persistent"]))
    );
    let class = of_kind(&objects, "StorageClass");
    assert_eq!(
        (&class["provisioner"], &driver["metadata"]["name"]),
        (&json!("d.example.org"), &json!("d.example.org"))
    );
    assert_eq!(of_kind(&objects, "Role")["rules"][0]["resourceNames"], json!(["keys"]));
    let pod = &of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"];
    let csi = container(pod, "csi");
    assert_eq!(csi["args"], json!(["--driver-name=d.example.org", "--max-volumes=9"]));
    assert_eq!(container(pod, "mounter")["args"], json!(["serve", "--install-flexvolume=/f"]));
    assert_eq!((&csi["image"], &csi["securityContext"]["runAsUser"]), (&json!("r/i:t"), &json!(7)));
    let socket = "/var/lib/kubelet/plugins/d.example.org";
    assert_eq!(csi["volumeMounts"][0]["mountPath"], socket);
    let mounts = container(pod, "mounter")["volumeMounts"].as_array().unwrap().clone();
    assert!(mounts.contains(&json!({"name": "e", "mountPath": "/e"})), "{mounts:?}");
    let without = rendered("x", &["controller.enabled=false"]).unwrap();
    assert!(without.iter().all(|object| object["kind"] != "Deployment" && object["kind"] != "ClusterRole"));
    // What it says to whoever installs it.
    let notes = run("helm", &["install", "h", CHART, "--namespace", "x", "--dry-run=client"]).unwrap();
    for words in ["serves CSI volumes of driver hostmount.csi", "kubectl --namespace x", "There is no StorageClass yet"]
    {
        assert!(notes.contains(words), "{notes}");
    }
}
