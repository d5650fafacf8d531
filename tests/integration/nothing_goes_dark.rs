//! Healing a dead volume and swapping a live one, on the node and inside running pods.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::{self, NODE_BIN, Place, TestNode, kept};
use hostmount::observe::events;
use std::fs;
use std::io::Read;
use std::process::Stdio;
use testbed::machine::{Network, Propagation, Room};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_dead_volume_comes_back_in_running_pods.needs(&["bindfs"]).quick(),
        what_is_mounted_inside_a_volume_stays.needs(&["bindfs"]).quick(),
        a_pod_goes_on_following_what_the_node_mounts_inside_a_volume.needs(&["bindfs"]).quick(),
        two_hundred_heals_leave_one_mount_and_one_helper.needs(&["bindfs"]),
        a_volume_that_cannot_come_back_is_tried_again_and_can_be_unmounted.needs(&["bindfs"]),
        a_swap_keeps_open_files_and_brings_new_ones_from_the_new_helper.needs(&["bindfs"]).quick(),
        a_hundred_swaps_without_one_failed_read_or_write.needs(&["bindfs"]),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

struct Setting {
    test: TestNode,
    mounter: Mounter,
}

impl Setting {
    /// A bindfs volume on the node; the directory it shows has `f` and `sub/g`.
    fn start(config: &str) -> Self {
        let test = TestNode::start_in(&Network::new().unwrap());
        test.node.sh_ok(&format!("mkdir -p {TARGET}"));
        test.container.visit(|| {
            fs::create_dir_all("/etc/hostmount").unwrap();
            fs::write("/etc/hostmount/config.toml", config).unwrap();
            fs::create_dir_all("/tmp/source/sub").unwrap();
            fs::write("/tmp/source/f", "served\n").unwrap();
            fs::write("/tmp/source/sub/g", "served too\n").unwrap();
        });
        let mounter = test.start_mounter(&[], &[]);
        test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
        Self { test, mounter }
    }

    fn kill_helper(&self) {
        self.test.node.sh_ok("kill -9 $(pidof bindfs)");
    }

    fn hostmount(&self, arguments: &str) -> node::Done {
        self.test.node.sh(&format!("{NODE_BIN}/hostmount {arguments}"))
    }

    fn list(&self) -> String {
        self.hostmount("list --output json").ok("list")
    }
}

fn a_dead_volume_comes_back_in_running_pods() {
    let setting = Setting::start("");
    let test = &setting.test;
    // A whole volume, a directory of it (subPath), one read-only with options, one that follows the node.
    let plain = test.pod(&[(TARGET, "/data")], Propagation::None);
    let sub = test.pod(&[(&format!("{TARGET}/sub"), "/sub")], Propagation::None);
    let read_only = test.pod(&[(TARGET, "/ro")], Propagation::None);
    read_only.sh_ok("mount -o remount,bind,ro,noexec,noatime /ro");
    let following = test.pod(&[("/var/lib/kubelet/pods", "/pods")], Propagation::HostToContainer);
    let pods = [&plain, &sub, &read_only, &following];
    let _alive: Vec<_> = pods.iter().map(|pod| pod.live()).collect();
    let before: Vec<_> = pods.iter().map(|pod| pod.fuse_mounts()).collect();
    let on_node = test.node.fuse_mounts();

    setting.kill_helper();
    setting.mounter.wait_for(events::HEALED, 1);
    assert_eq!(plain.sh_ok("cat /data/f"), "served\n");
    assert_eq!(sub.sh_ok("cat /sub/g"), "served too\n");
    assert_eq!(read_only.sh_ok("cat /ro/f"), "served\n");
    assert!(read_only.sh("touch /ro/new").stderr.contains("Read-only file system"));
    assert_eq!(following.sh_ok("cat /pods/p/volumes/v/f"), "served\n");
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/f")), "served\n");
    for (pod, before) in pods.iter().zip(&before) {
        let after = pod.fuse_mounts();
        assert_eq!(
            after.iter().map(|line| kept(line)).collect::<Vec<_>>(),
            before.iter().map(|line| kept(line)).collect::<Vec<_>>()
        );
    }
    assert_eq!(test.node.fuse_mounts().len(), on_node.len());
    assert!(setting.list().contains("\"mounted\""));
    plain.sh_ok("echo from the pod >/data/h");
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/h")), "from the pod\n");
    // And it ends as any volume does.
    test.node.sh_ok(&format!("umount {TARGET}"));
    drop(_alive);
    drop((plain, sub, read_only, following));
    setting.mounter.wait_for(events::UNMOUNTED, 1);
}

fn what_is_mounted_inside_a_volume_stays() {
    let setting = Setting::start("");
    let pod = setting.test.pod(&[(TARGET, "/data")], Propagation::None);
    pod.sh_ok("mount -t tmpfs inner /data/sub && echo kept >/data/sub/inner");
    // It stands in there: by its path alone it would be found for a second, and this machine may be slow.
    let mut command = Room::command("/bin/sh");
    command
        .args(["-c", "cd /data/sub && echo there && exec sleep infinity"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut alive = pod.spawn(command);
    alive.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    setting.kill_helper();
    setting.mounter.wait_for(events::HEALED, 1);
    assert_eq!(pod.sh_ok("cat /data/f /data/sub/inner"), "served\nkept\n");
}

fn a_pod_goes_on_following_what_the_node_mounts_inside_a_volume() {
    let setting = Setting::start("");
    let node = &setting.test.node;
    // The volume itself is mounted with HostToContainer, whole and in part.
    let pod = setting.test.pod(&[(TARGET, "/data")], Propagation::HostToContainer);
    let part = setting.test.pod(&[(&format!("{TARGET}/sub"), "/sub")], Propagation::HostToContainer);
    let _alive = [pod.live(), part.live()];
    let before: Vec<_> =
        [&pod, &part].map(|pod| pod.fuse_mounts().iter().map(|line| kept(line)).collect::<Vec<_>>()).into();
    node.sh_ok(&format!("mkdir {TARGET}/sub/deep"));
    let follows = || {
        node.sh_ok(&format!("mount -t tmpfs inner {TARGET}/sub/deep && echo seen >{TARGET}/sub/deep/h"));
        assert_eq!(pod.sh_ok("cat /data/sub/deep/h"), "seen\n");
        assert_eq!(part.sh_ok("cat /sub/deep/h"), "seen\n");
        node.sh_ok(&format!("umount {TARGET}/sub/deep"));
        assert_eq!(pod.sh_ok("ls /data/sub/deep"), "");
        assert_eq!(part.sh_ok("ls /sub/deep"), "");
        let now: Vec<_> =
            [&pod, &part].map(|pod| pod.fuse_mounts().iter().map(|line| kept(line)).collect::<Vec<_>>()).into();
        assert_eq!(now, before);
    };
    follows();
    for round in 1..=2 {
        setting.hostmount(&format!("swap {TARGET}")).ok("swap");
        follows();
        setting.kill_helper();
        setting.mounter.wait_for(events::HEALED, round);
        follows();
    }
    node.sh_ok(&format!("umount {TARGET}"));
    drop(_alive);
    drop((pod, part));
    setting.mounter.wait_for(events::UNMOUNTED, 1);
}

fn two_hundred_heals_leave_one_mount_and_one_helper() {
    let setting = Setting::start("heal = false\n");
    let pod = setting.test.pod(&[(TARGET, "/data")], Propagation::None);
    let _alive = pod.live();
    let mounts = |place: &Place| place.mountinfo().len();
    let before = (mounts(&setting.test.node), mounts(&pod), setting.test.descriptors(setting.mounter.pid()).len());
    for round in 1..=200 {
        setting.kill_helper();
        setting.mounter.wait_for(events::DEAD, round);
        setting.hostmount(&format!("heal {TARGET}")).ok("heal");
        assert_eq!(pod.sh_ok("cat /data/f"), "served\n");
    }
    let after = (mounts(&setting.test.node), mounts(&pod), setting.test.descriptors(setting.mounter.pid()).len());
    assert_eq!(after, before);
    setting.test.wait_for_processes("bindfs", 1);
}

fn a_volume_that_cannot_come_back_is_tried_again_and_can_be_unmounted() {
    let setting = Setting::start("");
    setting.test.container.sh_ok("mv /usr/bin/bindfs /usr/bin/away");
    setting.kill_helper();
    setting.mounter.wait_for(events::HEAL_FAILED, 1);
    assert!(setting.list().contains("\"dead\""));
    // Tried again by itself, with longer and longer waits: no storm.
    setting.mounter.wait_for(events::HEAL_FAILED, 3);
    for wait in ["0.25", "0.5", "1.0"] {
        assert!(setting.mounter.said().contains(&format!("\"next_try_seconds\":{wait}")), "{wait}");
    }
    setting.test.container.sh_ok("mv /usr/bin/away /usr/bin/bindfs");
    setting.mounter.wait_for(events::HEALED, 1);
    assert_eq!(setting.test.node.sh_ok(&format!("cat {TARGET}/f")), "served\n");
    // Dead again, while a process still has its working directory in it: our umount detaches it all the same.
    setting.test.container.sh_ok("mv /usr/bin/bindfs /usr/bin/away");
    let mut command = Room::command("/bin/sh");
    command.args(["-c", &format!("exec <{TARGET}/f; echo open; sleep infinity")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut reader = setting.test.node.spawn(command);
    std::io::Read::read_exact(reader.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
    setting.kill_helper();
    setting.mounter.wait_for(events::DEAD, 2);
    assert!(setting.test.node.sh(&format!("umount {TARGET}")).stderr.contains("busy"));
    setting.test.umount(&[TARGET]).ok("our umount of a dead volume that is in use");
    setting.mounter.wait_for(events::UNMOUNTED, 1);
    assert_eq!(setting.list().trim(), "[]");
}

fn a_swap_keeps_open_files_and_brings_new_ones_from_the_new_helper() {
    let setting = Setting::start("");
    let test = &setting.test;
    let pod = test.pod(&[(TARGET, "/data")], Propagation::None);
    let _alive = pod.live();
    let helpers = || -> Vec<u32> {
        test.processes().into_iter().filter(|(_, line)| line.contains("bindfs")).map(|(pid, _)| pid).collect()
    };
    let old = helpers();
    // Opens a file, prints a line, and reads the file when the test tells it to continue.
    let mut command = Room::command("/bin/sh");
    command.args(["-c", "exec 3</data/f; echo open; read go; cat <&3; cat /data/f"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut reader = pod.spawn(command);
    std::io::Read::read_exact(reader.stdout.as_mut().unwrap(), &mut [0; 5]).unwrap();
    let said = setting.hostmount(&format!("swap {TARGET}")).ok("swap");
    assert!(said.contains("a fresh helper serves it, in 2 places"), "{said}");
    assert_eq!(helpers().len(), 2, "the old one serves the open file");
    assert_eq!(setting.list().matches("\"target\"").count(), 1);
    std::io::Write::write_all(&mut reader.stdin.take().unwrap(), b"go\n").unwrap();
    let mut read = String::new();
    std::io::Read::read_to_string(reader.stdout.as_mut().unwrap(), &mut read).unwrap();
    assert_eq!(read, "served\nserved\n");
    reader.wait().unwrap();
    setting.mounter.wait_for(events::DRAINED, 1);
    setting.test.wait_for_processes("bindfs", 1);
    assert_ne!(helpers(), old);
    // A helper that does not start leaves the old one where it is.
    test.container.sh_ok("mv /usr/bin/bindfs /usr/bin/away");
    let before = (helpers(), test.node.fuse_mounts());
    let done = setting.hostmount("swap --all");
    assert_eq!(done.code, Some(32), "{done:?}");
    assert_eq!((helpers(), test.node.fuse_mounts()), before);
    assert_eq!(pod.sh_ok("cat /data/f"), "served\n");
    let done = setting.hostmount("swap /var/lib/kubelet");
    assert!(done.code == Some(1) && done.stderr.contains("no such volume"), "{done:?}");
}

fn a_hundred_swaps_without_one_failed_read_or_write() {
    let setting = Setting::start("");
    let pod = setting.test.pod(&[(TARGET, "/data")], Propagation::None);
    // Each round a whole file is written, put in place, and read again: a torn one or any error ends the loop.
    let mut command = Room::command("/bin/sh");
    command.args([
        "-c",
        "set -e; n=0; while [ ! -e /data/stop ]; do
            n=$((n+1)); printf '%s\\n%s\\n%s\\n' $n $n $n >/data/w; mv /data/w /data/r
            test \"$(cat /data/r)\" = \"$(printf '%s\\n%s\\n%s' $n $n $n)\"; cat /data/f >/dev/null
        done; echo $n rounds",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let user = pod.spawn(command);
    for _swap in 0..100 {
        setting.hostmount(&format!("swap {TARGET}")).ok("swap");
    }
    setting.test.node.sh_ok(&format!("touch {TARGET}/stop"));
    let mut user = user;
    let (mut said, mut errors) = (String::new(), String::new());
    std::io::Read::read_to_string(user.stdout.as_mut().unwrap(), &mut said).unwrap();
    std::io::Read::read_to_string(user.stderr.as_mut().unwrap(), &mut errors).unwrap();
    assert!(user.wait().unwrap().success(), "{said}{errors}");
    let rounds: u32 = said.split(' ').next().unwrap().parse().unwrap();
    assert!(rounds > 20, "the pod got to work {rounds} times only");
    setting.mounter.wait_for(events::DRAINED, 100);
    assert_eq!(pod.fuse_mounts().len(), 1);
    setting.test.wait_for_processes("bindfs", 1);
}
