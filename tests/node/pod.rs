//! A pod on a test node whose own program serves a volume: its directories as kubelet makes them, its cgroup, and its processes, which are
//! a user's without any capability.
//!
//! Runs in the tests' process. There is no kubelet and no runtime; the program is the testbed's fake one.

use super::cgroups::enter;
use super::mounter::{Mounter, SOCKET};
use super::programs::{POD, TESTBED};
use super::{Place, TestNode, helpers};
use api::client::{CallError, Client};
use api::message::Mounted;
use api::program::ProgramVolume;
use api::volume::{VolumeDetail, VolumeState};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};
use testbed::machine::{Process, Propagation, Recipe, Room};

/// Where kubelet has its pods.
const PODS: &str = "/var/lib/kubelet/pods";
/// The user that the pod's processes are.
const USER: &str = "1000";

/// One pod, with a volume `v` and an emptyDir `fuse`.
#[derive(Debug)]
pub struct Pod {
    /// Its UID.
    pub uid: String,
    /// A container that has the emptyDir, as /run/hostmount, and not the volume.
    pub sidecar: Place,
}

impl Pod {
    /// Makes one, as kubelet does, up to its containers.
    pub fn new(test: &TestNode, uid: &str) -> Self {
        let pod = format!("{PODS}/{uid}");
        test.node.sh_ok(&format!(
            "mkdir -p {pod}/volumes/kubernetes.io~csi/v {pod}/volumes/kubernetes.io~empty-dir/fuse {pod}/plugins/kubernetes.io~empty-dir/fuse
             chmod 777 {pod}/volumes/kubernetes.io~empty-dir/fuse; touch {pod}/plugins/kubernetes.io~empty-dir/fuse/ready"
        ));
        let uid = uid.to_owned();
        let empty_dir = format!("{pod}/volumes/kubernetes.io~empty-dir/fuse");
        let recipe = Recipe::userland().without(helpers()).read_only().writable(["/tmp", "/run"]);
        let recipe = recipe.from_node(empty_dir, "/run/hostmount", Propagation::None);
        let recipe = ["pod-program", "fuser-program"]
            .into_iter()
            .fold(recipe, |recipe, name| recipe.bind(&*TESTBED, format!("/usr/local/bin/{name}")));
        let recipe = ["hostmount-pod", "fusermount3"]
            .into_iter()
            .fold(recipe, |recipe, name| recipe.bind(&*POD, format!("/usr/local/bin/{name}")));
        let sidecar = test.room(recipe);
        let pod = Self { uid, sidecar };
        // Its cgroup is there from now on.
        assert_eq!(finish(pod.start(test, &pod.sidecar, "id -u")), (Some(0), format!("{USER}\n")));
        pod
    }

    /// Where kubelet wants the volume.
    pub fn target(&self) -> String {
        format!("{PODS}/{}/volumes/kubernetes.io~csi/v/mount", self.uid)
    }

    /// The emptyDir on the node.
    pub fn empty_dir(&self) -> String {
        format!("{PODS}/{}/volumes/kubernetes.io~empty-dir/fuse", self.uid)
    }

    /// What the CSI driver asks for.
    pub fn volume(&self) -> ProgramVolume {
        let (target, empty_dir, name) = (self.target(), "fuse".to_owned(), "volume".to_owned());
        ProgramVolume { target, empty_dir, name, read_only: false, host_users: true }
    }

    /// Asks for it.
    pub fn publish(&self, test: &TestNode) -> Result<Mounted, CallError> {
        test.node.visit(|| Client::at(SOCKET).program(self.volume()))
    }

    /// Takes it away, with its directory.
    pub fn unpublish(&self, test: &TestNode) {
        test.node.visit(|| Client::at(SOCKET).unmount(&self.target(), true)).unwrap();
    }

    /// How it is.
    pub fn status(&self, test: &TestNode) -> VolumeDetail {
        test.node.visit(|| Client::at(SOCKET).status(&self.target())).unwrap()
    }

    /// A container that shows the volume at /data, as a runtime would bind it, and a process of it: by one its mounts are found.
    pub fn container(&self, test: &TestNode) -> (Place, Process) {
        let container = test.pod(&[(&self.target(), "/data")], Propagation::None);
        let alive = container.live();
        (container, alive)
    }

    /// Runs a line of shell in one of its containers, in the background, in the pod's cgroup and as its user.
    pub fn start(&self, test: &TestNode, container: &Place, line: &str) -> Process {
        start_in(test, container, &format!("kubepods/burstable/pod{}", self.uid), line)
    }

    /// Runs the fake program's call in the sidecar, in the background.
    pub fn program(&self, test: &TestNode, call: &str) -> Process {
        self.start(test, &self.sidecar, &format!("exec pod-program /run/hostmount/volume.sock {call}"))
    }

    /// The same to its end: its exit code, and what it said.
    pub fn call(&self, test: &TestNode, call: &str) -> (Option<i32>, String) {
        finish(self.program(test, call))
    }

    /// A program that serves the volume; returns when it is in its places.
    pub fn serve(&self, test: &TestNode, mounter: &Mounter, options: &str) -> Process {
        let before = mounter.count(hostmount::observe::events::PROGRAM_SERVES);
        let program = self.program(test, &format!("serve {options}"));
        mounter.wait_for(hostmount::observe::events::PROGRAM_SERVES, before + 1);
        program
    }

    /// Waits until so many of its requests wait.
    #[track_caller]
    pub fn wait_until_waiting(&self, test: &TestNode, count: u64) {
        self.wait_until(test, |volume| volume.view.waiting.is_some_and(|waiting| waiting >= count));
    }

    /// Waits until it is in this state.
    #[track_caller]
    pub fn wait_until_state(&self, test: &TestNode, state: VolumeState) {
        self.wait_until(test, |volume| volume.view.state == state);
    }

    #[track_caller]
    fn wait_until(&self, test: &TestNode, is: impl Fn(&VolumeDetail) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let status = self.status(test);
            if is(&status) {
                return;
            }
            assert!(Instant::now() < deadline, "{status:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Runs a line of shell in the background, in this cgroup, as a user without any capability.
pub fn start_in(test: &TestNode, container: &Place, cgroup: &str, line: &str) -> Process {
    let mut command = Room::command("/bin/sh");
    let user = format!(
        "setpriv --reuid {USER} --regid {USER} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all"
    );
    command.args(["-c", &format!("read go && exec {user} /bin/sh -c \"$1\" 2>&1"), "sh", line]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut process = container.spawn(command);
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let pid = status.lines().find_map(|line| line.strip_prefix("NSpid:")?.split_whitespace().last().map(str::to_owned));
    test.node.sh_ok(&enter(cgroup, &pid.unwrap()));
    process.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    process
}

/// Waits for its end: its exit code, and what it said.
pub fn finish(mut process: Process) -> (Option<i32>, String) {
    let mut said = String::new();
    process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    (process.wait().unwrap().code(), said)
}

/// Waits until it has said this line.
#[track_caller]
pub fn wait_for_line(process: &mut Process, line: &str) {
    let mut said = String::new();
    let mut output = BufReader::new(process.stdout.as_mut().unwrap());
    output.read_line(&mut said).unwrap();
    assert_eq!(said.trim(), line);
}
