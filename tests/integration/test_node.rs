//! The test node itself: properties that the other tests rely on.

use crate::harness::{Test, tests};
use crate::node::gluster::{self, Gluster};
use crate::node::sshd::{self, Sshd};
use crate::node::{self, TestNode};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use testbed::machine::{Error, Propagation, Recipe, Room};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        the_node_is_immutable_and_without_helpers.quick(),
        the_node_mounts_with_its_own_programs_and_no_other_namespace_sees_it.quick(),
        pid_1_lives_in_the_nodes_namespace.quick(),
        all_processes_end_with_the_machine.quick(),
        a_machine_ends_though_a_process_of_it_is_still_held.quick(),
        rooms_share_only_what_their_recipes_name.quick(),
        pods_see_later_mounts_of_the_node_only_when_asked_to.quick(),
        memfs_is_a_filesystem.quick(),
        a_gluster_volume_is_served.needs(gluster::PROGRAMS),
        sshd_admits_clients_with_the_key.needs(sshd::PROGRAMS),
    ]
}

fn the_node_is_immutable_and_without_helpers() {
    let test = TestNode::start();
    for path in ["/new", "/usr/new", "/etc/new"] {
        let done = test.node.sh(&format!("touch {path}"));
        assert!(done.stderr.contains("Read-only file system"), "{path}: {}", done.stderr);
    }
    for helper in ["mount.glusterfs", "glusterfs", "sshfs", "mount.fuse", "fusermount3", "bindfs"] {
        assert_ne!(test.node.sh(&format!("command -v {helper}")).code, Some(0), "{helper} is on the node");
    }
    assert_ne!(test.node.sh("test -e /dev/fuse").code, Some(0));
    test.node.sh_ok("touch /var/lib/kubelet/a /run/a /tmp/a /mnt/a /opt/hostmount/a");
    test.node.sh_ok("su -s /bin/sh nobody -c 'touch /tmp/b && echo >/dev/null'");
    test.container.sh_ok("test -c /dev/fuse && touch /usr/new");
    assert_ne!(test.node.sh("test -e /usr/new").code, Some(0), "the rooms share a disk");
}

fn the_node_mounts_with_its_own_programs_and_no_other_namespace_sees_it() {
    let test = TestNode::start();
    test.node.sh_ok("mkdir -p /var/lib/kubelet/here && mount -t tmpfs of-the-test /var/lib/kubelet/here");
    let line = test.node.mount_at("/var/lib/kubelet/here").expect("it is mounted on the node");
    assert!(line.contains(" shared:") && line.contains(" - tmpfs of-the-test rw"), "{line}");
    assert_eq!(test.container.mount_at("/var/lib/kubelet/here"), None);
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("of-the-test"));
    test.node.sh_ok("umount /var/lib/kubelet/here");
    assert_eq!(test.node.mount_at("/var/lib/kubelet/here"), None);
}

fn pid_1_lives_in_the_nodes_namespace() {
    let test = TestNode::start();
    let namespace = |file| format!("readlink /proc/{file}/ns/mnt");
    let node = test.node.sh_ok(&namespace("self"));
    assert_eq!(test.container.sh_ok(&namespace("1")), node);
    assert_ne!(test.container.sh_ok(&namespace("self")), node);
    assert_eq!(test.processes()[&1], "init");
    let held = test.descriptors(1);
    assert_eq!(held.len(), 1, "PID 1 holds more than its lifeline: {held:?}");
    // Orphans leave no zombie behind.
    test.node.sh_ok("mkfifo /run/fifo");
    let orphan = test.node.sh_ok("(read line </run/fifo) >/dev/null 2>&1 & echo $!");
    test.node.sh_ok("echo >/run/fifo");
    assert_ne!(test.node.sh(&format!("grep -q zombie /proc/{}/status", orphan.trim())).code, Some(0));
}

fn all_processes_end_with_the_machine() {
    let test = TestNode::start();
    let (node, container) = (test.node.0.clone(), test.container.0.clone());
    // A daemon in a session of its own holds the write end of a pipe whose read end we have.
    let mut command = Room::command("/bin/sh");
    command.args(["-c", "setsid sh -c 'echo started; exec sleep 1000' &"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut shell = container.spawn(command).unwrap();
    let mut output = BufReader::new(shell.stdout.take().unwrap());
    assert!(shell.wait().unwrap().success());
    drop(shell);
    let mut said = String::new();
    output.read_line(&mut said).unwrap();
    drop(test);
    // Returns only when the daemon has exited.
    output.read_to_string(&mut said).unwrap();
    assert_eq!(said, "started\n");
    assert!(matches!(node.output(Room::command("true")), Err(Error::Ended)));
}

fn a_machine_ends_though_a_process_of_it_is_still_held() {
    let test = TestNode::start();
    let mut command = Room::command("sleep");
    command.arg("1000");
    let mut process = test.node.spawn(command);
    drop(test);
    assert_eq!(process.wait().unwrap().code(), None, "killed with its machine");
}

fn rooms_share_only_what_their_recipes_name() {
    let test = TestNode::start();
    test.container.sh_ok("echo hello >/run/hostmount/file");
    assert_eq!(test.node.sh_ok("cat /run/hostmount/file"), "hello\n");
    let empty = test.room(Recipe::empty().share("socket", "/shared").setup(|| fs::write("/note", "made here")));
    let seen = empty.visit(|| (fs::read_to_string("/shared/file"), fs::read_to_string("/note"), fs::metadata("/usr")));
    assert_eq!((seen.0.unwrap(), seen.1.unwrap()), ("hello\n".into(), "made here".into()));
    assert!(seen.2.is_err());
}

fn pods_see_later_mounts_of_the_node_only_when_asked_to() {
    let test = TestNode::start();
    let volume = [("/var/lib/kubelet/pod", "/data")];
    test.node.sh_ok("mkdir -p /var/lib/kubelet/pod/late && mount -t tmpfs early /var/lib/kubelet/pod");
    test.node.sh_ok("mkdir /var/lib/kubelet/pod/late && echo early >/var/lib/kubelet/pod/file");
    let (private, slave) = (test.pod(&volume, Propagation::None), test.pod(&volume, Propagation::HostToContainer));
    test.node.sh_ok("mount -t tmpfs late /var/lib/kubelet/pod/late && touch /var/lib/kubelet/pod/late/file");
    for pod in [&private, &slave] {
        assert_eq!(pod.sh_ok("cat /data/file"), "early\n");
    }
    slave.sh_ok("test -e /data/late/file");
    assert_ne!(private.sh("test -e /data/late/file").code, Some(0));
    // What a pod mounts stays in the pod.
    slave.sh_ok("mkdir /data/own && mount -t tmpfs own /data/own");
    assert_eq!(test.node.mount_at("/var/lib/kubelet/pod/own"), None);
}

fn memfs_is_a_filesystem() {
    let test = TestNode::start();
    let there = &test.container;
    there.sh_ok("mkdir /run/m && mount.memfs memory /run/m -o rw,size=1m,allow_other,noatime");
    let line = there.mount_at("/run/m").unwrap();
    assert!(line.contains("nosuid,nodev,noatime") && line.contains(" - fuse.memfs memory rw,"), "{line}");
    there.sh_ok(
        "set -e; cd /run/m
        mkdir -p a/b && echo one23 >a/b/file && cat a/b/file | grep -q one23
        echo more >>a/b/file && test $(stat -c %s a/b/file) = 11
        truncate -s 3 a/b/file && test $(cat a/b/file) = one
        mv a/b/file a/moved && rmdir a/b && ln -s moved a/link && test $(cat a/link) = one
        chmod 2770 a && chown 7:8 a && touch a/new && test $(stat -c %g a/new) = 8 && test $(stat -c %a,%u a) = 2770,7
        for n in $(seq 500); do echo $n >$n; done && test $(ls | wc -l) = 501 && rm [0-9]* && test $(ls) = a
        exec 3<a/moved && rm a/moved && test $(cat <&3) = one
        test $(stat -f -c %b .) = 256",
    );
    let full = there.sh("head -c 2000000 /dev/zero >/run/m/full");
    assert!(full.stderr.contains("No space left on device"), "{}", full.stderr);
    there.sh_ok("rm /run/m/full && head -c 1000000 /dev/urandom >/tmp/x && cp /tmp/x /run/m && cmp /tmp/x /run/m/x");
    there.sh_ok("chmod 700 /run/m/a && chmod 777 /run/m");
    there.sh_ok("su -s /bin/sh nobody -c 'cd /run/m && ! ls a 2>/dev/null && touch mine'");
    assert_eq!(there.sh_ok("stat -c %U /run/m/mine"), "nobody\n");
    there.sh_ok("umount /run/m");
    assert_eq!(there.mount_at("/run/m"), None);
    assert_eq!(there.sh("mount.memfs memory /run/nowhere").code, Some(32));
    assert_eq!(there.sh("mount.memfs memory").code, Some(1));
}

fn a_gluster_volume_is_served() {
    let (server, source, test) = Gluster::with_node();
    test.container.sh_ok(&format!("mount -t glusterfs {source} /mnt && echo hello >/mnt/file"));
    assert_eq!(server.place.sh_ok("cat /brick/gv0/file"), "hello\n");
    assert_ne!(test.node.sh(&format!("mount -t glusterfs {source} /mnt")).code, Some(0), "the node has the helper");
}

fn sshd_admits_clients_with_the_key() {
    let test = TestNode::start();
    let server = Sshd::start(&test.network);
    server.place.sh_ok("echo hello >/srv/export/file");
    let ssh = format!("ssh -p {} root@{} cat /srv/export/file", sshd::PORT, node::SERVER_ADDRESS);
    let refused = test.container.sh(&format!("HOME=/nowhere {ssh} -o BatchMode=yes"));
    assert_eq!(refused.code, Some(255), "{}", refused.stderr);
    server.install_client(&test.container);
    assert_eq!(test.container.sh_ok(&ssh), "hello\n");
}
