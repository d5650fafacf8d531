//! The manifests of the CSI driver: what kustomize and Helm make of them, and the controller and classes among them.
//!
//! Runs the real kubectl and helm, which need no cluster for it.

use crate::deployment::{documents, files, project, read, valid};
use crate::harness::{Test, tests};
use crate::node::programs::target_directory;
use api::options::MountOptions;
use api::origin::Origin;
use api::request::Request;
use hostmount::config::Config;
use hostmount::policy::{Plan, authorize};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        the_controller_has_no_privilege_and_asks_at_the_nodes_door.anywhere().needs(&["kubectl/kubectl"]).quick(),
        the_classes_are_what_the_driver_and_the_mounter_know.anywhere().needs(&["kubectl/kubectl"]).quick(),
        pods_with_programs_of_their_own_have_no_privilege.anywhere().quick(),
        each_overlay_is_valid_and_has_what_its_system_wants.anywhere().needs(&["kubectl/kubectl"]).quick(),
        the_drivers_account_has_the_rights_that_it_uses.anywhere().needs(&["kubectl/kubectl", "kubectl/helm"]).quick(),
        operators_may_run_programs_in_pods_and_no_more.anywhere().quick(),
        the_chart_makes_what_kustomize_makes.anywhere().needs(&["kubectl/kubectl", "kubectl/helm"]).quick(),
        every_manifest_names_this_version.anywhere().quick(),
        the_charts_values_are_checked_and_used.anywhere().needs(&["kubectl/helm"]).quick(),
    ]
}

/// What a program of those that tests/fetch-programs has fetched writes.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(target_directory().join("kubectl").join(program));
    let done = command.args(arguments).current_dir(project("")).output().unwrap_or_else(|error| {
        panic!("{program}: {error}; fetch it with tests/fetch-programs");
    });
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if done.status.success() { Ok(text(done.stdout)) } else { Err(text(done.stderr) + &text(done.stdout)) }
}

/// The objects that kustomize makes of a directory; all of them are what Kubernetes knows.
fn kustomized(directory: &str) -> Vec<Value> {
    let text = run("kubectl", &["kustomize", directory]).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let objects = documents(&text);
    objects.iter().for_each(valid);
    objects
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("there is no {kind}"));
    assert_eq!(found.next(), None, "there is more than one {kind}");
    one
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    pod["containers"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()
}

fn every_manifest_names_this_version() {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    const IMAGE: &str = "localhost/hostmount:";
    let mut images = 0;
    for file in files("static-pods").into_iter().chain(files("deploy/base")) {
        for line in read(&file).lines().filter_map(|line| line.split_once(IMAGE)) {
            assert_eq!(line.1, VERSION, "{file}");
            images += 1;
        }
    }
    assert!(images >= 5, "{images}");
    let chart = read("deploy/chart/hostmount-csi/Chart.yaml");
    assert!(chart.contains(&format!("\nversion: {VERSION}\nappVersion: {VERSION}\n")), "{chart}");
    assert!(read("deploy/base/kustomization.yaml").contains(&format!("newTag: {VERSION}\n")));
    assert!(
        read("CHANGELOG.md").contains(&format!("\n## {VERSION}\n"))
            || read("CHANGELOG.md").contains(&format!("\n## {VERSION} - "))
    );
}

fn the_controller_has_no_privilege_and_asks_at_the_nodes_door() {
    let objects = kustomized("deploy/base");
    let deployment = of_kind(&objects, "Deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    assert!(!deployment.to_string().contains("privileged"));
    assert_eq!(pod["hostPID"], Value::Null);
    for part in pod["containers"].as_array().unwrap() {
        let context = &part["securityContext"];
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{part}");
        assert_eq!(
            (&context["allowPrivilegeEscalation"], &context["readOnlyRootFilesystem"]),
            (&json!(false), &json!(true))
        );
    }
    let config = Config::load(Some(&project("deploy/base/config.toml"))).unwrap();
    let door = config.doors.csi.clone().unwrap();
    assert_eq!(
        (&pod["securityContext"]["runAsUser"], &pod["securityContext"]["runAsNonRoot"]),
        (&json!(door.uid), &json!(true))
    );
    // Both containers have the socket, and the driver's the same door of the node as the DaemonSet's.
    let daemonset = &of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"];
    let door_of = |pod: &Value| {
        pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "door").unwrap()["hostPath"].clone()
    };
    assert_eq!(door_of(pod), door_of(daemonset));
    let mounts = |part: &Value| part["volumeMounts"].clone();
    let of_csi = mounts(container(pod, "csi"));
    assert_eq!(of_csi[0], mounts(container(pod, "provisioner"))[0]);
    assert_eq!(of_csi[1]["mountPath"].as_str().unwrap(), door.socket.parent().unwrap());
    let socket = format!("{}/csi.sock", of_csi[0]["mountPath"].as_str().unwrap());
    assert_eq!(container(pod, "csi")["args"], json!([format!("--endpoint={socket}"), "--api-access=volumes"]));
    assert_eq!(container(pod, "provisioner")["args"][0], format!("--csi-address={socket}"));
    // It reads no Secret, and its account is the one that the role is for.
    let role = of_kind(&objects, "ClusterRole");
    assert!(!role.to_string().contains("secrets") && !role.to_string().contains('*'), "{role}");
    let binding = of_kind(&objects, "ClusterRoleBinding");
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["name"], pod["serviceAccountName"]);
    assert_eq!(binding["subjects"][0]["namespace"], deployment["metadata"]["namespace"]);
}

fn operators_may_run_programs_in_pods_and_no_more() {
    let objects = documents(&read("deploy/operators.yaml"));
    objects.iter().for_each(valid);
    let (role, binding) = (of_kind(&objects, "Role"), of_kind(&objects, "RoleBinding"));
    let rules = json!([
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"] },
        { "apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"] },
    ]);
    assert_eq!(role["rules"], rules);
    for one in [role, binding] {
        assert_eq!(one["metadata"]["namespace"], "kube-system", "where kubectl hostmount looks by default");
    }
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["kind"], "Group");
}

fn the_classes_are_what_the_driver_and_the_mounter_know() {
    let objects = kustomized("deploy/base");
    let driver = &of_kind(&objects, "CSIDriver")["metadata"]["name"];
    let config = Config::load(Some(&project("deploy/base/config.toml"))).unwrap();
    let examples: Vec<_> = files("deploy/examples").iter().flat_map(|file| documents(&read(file))).collect();
    examples.iter().for_each(valid);
    let classes: Vec<_> = examples.iter().filter(|object| object["kind"] == "StorageClass").collect();
    assert_eq!(classes.len(), 2);
    for class in classes {
        assert_eq!(&class["provisioner"], driver);
        let parameter = |key: &str| class["parameters"][key].as_str().unwrap_or_default().to_owned();
        let request = Request {
            fstype: parameter("type"),
            source: parameter("source"),
            target: "/var/lib/kubelet/plugins/kubernetes.io/csi/d/work".into(),
            options: MountOptions::parse(&parameter("options")).unwrap(),
            switches: Default::default(),
            secrets: Default::default(),
        };
        let plan = Plan::new(&config, Origin::Csi, request).unwrap();
        authorize(Origin::Csi, &plan, &config).unwrap();
        // A Secret that it names may be read by the provisioner.
        let secret = parameter("csi.storage.k8s.io/provisioner-secret-name");
        let may_read = |object: &Value| {
            object["kind"] == "Role"
                && object["rules"][0]["resourceNames"] == json!([secret])
                && object["metadata"]["namespace"] == parameter("csi.storage.k8s.io/provisioner-secret-namespace")
        };
        assert!(secret.is_empty() || examples.iter().any(may_read), "{secret}");
    }
}

/// As `restricted` Pod Security has it, and as docs/pods.md says.
fn pods_with_programs_of_their_own_have_no_privilege() {
    let files = files("deploy/examples/programs");
    assert_eq!(files.len(), 6);
    for file in files {
        let text = read(&file);
        assert!(text.contains("was run so") != text.contains("Not run:"), "{file}");
        let objects = documents(&text);
        objects.iter().for_each(valid);
        let pod = &of_kind(&objects, "Pod")["spec"];
        let context = &pod["securityContext"];
        assert_eq!(context["runAsNonRoot"], json!(true), "{file}");
        assert_eq!(context["seccompProfile"], json!({"type": "RuntimeDefault"}), "{file}");
        let list = |name: &str| pod[name].as_array().unwrap().clone();
        for part in list("initContainers").iter().chain(&list("containers")) {
            let restricted = json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"] } });
            assert_eq!(part["securityContext"], restricted, "{file}");
        }
        let volume = |name: &str| list("volumes").into_iter().find(|volume| volume["name"] == name).unwrap();
        let attributes = volume("data")["csi"]["volumeAttributes"].clone();
        assert_eq!(attributes, json!({"mode": "program", "emptyDir": "fuse"}), "{file}");
        assert_eq!(volume("fuse")["emptyDir"], json!({}), "{file}");
        // The program's container has the socket where hostmount-pod looks for it, and what the one before has put there.
        let [copies, program]: [Value; 2] = list("initContainers").try_into().unwrap();
        assert_eq!(copies["command"][1], "copy", "{file}");
        let shows = |path: &str| {
            let mounts = program["volumeMounts"].as_array().unwrap();
            mounts.iter().find(|mount| mount["mountPath"] == path).unwrap()["name"].clone()
        };
        assert_eq!((shows("/run/hostmount"), shows("/opt/hostmount")), (json!("fuse"), json!("programs")), "{file}");
        assert_eq!(program["restartPolicy"], "Always", "{file}");
        let command = program["command"].as_array().unwrap();
        let by_descriptor = command[0] == "/opt/hostmount/hostmount-pod" && command.contains(&json!("{}"));
        let path = program["env"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "PATH").cloned());
        let by_fusermount = command.contains(&json!("/run/hostmount/volume"))
            && path.is_some_and(|path| path["value"].as_str().unwrap().starts_with("/opt/hostmount:"));
        assert!(by_descriptor != by_fusermount, "{file}");
    }
}

const USUAL: &str = "/var/lib/kubelet";
const MICROK8S: &str = "/var/snap/microk8s/common/var/lib/kubelet";

/// The mounter's configuration among the objects.
fn config(objects: &[Value]) -> Config {
    let text = of_kind(objects, "ConfigMap")["data"]["config.toml"].as_str().unwrap();
    let file = tempfile(text);
    Config::load(Some(&file.0)).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A file that goes with the test.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        fs::remove_file(&self.0).unwrap();
    }
}

fn tempfile(text: &str) -> Temporary {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("hostmount-manifests-{}-{number}.toml", std::process::id()));
    fs::write(&path, text).unwrap();
    Temporary(path)
}

fn each_overlay_is_valid_and_has_what_its_system_wants() {
    let mut overlays: Vec<_> = fs::read_dir(project("deploy/overlays")).unwrap().map(|entry| entry.unwrap()).collect();
    overlays.sort_by_key(|overlay| overlay.file_name());
    let names: Vec<_> = overlays.iter().map(|overlay| overlay.file_name().into_string().unwrap()).collect();
    assert_eq!(names, ["bottlerocket", "k3s", "microk8s", "openshift", "rke2", "talos"]);
    let usual = format!("{:?}", config(&kustomized("deploy/base")));
    for name in names {
        let objects = kustomized(&format!("deploy/overlays/{name}"));
        let all: String = objects.iter().map(Value::to_string).collect();
        // Nothing is privileged but the mounter, wherever it is.
        assert_eq!(all.matches("\"privileged\":true").count(), 1, "{name}");
        let namespace = if ["talos", "openshift"].contains(&name.as_str()) { "hostmount" } else { "kube-system" };
        for object in &objects {
            let its = &object["metadata"]["namespace"];
            assert!(its.is_null() || its == namespace, "{name}: {object}");
            let subjects = object["subjects"].as_array().into_iter().flatten();
            subjects.for_each(|subject| assert_eq!(subject["namespace"], namespace, "{name}: {object}"));
        }
        if namespace == "hostmount" {
            let made = &of_kind(&objects, "Namespace")["metadata"];
            assert_eq!(
                (&made["name"], &made["labels"]["pod-security.kubernetes.io/enforce"]),
                (&json!(namespace), &json!("privileged"))
            );
        }
        let directory = if name == "microk8s" { MICROK8S } else { USUAL };
        assert_eq!(all.replace(directory, "").matches("/var/lib/kubelet").count(), 0, "{name}");
        assert_eq!(format!("{:?}", config(&objects)).replace(directory, USUAL), usual, "{name}");
        assert_eq!(config(&objects).kubelet_dir, Path::new(directory));
        let label = match name.as_str() {
            "rke2" | "openshift" => json!("spc_t"),
            "bottlerocket" => json!("control_t"),
            _ => Value::Null,
        };
        assert_eq!(of_kind(&objects, "CSIDriver")["spec"]["seLinuxMount"] == true, !label.is_null(), "{name}");
        let pod = |kind: &str| of_kind(&objects, kind)["spec"]["template"]["spec"].clone();
        let (daemonset, controller) = (pod("DaemonSet"), pod("Deployment"));
        for part in [container(&daemonset, "csi"), &daemonset["initContainers"][0], &controller] {
            assert_eq!(part["securityContext"]["seLinuxOptions"]["type"], label, "{name}");
        }
        if name == "openshift" {
            let accounts = [&daemonset, &controller].map(|pod| pod["serviceAccountName"].clone());
            let subjects = &of_kind(&objects, "RoleBinding")["subjects"];
            assert_eq!([0, 1].map(|number| subjects[number]["name"].clone()), accounts);
        }
    }
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
