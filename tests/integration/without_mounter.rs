//! The preload engine's object in a container without a mounter: what is mounted there appears on the node.

use crate::harness::{Test, tests};
use crate::node::gluster::{self, Gluster};
use crate::node::job::{TARGET, use_it};
use crate::node::preloaded::install;
use crate::node::{PODMAN, Place, TestNode, is_fuse};
use hostmount::engine::preload::DEFAULT_OBJECT;
use hostmount::observe::events;
use std::fs;
use testbed::machine::{Machine, Network, Recipe};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_container_whose_programs_load_the_object_anyway.needs(&["make", "bindfs"]),
        without_a_mounter_it_appears_on_the_node_and_goes_with_the_nodes_umount.needs(&["make", "bindfs"]),
        without_a_mounter_umount_in_the_container_is_umount_on_the_node.needs(&["make", "bindfs"]).quick(),
        without_a_mounter_glusterfs_sees_its_mount.needs(gluster::PROGRAMS).needs(&["make"]),
        without_a_mounter_in_real_containers.needs(gluster::PROGRAMS).needs(&["make", "bindfs", "podman", "runc"]),
    ]
}

/// How the object gets into the programs of a container.
#[derive(Debug, Clone, Copy)]
enum Loaded {
    Environment,
    LdSoPreload,
}

/// A container that mounts for its node without a mounter.
fn without_mounter(network: &Network, loaded: Loaded) -> (TestNode, String) {
    let test = TestNode::start_in(network);
    install(&test.container);
    test.container.sh_ok(&format!("mkdir -p {TARGET} /tmp/source"));
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    let before = match loaded {
        Loaded::Environment => format!("export LD_PRELOAD={DEFAULT_OBJECT}; "),
        Loaded::LdSoPreload => {
            test.container.visit(|| fs::write("/etc/ld.so.preload", DEFAULT_OBJECT).unwrap());
            String::new()
        }
    };
    (test, before)
}

fn without_a_mounter_it_appears_on_the_node_and_goes_with_the_nodes_umount() {
    for loaded in [Loaded::Environment, Loaded::LdSoPreload] {
        let (test, before) = without_mounter(&Network::new().unwrap(), loaded);
        let mount = match loaded {
            // mount(8) takes LD_* out of the environment of the helpers it runs.
            Loaded::Environment => "bindfs",
            Loaded::LdSoPreload => "mount -t fuse.bindfs",
        };
        for _again in 0..2 {
            test.container.sh_ok(&format!("{before}{mount} -o suid,dev /tmp/source {TARGET}"));
            let line = test.node.mount_at(TARGET).expect("it is on the node");
            assert!(line.contains(" - fuse /tmp/source ") && line.contains(" rw,nosuid,nodev"), "{line}");
            use_it(&test);
            // The helper sees what it has mounted, for as long as it is mounted.
            assert_eq!(test.container.sh_ok(&format!("cat {TARGET}/kept")), "stays\n", "{loaded:?}");
            let pids = test.pids_of("bindfs");
            assert_eq!(pids.len(), 1);
            test.node.sh_ok(&format!(
                "rm {TARGET}/kept && umount {TARGET} && timeout 30 tail --pid={} -f /dev/null",
                pids[0]
            ));
            let left = test.container.mountinfo();
            assert!(!left.iter().any(|line| is_fuse(line)), "{left:?}");
            assert_eq!(left.iter().filter(|line| line.contains(TARGET)).count(), 1, "more than one covering: {left:?}");
        }
        // The node may take its directory away.
        test.node.sh_ok(&format!("rmdir {TARGET}"));
    }
}

fn without_a_mounter_umount_in_the_container_is_umount_on_the_node() {
    let (test, before) = without_mounter(&Network::new().unwrap(), Loaded::Environment);
    test.container.sh_ok(&format!("{before}cd {TARGET} && bindfs /tmp/source ."));
    assert!(test.node.mount_at(TARGET).is_some());
    test.container.sh_ok(&format!("{before}umount {TARGET}"));
    assert_eq!(test.node.mount_at(TARGET), None);
    // Anything else is the container's own.
    test.container.sh_ok(&format!("{before}mount -t tmpfs own /mnt && umount /mnt && mount -t tmpfs own /mnt"));
    assert_eq!(test.node.mount_at("/mnt").filter(|line| line.contains("own")), None);
    let own = format!("{before}HOSTMOUNT_PRELOAD_TYPES=nothing,fuse.other bindfs /tmp/source {TARGET}");
    test.container.sh_ok(&own);
    assert_eq!(test.node.mount_at(TARGET), None);
    assert!(test.container.mount_at(TARGET).is_some());
    test.container.sh_ok(&format!("{before}umount {TARGET}"));
    assert_eq!(test.container.mount_at(TARGET).filter(|line| line.contains("fuse")), None);
    // The caller gets the kernel's own errors.
    test.container.sh_ok("mkdir /var/lib/kubelet/nowhere");
    let done = test.container.sh(&format!("{before}bindfs /tmp/source /var/lib/kubelet/nowhere"));
    assert!(done.stderr.contains("No such file or directory"), "{}", done.stderr);
}

fn without_a_mounter_glusterfs_sees_its_mount() {
    let network = Network::new().unwrap();
    let server = Gluster::start(&network);
    let source = server.volume("gv0");
    let (test, before) = without_mounter(&network, Loaded::LdSoPreload);
    test.container.sh_ok(&format!("{before}mount -t glusterfs {source} {TARGET}"));
    use_it(&test);
    assert_eq!(server.place.sh_ok("cat /brick/gv0/kept"), "stays\n");
    let pids = test.pids_of("/usr/sbin/glusterfs");
    assert_eq!(pids.len(), 1);
    test.node.sh_ok(&format!("umount {TARGET} && timeout 30 tail --pid={} -f /dev/null", pids[0]));
    assert_eq!(test.pids_of("/usr/sbin/glusterfs"), [0; 0]);
}

fn without_a_mounter_in_real_containers() {
    let network = Network::new().unwrap();
    let server = Gluster::start(&network);
    let volume = server.volume("gv0");
    // A machine with helpers, whose userland is the container's image at the same time.
    let places = ["/var/lib/containers", "/var/lib/kubelet", "/run", "/tmp", "/dev/shm"];
    let recipe = Recipe::userland().fuse().shared().bind("/", "/opt/image").writable(places);
    let machine = Machine::start(&network, recipe).unwrap();
    let node = Place(machine.node().clone());
    node.hide_selinux();
    install(&node);
    node.sh_ok(&format!("mkdir -p {TARGET}; cp {DEFAULT_OBJECT} /run/preload.so"));
    let same = "--volume /var/lib/kubelet:/var/lib/kubelet";
    let (host_pid, host_proc) = ("--pid host", "--volume /proc:/host/proc --env HOSTPROCPATH=/host");
    // Its first process is a shell that collects daemons, as every container's should.
    // What the container shows of the node, and how it finds the node's first process.
    let containers = [
        host_pid.to_owned(),
        format!("{host_proc} {same}"),
        format!("{host_pid} {same}:rslave"),
        format!("{host_proc} {same}:rshared"),
    ];
    let umount = |helper: &str| {
        format!("pid=$(pgrep -x {helper}) && umount {TARGET} && timeout 30 tail --pid=$pid -f /dev/null")
    };
    for options in containers {
        node.sh_ok(&format!(
            "{PODMAN} run --detach --name mounter --privileged --network host --ulimit nofile=1024:1024 \
             --ulimit nproc=1000:1000 --volume /run/preload.so:/run/preload.so {options} \
             --rootfs /opt/image:O sh -c 'sleep infinity & wait'"
        ));
        let inside = |line: &str| node.sh_ok(&format!("{PODMAN} exec mounter sh -c '{line}'"));
        inside(&format!(
            "mkdir -p {TARGET} /srv/source; echo packed >/srv/source/f; echo /run/preload.so >/etc/ld.so.preload"
        ));
        let on_node = || node.mountinfo().iter().filter(|line| line.contains(TARGET)).count();
        inside(&format!("mount -t fuse.bindfs /srv/source {TARGET}"));
        assert_eq!(node.sh_ok(&format!("cat {TARGET}/f")), "packed\n", "{options}");
        assert_eq!(inside(&format!("cat {TARGET}/f")), "packed\n", "{options}");
        assert_eq!(on_node(), 1, "{options}");
        node.sh_ok(&umount("bindfs"));
        assert!(!inside("cat /proc/self/mountinfo").contains(" - fuse "), "{options}");
        inside(&format!("mount -t fuse.bindfs /srv/source {TARGET} && umount {TARGET}"));
        assert_eq!(on_node(), 0, "{options}");
        inside(&format!("mount -t glusterfs {volume} {TARGET}"));
        node.sh_ok(&format!("echo by the node >{TARGET}/f; {}", umount("glusterfs")));
        assert_eq!(server.place.sh_ok("cat /brick/gv0/f; rm /brick/gv0/f"), "by the node\n", "{options}");
        node.sh_ok(&format!("{PODMAN} rm --force --time 0 mounter"));
    }
}

fn a_container_whose_programs_load_the_object_anyway() {
    for engine in ["preload", "seccomp"] {
        let (test, _) = without_mounter(&Network::new().unwrap(), Loaded::LdSoPreload);
        let mounter = test.start_mounter(&["--engine", engine], &[]);
        test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok(engine);
        use_it(&test);
        test.node.sh_ok(&format!("umount {TARGET}"));
        mounter.wait_for(events::UNMOUNTED, 1);
        // Beside the mounter, another program of the container still mounts by itself.
        test.container.sh_ok(&format!("bindfs /tmp/source {TARGET}"));
        assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/kept && umount {TARGET}")), "stays\n");
    }
}
