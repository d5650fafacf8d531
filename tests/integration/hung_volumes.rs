//! Volumes whose helper lives and does not answer, and busy volumes, which do not hang.

use crate::harness::{Test, tests};
use crate::node::background::{end, start};
use crate::node::gluster::{self, Gluster};
use crate::node::mounter::Mounter;
use crate::node::sshd::{PORT, Sshd};
use crate::node::{NODE_BIN, Place, SERVER_ADDRESS, TestNode, sshd};
use hostmount::observe::events;
use std::io::Read;
use testbed::machine::{Process, Propagation};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_stopped_helper_is_logged_and_shown_and_can_be_unmounted.needs(&["bindfs"]),
        a_forced_umount_ends_waiting_requests_with_an_error.needs(&["bindfs"]),
        a_hung_volume_is_healed_if_on_hang_is_heal.needs(&["bindfs"]).quick(),
        an_operator_heals_a_hung_volume.needs(&["bindfs"]),
        a_heal_says_that_it_waits_for_the_server.needs(&["sshfs"]).needs(sshd::PROGRAMS),
        a_stopped_server_makes_the_volume_hang.needs(&["sshfs"]).needs(sshd::PROGRAMS),
        a_stopped_glusterfs_brick_makes_the_volume_hang.needs(gluster::PROGRAMS),
        a_wait_for_a_file_lock_is_not_a_hang.needs(gluster::PROGRAMS).needs(&["flock"]),
        a_busy_volume_is_not_a_hang.needs(&["bindfs"]),
        a_slow_server_is_not_a_hang.needs(&["sshfs", "tc"]).needs(sshd::PROGRAMS),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

struct Setting {
    test: TestNode,
    mounter: Mounter,
    pod: Place,
    _alive: Process,
}

impl Setting {
    /// A bindfs volume that a pod shows at /data, with the file `f`.
    fn bindfs(config: &str) -> Self {
        let test = TestNode::start();
        test.container.sh_ok("mkdir /tmp/source && echo served >/tmp/source/f && echo more >/tmp/source/g");
        Self::mount(test, config, &["-t", "fuse.bindfs", "/tmp/source", TARGET])
    }

    fn mount(test: TestNode, config: &str, arguments: &[&str]) -> Self {
        test.node.sh_ok(&format!("mkdir -p {TARGET}"));
        test.container.visit(|| {
            std::fs::create_dir_all("/etc/hostmount").unwrap();
            std::fs::write("/etc/hostmount/config.toml", config).unwrap();
        });
        let mounter = test.start_mounter(&[], &[("HOSTMOUNT_LOG", "debug")]);
        test.mount(arguments).ok("mount");
        let pod = test.pod(&[(TARGET, "/data")], Propagation::None);
        let _alive = start(&pod, "exec sleep infinity");
        Self { test, mounter, pod, _alive }
    }

    fn hostmount(&self, arguments: &str) -> String {
        self.test.node.sh_ok(&format!("{NODE_BIN}/hostmount {arguments}"))
    }

    fn signal(&self, signal: &str, program: &str) {
        self.test.node.sh_ok(&format!("kill -{signal} $(pidof {program})"));
    }
}

fn a_stopped_helper_is_logged_and_shown_and_can_be_unmounted() {
    let setting = Setting::bindfs("hang_seconds = 2\n");
    setting.signal("STOP", "bindfs");
    let reader = start(&setting.pod, "cat /data/f");
    setting.mounter.wait_for(events::HUNG, 1);
    // The mounter answers requests.
    let list = setting.hostmount("list");
    assert!(list.contains("  hung  ") && list.contains("hostmount heal"), "{list}");
    let status = setting.hostmount(&format!("status {TARGET}"));
    for line in ["\nState       hung\n", "\nHung since  2", "\nWaiting     1\n"] {
        assert!(status.contains(line), "{status}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&setting.hostmount(&format!("status --output json {TARGET}"))).unwrap();
    assert_eq!((&json["state"], &json["waiting"]), (&"hung".into(), &1.into()), "{json}");
    assert!(json["hung_since"].as_str() >= json["since"].as_str(), "{json}");
    let metrics = setting.hostmount("metrics");
    let up = format!("hostmount_volume_up{{target=\"{TARGET}\",type=\"fuse.bindfs\"}} 0\n");
    for line in ["hostmount_volumes{state=\"hung\"} 1\n", "hostmount_hangs_total 1\n", &up] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
    // It continues: that is logged once.
    setting.signal("CONT", "bindfs");
    assert_eq!(end(reader), "served\n");
    setting.mounter.wait_for(events::ANSWERS, 1);
    assert!(setting.hostmount("list").contains("  mounted  "));
    assert_eq!(setting.mounter.count(events::HUNG), 1);
    // Stopped again, while an unkillable process on the node uses it: our umount detaches it all the same.
    setting.signal("STOP", "bindfs");
    let stuck = start(&setting.test.node, &format!("cd {TARGET}; cat g"));
    setting.mounter.wait_for(events::HUNG, 2);
    setting.test.umount(&[TARGET]).ok("umount");
    assert_eq!(setting.test.node.mount_at(TARGET), None);
    setting.signal("KILL", "bindfs");
    end(stuck);
}

fn a_forced_umount_ends_waiting_requests_with_an_error() {
    let setting = Setting::bindfs("hang_seconds = 1\n");
    setting.signal("STOP", "bindfs");
    let stuck = start(&setting.test.node, &format!("cat {TARGET}/f || echo failed"));
    setting.mounter.wait_for(events::HUNG, 1);
    setting.test.umount(&["-f", TARGET]).ok("umount -f");
    assert_eq!(end(stuck), "failed\n");
    assert_eq!(setting.test.node.mount_at(TARGET), None);
    // The pod still has it mounted, and it is healed there when the helper is gone.
    setting.signal("KILL", "bindfs");
    setting.mounter.wait_for(events::HEALED, 1);
    assert_eq!(setting.pod.sh_ok("cat /data/f"), "served\n");
}

fn a_hung_volume_is_healed_if_on_hang_is_heal() {
    let setting = Setting::bindfs("[filesystem.bindfs]\nhang_seconds = 2\non_hang = 'heal'\n");
    setting.signal("STOP", "bindfs");
    let stuck = start(&setting.pod, "cat /data/f || echo failed");
    setting.mounter.wait_for(events::HUNG, 1);
    setting.mounter.wait_for(events::HEALED, 1);
    // What waited goes on with the fresh helper.
    assert_eq!(end(stuck), "served\n");
    assert_eq!(setting.pod.sh_ok("cat /data/f"), "served\n");
    assert!(setting.hostmount("list").contains("  mounted  "));
    setting.test.wait_for_processes("bindfs", 1);
}

fn an_operator_heals_a_hung_volume() {
    let setting = Setting::bindfs("hang_seconds = 2\non_hang = 'heal'\nheal = false\n");
    assert!(setting.hostmount(&format!("heal {TARGET}")).contains("nothing to be done"));
    setting.signal("STOP", "bindfs");
    let stuck = start(&setting.pod, "cat /data/f || echo failed");
    setting.mounter.wait_for(events::HUNG_LEFT, 1);
    setting.test.wait_for_processes("bindfs", 1);
    assert!(setting.hostmount("list").contains("  hung  "));
    let said = setting.hostmount("heal --all");
    assert!(said.contains("a fresh helper serves it, in 2 places"), "{said}");
    assert_eq!(end(stuck), "failed\n");
    assert_eq!(setting.pod.sh_ok("cat /data/f"), "served\n");
    setting.test.wait_for_processes("bindfs", 1);
    let happened = setting.hostmount("events --event mounted,hung,healed");
    let words: Vec<_> = happened.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(words, ["mounted", "hung", "healed"], "{happened}");
}

fn a_stopped_server_makes_the_volume_hang() {
    let (server, test) = Sshd::with_node();
    server.place.sh_ok("echo served >/srv/export/f");
    let source = format!("root@{SERVER_ADDRESS}:/srv/export");
    // sshfs keeps asking whether the server is alive: that is no activity for a request.
    let options = format!("port={PORT},reconnect,ServerAliveInterval=5,ServerAliveCountMax=100");
    let setting = Setting::mount(test, "hang_seconds = 2\n", &["-t", "fuse.sshfs", "-o", &options, &source, TARGET]);
    // Each connection has a process of its own.
    server.place.sh_ok("kill -STOP $(pidof sshd)");
    let reader = start(&setting.pod, "cat /data/f");
    setting.mounter.wait_for(events::HUNG, 1);
    assert!(setting.hostmount("list").contains("  hung  "));
    server.place.sh_ok("kill -CONT $(pidof sshd)");
    assert_eq!(end(reader), "served\n");
    setting.mounter.wait_for(events::ANSWERS, 1);
}

fn a_heal_says_that_it_waits_for_the_server() {
    let (server, test) = Sshd::with_node();
    let source = format!("root@{SERVER_ADDRESS}:/srv/export");
    let config = "hang_seconds = 1\nready_timeout_seconds = 6\n";
    let setting = Setting::mount(test, config, &["-t", "fuse.sshfs", "-o", &format!("port={PORT}"), &source, TARGET]);
    server.place.sh_ok("kill -STOP $(pidof sshd)");
    let reader = start(&setting.pod, "cat /data/f || echo failed");
    setting.mounter.wait_for(events::HUNG, 1);
    let done = setting.test.node.sh(&format!("{NODE_BIN}/hostmount heal {TARGET}"));
    let said = "its fresh helper does not answer yet";
    assert!(done.code != Some(0) && done.stderr.matches(said).count() == 1, "{done:?}");
    assert_eq!(end(reader), "failed\n");
    server.place.sh_ok("kill -CONT $(pidof sshd)");
}

fn a_stopped_glusterfs_brick_makes_the_volume_hang() {
    let (server, source, test) = Gluster::with_node();
    let setting = Setting::mount(test, "hang_seconds = 4\n", &["-t", "glusterfs", &source, TARGET]);
    setting.pod.sh_ok("echo served >/data/f");
    server.place.sh_ok("kill -STOP $(pidof glusterfsd)");
    let reader = start(&setting.pod, "cat /data/f");
    setting.mounter.wait_for(events::HUNG, 1);
    server.place.sh_ok("kill -CONT $(pidof glusterfsd)");
    assert_eq!(end(reader), "served\n");
    setting.mounter.wait_for(events::ANSWERS, 1);
}

fn a_wait_for_a_file_lock_is_not_a_hang() {
    let (_server, source, test) = Gluster::with_node();
    let config = "hang_seconds = 1\non_hang = 'heal'\n";
    let setting = Setting::mount(test, config, &["-t", "glusterfs", &source, TARGET]);
    let mut holder = start(&setting.pod, "exec 9>/data/lock; flock 9; echo held; exec sleep infinity");
    holder.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    // Here the lock is the server's: the helper does not answer until it is free.
    let waiter = start(&setting.pod, "flock /data/lock echo got it");
    setting.mounter.wait_for(events::LOCKED, 16);
    assert_eq!(setting.mounter.count(events::HUNG), 0);
    drop(holder);
    assert_eq!(end(waiter), "got it\n");
}

/// At every check requests wait, as many as at the one before.
fn a_busy_volume_is_not_a_hang() {
    let setting = Setting::bindfs("hang_seconds = 1\non_hang = 'heal'\n");
    setting.test.container.sh_ok("truncate -s 64M /tmp/source/f");
    let read = "while :; do dd if=/data/f of=/dev/null bs=128k iflag=direct; done";
    let _readers: Vec<_> = (0..8).map(|_| start(&setting.pod, read)).collect();
    setting.mounter.wait_for(events::BUSY, 40);
    assert_eq!(setting.mounter.count(events::HUNG), 0);
}

fn a_slow_server_is_not_a_hang() {
    let (server, test) = Sshd::with_node();
    // Packets as small as on a real network.
    server.place.sh_ok("truncate -s 64M /srv/export/f && ip link set lo mtu 1500");
    let source = format!("root@{SERVER_ADDRESS}:/srv/export");
    let options = format!("port={PORT},Compression=no");
    let config = "hang_seconds = 1\non_hang = 'heal'\n";
    let setting = Setting::mount(test, config, &["-t", "fuse.sshfs", "-o", &options, &source, TARGET]);
    // One read of 128 KiB takes five times as long as it takes to hang.
    server.place.sh_ok("tc qdisc add dev lo root tbf rate 200kbit burst 8k latency 30s");
    let _reader = start(&setting.pod, "exec dd if=/data/f of=/dev/null bs=128k iflag=direct");
    setting.mounter.wait_for(events::BUSY, 40);
    assert_eq!(setting.mounter.count(events::HUNG), 0);
}
