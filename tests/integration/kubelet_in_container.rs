//! A kubelet that runs in a container: it calls hostmount's programs there, and volumes are mounted on the node.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::{Place, TestNode, helpers, opened};
use hostmount::observe::events;
use testbed::machine::{Propagation, Recipe};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        its_umount_unmounts_on_the_node.needs(&["bindfs"]).quick(),
        what_is_its_own_stays_its_own.needs(&["bindfs"]).quick()
    ]
}

const BIN: &str = "/var/lib/kubelet/plugins/hostmount/bin";
const PLUGINS: &str = "/var/lib/kubelet/plugins/volume/exec";
const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

fn start() -> (TestNode, Mounter) {
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.sh_ok("mkdir /tmp/source && echo served >/tmp/source/file");
    test.configure(&(opened("flexvolume", &["bindfs"]) + &opened("kubelet", &["bindfs"])));
    let mounter = test.start_mounter(&["--install", BIN, "--install-flexvolume", PLUGINS], &[]);
    (test, mounter)
}

/// Kubelet's container: the node's processes, and of its files kubelet's directory alone.
fn kubelet(test: &TestNode, how: Propagation) -> Place {
    let recipe = Recipe::userland().without(helpers()).read_only().writable(["/run", "/tmp"]);
    test.room(recipe.from_node("/var/lib/kubelet", "/var/lib/kubelet", how))
}

fn its_umount_unmounts_on_the_node() {
    let (test, mounter) = start();
    let mount = format!("{BIN}/mount -t fuse.bindfs /tmp/source {TARGET}");
    let mut ended = 0;
    let mut gone = |kubelet: &Place| {
        ended += 1;
        mounter.wait_for(events::UNMOUNTED, ended);
        assert_eq!((test.node.mount_at(TARGET), kubelet.mount_at(TARGET)), (None, None));
        test.wait_for_processes("bindfs", 0);
    };
    // As kubelet's containers should be, and one whose mounts come from the node only.
    let following = kubelet(&test, Propagation::HostToContainer);
    following.sh_ok(&mount);
    assert!(test.node.mount_at(TARGET).is_some());
    assert_eq!(following.sh_ok(&format!("cat {TARGET}/file")), "served\n");
    following.sh_ok(&format!("{BIN}/umount {TARGET}"));
    gone(&following);
    // The node's mounts do not propagate to it.
    let deaf = kubelet(&test, Propagation::None);
    deaf.sh_ok(&mount);
    assert!(test.node.mount_at(TARGET).is_some() && deaf.mount_at(TARGET).is_none());
    deaf.sh_ok(&format!("{BIN}/umount {TARGET}"));
    gone(&deaf);
    // Nor do unmounts: it has a copy that would keep the helper alive.
    deaf.sh_ok(&mount);
    let copying = kubelet(&test, Propagation::None);
    assert!(copying.mount_at(TARGET).is_some());
    copying.sh_ok(&format!("{BIN}/umount {TARGET}"));
    gone(&copying);
    // The FlexVolume driver, twice.
    let options = "{\"fstype\":\"fuse.bindfs\",\"source\":\"/tmp/source\"}";
    let driver = format!("{PLUGINS}/hostmount~fuse/fuse");
    assert!(following.run(&driver, &["mount", TARGET, options]).ok("mount").contains("Success"));
    for _again in 0..2 {
        assert!(following.run(&driver, &["unmount", TARGET]).ok("unmount").contains("Success"));
    }
    gone(&following);
    let done = following.run(format!("{BIN}/umount"), &[TARGET]);
    assert!(done.code != Some(0) && done.stderr.contains("not mounted"), "{}", done.stderr);
}

fn what_is_its_own_stays_its_own() {
    let (test, mounter) = start();
    // Its tmpfs mounts and bind mounts are made by its own mount(8).
    let container = kubelet(&test, Propagation::HostToContainer);
    container.sh_ok(&format!("mkdir /tmp/t && {BIN}/mount -t tmpfs own /tmp/t"));
    assert!(container.mount_at("/tmp/t").is_some() && test.node.mount_at("/tmp/t").is_none());
    container.sh_ok(&format!("{BIN}/umount /tmp/t"));
    assert!(container.mount_at("/tmp/t").is_none());
    // A filesystem of its own at a path where the node has another one.
    let recipe = Recipe::userland().fuse().writable(["/run", "/tmp", "/srv"]);
    let other = test.room(recipe.from_node("/var/lib/kubelet", "/var/lib/kubelet", Propagation::None));
    test.node.sh_ok(&format!("{BIN}/mount -t fuse.bindfs /tmp/source {TARGET}"));
    other.sh_ok(&format!("echo own >/srv/file && bindfs /srv {TARGET}"));
    assert_eq!(other.sh_ok(&format!("cat {TARGET}/file; {BIN}/umount {TARGET}; ls {TARGET}")), "own\n");
    assert!(mounter.count(events::UNMOUNTED) == 0);
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/file")), "served\n");
}
