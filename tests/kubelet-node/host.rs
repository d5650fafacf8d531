//! A node with containerd and runc, and images from archives.
//!
//! Runs in the test's process, as root. All of it is on a machine of its own, cgroups too.

use crate::node::{Done, Place, helpers};
use crate::pod::Pod;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use testbed::machine::{Machine, Network, Process, Recipe, Room};

/// Longer than anything takes: only a failing test waits for it. A kubelet tries again after two minutes at most.
const FAR_TOO_LONG: Duration = Duration::from_secs(180);

/// Kubelet's directory.
pub(crate) const KUBELET: &str = "/var/lib/kubelet";
/// Not loopback's own, or kubelet refuses it.
pub(crate) const NODE_ADDRESS: &str = "10.77.0.2";
/// Where the node has what `prepare` has made.
pub(crate) const PREPARED: &str = "/opt/prepared";

/// The node. The order of the fields is the order of their end.
pub(crate) struct Host {
    _containerd: Process,
    /// The node itself.
    pub(crate) place: Place,
    _machine: Machine,
    work: PathBuf,
    execs: AtomicU32,
}

impl Host {
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
            .bind(work, PREPARED);
        let machine = Machine::start(network, recipe).unwrap();
        let place = Place(machine.node().clone());
        // Kubelet sets three of the kernel's settings, which are not this node's alone.
        place.sh_ok(&format!(
            "set -e
            ip address replace {NODE_ADDRESS}/32 dev lo
            mkdir -p {KUBELET} /run/sysctl
            for setting in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
                file=/run/sysctl/$(basename ${{setting%=*}})
                echo ${{setting#*=}} >$file
                mount --bind $file /proc/sys/${{setting%=*}}
            done"
        ));
        place.visit(|| fs::write("/etc/containerd/config.toml", include_str!("containerd.toml")).unwrap());
        let log = File::create(work.join("containerd.log")).unwrap();
        let containerd = place.spawn(logged(Room::command("/usr/bin/containerd"), &log));
        wait("containerd answers", || place.sh("ctr version").code == Some(0));
        for image in ["pause", "busybox", "hostmount"] {
            place.sh_ok(&format!("ctr --namespace k8s.io images import {PREPARED}/{image}.tar"));
        }
        Self { _containerd: containerd, place, _machine: machine, work: work.to_owned(), execs: AtomicU32::new(0) }
    }

    /// The file that a program of the node logs to.
    pub(crate) fn log(&self, program: &str) -> PathBuf {
        self.work.join(program).with_extension("log")
    }

    /// Runs a line of shell in a pod.
    pub(crate) fn exec(&self, pod: &Pod, line: &str) -> Done {
        let number = self.execs.fetch_add(1, Ordering::Relaxed).to_string();
        let arguments = ["--namespace", "k8s.io", "tasks", "exec", "--exec-id", &number, pod.container()];
        self.place.run("ctr", &[&arguments[..], &["sh", "-c", line]].concat())
    }

    /// Waits until nothing is left of a pod that kubelet does not know any more: its directory is gone, and so is every mount and
    /// every process that names it.
    #[track_caller]
    pub(crate) fn wait_until_nothing_is_left(&self, pod: &Pod) {
        let uid = pod.uid();
        let directory = format!("{KUBELET}/pods/{uid}");
        wait(&format!("{directory} is gone"), || !self.place.visit(|| Path::new(&directory).exists()));
        let left: Vec<_> = self.place.mountinfo().into_iter().filter(|line| line.contains(uid)).collect();
        assert!(left.is_empty(), "mounts are left: {left:?}");
        self.place.wait_for_processes(uid, 0);
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

/// A program whose words go to a file.
pub(crate) fn logged(mut command: Command, log: &File) -> Command {
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log.try_clone().unwrap());
    command
}
