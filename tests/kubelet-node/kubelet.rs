//! A node with a real kubelet, without an API server: containerd, runc, and pods from files.
//!
//! Runs in the test's process, as root. All of it is on a machine of its own, cgroups too.

use crate::node::{Done, Place, helpers};
use crate::pod::Pod;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use testbed::machine::{Machine, Network, Process, Recipe, Room};

/// Longer than anything takes: only a failing test waits for it. A kubelet tries again after two minutes at most.
const FAR_TOO_LONG: Duration = Duration::from_secs(180);

/// Where the mounter's static pod installs its programs on the node.
pub(crate) const PROGRAMS: &str = "/var/lib/kubelet/plugins/hostmount/bin";
/// Kubelet's directory.
const KUBELET: &str = "/var/lib/kubelet";
/// Where kubelet looks for pods.
const MANIFESTS: &str = "/etc/kubernetes/manifests";
/// Kubelet adds it to the names of pods from files.
const NODE_NAME: &str = "node";
/// Not loopback's own, or kubelet refuses it.
const NODE_ADDRESS: &str = "10.77.0.2";

/// A node on which kubelet runs. The order of the fields is the order of their end.
pub(crate) struct KubeletNode {
    kubelet: Option<Process>,
    _containerd: Process,
    /// The node itself.
    pub(crate) node: Place,
    _machine: Machine,
    log: File,
    work: PathBuf,
    execs: AtomicU32,
}

impl KubeletNode {
    /// Starts one in `network` with what `prepare` has made in `work`; the logs go there, too.
    pub(crate) fn start(network: &Network, work: &Path) -> Self {
        let writable = ["/etc/kubernetes", "/etc/containerd", "/opt", "/root", "/run", "/tmp", "/var/lib", "/var/log"];
        let recipe = Recipe::userland()
            .fuse()
            .without(helpers())
            .read_only()
            .shared()
            .writable(writable)
            .bind("/dev/kmsg", "/dev/kmsg")
            .bind(work, "/opt/prepared");
        let log = |name| File::create(work.join(name).with_extension("log")).unwrap();
        let machine = Machine::start(network, recipe).unwrap();
        let node = Place(machine.node().clone());
        // Kubelet sets three of the kernel's settings, which are not this node's alone.
        node.sh_ok(&format!(
            "set -e
            ip address replace {NODE_ADDRESS}/32 dev lo
            mkdir -p {KUBELET} {MANIFESTS} /run/sysctl
            for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
                file=/run/sysctl/$(basename ${{setting%=*}})
                echo ${{setting#*=}} >$file
                mount --bind $file /proc/sys/${{setting%=*}}
            done"
        ));
        node.visit(|| {
            fs::write("/etc/containerd/config.toml", include_str!("containerd.toml")).unwrap();
            fs::write("/etc/kubernetes/kubelet.yaml", include_str!("kubelet.yaml")).unwrap();
        });
        let containerd = node.spawn(logged(Room::command("/usr/bin/containerd"), &log("containerd")));
        wait("containerd answers", || node.sh("ctr version").code == Some(0));
        for image in ["pause", "busybox", "hostmount"] {
            node.sh_ok(&format!("ctr --namespace k8s.io images import /opt/prepared/{image}.tar"));
        }
        let mut this = Self {
            kubelet: None,
            _containerd: containerd,
            node,
            _machine: machine,
            log: log("kubelet"),
            work: work.to_owned(),
            execs: AtomicU32::new(0),
        };
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
        String::from_utf8_lossy(&fs::read(self.work.join("kubelet.log")).unwrap()).into_owned()
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
        let number = self.execs.fetch_add(1, Ordering::Relaxed).to_string();
        let arguments = ["--namespace", "k8s.io", "tasks", "exec", "--exec-id", &number, pod.container()];
        self.node.run("ctr", &[&arguments[..], &["sh", "-c", line]].concat())
    }

    /// Waits until nothing is left of a pod that was removed: kubelet does not know it, its directory is gone, and so
    /// is every mount and every process that names it.
    #[track_caller]
    pub(crate) fn wait_until_gone(&self, name: &str, pod: &Pod) {
        let uid = pod.uid();
        wait(&format!("the pod {name} is gone"), || self.pod(name).is_none());
        let directory = format!("{KUBELET}/pods/{uid}");
        wait(&format!("{directory} is gone"), || !self.node.visit(|| Path::new(&directory).exists()));
        let left: Vec<_> = self.node.mountinfo().into_iter().filter(|line| line.contains(uid)).collect();
        assert!(left.is_empty(), "mounts are left: {left:?}");
        self.node.wait_for_processes(uid, 0);
    }

    fn ask_for_pods(&self) -> Option<Value> {
        let done = self.node.sh("busybox wget -q -O - http://127.0.0.1:10255/pods");
        serde_json::from_str(&done.stdout).ok()
    }
}

/// Looks again and again until there is something to see.
#[track_caller]
pub(crate) fn wait<T: Seen>(what: &str, mut look: impl FnMut() -> T) -> T::Sight {
    let deadline = Instant::now() + FAR_TOO_LONG;
    loop {
        if let Some(sight) = look().sight() {
            return sight;
        }
        assert!(Instant::now() < deadline, "in vain until {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What a look may find.
pub(crate) trait Seen {
    /// What was seen.
    type Sight;
    /// It, if there is something.
    fn sight(self) -> Option<Self::Sight>;
}

impl Seen for bool {
    type Sight = ();
    fn sight(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Seen for Option<T> {
    type Sight = T;
    fn sight(self) -> Option<T> {
        self
    }
}

fn logged(mut command: Command, log: &File) -> Command {
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log.try_clone().unwrap());
    command
}
