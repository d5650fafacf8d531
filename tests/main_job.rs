//! The main job: filesystems whose helpers are in the container only, mounted on a node that has none of them.

mod node;

use hostmount::demo::machine::{Network, Propagation};
use node::gluster::{self, Gluster};
use node::sshd::{self, Sshd};
use node::{NODE_BIN, TestNode, require};

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

/// A node with its target directory, whose mounter runs.
fn start(network: &Network) -> (TestNode, node::mounter::Mounter) {
    let test = TestNode::start_in(network);
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    let mounter = test.start_mounter(&[], &[]);
    (test, mounter)
}

/// Unmounts with the node's own umount(8), and sees the helper end by itself.
fn unmount_and_see_it_end(test: &TestNode, mounter: &node::mounter::Mounter, helper: &str) {
    assert!(test.processes().values().any(|line| line.contains(helper)), "{:?}", test.processes());
    test.node.sh_ok(&format!("umount {TARGET}"));
    mounter.wait_until_said("\"unmounted\"", 1);
    assert_eq!(test.node.mount_at(TARGET), None);
    test.wait_for_processes(helper, 0);
    assert_eq!(list(test), "[]");
}

fn list(test: &TestNode) -> String {
    test.node.sh_ok(&format!("{NODE_BIN}/hostmount list --output json")).trim().to_owned()
}

/// Writes, reads, lists, renames and removes on the node.
fn use_it(test: &TestNode) {
    test.node.sh_ok(&format!(
        "set -e; cd {TARGET}
        echo hello >a; test \"$(cat a)\" = hello
        mkdir d; mv a d/b; test \"$(ls d)\" = b
        dd if=/dev/urandom of=d/c bs=64k count=16 2>/dev/null; cmp d/c d/c; test $(stat -c %s d/c) = 1048576
        rm -r d; test -z \"$(ls)\"; echo stays >kept"
    ));
}

/// Every process of the helper's has empty capability sets, no way to new ones, and no descriptor of ours.
fn assert_confined(test: &TestNode, helper: &str) {
    let processes = test.processes();
    let mut found = 0;
    for (pid, _) in processes.iter().filter(|(_, line)| line.contains(helper)) {
        let status = test.node.sh_ok(&format!("cat /proc/{pid}/status"));
        let value = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line[key.len()..].trim().to_owned()
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(value(set), "0000000000000000", "{helper} {set}");
        }
        assert_eq!((value("NoNewPrivs:"), value("Seccomp:")), ("1".to_owned(), "2".to_owned()), "{helper}");
        let group = test.node.sh_ok(&format!("cut -d' ' -f5 /proc/{pid}/stat"));
        let ours = test
            .node
            .sh_ok("for p in /proc/[0-9]*; do if [ $(cat $p/comm) = hostmount ]; then cut -d' ' -f5 $p/stat; fi; done");
        assert!(!ours.lines().any(|line| line == group.trim()), "{helper} shares our process group");
        for (number, leads_to) in test.descriptors(*pid) {
            let leads_to = leads_to.to_string_lossy().into_owned();
            let foreign = ["seccomp", "signalfd", "hostmount.sock", "mnt:[", "mountinfo"];
            assert!(!foreign.iter().any(|word| leads_to.contains(word)), "{helper} holds {number} -> {leads_to}");
        }
        found += 1;
    }
    assert!(found > 0, "no process of {helper}: {processes:?}");
}

#[test]
fn glusterfs_on_a_node_that_has_no_glusterfs() {
    if !require(gluster::PROGRAMS) {
        return;
    }
    let network = Network::new().unwrap();
    let server = Gluster::start(&network);
    let source = server.volume("gv0");
    let (test, mounter) = start(&network);
    assert_ne!(test.node.sh("command -v mount.glusterfs").code, Some(0));
    // As kubelet calls an external mounter.
    test.mount(&["mount", "-t", "glusterfs", "-o", "log-level=ERROR", &source, TARGET]).ok("mount");
    let line = test.node.mount_at(TARGET).unwrap();
    assert!(line.contains(" - fuse.glusterfs ") && line.contains("nosuid,nodev"), "{line}");
    assert!(line.contains("allow_other"), "{line}");
    assert_confined(&test, "glusterfs");
    use_it(&test);
    // Another node sees the file.
    let (other, _other_mounter) = start(&network);
    other.mount(&["-t", "glusterfs", &source, TARGET]).ok("mount on the second node");
    assert_eq!(other.node.sh_ok(&format!("cat {TARGET}/kept")), "stays\n");
    other.node.sh_ok(&format!("echo back >{TARGET}/from-the-other"));
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/from-the-other")), "back\n");
    // Somebody who is not root may enter: pods do not run as root.
    test.node.sh_ok(&format!("chmod 777 {TARGET}; su -s /bin/sh nobody -c 'ls {TARGET} && echo mine >{TARGET}/n'"));
    unmount_and_see_it_end(&test, &mounter, "/usr/sbin/glusterfs");
}

#[test]
fn sshfs_against_a_real_sshd() {
    if !require(&[sshd::PROGRAMS, &["sshfs"]].concat()) {
        return;
    }
    let network = Network::new().unwrap();
    let server = Sshd::start(&network);
    let (test, mounter) = start(&network);
    server.install_client(&test.container);
    let options = format!("port={},IdentityFile=/root/.ssh/id_ed25519", sshd::PORT);
    test.mount(&["-t", "fuse.sshfs", "-o", &options, "root@10.77.0.1:/srv/export", TARGET]).ok("mount");
    assert_confined(&test, "sshfs");
    use_it(&test);
    assert_eq!(server.place.sh_ok("cat /srv/export/kept"), "stays\n");
    unmount_and_see_it_end(&test, &mounter, "sshfs");
}

#[test]
fn bindfs_read_write_and_read_only() {
    if !require(&["bindfs"]) {
        return;
    }
    let (test, mounter) = start(&Network::new().unwrap());
    test.container.sh_ok("mkdir /tmp/source");
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    assert_confined(&test, "bindfs");
    use_it(&test);
    let shown = list(&test);
    for word in [TARGET, "fuse.bindfs", "/tmp/source", "\"mounted\"", "bindfs"] {
        assert!(shown.contains(word), "{shown}");
    }
    assert!(test.node.sh_ok(&format!("{NODE_BIN}/hostmount list")).contains("STATE"));
    unmount_and_see_it_end(&test, &mounter, "bindfs");
    test.mount(&["-t", "fuse.bindfs", "-r", "/tmp/source", TARGET]).ok("mount read-only");
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/kept")), "stays\n");
    assert!(test.node.sh(&format!("touch {TARGET}/new")).stderr.contains("Read-only file system"));
    assert!(test.node.mount_at(TARGET).unwrap().contains(" ro,nosuid,nodev"));
    test.umount(&["-v", TARGET]).ok("our umount");
    mounter.wait_until_said("\"unmounted\"", 2);
}

#[test]
fn squashfuse_shows_an_image() {
    if !require(&["squashfuse", "mksquashfs"]) {
        return;
    }
    let (test, mounter) = start(&Network::new().unwrap());
    test.container
        .sh_ok("mkdir /tmp/s && echo packed >/tmp/s/f && mksquashfs /tmp/s /tmp/image -quiet >/dev/null 2>&1");
    test.mount(&["-t", "fuse.squashfuse", "/tmp/image", TARGET]).ok("mount");
    assert_confined(&test, "squashfuse");
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/f")), "packed\n");
    unmount_and_see_it_end(&test, &mounter, "squashfuse");
}

#[test]
fn a_volume_shows_where_the_node_shows_it_and_nowhere_else() {
    if !require(&["bindfs"]) {
        return;
    }
    let (test, mounter) = start(&Network::new().unwrap());
    let before = test.container.mountinfo();
    test.container.sh_ok("mkdir /tmp/source && echo x >/tmp/source/f");
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    assert_eq!(test.container.mountinfo(), before, "the container sees the volume");
    let with = test.pod(&[(TARGET, "/data")], Propagation::None);
    assert_eq!(with.sh_ok("cat /data/f"), "x\n");
    // A pod that started earlier, with HostToContainer, sees a volume that comes later.
    test.node.sh_ok("mkdir /var/lib/kubelet/pods/p/volumes/late");
    let early = test.pod(&[("/var/lib/kubelet/pods", "/pods")], Propagation::HostToContainer);
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", "/var/lib/kubelet/pods/p/volumes/late"]).ok("mount");
    assert_eq!(early.sh_ok("cat /pods/p/volumes/late/f"), "x\n");
    test.node.sh_ok("umount /var/lib/kubelet/pods/p/volumes/late");
    mounter.wait_until_said("\"unmounted\"", 1);
    // The node lets go of the first one; the pods keep it, and the list says so.
    test.node.sh_ok(&format!("umount {TARGET}"));
    assert!(list(&test).contains("\"detached\""));
    assert_eq!(with.sh_ok("cat /data/f"), "x\n");
    drop((with, early));
    mounter.wait_until_said("\"unmounted\"", 2);
    assert_eq!(list(&test), "[]");
}

#[test]
fn options_reach_the_helper_and_the_kernel() {
    if !require(&["bindfs"]) {
        return;
    }
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
    // A process list tells the volume that a helper serves.
    assert!(argv.contains(TARGET), "{argv}");
}

#[test]
fn what_is_not_served_is_the_nodes_own_mount() {
    if !require(&[]) {
        return;
    }
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
    // Called by name through a PATH that finds us first, it does not find itself again.
    let line = format!("PATH={NODE_BIN}:$PATH; mount -t tmpfs x {TARGET} && umount {TARGET}");
    test.node.sh_ok(&line);
}
