//! The manifests of the CSI driver: what kustomize makes of them, and the controller and classes among them.

use crate::deployment::{documents, files, project, read, valid};
use crate::harness::{Test, tests};
use crate::node::programs::target_directory;
use api::options::MountOptions;
use api::origin::Origin;
use api::request::Request;
use hostmount::config::Config;
use hostmount::policy::{Plan, authorize};
use serde_json::{Value, json};
use std::process::Command;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        the_controller_has_no_privilege_and_asks_at_the_nodes_door.anywhere().quick(),
        the_classes_are_what_the_driver_and_the_mounter_know.anywhere().quick(),
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
    assert_eq!(container(pod, "csi")["args"], json!([format!("--endpoint={socket}")]));
    assert_eq!(container(pod, "provisioner")["args"][0], format!("--csi-address={socket}"));
    // It reads no Secret, and its account is the one that the role is for.
    let role = of_kind(&objects, "ClusterRole");
    assert!(!role.to_string().contains("secrets") && !role.to_string().contains('*'), "{role}");
    let binding = of_kind(&objects, "ClusterRoleBinding");
    assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["name"], pod["serviceAccountName"]);
    assert_eq!(binding["subjects"][0]["namespace"], deployment["metadata"]["namespace"]);
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
