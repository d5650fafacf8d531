//! Volumes whose server is frozen while their pod is to go: neither the pod nor kubelet is held. And volumes that are only slow, or in use.

use crate::harness::{Test, tests};
use crate::node::background::{end, start};
use crate::node::mounter::Mounter;
use crate::node::sshd::{PORT, Sshd};
use crate::node::{Place, SERVER_ADDRESS, TestNode, sshd};
use hostmount::observe::events;
use std::io::Read;
use testbed::machine::{Propagation, Recipe};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_killed_pod_goes_whatever_its_server_does.needs(&["sshfs"]).needs(sshd::PROGRAMS),
        kubelet_is_not_held_by_a_volume_whose_pod_is_gone.needs(&["sshfs"]).needs(sshd::PROGRAMS),
        a_process_that_closes_its_files_is_given_more_time.needs(&["bindfs"]),
        a_killed_process_waits_for_a_server_that_is_slow.needs(&["sshfs", "tc"]).needs(sshd::PROGRAMS),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

fn serve(test: &TestNode, seconds: u32) -> Mounter {
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    // Hangs are another matter.
    test.configure(&format!("abandoned_seconds = {seconds}\nhang_seconds = 0\n"));
    test.start_mounter(&[], &[("HOSTMOUNT_LOG", "debug")])
}

/// An sshfs volume with the file `f`, and its server.
fn with_sshfs(options: &str) -> (Sshd, TestNode, Mounter) {
    let (server, test) = Sshd::with_node();
    server.place.sh_ok("echo served >/srv/export/f");
    let mounter = serve(&test, 2);
    mount_sshfs(&test, options);
    (server, test, mounter)
}

fn mount_sshfs(test: &TestNode, options: &str) {
    let (options, source) = (format!("port={PORT}{options}"), format!("root@{SERVER_ADDRESS}:/srv/export"));
    test.mount(&["-t", "fuse.sshfs", "-o", &options, &source, TARGET]).ok("mount");
}

fn pod(test: &TestNode) -> Place {
    test.pod(&[(TARGET, "/data")], Propagation::None)
}

/// Kubelet has the volume unmounted. It is not healed after that: no helper is left, although its server still does not answer.
fn unmount(test: &TestNode, mounter: &Mounter) {
    test.umount(&[TARGET]).ok("umount");
    mounter.wait_for(events::UNMOUNTED, 1);
    test.wait_for_processes("sshfs", 0);
}

fn a_killed_pod_goes_whatever_its_server_does() {
    let (server, test, mounter) = with_sshfs("");
    let pod = pod(&test);
    // Others see all of kubelet's volumes, and are none of the pod's.
    let agent =
        test.room(Recipe::userland().from_node("/var/lib/kubelet", "/host/kubelet", Propagation::HostToContainer));
    let _agent = agent.live();
    server.place.sh_ok("kill -STOP $(pidof sshd)");
    let (mut reader, mut other) = (start(&pod, "exec cat /data/f"), start(&pod, "exec sleep infinity"));
    // Whoever lives may wait as long as he likes, in the words of the log: at every look.
    mounter.wait_for(events::IN_USE, 12);
    assert_eq!(mounter.count(events::INTERRUPTED), 0);
    // One that was killed goes, and nobody else hears of it.
    let mut second = start(&pod, "exec cat /data/g");
    reader.kill().unwrap();
    mounter.wait_for(events::INTERRUPTED, 1);
    assert_eq!(end(reader), "");
    assert!(second.try_wait().unwrap().is_none() && other.try_wait().unwrap().is_none());
    assert_eq!(mounter.count(events::ABANDONED), 0, "processes of the pod live");
    second.kill().unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    mounter.wait_for(events::ABANDONED, 1);
    assert_eq!(end(second), "");
    drop(pod);
    unmount(&test, &mounter);
    // A mount there waits for nothing.
    server.place.sh_ok("kill -CONT $(pidof sshd)");
    mount_sshfs(&test, "");
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/f")), "served\n");
    assert_eq!(mounter.count(events::HEALED), 0);
}

fn kubelet_is_not_held_by_a_volume_whose_pod_is_gone() {
    let (server, test, mounter) = with_sshfs(",dir_cache=no,attr_timeout=0");
    let pod = pod(&test);
    let mut user = start(&pod, "cat /data/f; exec sleep infinity");
    user.stdout.as_mut().unwrap().read_exact(&mut [0; 7]).unwrap();
    server.place.sh_ok("kill -STOP $(pidof sshd)");
    user.kill().unwrap();
    user.wait().unwrap();
    drop(pod);
    // It was idle: nobody waited for it before kubelet did.
    let kubelet = start(&test.node, &format!("stat {TARGET} || echo failed"));
    mounter.wait_for(events::ABANDONED, 1);
    assert_eq!(end(kubelet), "failed\n");
    unmount(&test, &mounter);
    server.place.sh_ok("kill -CONT $(pidof sshd)");
}

fn a_process_that_closes_its_files_is_given_more_time() {
    let test = TestNode::start();
    test.container.sh_ok("mkdir -m 777 /tmp/source");
    let mounter = serve(&test, 2);
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    let pod = pod(&test);
    pod.sh_ok("mkfifo /tmp/go");
    let mut user = start(&pod, "exec 3>/data/f; echo open; read go </tmp/go; exit 0");
    user.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    test.node.sh_ok("kill -STOP $(pidof bindfs)");
    pod.sh_ok("echo >/tmp/go");
    mounter.wait_for(events::IN_USE, 1);
    assert!(mounter.said().contains("a process that exits closes its files"), "{}", mounter.said());
    assert_eq!(mounter.count(events::ABANDONED), 0);
    mounter.wait_for(events::ABANDONED, 1);
    end(user);
    mounter.wait_for(events::HEALED, 1);
}

fn a_killed_process_waits_for_a_server_that_is_slow() {
    let (server, test) = Sshd::with_node();
    // Packets as small as on a real network.
    server.place.sh_ok("truncate -s 64M /srv/export/f && ip link set lo mtu 1500");
    let mounter = serve(&test, 1);
    mount_sshfs(&test, ",Compression=no");
    let pod = pod(&test);
    // One read of 128 KiB takes five times as long as it takes to be abandoned.
    server.place.sh_ok("tc qdisc add dev lo root tbf rate 200kbit burst 8k latency 30s");
    for times in 1..=3 {
        let mut reader = start(&pod, "exec dd if=/data/f of=/dev/null bs=128k iflag=direct");
        mounter.wait_for(events::BUSY, 10 * times);
        reader.kill().unwrap();
        reader.wait().unwrap();
    }
    assert_eq!((mounter.count(events::ABANDONED), mounter.count(events::DEAD)), (0, 0));
}
