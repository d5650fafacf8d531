//! kubelet-config/: what each system's folder sets is valid, agrees with static-pods/, and does what it says.

use crate::deployment::{BIN, PLUGINS, files, mounter, project, read, yaml};
use crate::harness::{Test, tests};
use crate::node::TestNode;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        systemd.anywhere().quick(),
        flatcar_and_fedora_coreos.anywhere().quick(),
        bottlerocket.anywhere().quick(),
        talos.anywhere().quick(),
        k3s_and_rke2.anywhere().quick(),
        container_optimized_os.anywhere().quick(),
        a_directory_that_is_mounted_noexec_is_made_usable,
        both_folders_speak_of_the_same_paths.anywhere().quick(),
    ]
}

const MANIFESTS: &str = "/etc/kubernetes/manifests";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct KubeletConfiguration {
    api_version: String,
    kind: String,
    static_pod_path: String,
    volume_plugin_dir: String,
}

impl KubeletConfiguration {
    fn check(text: &str) {
        let given: Self = yaml(text);
        assert_eq!(
            (given.api_version.as_str(), given.kind.as_str()),
            ("kubelet.config.k8s.io/v1beta1", "KubeletConfiguration")
        );
        assert_eq!((given.static_pod_path.as_str(), given.volume_plugin_dir.as_str()), (MANIFESTS, PLUGINS));
    }
}

/// A unit file or drop-in: sections and settings. Returns the settings.
fn unit(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let settings = lines.filter(|line| !matches!(*line, "[Unit]" | "[Service]" | "[Install]"));
    let pairs = settings.map(|line| line.split_once('=').ok_or(line));
    pairs.map(|pair| pair.map(|(key, value)| (key.to_owned(), value.to_owned())).expect("a setting")).collect()
}

fn names_the_mounter(dropin: &str) {
    let settings = unit(dropin);
    let [(key, value)] = &settings[..] else { panic!("{settings:?}") };
    assert_eq!(key, "Environment");
    let flag = format!("--experimental-mounter-path={BIN}/mount\"");
    assert!(value.starts_with("\"KUBELET_EXTRA_ARGS=") && value.ends_with(&flag), "{value}");
}

fn systemd() {
    KubeletConfiguration::check(&read("kubelet-config/systemd/kubelet.yaml"));
    let dropin = read("kubelet-config/systemd/10-hostmount.conf");
    names_the_mounter(&dropin);
    assert!(dropin.contains(&format!("#Environment=\"PATH={BIN}:/usr/local/sbin:")));
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Butane {
    variant: String,
    version: String,
    storage: Storage,
    systemd: Systemd,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Storage {
    files: Vec<File>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    path: String,
    mode: String,
    contents: Contents,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    local: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Systemd {
    units: Vec<Unit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unit {
    name: String,
    dropins: Vec<Dropin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dropin {
    name: String,
    contents: String,
}

fn flatcar_and_fedora_coreos() {
    for (folder, variant, version) in [("flatcar", "flatcar", "1.0.0"), ("fedora-coreos", "fcos", "1.5.0")] {
        let butane: Butane = yaml(&read(&format!("kubelet-config/{folder}/butane.yaml")));
        assert_eq!((butane.variant.as_str(), butane.version.as_str()), (variant, version));
        let [pod] = &butane.storage.files[..] else { panic!("not one file") };
        assert_eq!((pod.path.as_str(), pod.mode.as_str()), (&*format!("{MANIFESTS}/hostmount.yaml"), "0600"));
        assert!(project("static-pods").join(&pod.contents.local).exists());
        let [unit] = &butane.systemd.units[..] else { panic!("not one unit") };
        assert_eq!(unit.name, "kubelet.service");
        names_the_mounter(&unit.dropins[0].contents);
        assert!(unit.dropins[0].contents.contains(&format!("=--volume-plugin-dir={PLUGINS} ")));
        assert!(unit.dropins[0].name.ends_with(".conf"), "systemd reads no other files");
    }
}

fn bottlerocket() {
    let data: toml::Table = read("kubelet-config/bottlerocket/user-data.toml").parse().unwrap();
    let pod = &data["settings"]["kubernetes"]["static-pods"]["hostmount"];
    assert_eq!(pod["enabled"].as_bool(), Some(true));
    let manifest = BASE64_STANDARD.decode(pod["manifest"].as_str().unwrap()).unwrap();
    assert!(
        String::from_utf8(manifest).unwrap() == read("static-pods/mounter.yaml"),
        "user-data.toml has an older manifest: put `base64 --wrap=0 static-pods/mounter.yaml` there"
    );
}

fn talos() {
    let patch: Value = yaml(&read("kubelet-config/talos/machine.yaml"));
    let flags = &patch["machine"]["kubelet"]["extraArgs"];
    assert_eq!(flags["volume-plugin-dir"], PLUGINS);
    assert_eq!(flags["experimental-mounter-path"], format!("{BIN}/mount"));
    assert_eq!(patch["machine"]["pods"], Value::Array(vec![mounter()]), "it is not static-pods/mounter.yaml");
}

fn k3s_and_rke2() {
    let config: Value = yaml(&read("kubelet-config/k3s-rke2/config.yaml"));
    let flags = [format!("volume-plugin-dir={PLUGINS}"), format!("experimental-mounter-path={BIN}/mount")];
    assert_eq!(config, serde_json::json!({ "kubelet-arg": flags }));
}

/// The file that Container-Optimized OS gets at this path.
fn cloud_init_file(path: &str) -> String {
    let text = read("kubelet-config/container-optimized-os/cloud-init.yaml");
    assert!(text.starts_with("#cloud-config\n"));
    let config: Value = yaml(&text);
    let files = config["write_files"].as_array().unwrap();
    let file = files.iter().find(|file| file["path"] == path).unwrap_or_else(|| panic!("no {path}"));
    file["content"].as_str().unwrap().to_owned()
}

fn container_optimized_os() {
    assert_eq!(cloud_init_file(&format!("{MANIFESTS}/hostmount.yaml")), read("static-pods/mounter.yaml"));
    assert!(unit(&cloud_init_file("/etc/systemd/system/hostmount-exec.service")).len() > 5);
}

fn a_directory_that_is_mounted_noexec_is_made_usable() {
    let test = TestNode::start();
    test.node.sh_ok("mount -o remount,noexec /var/lib/kubelet");
    let install = format!("/usr/local/bin/hostmount install --to {BIN} --flexvolume {PLUGINS}");
    assert!(test.container.sh(&install).stderr.contains("noexec"));
    for (key, command) in unit(&cloud_init_file("/etc/systemd/system/hostmount-exec.service")) {
        if key == "ExecStart" {
            test.node.sh_ok(&command);
        }
    }
    test.container.sh_ok(&install);
    test.node.sh_ok(&format!("{BIN}/hostmount --version && {PLUGINS}/hostmount~fuse/fuse init"));
    // Pods' directories stay as they were.
    test.node.sh_ok("cp /bin/true /var/lib/kubelet/true");
    assert!(test.node.sh("/var/lib/kubelet/true").stderr.contains("Permission denied"));
}

/// Paths of ours in a text.
fn paths(text: &str) -> BTreeSet<String> {
    let separators = |c: char| c.is_whitespace() || "\"'`|,;=()<>[]".contains(c);
    let words = text.split(separators).map(|word| word.trim_end_matches(['.', ':']));
    let ours = |word: &&str| ["/var/lib/kubelet/plugins", "/run/hostmount"].iter().any(|begin| word.starts_with(begin));
    words.filter(ours).map(|word| word.trim_end_matches('/').to_owned()).collect()
}

fn both_folders_speak_of_the_same_paths() {
    let all =
        |directory: &str| -> BTreeSet<String> { files(directory).iter().flat_map(|file| paths(&read(file))).collect() };
    let pods = all("static-pods");
    assert!(pods.contains(BIN) && pods.contains(PLUGINS) && pods.len() == 4, "{pods:?}");
    let settings = all("kubelet-config");
    let of_one = |path: &str, other: &str| path == other || path.starts_with(&format!("{other}/"));
    for path in &settings {
        assert!(pods.iter().any(|pod| of_one(path, pod) || of_one(pod, path)), "{path} is in no static pod");
    }
    for path in &pods {
        assert!(settings.iter().any(|setting| of_one(setting, path)), "{path} is nowhere in kubelet-config/");
    }
    // Every system's page names both directories.
    for folder in fs::read_dir(project("kubelet-config")).unwrap().map(Result::unwrap) {
        if folder.file_type().unwrap().is_dir() {
            let folder = format!("kubelet-config/{}", folder.file_name().to_str().unwrap());
            let text: String = files(&folder).iter().map(|file| read(file)).collect();
            assert!(text.contains(BIN) && text.contains(PLUGINS), "{folder}");
            let page = read(&format!("{folder}/README.md")).to_lowercase();
            assert!(["sources", "check", "undo", "verified"].iter().all(|word| page.contains(word)), "{folder}");
        }
    }
}
