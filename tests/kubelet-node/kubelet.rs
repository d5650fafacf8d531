//! A node with a real kubelet, without an API server: pods from files.
//!
//! Runs in the test's process, as root.

use crate::host::{Host, NODE_ADDRESS, logged, wait};
use crate::node::{Done, Place};
use crate::pod::Pod;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::{self, File};
use std::path::Path;
use testbed::machine::{Network, Process, Room};

/// Where the mounter's static pod installs its programs on the node.
pub(crate) const PROGRAMS: &str = "/var/lib/kubelet/plugins/hostmount/bin";
/// Where kubelet looks for pods.
const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// Kubelet adds it to the names of pods from files.
const NODE_NAME: &str = "node";

/// A node on which kubelet runs. The order of the fields is the order of their end.
pub(crate) struct KubeletNode {
    kubelet: Option<Process>,
    /// The node itself.
    pub(crate) node: Place,
    log: File,
    host: Host,
}

impl KubeletNode {
    /// Starts one in `network` with what `prepare` has made in `work`; the logs go there, too.
    pub(crate) fn start(network: &Network, work: &Path) -> Self {
        let host = Host::start(network, work);
        let (node, log) = (host.place.clone(), File::create(host.log("kubelet")).unwrap());
        node.visit(|| {
            fs::create_dir_all(MANIFESTS).unwrap();
            fs::write("/etc/kubernetes/kubelet.yaml", include_str!("kubelet.yaml")).unwrap();
        });
        let mut this = Self { kubelet: None, node, log, host };
        this.start_kubelet();
        this
    }

    /// Starts kubelet; returns when it knows its pods.
    pub(crate) fn start_kubelet(&mut self) {
        let mut command = Room::command("/opt/prepared/kubelet");
        command.args(["--config=/etc/kubernetes/kubelet.yaml", "--container-runtime=remote", "--v=3"]);
        command.args([format!("--hostname-override={NODE_NAME}"), format!("--node-ip={NODE_ADDRESS}")]);
        command.arg("--container-runtime-endpoint=unix:///run/containerd/containerd.sock");
        command.arg(format!("--experimental-mounter-path={PROGRAMS}/mount"));
        // It would ask the network.
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        self.kubelet = Some(self.node.spawn(logged(command, &self.log)));
        let files = self.node.visit(|| fs::read_dir(MANIFESTS).unwrap().count());
        let known = |pods: Value| pods["items"].as_array().map_or(0, Vec::len) == files;
        wait("kubelet knows its pods", || self.ask_for_pods().is_some_and(known));
    }

    /// Ends kubelet, as systemd does.
    pub(crate) fn stop_kubelet(&mut self) {
        let mut kubelet = self.kubelet.take().unwrap();
        kill(Pid::from_raw(kubelet.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        kubelet.wait().unwrap();
    }

    /// What kubelet has logged so far, in all its lives.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.host.log("kubelet")).unwrap()).into_owned()
    }

    /// Gives kubelet a pod, or another version of it.
    pub(crate) fn put(&self, name: &str, manifest: &str) {
        self.node.visit(|| {
            let unfinished = format!("{MANIFESTS}/.{name}");
            fs::write(&unfinished, manifest).unwrap();
            fs::rename(unfinished, format!("{MANIFESTS}/{name}.yaml")).unwrap();
        });
    }

    /// Takes a pod away; kubelet ends it.
    pub(crate) fn remove(&self, name: &str) {
        self.node.visit(|| fs::remove_file(format!("{MANIFESTS}/{name}.yaml")).unwrap());
    }

    /// A pod as kubelet shows it: that of the file `name`.
    pub(crate) fn pod(&self, name: &str) -> Option<Pod> {
        let pods = self.ask_for_pods()?;
        let name = format!("{name}-{NODE_NAME}");
        let is_it = |pod: &&Value| pod["metadata"]["name"] == name;
        pods["items"].as_array()?.iter().find(is_it).cloned().map(Pod)
    }

    /// Waits until a pod runs and is ready.
    #[track_caller]
    pub(crate) fn wait_until_running(&self, name: &str) -> Pod {
        wait(&format!("the pod {name} runs"), || self.pod(name).filter(Pod::is_running))
    }

    /// Runs a line of shell in a pod.
    pub(crate) fn exec(&self, pod: &Pod, line: &str) -> Done {
        self.host.exec(pod, line)
    }

    /// Waits until nothing is left of a pod that was removed.
    #[track_caller]
    pub(crate) fn wait_until_gone(&self, name: &str, pod: &Pod) {
        wait(&format!("the pod {name} is gone"), || self.pod(name).is_none());
        self.host.wait_until_nothing_is_left(pod);
    }

    fn ask_for_pods(&self) -> Option<Value> {
        let done = self.node.sh("busybox wget -q -O - http://127.0.0.1:10255/pods");
        serde_json::from_str(&done.stdout).ok()
    }
}
