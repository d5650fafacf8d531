//! A node with the FlexVolume driver and kubelet's directories of two pods, which may have volumes of bindfs.
//!
//! Runs in the tests' process, as root.

use super::mounter::Mounter;
use super::{TestNode, opened};
use serde_json::{Value, json};

/// Where kubelet finds the driver.
pub const DRIVER: &str = "/run/hostmount/plugins/hostmount~fuse/fuse";
/// A volume of FlexVolume, of the first pod.
pub const FLEX: &str = "/var/lib/kubelet/pods/uid-1/volumes/hostmount~fuse/data";
/// One that kubelet mounts by itself, of the second.
pub const PLAIN: &str = "/var/lib/kubelet/pods/uid-2/volumes/kubernetes.io~nfs/data";

/// The node, and its mounter; bindfs of the container's /tmp/source may be had from these origins.
pub fn start(origins: &[&str]) -> (TestNode, Mounter) {
    let test = TestNode::start();
    test.container.sh_ok(
        "/usr/local/bin/hostmount install --to /run/hostmount/bin --flexvolume /run/hostmount/plugins
         mkdir /tmp/source && echo served >/tmp/source/f",
    );
    test.node.sh_ok(&format!("mkdir -p {FLEX} {PLAIN}"));
    test.configure(&origins.iter().map(|origin| opened(origin, &["bindfs"])).collect::<String>());
    let mounter = test.start_mounter(&[], &[]);
    (test, mounter)
}

/// What kubelet tells the driver of the first pod's volume.
pub fn of_the_first() -> Value {
    json!({
        "kubernetes.io/pod.name": "web-0",
        "kubernetes.io/pod.namespace": "shop",
        "fstype": "bindfs",
        "source": "/tmp/source",
    })
}
