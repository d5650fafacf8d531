//! The main job: filesystems whose helpers are in the container only, mounted on a node that has none of them.

use crate::harness::{Test, tests};
use crate::node::gluster::{self, Gluster};
use crate::node::job::{TARGET, assert_confined, list, unmount_and_see_it_end, use_it};
use crate::node::{self, NODE_BIN, TestNode};
use hostmount::observe::events;
use testbed::machine::{Network, Propagation};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        glusterfs_on_a_node_that_has_no_glusterfs.needs(gluster::PROGRAMS),
        bindfs_read_write_and_read_only.needs(&["bindfs"]).quick(),
        a_volume_shows_where_the_node_shows_it_and_nowhere_else.needs(&["bindfs"]).quick(),
        options_reach_the_helper_and_the_kernel.needs(&["bindfs"]).quick(),
        what_is_not_served_is_the_nodes_own_mount.quick(),
    ]
}

/// A node with its target directory, whose mounter runs.
fn start(network: &Network) -> (TestNode, node::mounter::Mounter) {
    let test = TestNode::start_in(network);
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    let mounter = test.start_mounter(&[], &[]);
    (test, mounter)
}

fn glusterfs_on_a_node_that_has_no_glusterfs() {
    let network = Network::new().unwrap();
    let server = Gluster::start(&network);
    let source = server.volume("gv0");
    let (test, mounter) = start(&network);
    assert_ne!(test.node.sh("command -v mount.glusterfs").code, Some(0));
    let before = test.processes();
    // As kubelet calls an external mounter.
    test.mount(&["mount", "-t", "glusterfs", "-o", "log-level=ERROR", &source, TARGET]).ok("mount");
    let line = test.node.mount_at(TARGET).unwrap();
    assert!(line.contains(" - fuse.glusterfs ") && line.contains("nosuid,nodev"), "{line}");
    assert!(line.contains("allow_other"), "{line}");
    assert_confined(&test, "seccomp", "glusterfs", &before);
    use_it(&test);
    // Another node sees the file.
    let (other, _other_mounter) = start(&network);
    other.mount(&["-t", "glusterfs", &source, TARGET]).ok("mount on the second node");
    assert_eq!(other.node.sh_ok(&format!("cat {TARGET}/kept")), "stays\n");
    other.node.sh_ok(&format!("echo back >{TARGET}/from-the-other"));
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/from-the-other")), "back\n");
    // A user other than root may enter: pods do not run as root.
    test.node.sh_ok(&format!("chmod 777 {TARGET}; su -s /bin/sh nobody -c 'ls {TARGET} && echo mine >{TARGET}/n'"));
    unmount_and_see_it_end(&test, &mounter, &before, 1);
}

fn bindfs_read_write_and_read_only() {
    let (test, mounter) = start(&Network::new().unwrap());
    test.container.sh_ok("mkdir /tmp/source");
    let before = test.processes();
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    assert_confined(&test, "seccomp", "bindfs", &before);
    use_it(&test);
    let shown = list(&test);
    for word in [TARGET, "fuse.bindfs", "/tmp/source", "\"mounted\"", "bindfs"] {
        assert!(shown.contains(word), "{shown}");
    }
    assert!(test.node.sh_ok(&format!("{NODE_BIN}/hostmount list")).contains("STATE"));
    unmount_and_see_it_end(&test, &mounter, &before, 1);
    test.mount(&["-t", "fuse.bindfs", "-r", "/tmp/source", TARGET]).ok("mount read-only");
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/kept")), "stays\n");
    assert!(test.node.sh(&format!("touch {TARGET}/new")).stderr.contains("Read-only file system"));
    assert!(test.node.mount_at(TARGET).unwrap().contains(" ro,nosuid,nodev"));
    test.umount(&["-v", TARGET]).ok("our umount");
    mounter.wait_for(events::UNMOUNTED, 2);
}

fn a_volume_shows_where_the_node_shows_it_and_nowhere_else() {
    let (test, mounter) = start(&Network::new().unwrap());
    let before = test.container.mountinfo();
    test.container.sh_ok("mkdir /tmp/source && echo x >/tmp/source/f");
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    assert_eq!(test.container.mountinfo(), before, "the container sees the volume");
    let with = test.pod(&[(TARGET, "/data")], Propagation::None);
    assert_eq!(with.sh_ok("cat /data/f"), "x\n");
    // A pod that started earlier, with HostToContainer, sees a volume that is mounted later.
    test.node.sh_ok("mkdir /var/lib/kubelet/pods/p/volumes/late");
    let early = test.pod(&[("/var/lib/kubelet/pods", "/pods")], Propagation::HostToContainer);
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", "/var/lib/kubelet/pods/p/volumes/late"]).ok("mount");
    assert_eq!(early.sh_ok("cat /pods/p/volumes/late/f"), "x\n");
    test.node.sh_ok("umount /var/lib/kubelet/pods/p/volumes/late");
    mounter.wait_for(events::UNMOUNTED, 1);
    // The node unmounts the first one; the pods keep it, and the list shows that.
    test.node.sh_ok(&format!("umount {TARGET}"));
    assert!(list(&test).contains("\"detached\""));
    assert_eq!(with.sh_ok("cat /data/f"), "x\n");
    drop((with, early));
    mounter.wait_for(events::UNMOUNTED, 2);
    assert_eq!(list(&test), "[]");
}

fn options_reach_the_helper_and_the_kernel() {
    let (test, _mounter) = start(&Network::new().unwrap());
    test.container.sh_ok("mkdir /tmp/source && echo x >/tmp/source/f");
    let options = "force-user=1234,noexec,noatime,noallow_other,x-anything=5,perms=0640:u+D";
    test.mount(&["-t", "fuse.bindfs", "-o", options, "/tmp/source", TARGET]).ok("mount");
    assert_eq!(test.node.sh_ok(&format!("stat -c '%u %a' {TARGET}/f")), "1234 640\n");
    let line = test.node.mount_at(TARGET).unwrap();
    assert!(line.contains("nosuid,nodev,noexec,noatime"), "{line}");
    assert!(!line.contains("allow_other"), "{line}");
    let processes = test.processes();
    let argv = processes.values().find(|line| line.contains("bindfs")).unwrap();
    assert!(argv.contains("force-user=1234") && !argv.contains("x-anything"), "{argv}");
    // A process list shows which volume a helper serves.
    assert!(argv.contains(TARGET), "{argv}");
}

fn what_is_not_served_is_the_nodes_own_mount() {
    // No mounter runs: a node must go on working without it.
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.mount(&["-t", "tmpfs", "-o", "size=1m", "mine", TARGET]).ok("tmpfs");
    assert!(test.node.mount_at(TARGET).unwrap().contains("- tmpfs mine"));
    test.mount(&["mount", "-o", "bind", TARGET, "/mnt"]).ok("bind, with kubelet's word first");
    test.umount(&["/mnt", TARGET]).ok("umount of what is not FUSE");
    assert_eq!(test.node.mount_at(TARGET), None);
    for arguments in [&["--version"][..], &["-t", "nosuchtype", "a", TARGET], &["-l", "-t", "proc"], &["--no-such"]] {
        let ours = test.mount(arguments);
        let theirs = test.node.run("mount", arguments);
        assert_eq!((ours.code, ours.stdout, ours.stderr), (theirs.code, theirs.stdout, theirs.stderr));
    }
    // Called by name through a PATH that has it first, it does not execute itself again.
    let line = format!("PATH={NODE_BIN}:$PATH; mount -t tmpfs x {TARGET} && umount {TARGET}");
    test.node.sh_ok(&line);
}
