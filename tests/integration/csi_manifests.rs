//! The manifests of the CSI driver: what kustomize makes of them, and the controller and classes among them.
//!
//! Runs the real kubectl, which needs no cluster for it.

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
        operators_may_run_programs_in_pods_and_no_more.anywhere().quick(),
        every_manifest_names_this_version.anywhere().quick(),
    ]
}

/// What a program of those that tests/fetch-programs has fetched writes.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(target_directory().join("kubectl").join(program));
    let done = command.args(arguments).current_dir(project("")).output().unwrap_or_else(|error| {
        panic!("{program}: {error}; fetch it with tests/fetch-programs");
    });
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if done.status.success() { Ok(text(done.stdout)) } else { Err(text(done.stderr) + &text(done.stdout)) }
}

/// The objects that kustomize makes of a directory; all of them are what Kubernetes knows.
pub(crate) fn kustomized(directory: &str) -> Vec<Value> {
    let text = run("kubectl", &["kustomize", directory]).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let objects = documents(&text);
    objects.iter().for_each(valid);
    objects
}

pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let one = found.next().unwrap_or_else(|| panic!("there is no {kind}"));
    assert_eq!(found.next(), None, "there is more than one {kind}");
    one
}

pub(crate) fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
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
pub(crate) fn config(objects: &[Value]) -> Config {
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
