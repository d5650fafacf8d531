//! The preload engine: the shared object itself, helpers with it under a mounter, and a container without a mounter.

mod node;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hostmount::demo::machine::{Machine, Network, Recipe};
use hostmount::engine::preload::DEFAULT_OBJECT;
use node::gluster::{self, Gluster};
use node::job::{TARGET, assert_confined, unmount_and_see_it_end, use_it};
use node::mounter::Mounter;
use node::preloaded::{OBJECT, install};
use node::sshd::{self, Sshd};
use node::{HOSTMOUNT, NODE_BIN, Place, TestNode, require};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

/// A node whose mounter uses the preload engine.
fn start(network: &Network) -> (TestNode, Mounter) {
    let test = TestNode::start_in(network);
    install(&test.container);
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.sh_ok("mkdir /tmp/source /tmp/elsewhere");
    let mounter = test.start_mounter(&["--engine", "preload"], &[]);
    (test, mounter)
}

fn lines_of(test: &TestNode, helper: &str) -> Vec<u32> {
    test.processes().into_iter().filter(|(_, line)| line.contains(helper)).map(|(pid, _)| pid).collect()
}

fn readelf(what: &str) -> String {
    let output = Command::new("readelf").args(["--wide", what]).arg(&*OBJECT).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_object_exports_what_it_replaces_and_nothing_else() {
    if !require(&["make", "readelf"]) {
        return;
    }
    let symbols = readelf("--dyn-syms");
    let defined = symbols.lines().filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, _, _, _, "GLOBAL" | "WEAK", _, section, name] if section != "UND" => name.split('@').next(),
        _ => None,
    });
    let expected = [
        "mount",
        "umount",
        "umount2",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "open_tree",
        "open_tree_attr",
        "move_mount",
        "mount_setattr",
        "capset",
    ];
    assert_eq!(defined.collect::<BTreeSet<_>>(), BTreeSet::from(expected), "{symbols}");
}

#[test]
fn the_object_loads_with_old_libraries() {
    if !require(&["make", "readelf"]) {
        return;
    }
    let dynamic = readelf("--dynamic");
    let needed: Vec<_> = dynamic.lines().filter(|line| line.contains("(NEEDED)")).collect();
    assert!(matches!(needed[..], [one] if one.contains("[libc.so.6]")), "{needed:?}");
    let versions = readelf("--version-info");
    let versions = versions.split_whitespace().filter_map(|word| word.strip_prefix("GLIBC_"));
    let numbers = versions.map(|version| version.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>());
    // Debian 11's.
    let newest = numbers.max().unwrap();
    assert!(newest <= vec![2, 31], "{newest:?}");
    // A panic would need this: none is left in there.
    assert!(!readelf("--dyn-syms").contains("abort"));
}

#[test]
fn what_is_not_granted_is_refused() {
    if !require(&["make", "bindfs"]) {
        return;
    }
    let (test, mounter) = start(&Network::new().unwrap());
    let before = test.processes();
    let lines = "exec 2>&1
        try() { if \"$@\" >/tmp/said 2>&1; then echo \"GRANTED: $*\"; else echo \"refused: $*\"; fi; }
        try mount -i -t tmpfs x \"$2\"
        try mount --bind / \"$2\"
        try mount -i -t fuse.fault -o fd=0,rootmode=40000,user_id=0,group_id=0 x \"$2\"
        try bindfs /tmp/source /tmp/elsewhere
        try umount -l /proc
        try perl -e 'exit(syscall(165, \"x\", $ARGV[0], \"tmpfs\", 0, 0) != 0)' \"$2\" # mount(2), without libc's
        bindfs \"$1\" \"$2\" || exit 7
        try bindfs \"$1\" \"$2\"";
    test.container.helper("fuse.fault", lines);
    test.mount(&["-t", "fuse.fault", "/tmp/source", TARGET]).ok("mount");
    mounter.wait_until_said("\"mounted on the node\"", 1);
    let said = mounter.said();
    assert!(!said.contains("GRANTED"), "{said}");
    assert_eq!(said.matches("refused: ").count(), 7, "{said}");
    for objection in [
        "a filesystem of type 'tmpfs' is not granted",
        "they act on existing mounts",
        "does not name an open /dev/fuse",
        "anywhere but at its own mount point",
        "a second mount of the same helper",
    ] {
        assert!(said.contains(objection), "{objection} is not in {said}");
    }
    unmount_and_see_it_end(&test, &mounter, &before, 1);
}

#[test]
fn a_helper_that_fails_leaves_nothing() {
    if !require(&["make", "bindfs"]) {
        return;
    }
    let (test, mounter) = start(&Network::new().unwrap());
    let before = test.node.mountinfo();
    // Its daemons leave the session and close all descriptors.
    test.container.helper("fuse.fault", "bindfs \"$1\" \"$2\"; setsid sleep 1000 </dev/null >/dev/null 2>&1 & exit 7");
    let done = test.mount(&["-t", "fuse.fault", "/tmp/source", TARGET]);
    assert_eq!(done.code, Some(32), "{}", done.stderr);
    assert_eq!(test.node.mountinfo(), before);
    assert_eq!(lines_of(&test, "sleep 1000"), [0; 0]);
    assert_eq!(lines_of(&test, "bindfs"), [0; 0]);
    assert!(!mounter.said().contains("after SIGKILL"), "{}", mounter.said());
    // It ends without an error and without a mount; nobody is left to wait for.
    test.container.helper("fuse.fault", "exit 0");
    let done = test.mount(&["-t", "fuse.fault", "/tmp/source", TARGET]);
    assert!(done.stderr.contains("it ended without having mounted anything"), "{}", done.stderr);
}

#[test]
fn a_daemon_that_closes_everything_is_still_watched() {
    if !require(&["make", "bindfs"]) {
        return;
    }
    let (test, mounter) = start(&Network::new().unwrap());
    // Two daemons one after the other, without any descriptor in common with us.
    let close = "exec </dev/null >/dev/null 2>&1; for n in 3 4 5 6 7 8 9; do eval \"exec $n<&-\"; done";
    test.container
        .helper("fuse.fault", &format!("bindfs \"$1\" \"$2\"; ({close}; setsid sh -c 'sleep 1000; :' &) ; exit 0"));
    test.mount(&["-t", "fuse.fault", "/tmp/source", TARGET]).ok("mount");
    test.node.sh_ok(&format!("umount {TARGET}"));
    // bindfs has gone with its mount, the sleeper has not: the volume is still there.
    let sleeper = lines_of(&test, "sleep 1000");
    assert!(!sleeper.is_empty() && !mounter.said().contains("\"unmounted\""), "{}", mounter.said());
    for pid in sleeper {
        test.node.sh_ok(&format!("kill {pid}"));
    }
    mounter.wait_until_said("\"unmounted\"", 1);
}

#[test]
fn a_container_whose_programs_load_the_object_anyway() {
    if !require(&["make", "bindfs"]) {
        return;
    }
    for engine in ["preload", "seccomp"] {
        let (test, _) = without_mounter(&Network::new().unwrap(), Loaded::LdSoPreload);
        let mounter = test.start_mounter(&["--engine", engine], &[]);
        test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok(engine);
        use_it(&test);
        test.node.sh_ok(&format!("umount {TARGET}"));
        mounter.wait_until_said("\"unmounted\"", 1);
        // Beside the mounter, a program of the container's mounts for itself as ever.
        test.container.sh_ok(&format!("bindfs /tmp/source {TARGET}"));
        assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/kept && umount {TARGET}")), "stays\n");
    }
}

#[test]
fn a_container_with_a_read_only_root() {
    if !require(&["make", "bindfs"]) {
        return;
    }
    let container = |test: &TestNode, list: bool| {
        let recipe = Recipe::userland().fuse().writable(["/run", "/tmp"]).share("socket", "/run/hostmount");
        let recipe = recipe.bind(HOSTMOUNT, "/usr/local/bin/hostmount").bind(&*OBJECT, DEFAULT_OBJECT).read_only();
        test.room(recipe.setup(move || if list { fs::write("/etc/ld.so.preload", "") } else { Ok(()) }))
    };
    let test = TestNode::start();
    let done = container(&test, false).sh("hostmount serve --engine preload");
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("an empty file in the image will do"), "{}", done.stderr);
    let container = container(&test, true);
    let mounter = Mounter::start(&container, &["--engine", "preload"], &[]);
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    container.sh_ok("mkdir /tmp/source");
    let before = test.processes();
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    use_it(&test);
    unmount_and_see_it_end(&test, &mounter, &before, 1);
    assert_eq!(container.sh_ok("cat /etc/ld.so.preload"), "");
}

#[test]
fn a_static_helper_is_told_to_need_the_other_engine() {
    if !require(&["make"]) {
        return;
    }
    let (test, _mounter) = start(&Network::new().unwrap());
    // The demo's filesystem is a name of the static binary.
    test.node.sh_ok(&format!("echo memfs >{NODE_BIN}/served-types"));
    let done = test.mount(&["-t", "memfs", "memory", TARGET]);
    assert_eq!(done.code, Some(32), "{}", done.stderr);
    assert!(done.stderr.contains("statically linked") && done.stderr.contains("--engine seccomp"), "{}", done.stderr);
}

#[test]
fn the_engine_is_chosen_by_trying() {
    if !require(&[]) {
        return;
    }
    let test = TestNode::start();
    let mounter = test.start_mounter(&[], &[]);
    assert!(mounter.said().contains("\"seccomp\"") && mounter.said().contains("it works here"), "{}", mounter.said());
    let done = test.container.sh("hostmount serve --state /tmp/other --socket /tmp/s --engine preload");
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains(DEFAULT_OBJECT) && done.stderr.contains("--preload"), "{}", done.stderr);
}

/// Without a mounter: how the object gets into the programs of a container.
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

#[test]
fn without_a_mounter_it_appears_on_the_node_and_goes_with_the_nodes_umount() {
    if !require(&["make", "bindfs"]) {
        return;
    }
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
            let pids = lines_of(&test, "bindfs");
            assert_eq!(pids.len(), 1);
            test.node.sh_ok(&format!(
                "rm {TARGET}/kept && umount {TARGET} && timeout 30 tail --pid={} -f /dev/null",
                pids[0]
            ));
            let left = test.container.mountinfo();
            assert!(!left.iter().any(|line| line.contains(" - fuse")), "{left:?}");
            assert_eq!(left.iter().filter(|line| line.contains(TARGET)).count(), 1, "more than one covering: {left:?}");
        }
        // The node may take its directory away.
        test.node.sh_ok(&format!("rmdir {TARGET}"));
    }
}

#[test]
fn without_a_mounter_umount_in_the_container_is_umount_on_the_node() {
    if !require(&["make", "bindfs"]) {
        return;
    }
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
    // The kernel's own errors come through.
    test.container.sh_ok("mkdir /var/lib/kubelet/nowhere");
    let done = test.container.sh(&format!("{before}bindfs /tmp/source /var/lib/kubelet/nowhere"));
    assert!(done.stderr.contains("No such file or directory"), "{}", done.stderr);
}

#[test]
fn without_a_mounter_glusterfs_sees_its_mount() {
    if !require(&[gluster::PROGRAMS, &["make"]].concat()) {
        return;
    }
    let network = Network::new().unwrap();
    let server = Gluster::start(&network);
    let source = server.volume("gv0");
    let (test, before) = without_mounter(&network, Loaded::LdSoPreload);
    test.container.sh_ok(&format!("{before}mount -t glusterfs {source} {TARGET}"));
    use_it(&test);
    assert_eq!(server.place.sh_ok("cat /brick/gv0/kept"), "stays\n");
    let pids = lines_of(&test, "/usr/sbin/glusterfs");
    assert_eq!(pids.len(), 1);
    test.node.sh_ok(&format!("umount {TARGET} && timeout 30 tail --pid={} -f /dev/null", pids[0]));
    assert_eq!(lines_of(&test, "/usr/sbin/glusterfs"), [0; 0]);
}

#[test]
fn without_a_mounter_in_real_containers() {
    if !require(&[gluster::PROGRAMS, &["make", "bindfs", "podman", "runc"]].concat()) {
        return;
    }
    let network = Network::new().unwrap();
    let server = Gluster::start(&network);
    let volume = server.volume("gv0");
    // A machine with helpers, whose userland is the container's image at the same time.
    let places = ["/var/lib/containers", "/var/lib/kubelet", "/run", "/tmp", "/dev/shm"];
    let recipe = Recipe::userland().fuse().shared().bind("/", "/opt/image").writable(places);
    let machine = Machine::start(&network, recipe).unwrap();
    let node = Place(machine.node().clone());
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

/// crun refuses the hybrid cgroups that some machines have.
const PODMAN: &str = "podman --runtime runc --cgroup-manager cgroupfs --events-backend none";

#[test]
fn a_volumes_secret_reaches_its_helper() {
    if !require(&["make", "sshfs"]) || !require(sshd::PROGRAMS) {
        return;
    }
    let network = Network::new().unwrap();
    let server = Sshd::start(&network);
    let test = TestNode::start_in(&network);
    install(&test.container);
    server.install_client(&test.container);
    let config = "[filesystem.sshfs.files.key]\ncontent = '{secret:key}'\noption = 'IdentityFile'";
    test.container.visit(|| fs::write("/tmp/config.toml", config).unwrap());
    let plugins = "/run/hostmount/plugins";
    let driver = format!("/usr/local/bin/hostmount install --to /run/hostmount/bin --flexvolume {plugins}");
    test.container.sh_ok(&format!("rm /root/.ssh/id_ed25519 && {driver}"));
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    let mounter = test.start_mounter(&["--engine", "preload", "--config", "/tmp/config.toml"], &[]);
    let options = serde_json::json!({
        "fstype": "fuse.sshfs",
        "source": format!("root@{}:/srv/export", node::SERVER_ADDRESS),
        "options": format!("port={}", sshd::PORT),
        "kubernetes.io/secret/key": BASE64_STANDARD.encode(server.client_key()),
    });
    let call = ["mount", TARGET, &options.to_string()];
    let before = test.processes();
    test.node.run(format!("{plugins}/hostmount~fuse/fuse"), &call).ok("mount");
    assert_confined(&test, "preload", "sshfs root@", &before);
    use_it(&test);
    unmount_and_see_it_end(&test, &mounter, &before, 1);
}
