//! The manifests of static-pods/ and deploy/ are valid and agree with each other and the programs, and scripts parse.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::{TestNode, manifest};
use api::options::MountOptions;
use api::origin::Origin;
use api::request::Request;
use hostmount::observe::events;
use hostmount::policy::{Plan, authorize};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        the_manifests_are_what_kubernetes_knows.anywhere().quick(),
        both_ways_to_start_the_mounter_are_the_same.anywhere().quick(),
        the_mounter_is_given_no_more_than_it_needs.anywhere().quick(),
        the_mounter_needs_no_more_than_it_is_given.needs(&["bindfs", "make"]),
        the_csi_manifests_agree_with_each_other_and_the_program.anywhere().quick(),
        the_examples_are_what_the_driver_understands.needs(&["bindfs", "sshfs", "s3fs"]),
        scripts_parse.anywhere().needs(&["shellcheck"]).quick(),
    ]
}

pub(crate) const BIN: &str = "/var/lib/kubelet/plugins/hostmount/bin";
pub(crate) const PLUGINS: &str = "/var/lib/kubelet/plugins/volume/exec";

pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below a directory of the project.
pub(crate) fn files(directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(project(directory)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{directory}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

pub(crate) fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// Kubernetes' types ignore unknown fields: a manifest must be the same after it was read and written.
fn has_type<T: DeserializeOwned + Serialize>(object: &Value) {
    let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    assert_eq!(&serde_json::to_value(typed).unwrap(), object);
}

pub(crate) fn valid(object: &Value) {
    match object["kind"].as_str().unwrap() {
        "Pod" => has_type::<Pod>(object),
        "DaemonSet" => has_type::<DaemonSet>(object),
        "Deployment" => has_type::<Deployment>(object),
        "ConfigMap" => has_type::<ConfigMap>(object),
        "CSIDriver" => has_type::<CSIDriver>(object),
        "Secret" => has_type::<Secret>(object),
        "Service" => has_type::<Service>(object),
        "Endpoints" => has_type::<Endpoints>(object),
        "PersistentVolume" => has_type::<PersistentVolume>(object),
        "PersistentVolumeClaim" => has_type::<PersistentVolumeClaim>(object),
        "StorageClass" => has_type::<StorageClass>(object),
        "ServiceAccount" => has_type::<ServiceAccount>(object),
        "ClusterRole" => has_type::<ClusterRole>(object),
        "ClusterRoleBinding" => has_type::<ClusterRoleBinding>(object),
        "Role" => has_type::<Role>(object),
        "RoleBinding" => has_type::<RoleBinding>(object),
        "Namespace" => has_type::<Namespace>(object),
        other => panic!("a kind that the test does not know: {other}"),
    }
}

pub(crate) fn mounter() -> Value {
    documents(&read("static-pods/mounter.yaml")).remove(0)
}

fn the_manifests_are_what_kubernetes_knows() {
    let mut kinds = BTreeSet::new();
    for file in files("static-pods") {
        for object in documents(&read(&file)) {
            valid(&object);
            kinds.insert(object["kind"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(kinds.len(), 8, "{kinds:?}");
    // This check can fail.
    let mut misspelt = mounter();
    misspelt["spec"]["hostPid"] = Value::Bool(true);
    assert!(std::panic::catch_unwind(|| valid(&misspelt)).is_err());
}

fn both_ways_to_start_the_mounter_are_the_same() {
    let pod = mounter()["spec"].clone();
    let daemonset = documents(&read("static-pods/daemonset.yaml")).remove(0);
    let mut other = daemonset["spec"]["template"]["spec"].clone();
    assert_ne!(daemonset["metadata"]["name"], mounter()["metadata"]["name"]);
    assert_eq!(pod["containers"][0]["args"][0], "serve");
    // A DaemonSet has these keys in addition, and its configuration elsewhere.
    for key in ["nodeSelector", "tolerations"] {
        other.as_object_mut().unwrap().remove(key);
    }
    other["restartPolicy"] = pod["restartPolicy"].clone();
    assert!(other["volumes"][1]["configMap"].is_object());
    other["volumes"][1] = pod["volumes"][1].clone();
    assert_eq!(other, pod);
}

/// What is written here is what a new line in a manifest must be worth.
fn the_mounter_is_given_no_more_than_it_needs() {
    let daemonset = documents(&read("static-pods/daemonset.yaml")).remove(0);
    for pod in [mounter()["spec"].clone(), daemonset["spec"]["template"]["spec"].clone()] {
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["enableServiceLinks"], false);
        let hosts = pod.as_object().unwrap().keys().filter(|key| key.starts_with("host")).collect::<Vec<_>>();
        assert_eq!(hosts, ["hostNetwork", "hostPID"]);
        let containers =
            ["containers", "initContainers", "ephemeralContainers"].map(|key| pod[key].as_array().map_or(0, Vec::len));
        assert_eq!(containers, [1, 0, 0]);
        let container = &pod["containers"][0];
        let security = serde_json::json!({ "privileged": true, "readOnlyRootFilesystem": true });
        assert_eq!((&container["securityContext"], &pod["securityContext"]), (&security, &Value::Null));
        for none in ["env", "envFrom", "ports", "volumeDevices", "stdin", "tty", "lifecycle"] {
            assert_eq!(container[none], Value::Null, "{none}");
        }
        // Of the node it has its own directory, and to read its configuration.
        let of_node =
            pod["volumes"].as_array().unwrap().iter().filter_map(|volume| volume["hostPath"]["path"].as_str());
        let allowed = ["/run/hostmount", "/var/lib/kubelet/plugins/hostmount"];
        assert!(of_node.clone().all(|path| allowed.contains(&path)), "{:?}", of_node.collect::<Vec<_>>());
        for mount in container["volumeMounts"].as_array().unwrap() {
            let own = mount["mountPath"] == "/run/hostmount";
            assert!(own || mount["readOnly"] == true, "{mount}");
            assert_eq!(mount["mountPropagation"], Value::Null, "{mount}");
        }
    }
}

/// With a read-only root and those two directories everything works, with both engines.
fn the_mounter_needs_no_more_than_it_is_given() {
    for engine in ["seccomp", "preload"] {
        let test = TestNode::start();
        let container = manifest::container(&test, manifest::recipe(), || fs::create_dir("/srv/source"));
        let install = [format!("--install={BIN}"), format!("--install-flexvolume={PLUGINS}")];
        let arguments = [&install[0], &install[1], "--engine", engine];
        let mounter = Mounter::start(&container, &arguments, &[]);
        container.sh_ok("hostmount doctor --probe");
        assert!(container.sh("touch /evil /tmp/evil /usr/evil /var/evil").code != Some(0));
        test.node.sh_ok("mkdir /mnt/v");
        test.node.sh_ok(&format!("{BIN}/hostmount mount -t fuse.bindfs /srv/source /mnt/v && stat /mnt/v"));
        test.node.sh_ok("kill -9 $(pidof bindfs)");
        mounter.wait_for(events::HEALED, 1);
        test.node.sh_ok(&format!("stat /mnt/v && {BIN}/umount /mnt/v"));
        mounter.wait_for(events::UNMOUNTED, 1);
        // Whatever is below / was there before: the test can fail.
        assert!(container.mount_at("/").is_some_and(|root| root.contains(" ro,")), "{:?}", container.mount_at("/"));
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "they must be there and have this form")]
struct Kustomization {
    api_version: String,
    kind: String,
    namespace: String,
    resources: Vec<String>,
    config_map_generator: Vec<Generator>,
    images: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Generator {
    name: String,
    files: Vec<String>,
}

fn the_csi_manifests_agree_with_each_other_and_the_program() {
    let kustomization: Kustomization = yaml(&read("deploy/base/kustomization.yaml"));
    let mut driver = None;
    let mut daemonset = None;
    for file in &kustomization.resources {
        for object in documents(&read(&format!("deploy/base/{file}"))) {
            valid(&object);
            match object["kind"].as_str().unwrap() {
                "CSIDriver" => driver = Some(object),
                "DaemonSet" => daemonset = Some(object),
                _ => {}
            }
        }
    }
    let driver = driver.unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    let daemonset = daemonset.unwrap();
    let pod = &daemonset["spec"]["template"]["spec"];
    // The mounter is the one of the other ways, with a door more and without programs on the node.
    let container = |name: &str| pod["containers"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    let (mut ours, mut theirs) = (container("mounter").clone(), mounter()["spec"]["containers"][0].clone());
    for part in [&mut ours, &mut theirs] {
        part.as_object_mut().unwrap().retain(|key, _| !["args", "volumeMounts"].contains(&key.as_str()));
    }
    assert_eq!(ours, theirs);
    // The settings are the mounter's own, and the door is where the driver's container sees it and for the user that it has.
    let [generator] = kustomization.config_map_generator.try_into().ok().unwrap();
    assert_eq!(generator.files, ["config.toml"]);
    let config = hostmount::config::Config::load(Some(&project("deploy/base/config.toml"))).unwrap();
    let door = config.doors.csi.clone().unwrap();
    let csi = container("csi");
    assert_eq!(csi["securityContext"]["runAsUser"].as_u64(), Some(door.uid.into()));
    let mount = |container: &Value, name: &str| {
        let mounts = container["volumeMounts"].as_array().unwrap();
        mounts.iter().find(|mount| mount["name"] == name).unwrap()["mountPath"].as_str().unwrap().to_owned()
    };
    for name in ["mounter", "csi"] {
        assert_eq!(door.socket.parent().unwrap(), Path::new(&mount(container(name), "door")));
    }
    assert_eq!(door.socket.to_str(), Some("/run/hostmount-csi/mounter.sock"), "the program's default");
    // The driver's directories are the same on the node, in its container and in the one that makes them.
    let directories =
        [format!("/var/lib/kubelet/plugins/{driver}"), format!("/var/lib/kubelet/plugins_registry/{driver}")];
    assert_eq!([mount(csi, "calls"), mount(csi, "registration")], directories);
    let on_node = |name: &str| {
        let volumes = pod["volumes"].as_array().unwrap();
        volumes.iter().find(|volume| volume["name"] == name).unwrap()["hostPath"]["path"].as_str().unwrap().to_owned()
    };
    assert_eq!([on_node("calls"), on_node("registration")], directories);
    let init = pod["initContainers"][0]["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
    let init: Vec<_> = init.collect();
    assert!(init.contains(&format!("--make-directories={}", door.uid).as_str()), "{init:?}");
    assert_eq!(init[init.len() - 2..], directories);
    assert_eq!(
        generator.name,
        pod["volumes"].as_array().unwrap().iter().find_map(|of| of["configMap"]["name"].as_str()).unwrap()
    );
    // Nothing of it is privileged but the mounter.
    assert!(csi["securityContext"]["capabilities"]["drop"] == serde_json::json!(["ALL"]));
    assert_eq!(daemonset.to_string().matches("\"privileged\":true").count(), 1);

    // The examples name this driver, and attributes that it knows.
    let mut volumes = 0;
    for file in files("deploy/examples").into_iter().filter(|file| !file.contains("/programs/")) {
        for object in documents(&read(&file)) {
            valid(&object);
            let of_pod = object["spec"]["volumes"].as_array().cloned().unwrap_or_default();
            for volume in of_pod.into_iter().chain([object["spec"].clone()]).map(|volume| volume["csi"].clone()) {
                let Some(attributes) = volume["volumeAttributes"].as_object() else { continue };
                assert_eq!(volume["driver"], driver.as_str(), "{file}");
                let known = ["type", "source", "subDir", "options", "mode", "fsGroup"];
                assert!(attributes.keys().all(|key| known.contains(&key.as_str())), "{file}: {attributes:?}");
                let text = |key: &str| attributes.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                let target = "/var/lib/kubelet/plugins/kubernetes.io/csi/x/globalmount".to_owned();
                let (fstype, source, switches, secrets) =
                    (text("type"), text("source"), Default::default(), Default::default());
                let mut options = MountOptions::parse(&text("options")).unwrap();
                for flag in object["spec"]["mountOptions"].as_array().into_iter().flatten() {
                    options.append(MountOptions::parse(flag.as_str().unwrap()).unwrap());
                }
                let request = Request { fstype, source, target, options, switches, secrets };
                let plan = Plan::new(&config, Origin::Csi, request).unwrap();
                authorize(Origin::Csi, &plan, &config).unwrap_or_else(|error| panic!("{file}: {error}"));
                volumes += 1;
            }
        }
    }
    assert_eq!(volumes, 6);
}

/// The FlexVolume volumes among the examples.
fn flex_volumes() -> Vec<Value> {
    let objects = files("static-pods/examples").into_iter().flat_map(|file| documents(&read(&file)));
    let volumes = objects.flat_map(|object| {
        let of_pod = object["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        of_pod
            .into_iter()
            .chain([object["spec"].clone()])
            .map(|volume| volume["flexVolume"].clone())
            .collect::<Vec<_>>()
    });
    volumes.filter(Value::is_object).collect()
}

/// The configuration that an example names in its comments: lines that are indented there.
fn in_comments(example: &str) -> String {
    let text = read(&format!("static-pods/examples/{example}"));
    text.lines().filter_map(|line| line.strip_prefix("#     ")).map(|line| line.to_owned() + "\n").collect()
}

fn the_examples_are_what_the_driver_understands() {
    let test = TestNode::start();
    test.configure(&in_comments("flexvolume.yaml"));
    let _mounter = test.start_mounter(&["--install-flexvolume", PLUGINS], &[]);
    let target = "/var/lib/kubelet/pods/p/v";
    test.node.sh_ok(&format!("mkdir -p {target}"));
    let volumes = flex_volumes();
    assert_eq!(volumes.len(), 3);
    for volume in volumes {
        // kubelet looks for vendor~driver/driver.
        let driver = volume["driver"].as_str().unwrap().replace('/', "~");
        let program = format!("{PLUGINS}/{driver}/{}", driver.split('~').next_back().unwrap());
        let done = test.node.run(&program, &["mount", target, &volume["options"].to_string()]);
        if volume["options"]["fstype"] == "fuse.bindfs" {
            done.ok("mount");
            assert_eq!(test.node.sh_ok(&format!("stat -c %U {target} && umount {target}")), "nobody\n");
        } else {
            // Their servers do not exist: the error is the helper's, and not the driver's or the mounter's.
            let helper = volume["options"]["fstype"].as_str().unwrap().trim_start_matches("fuse.").to_owned();
            assert!(done.stdout.contains(&format!("{helper} could not mount")), "{}", done.stdout);
        }
    }
}

fn scripts_parse() {
    let scripts: Vec<String> = files("tests")
        .into_iter()
        .chain(files(".ci"))
        .chain(files("docs"))
        .filter(|file| fs::read(project(file)).unwrap().starts_with(b"#!/bin/sh"))
        .collect();
    assert!(scripts.len() > 3, "{scripts:?}");
    for script in scripts {
        for check in [&["sh", "-n"][..], &["shellcheck", "--severity=warning"]] {
            let done = Command::new(check[0]).args(&check[1..]).arg(project(&script)).output().unwrap();
            assert!(
                done.status.success(),
                "{script}: {}{}",
                String::from_utf8_lossy(&done.stdout),
                String::from_utf8_lossy(&done.stderr)
            );
        }
    }
}
