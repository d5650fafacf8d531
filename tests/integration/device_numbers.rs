//! The kernel gives the device number of an unmounted filesystem to the next one at once: a foreign filesystem with the
//! number, type and source of an earlier volume is never taken for it.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::{NODE_BIN, Place, TestNode};
use hostmount::observe::events;
use nix::sys::signal::Signal;
use std::cmp::Ordering;
use testbed::machine::{Process, Recipe};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_foreign_filesystem_with_the_number_of_an_unmounted_volume.needs(&["bindfs"]).quick(),
        a_foreign_filesystem_with_the_number_that_a_record_names.needs(&["bindfs"]).quick(),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

/// A volume that was unmounted while the mounter was stopped, and a pod's own filesystem with the same number, type and
/// source.
struct Taken {
    test: TestNode,
    mounter: Mounter,
    pod: Place,
    mounted: String,
    _alive: Process,
}

/// The kernel gives the lowest free number: the pod mounts until it has got the volume's. If another test was
/// quicker, everything is tried again.
fn taken() -> Taken {
    let test = TestNode::start();
    let mounter = test.start_mounter(&[], &[]);
    let pod = test.room(Recipe::userland().fuse().writable(["/tmp", "/mnt"]));
    for place in [&test.container, &pod] {
        place.sh_ok("mkdir /tmp/source && echo served >/tmp/source/f");
    }
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    let alive = pod.live();
    let mut directories = 0..1000;
    while !directories.is_empty() {
        test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
        let number = minor(&test.node, TARGET);
        mounter.signal(Signal::SIGSTOP);
        test.node.sh_ok(&format!("umount {TARGET}"));
        for directory in directories.by_ref() {
            let mounted = format!("/mnt/{directory}");
            pod.sh_ok(&format!("mkdir {mounted} && bindfs /tmp/source {mounted}"));
            match minor(&pod, &mounted).cmp(&number) {
                Ordering::Less => {}
                Ordering::Equal => return Taken { test, mounter, pod, mounted, _alive: alive },
                Ordering::Greater => break,
            }
        }
        mounter.signal(Signal::SIGCONT);
    }
    panic!("the pod's filesystem does not get the number");
}

/// The device number's second half, which is all of it for a filesystem without a block device.
fn minor(place: &Place, target: &str) -> u32 {
    let device = place.mount_at(target).unwrap().split(' ').nth(2).unwrap().to_owned();
    device.strip_prefix("0:").unwrap().parse().unwrap()
}

impl Taken {
    /// Panics if the mounter has taken the pod's filesystem for its volume.
    fn check(&self, mounter: &Mounter, before: &[String]) {
        mounter.wait_for(events::UNMOUNTED, 1);
        // It has begun to handle the volume's end by then: a mount at the same target waits for nothing.
        self.test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount again");
        self.test.node.sh_ok(&format!("{NODE_BIN}/hostmount swap {TARGET} && umount {TARGET}"));
        self.test.wait_for_processes("/run/hostmount/mnt", 0);
        assert_eq!(mounter.count(events::DEAD), 0, "taken for a dead volume");
        assert_eq!(self.pod.mountinfo(), before);
        assert_eq!(self.pod.sh_ok(&format!("cat {}/f", self.mounted)), "served\n");
    }
}

fn a_foreign_filesystem_with_the_number_of_an_unmounted_volume() {
    let taken = taken();
    let before = taken.pod.mountinfo();
    taken.mounter.signal(Signal::SIGCONT);
    taken.check(&taken.mounter, &before);
}

fn a_foreign_filesystem_with_the_number_that_a_record_names() {
    let mut taken = taken();
    let before = taken.pod.mountinfo();
    taken.mounter.signal(Signal::SIGKILL);
    taken.mounter.wait();
    taken.test.wait_for_processes("/run/hostmount/mnt", 0);
    let next = taken.test.start_mounter(&[], &[]);
    taken.check(&next, &before);
}
