//! Requests of the typed client that mount(8) cannot make: mount unless mounted, and make the target.

use crate::harness::{Test, tests};
use crate::node::TestNode;
use crate::node::mounter::SOCKET;
use api::client::{CallError, Client};
use api::message::{Mount, Mounted};
use api::options::MountOptions;
use api::request::{Request, Switches};
use api::secret::Secrets;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_volume_that_is_there_is_not_mounted_again.needs(&["bindfs"]).quick(),
        a_target_is_made_and_taken_away_again.needs(&["bindfs"]).quick(),
        calls_that_come_twice_at_once_mount_one_volume.needs(&["bindfs"]).quick(),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

fn bindfs(source: &str, target: &str) -> Mount {
    let (fstype, source, target) = ("fuse.bindfs".to_owned(), source.to_owned(), target.to_owned());
    let (options, switches, secrets) = (MountOptions::default(), Switches::default(), Secrets::new());
    Request { fstype, source, target, options, switches, secrets }.into()
}

/// Asks from the node, as a program there would.
fn mount(test: &TestNode, mount: Mount) -> Result<Mounted, CallError> {
    test.node.visit(|| Client::at(SOCKET).mount(mount))
}

fn message(failed: Result<Mounted, CallError>) -> String {
    failed.unwrap_err().into_failure().message
}

fn a_volume_that_is_there_is_not_mounted_again() {
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET} /mnt/other"));
    test.container.sh_ok("mkdir /tmp/source /tmp/another");
    let _mounter = test.start_mounter(&[], &[]);
    let unless = |source: &str, target: &str| Mount { unless_mounted: true, ..bindfs(source, target) };
    assert!(!mount(&test, unless("/tmp/source", TARGET)).unwrap().already);
    assert!(mount(&test, unless("/tmp/source", TARGET)).unwrap().already);
    test.wait_for_processes("bindfs", 1);
    // Without `unless_mounted` it is an error, as with mount(8).
    assert!(message(mount(&test, bindfs("/tmp/source", TARGET))).contains("already mounted"));
    // Another source is another volume, and another filesystem is no volume.
    assert!(message(mount(&test, unless("/tmp/another", TARGET))).contains("something else is mounted"));
    test.node.sh_ok("mount -t tmpfs other /mnt/other");
    assert!(message(mount(&test, unless("/tmp/source", "/mnt/other"))).contains("something else is mounted"));
    assert_eq!(test.node.fuse_mounts().len(), 1);
    test.node.sh_ok(&format!("umount {TARGET}"));
    assert!(!mount(&test, unless("/tmp/source", TARGET)).unwrap().already, "it is gone, so it is mounted anew");
}

fn a_target_is_made_and_taken_away_again() {
    let test = TestNode::start();
    test.node
        .sh_ok("mkdir -p /var/lib/kubelet/pods/p /mnt/elsewhere && ln -s /mnt/elsewhere /var/lib/kubelet/pods/link");
    test.container.sh_ok("mkdir /tmp/source");
    let _mounter = test.start_mounter(&[], &[]);
    let making = |source: &str, target: &str| Mount { make_target: true, ..bindfs(source, target) };
    let target = "/var/lib/kubelet/pods/p/made";
    let before = test.node.sh_ok("find /var/lib/kubelet /mnt");
    // The mount fails: no helper can serve that.
    assert!(!message(mount(&test, making("/tmp/nothing", target))).is_empty());
    for (refused, words) in [
        ("/mnt/made", "does not exist"),
        ("/var/lib/kubelet", "could not mount"),
        ("/var/lib/kubelet/pods/none/made", "does not exist"),
        ("/var/lib/kubelet/pods/link/made", "symbolic link"),
    ] {
        let said = message(mount(&test, making("/tmp/nothing", refused)));
        assert!(said.contains(words), "{refused}: {said}");
    }
    assert_eq!(test.node.sh_ok("find /var/lib/kubelet /mnt"), before);
    assert!(message(mount(&test, bindfs("/tmp/source", target))).contains("does not exist"), "it was not asked to");
    mount(&test, making("/tmp/source", target)).unwrap();
    assert!(test.node.mount_at(target).is_some());
    test.node.sh_ok(&format!("umount {target}"));
    assert_eq!(test.node.sh_ok(&format!("stat -c %a {target}")), "750\n");
}

fn calls_that_come_twice_at_once_mount_one_volume() {
    let test = TestNode::start();
    test.container.sh_ok("mkdir /tmp/source");
    test.node.sh_ok("mkdir -p /var/lib/kubelet/pods/p");
    let _mounter = test.start_mounter(&[], &[]);
    let target = "/var/lib/kubelet/pods/p/made";
    let ask = || mount(&test, Mount { unless_mounted: true, make_target: true, ..bindfs("/tmp/source", target) });
    let done: Vec<_> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(done.iter().filter(|done| done.as_ref().is_ok_and(|mounted| !mounted.already)).count(), 1);
    // For the others it was mounted already, or under way: an error that advises to try again.
    for failed in done.into_iter().filter(Result::is_err) {
        assert!(message(failed).contains("under way"));
    }
    assert_eq!(test.node.fuse_mounts().len(), 1);
    assert!(ask().unwrap().already);
}
