//! The image: built from Containerfile, and run as a real privileged container on a test node, which it sets up by
//! itself.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::preloaded::OBJECT;
use crate::node::programs::{CSI, HOSTMOUNT, POD, SHIM, target_directory};
use crate::node::{Place, helpers, opened};
use hostmount::observe::events;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use testbed::machine::{Machine, Network, Recipe, Room};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        the_image_mounts_on_a_node_with_and_without_its_pid_namespace.needs(&[
            "make",
            "podman",
            "runc",
            "debootstrap",
            "bindfs"
        ]),
        the_image_has_its_labels_and_its_object_loads.needs(&["make", "podman", "runc", "debootstrap"]),
    ]
}

const BIN: &str = "/var/lib/kubelet/plugins/hostmount/bin";
const PLUGINS: &str = "/var/lib/kubelet/plugins/volume/exec";
const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";
const IMAGE: &str = "localhost/hostmount:0.1.0";

/// Where the image is kept, once it is built.
static STORAGE: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = target_directory();
    let mut build = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/build-image"));
    let built = build.arg(target).arg(HOSTMOUNT).arg(&*SHIM).arg(&*OBJECT).arg(&*CSI).arg(&*POD).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    target.join("image/storage")
});

/// A node that runs containers, with the image at hand and no helper.
struct Node {
    mounter: Option<Mounter>,
    place: Place,
    _machine: Machine,
}

impl Node {
    fn start() -> Self {
        let places = ["/var/lib/containers", "/var/lib/kubelet", "/run", "/tmp", "/var/tmp", "/dev/shm"];
        let recipe = Recipe::userland().without(helpers()).read_only().fuse().shared().writable(places);
        let recipe = recipe.bind(&*STORAGE, "/opt/image").setup(|| std::fs::create_dir_all("/run/hostmount"));
        let machine = Machine::start(&Network::new().unwrap(), recipe).unwrap();
        let place = Place(machine.node().clone());
        place.hide_selinux();
        place.sh_ok(&format!("mkdir -p {TARGET}"));
        Self { mounter: None, place, _machine: machine }
    }

    fn podman(&self, arguments: &str) -> String {
        self.place.sh_ok(&format!("{PODMAN} {arguments}"))
    }

    /// Starts the container that static-pods/mounter.yaml describes, and waits until the mounter listens.
    fn run(&mut self, options: &str) {
        let mut command = Room::command("/bin/sh");
        let spec = static_pod()["spec"].clone();
        let container = &spec["containers"][0];
        let words =
            |list: &Value| list.as_array().unwrap().iter().map(|word| format!(" {}", text(word))).collect::<String>();
        let mut volumes = String::new();
        for mount in container["volumeMounts"].as_array().unwrap() {
            let volume = spec["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == mount["name"]);
            let (from, to) = (text(&volume.unwrap()["hostPath"]["path"]), text(&mount["mountPath"]));
            // As with DirectoryOrCreate.
            self.place.sh_ok(&format!("mkdir -p {from}"));
            if to == "/etc/hostmount" {
                let config = opened("flexvolume", &["bindfs"]);
                self.place.visit(|| std::fs::write(format!("{from}/config.toml"), config).unwrap());
            }
            let access = if mount["readOnly"] == true { "ro" } else { "rw" };
            volumes += &format!(" --volume {from}:{to}:{access}");
        }
        let (image, args) = (text(&container["image"]), words(&container["args"]));
        command.args([
            "-c",
            &format!("exec {PODMAN} run --name mounter {RUN} --tmpfs /srv {volumes} {options} {image} {args}"),
        ]);
        self.mounter = Some(Mounter::start_as(&self.place, command));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Its cgroups are the real machine's.
        let removed = self.place.sh(&format!("{PODMAN} rm --force --time 0 --all"));
        if !std::thread::panicking() {
            removed.ok("podman rm");
        }
    }
}

/// crun refuses the hybrid cgroups that some machines have. The image is in a store that others use, too.
const PODMAN: &str = "podman --runtime runc --cgroup-manager cgroupfs --events-backend none --storage-driver overlay \
                      --storage-opt additionalimagestore=/opt/image";
/// The default limits exceed what some machines permit.
const RUN: &str = "--privileged --network host --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 --log-driver none";

fn static_pod() -> Value {
    serde_saphyr::from_str(
        &std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/static-pods/mounter.yaml")).unwrap(),
    )
    .unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn the_image_mounts_on_a_node_with_and_without_its_pid_namespace() {
    // Without the node's PID namespace a volume cannot outlive the container; everything else works.
    let tied = "\nwarn  outliving: the container has a PID namespace of its own";
    for (options, warns) in [("--pid host", ""), ("--volume /proc:/host/proc --env HOSTPROCPATH=/host", tied)] {
        let mut node = Node::start();
        node.run(options);
        let said = node.mounter.as_ref().unwrap().said();
        assert_eq!(node.mounter.as_ref().unwrap().count(events::INSTALLED), 3, "{options}: {said}");
        let doctor = node.podman("exec mounter hostmount doctor");
        assert!(!doctor.contains("FAIL") && doctor.contains(warns), "{doctor}");
        assert_eq!(doctor.contains("warn  outliving"), !warns.is_empty(), "{doctor}");
        assert!(doctor.contains("sshfs"), "{options}: {doctor}");
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            let command = static_pod()["spec"]["containers"][0][probe]["exec"]["command"].clone();
            let command: Vec<&str> = command.as_array().unwrap().iter().map(text).collect();
            node.podman(&format!("exec mounter {}", command.join(" ")));
        }
        node.podman("exec mounter mkdir /srv/source");
        let place = &node.place;
        let source_holds = |what: &str| assert_eq!(node.podman("exec mounter cat /srv/source/file"), what, "{options}");
        place.sh_ok(&format!("{BIN}/hostmount mount -t fuse.bindfs /srv/source {TARGET}"));
        place.sh_ok(&format!(
            "echo written >{TARGET}/file && mv {TARGET}/file {TARGET}/f && mv {TARGET}/f {TARGET}/file"
        ));
        source_holds("written\n");
        assert!(place.sh_ok(&format!("{BIN}/hostmount list")).contains(TARGET));
        // The node's own umount ends the helper.
        place.sh_ok(&format!("pid=$(pgrep -x bindfs) && umount {TARGET} && timeout 60 tail --pid=$pid -f /dev/null"));
        node.mounter.as_ref().unwrap().wait_for(events::UNMOUNTED, 1);
        let flex = "{\"fstype\":\"fuse.bindfs\",\"source\":\"/srv/source\",\"kubernetes.io/readwrite\":\"ro\"}";
        let driver = format!("{PLUGINS}/hostmount~fuse/fuse");
        assert!(place.run(&driver, &["mount", TARGET, flex]).ok("mount").contains("Success"));
        assert_eq!(place.sh_ok(&format!("cat {TARGET}/file")), "written\n");
        assert!(place.run(&driver, &["unmount", TARGET]).ok("unmount").contains("Success"));
        node.mounter.as_ref().unwrap().wait_for(events::UNMOUNTED, 2);
        assert!(place.fuse_mounts().is_empty(), "{options}");
    }
}

fn the_image_has_its_labels_and_its_object_loads() {
    let node = Node::start();
    let described = node.podman(&format!("image inspect --format '{{{{json .Config}}}}' {IMAGE}"));
    let config: Value = serde_json::from_str(&described).unwrap();
    let label = |name: &str| config["Labels"][format!("org.opencontainers.image.{name}")].as_str().unwrap_or_default();
    let labels = ["title", "version", "revision", "created"].map(label);
    assert_eq!(labels, ["hostmount", env!("CARGO_PKG_VERSION"), "test", "1970-01-01T00:00:01Z"], "{config}");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/usr/local/bin/hostmount"]), "{config}");
    // A node's kubelet asks for no pull of what is there; the preload engine's object loads in the image's own libc.
    let object = hostmount::engine::preload::DEFAULT_OBJECT;
    let line = format!(
        "run --rm --network none --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 --entrypoint /bin/sh \
         --env LD_PRELOAD={object} {IMAGE} -c 'true && ! ls /var/lib/apt/lists/*_Packages'"
    );
    let done = node.place.sh(&format!("{PODMAN} {line}"));
    assert!(done.code == Some(0) && !done.stderr.contains("ld.so"), "{}", done.stderr);
}
