//! The network to the server is cut for a while: what a volume does meanwhile, and that it works again afterwards with
//! the same helper. `OUTAGE_SECONDS=60` makes it a minute.

use crate::harness::{Test, tests};
use crate::node::gluster::{self, Gluster};
use crate::node::mounter::Mounter;
use crate::node::notes::note;
use crate::node::sshd::{PORT, Sshd};
use crate::node::{Place, SERVER_ADDRESS, TestNode, sshd};
use hostmount::observe::events;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;
use testbed::machine::{Network, Process, Propagation, Room};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        sshfs_waits_for_its_server.needs(&["sshfs"]).needs(sshd::PROGRAMS),
        sshfs_that_asks_for_signs_of_life_gives_up_and_connects_anew.needs(&["sshfs"]).needs(sshd::PROGRAMS),
        glusterfs_waits_for_its_server.needs(gluster::PROGRAMS),
        glusterfs_gives_up_after_its_ping_timeout_and_connects_anew.needs(gluster::PROGRAMS),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

/// How long the network is cut.
fn outage() -> u64 {
    std::env::var("OUTAGE_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(5)
}

/// The node's network and the server's, with a cable in between.
struct Cable {
    node: Network,
    server: Network,
}

impl Cable {
    fn new() -> Self {
        let this = Self { node: Network::new().unwrap(), server: Network::new().unwrap() };
        let end = path(&this.server);
        ip(&this.node, &format!("link add cable type veth peer name cable netns {end}"));
        for (network, own) in [(&this.node, "10.77.1.2"), (&this.server, "10.77.1.1")] {
            ip(network, &format!("address add {own}/24 dev cable"));
            ip(network, "link set cable up");
        }
        ip(&this.node, &format!("route add {SERVER_ADDRESS} via 10.77.1.1"));
        this
    }

    fn pull(&self) {
        ip(&self.server, "link set cable down");
    }

    fn plug(&self) {
        ip(&self.server, "link set cable up");
    }
}

fn path(network: &Network) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), network.as_fd().as_raw_fd())
}

fn ip(network: &Network, arguments: &str) {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", path(network))).arg("ip").args(arguments.split(' '));
    let done = command.output().unwrap();
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A volume that a pod shows at /data, with the file `f`.
struct Setting {
    test: TestNode,
    mounter: Mounter,
    pod: Place,
    helper: Vec<u32>,
    program: &'static str,
}

impl Setting {
    fn mount(test: TestNode, program: &'static str, arguments: &[&str]) -> Self {
        test.node.sh_ok(&format!("mkdir -p {TARGET}"));
        let mounter = test.start_mounter(&[], &[]);
        test.mount(arguments).ok("mount");
        let pod = test.pod(&[(TARGET, "/data")], Propagation::None);
        pod.sh_ok("echo served >/data/f && cat /data/f");
        let mut this = Self { test, mounter, pod, helper: Vec::new(), program };
        this.helper = this.helpers();
        this
    }

    fn helpers(&self) -> Vec<u32> {
        let processes = self.test.processes().into_iter();
        processes
            .filter(|(_, line)| line.split(' ').next().unwrap().ends_with(self.program))
            .map(|(pid, _)| pid)
            .collect()
    }

    /// A process that reads data that the kernel has not cached.
    fn reader(&self) -> Process {
        let mut command = Room::command("/bin/sh");
        command.args(["-c", "dd if=/data/f iflag=direct bs=4k 2>&1"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        self.pod.spawn(command)
    }

    /// It works again by itself, with the same helper.
    fn works_again(&self) {
        let again = "n=0; until echo again >/data/g && test \"$(cat /data/g)\" = again; do
            n=$((n+1)); test $n -lt 300 || exit 1; sleep 0.2; done";
        self.pod.sh_ok(again);
        assert_eq!(self.pod.sh_ok("cat /data/f"), "served\n");
        assert_eq!(self.helpers(), self.helper);
        assert_eq!(self.mounter.count(events::DEAD), 0);
    }
}

/// The result of a read.
fn end(mut reader: Process) -> String {
    let mut said = String::new();
    reader.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    reader.wait().unwrap();
    said
}

fn sshfs(cable: &Cable, server: &Sshd, options: &str) -> Setting {
    let test = TestNode::start_in(&cable.node);
    server.install_client(&test.container);
    let options = format!("port={PORT},{options}");
    let source = format!("root@{SERVER_ADDRESS}:/srv/export");
    Setting::mount(test, "sshfs", &["-t", "fuse.sshfs", "-o", &options, &source, TARGET])
}

fn sshfs_waits_for_its_server() {
    let cable = Cable::new();
    let server = Sshd::start(&cable.server);
    let setting = sshfs(&cable, &server, "reconnect");
    cable.pull();
    let mut reader = setting.reader();
    thread::sleep(Duration::from_secs(outage()));
    assert!(reader.try_wait().unwrap().is_none(), "it did not wait");
    cable.plug();
    let said = end(reader);
    assert!(said.starts_with("served\n"), "{said}");
    setting.works_again();
}

fn sshfs_that_asks_for_signs_of_life_gives_up_and_connects_anew() {
    let cable = Cable::new();
    let server = Sshd::start(&cable.server);
    let setting = sshfs(&cable, &server, "reconnect,ServerAliveInterval=1,ServerAliveCountMax=2");
    cable.pull();
    // It ends while the network is gone.
    let said = end(setting.reader());
    assert!(said.contains("Input/output error") || said.contains("Transport endpoint"), "{said}");
    thread::sleep(Duration::from_secs(outage()));
    cable.plug();
    setting.works_again();
}

/// After how many seconds a GlusterFS client gives a server up by default.
const PING_TIMEOUT: u64 = 42;

fn glusterfs_waits_for_its_server() {
    let cable = Cable::new();
    let server = Gluster::start(&cable.server);
    let source = server.volume("gv0");
    let setting = Setting::mount(TestNode::start_in(&cable.node), "glusterfs", &["-t", "glusterfs", &source, TARGET]);
    cable.pull();
    let mut reader = setting.reader();
    thread::sleep(Duration::from_secs(outage()));
    assert!(outage() > PING_TIMEOUT || reader.try_wait().unwrap().is_none(), "it did not wait");
    cable.plug();
    let said = end(reader);
    note(format!("the result of a read: {said}"));
    // Whether a ping has gone unanswered for so long depends on when the last one was.
    let gave_up = outage() > PING_TIMEOUT && said.contains("Transport endpoint is not connected");
    assert!(said.starts_with("served\n") || gave_up, "{said}");
    setting.works_again();
}

fn glusterfs_gives_up_after_its_ping_timeout_and_connects_anew() {
    let cable = Cable::new();
    let server = Gluster::start(&cable.server);
    let source = server.volume("gv0");
    server.place.sh_ok("gluster volume set gv0 network.ping-timeout 2");
    let setting = Setting::mount(TestNode::start_in(&cable.node), "glusterfs", &["-t", "glusterfs", &source, TARGET]);
    cable.pull();
    let said = end(setting.reader());
    assert!(said.contains("Transport endpoint is not connected"), "{said}");
    thread::sleep(Duration::from_secs(outage()));
    cable.plug();
    setting.works_again();
}
