//! Volumes for pods with a user namespace (`hostUsers: false`), by real containers of crun's, whose volumes' mounts have their ids mapped:
//! a helper does not allow that, and a placeholder gives way to it in each container.

use crate::harness::{Test, tests};
use crate::node::mapped_container::{FIRST_ID, MappedContainer};
use crate::node::mounter::{Mounter, SOCKET};
use crate::node::{NODE_BIN, TestNode};
use api::client::Client;
use api::message::Bind;
use hostmount::observe::events;
use nix::sys::signal::Signal;
use testbed::machine::Propagation;

/// The kernel maps ids of FUSE filesystems from this version on.
pub(crate) fn tests() -> Vec<Test> {
    let all = tests![
        a_container_gets_the_volume_at_its_first_touch,
        a_runtime_refuses_a_volume_without_placeholder,
        who_looks_on_the_node_finds_names_and_attributes,
        directories_containers_and_fresh_helpers,
        the_mounter_is_away,
        a_staged_volume_is_published_to_pods,
        a_volume_that_hangs_holds_neither_a_container_nor_kubelet,
        a_filesystem_that_lets_ids_be_mapped_is_shown_as_it_is,
        a_pod_without_a_user_namespace_has_it_too,
        a_pod_that_shows_the_placeholder_at_the_nodes_path_gains_nothing,
    ];
    all.into_iter().map(|test| test.needs(&["bindfs", "crun", "busybox"]).needs_linux(6, 12)).collect()
}

pub(crate) const POD: &str = "/var/lib/kubelet/pods/p";
pub(crate) const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/kubernetes.io~csi/v/mount";
const STAGED: &str = "/var/lib/kubelet/plugins/kubernetes.io/csi/d/h/globalmount";
pub(crate) const OPTION: &str = "x-hostmount.host-users=false";

/// A node with a volume at `target`, whose files are those of a container's root.
pub(crate) fn start(target: &str, options: &str) -> (TestNode, Mounter) {
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {target}"));
    test.container.sh_ok(&format!(
        "mkdir -p /tmp/source/sub; cd /tmp/source; echo served >f; echo served too >sub/g; chown -R {FIRST_ID}:{FIRST_ID} ."
    ));
    test.configure("[filesystem.bindfs]\ncapabilities = ['CAP_DAC_OVERRIDE', 'CAP_CHOWN']\n");
    let mounter = test.start_mounter(&[], &[]);
    mount(&test, target, options);
    (test, mounter)
}

fn mount(test: &TestNode, target: &str, options: &str) {
    test.mount(&["-t", "fuse.bindfs", "-o", options, "/tmp/source", target]).ok("mount");
}

/// Whether the placeholder is what shows at a place of a container, with its ids mapped; or else the volume, as it is.
#[track_caller]
pub(crate) fn has_placeholder(container: &MappedContainer<'_>, place: &str) -> bool {
    let (fstype, options) = container.mounted_at(place);
    let placeholder = fstype == "fuse.placeholder";
    assert_eq!(options.contains("idmapped"), placeholder, "{fstype} {options}");
    assert!(options.contains("nosuid") && options.contains("nodev"), "{options}");
    placeholder
}

#[track_caller]
pub(crate) fn node_has_placeholder(test: &TestNode, target: &str) {
    assert!(test.node.mount_at(target).unwrap().contains(" fuse.placeholder "), "{:?}", test.node.mount_at(target));
}

/// Kubelet takes the volume away when the containers are gone: nothing is left of it.
pub(crate) fn unmounted(test: &TestNode, mounter: &Mounter) {
    test.node.sh_ok(&format!("umount {TARGET}"));
    gone(test, mounter);
}

fn gone(test: &TestNode, mounter: &Mounter) {
    mounter.wait_for(events::UNMOUNTED, 1);
    test.wait_for_processes("bindfs", 0);
    test.wait_for_processes("serve-placeholder", 0);
    assert_eq!(test.node.fuse_mounts(), [""; 0]);
}

fn a_container_gets_the_volume_at_its_first_touch() {
    let (test, mounter) = start(TARGET, OPTION);
    let container = MappedContainer::start(&test, &[(TARGET, "/data")], "/");
    assert!(has_placeholder(&container, "/data"));
    assert_eq!(container.sh("cat /data/f"), "served\n");
    assert!(!has_placeholder(&container, "/data"));
    let line = "stat -c %u:%g /data/f; echo new >/data/new; stat -c %u:%g /data/new; cat /data/new /data/sub/g";
    assert_eq!(container.sh(line), "0:0\n0:0\nnew\nserved too\n");
    // What no id of the pod's owns is nobody's.
    test.container.sh_ok("echo roots >/tmp/source/roots; chmod 600 /tmp/source/roots");
    assert_eq!(container.sh("stat -c %u:%g /data/roots"), "65534:65534\n");
    assert!(container.sh_as(1000, "cat /data/roots; true").contains("Permission denied"));
    assert_eq!(test.container.sh_ok("stat -c %u:%g /tmp/source/new"), format!("{FIRST_ID}:{FIRST_ID}\n"));
    node_has_placeholder(&test, TARGET);
    let list = test.node.sh_ok(&format!("{NODE_BIN}/hostmount list"));
    assert!(list.contains("mounted") && !list.contains("detached"), "{list}");
    drop(container);
    unmounted(&test, &mounter);
}

/// As long as this is so, the placeholder is needed.
fn a_runtime_refuses_a_volume_without_placeholder() {
    let (test, _mounter) = start(TARGET, "ro");
    let (_container, said) = MappedContainer::try_start(&test, &[(TARGET, "/data")], "/");
    let said = said.expect("the container started");
    assert!(said.contains("mount_setattr") || said.contains("Invalid argument"), "{said}");
}

fn who_looks_on_the_node_finds_names_and_attributes() {
    let (test, mounter) = start(TARGET, OPTION);
    let on_node = |line: &str| test.node.sh(&format!("cd / && {line}"));
    let owner = format!("{FIRST_ID}:{FIRST_ID} directory\n");
    for place in [TARGET, &format!("{TARGET}/sub")] {
        assert_eq!(on_node(&format!("stat -c '%u:%g %F' {place}")).ok("stat"), owner);
    }
    assert_eq!(on_node(&format!("stat -c %s {TARGET}/sub/g")).ok("stat"), "11\n");
    let blocks =
        |done: crate::node::Done| done.ok("df").lines().last().unwrap().split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(
        blocks(on_node(&format!("df --block-size=1 {TARGET}"))),
        blocks(test.container.sh("df --block-size=1 /tmp/source"))
    );
    on_node(&format!("mkdir {TARGET}/made")).ok("mkdir");
    // Kubelet opens what it has made, and sets its mode.
    on_node(&format!("exec 3<{TARGET}/made && chmod 750 /proc/self/fd/3")).ok("chmod");
    assert_eq!(test.container.sh_ok("stat -c '%F %a' /tmp/source/made"), "directory 750\n");
    assert!(on_node(&format!("stat {TARGET}/none")).stderr.contains("No such file"));
    assert!(on_node(&format!("mkdir {TARGET}/sub")).stderr.contains("File exists"));
    for line in ["ls", "cat f", "touch new", "rm f", "mv f h", "ln -s f h", "rmdir sub", "chmod 600 f", "chown 5 sub"] {
        let refused = test.node.sh(&format!("cd {TARGET} && {line}"));
        assert!(refused.stderr.contains("not supported"), "{line}: {refused:?}");
    }
    node_has_placeholder(&test, TARGET);
    // The same volume once more is no other one.
    let again = test.mount(&["-t", "fuse.bindfs", "-o", OPTION, "/tmp/source", TARGET]);
    assert!(again.stderr.contains("already mounted"), "{again:?}");
    unmounted(&test, &mounter);
}

fn directories_containers_and_fresh_helpers() {
    let (test, mounter) = start(TARGET, OPTION);
    // As kubelet does it for `subPath`.
    let sub = format!("{POD}/volume-subpaths/v/c/0");
    test.node.sh_ok(&format!("mkdir -p {sub} && /bin/mount --bind {TARGET}/sub {sub}"));
    let both = [(TARGET, "/data"), (&*sub, "/sub")];
    let first = MappedContainer::start(&test, &both, "/");
    let second = MappedContainer::start(&test, &both[1..], "/");
    // Its working directory is in the volume: the runtime itself is the first that touches it.
    let third = MappedContainer::start(&test, &both[..1], "/data");
    assert_eq!(third.sh("cat /proc/1/cwd/f"), "served\n");
    assert!(has_placeholder(&first, "/data") && has_placeholder(&first, "/sub") && has_placeholder(&second, "/sub"));
    assert_eq!(first.sh_as(1000, "cat /sub/g"), "served too\n");
    assert_eq!(second.sh("echo more >>/sub/g && cat /sub/g"), "served too\nmore\n");
    let check = |containers: &[&MappedContainer<'_>]| {
        assert_eq!(containers[0].sh("cat /data/f /sub/g"), "served\nserved too\nmore\n");
        assert_eq!(containers[1].sh("cat /sub/g"), "served too\nmore\n");
        assert_eq!(containers[2].sh("cat /data/sub/g"), "served too\nmore\n");
        assert!(!containers[..2].iter().any(|container| has_placeholder(container, "/sub")));
        assert!(![containers[0], containers[2]].iter().any(|container| has_placeholder(container, "/data")));
        node_has_placeholder(&test, TARGET);
    };
    check(&[&first, &second, &third]);
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::HEALED, 1);
    check(&[&first, &second, &third]);
    // One that starts again, and one that has not touched it, when the helper is another.
    drop(second);
    let untouched = MappedContainer::start(&test, &both, "/");
    test.node.sh_ok(&format!("{NODE_BIN}/hostmount swap {TARGET}"));
    mounter.wait_for(events::DRAINED, 1);
    test.wait_for_processes("bindfs", 1);
    let second = MappedContainer::start(&test, &both[1..], "/");
    check(&[&first, &second, &third]);
    check(&[&untouched, &second, &third]);
    assert_eq!(mounter.count(events::PLACE_LEFT), 0);
    drop((first, second, third, untouched));
    test.node.sh_ok(&format!("umount {sub}"));
    unmounted(&test, &mounter);
}

fn the_mounter_is_away() {
    let (test, mut mounter) = start(TARGET, OPTION);
    let first = MappedContainer::start(&test, &[(TARGET, "/data")], "/");
    mounter.signal(Signal::SIGKILL);
    mounter.wait();
    // One that was there, and one that starts meanwhile.
    assert_eq!(first.sh("cat /data/f"), "served\n");
    let second = MappedContainer::start(&test, &[(TARGET, "/data")], "/");
    assert_eq!(second.sh("cat /data/sub/g"), "served too\n");
    let third = MappedContainer::start(&test, &[(TARGET, "/data")], "/");
    let mounter = test.start_mounter(&[], &[]);
    assert_eq!(third.sh("cat /data/f"), "served\n");
    let status = test.node.sh_ok(&format!("{NODE_BIN}/hostmount status {TARGET}"));
    assert!(status.contains("mounted") && !status.contains("detached"), "{status}");
    let again = test.mount(&["-t", "fuse.bindfs", "-o", OPTION, "/tmp/source", TARGET]);
    assert!(again.stderr.contains("already mounted"), "{again:?}");
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::HEALED, 1);
    for container in [&first, &second, &third] {
        assert_eq!(container.sh("cat /data/f"), "served\n");
    }
    // Kubelet takes it away while no mounter runs.
    drop((first, second, third, mounter));
    test.node.sh_ok(&format!("umount {TARGET}"));
    test.wait_for_processes("bindfs", 0);
    test.wait_for_processes("serve-placeholder", 0);
    let mounter = test.start_mounter(&[], &[]);
    assert!(!test.node.sh_ok(&format!("{NODE_BIN}/hostmount list")).contains(TARGET));
    drop(mounter);
}

fn bind(test: &TestNode, target: &str, alone: bool) -> Result<bool, String> {
    let (source, target) = (STAGED.to_owned(), target.to_owned());
    let bind = Bind { source, target, read_only: false, alone, make_target: true, pod: None };
    let bound = test.node.visit(|| Client::at(SOCKET).bind(bind));
    bound.map(|mounted| mounted.already).map_err(|error| error.to_string())
}

/// As the CSI driver does it for a volume with `hostUsers: "false"`.
fn a_staged_volume_is_published_to_pods() {
    let (test, mounter) = start(STAGED, OPTION);
    assert!(!test.node.mount_at(STAGED).unwrap().contains("placeholder"), "what is staged is no pod's");
    test.node.sh_ok(&format!("mkdir -p $(dirname {TARGET})"));
    assert_eq!(bind(&test, TARGET, true), Ok(false));
    assert_eq!(bind(&test, TARGET, true), Ok(true));
    node_has_placeholder(&test, TARGET);
    let other = TARGET.replace("/p/", "/q/");
    test.node.sh_ok(&format!("mkdir -p $(dirname {other})"));
    assert!(bind(&test, &other, true).unwrap_err().contains("one place alone"));
    assert_eq!(bind(&test, &other, false), Ok(false));
    let [one, two] = [TARGET, &other].map(|target| MappedContainer::start(&test, &[(target, "/data")], "/"));
    let read = || [&one, &two].iter().for_each(|container| assert_eq!(container.sh("cat /data/f"), "served\n"));
    assert!(has_placeholder(&one, "/data"));
    read();
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::HEALED, 1);
    read();
    let stats = test.node.visit(|| Client::at(SOCKET).stats(TARGET)).unwrap();
    assert!(stats.heals == 1 && stats.space.is_some(), "{stats:?}");
    drop((one, two));
    for target in [TARGET, &other] {
        test.node.visit(|| Client::at(SOCKET).unmount(target, true)).unwrap();
        assert!(test.node.sh(&format!("ls -d {target}")).code != Some(0));
    }
    test.wait_for_processes("serve-placeholder", 0);
    test.wait_for_processes("bindfs", 1);
    test.node.visit(|| Client::at(SOCKET).unmount(STAGED, false)).unwrap();
    gone(&test, &mounter);
}

fn a_volume_that_hangs_holds_neither_a_container_nor_kubelet() {
    // Each name is asked for anew.
    let (test, mounter) = start(TARGET, &format!("{OPTION},entry_timeout=0,attr_timeout=0"));
    let sub = format!("{POD}/volume-subpaths/v/c/0");
    test.node.sh_ok(&format!("mkdir -p {sub} && /bin/mount --bind {TARGET}/sub {sub}"));
    let container = MappedContainer::start(&test, &[(&sub, "/sub")], "/");
    test.node.sh_ok("kill -STOP $(pidof bindfs)");
    // The directory must be asked for: that is given up, and a process that waits can be killed before.
    assert!(container.sh("timeout -s KILL 1 cat /sub/g; echo $?").ends_with("137\n"));
    assert!(has_placeholder(&container, "/sub"));
    // What kubelet does on its own paths.
    test.node.sh_ok(&format!("stat {TARGET} && umount {sub} {TARGET}"));
    drop(container);
    // It may be over already, as nobody has the volume any more.
    test.node.sh("kill -CONT $(pidof bindfs)");
    gone(&test, &mounter);
}

fn a_pod_without_a_user_namespace_has_it_too() {
    let (test, mounter) = start(TARGET, OPTION);
    let pod = test.pod(&[(TARGET, "/data")], Propagation::None);
    let alive = pod.live();
    assert_eq!(pod.sh_ok("cat /data/f; stat -c %u /data/f"), format!("served\n{FIRST_ID}\n"));
    assert!(!pod.mount_at("/data").unwrap().contains("placeholder"));
    node_has_placeholder(&test, TARGET);
    drop((alive, pod));
    unmounted(&test, &mounter);
}

/// The author of the pod has it shown at a path that ends like the node's, where the process would do for it what kubelet may.
fn a_pod_that_shows_the_placeholder_at_the_nodes_path_gains_nothing() {
    let (test, mounter) = start(TARGET, OPTION);
    let nodes = &TARGET.replace("/var/lib/kubelet/pods", "/dev");
    let container = MappedContainer::start(&test, &[(TARGET, "/data"), (TARGET, nodes)], "/");
    assert!(has_placeholder(&container, nodes) && has_placeholder(&container, "/data"));
    container.sh(&format!("mkdir {nodes}/evil"));
    assert_eq!(test.container.sh_ok("stat -c %u:%g /tmp/source/evil"), format!("{FIRST_ID}:{FIRST_ID}\n"));
    assert!(!has_placeholder(&container, nodes) && !has_placeholder(&container, "/data"));
    node_has_placeholder(&test, TARGET);
    drop(container);
    unmounted(&test, &mounter);
}

fn a_filesystem_that_lets_ids_be_mapped_is_shown_as_it_is() {
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET}; echo memfs >{NODE_BIN}/served-types"));
    let mounter = test.start_mounter(&[], &[]);
    test.mount(&["-t", "memfs", "-o", &format!("mode=0777,{OPTION}"), "memory", TARGET]).ok("mount");
    assert_eq!(mounter.count(events::PLACEHOLDER), 0);
    let container = MappedContainer::start(&test, &[(TARGET, "/data")], "/");
    assert_eq!(container.sh("echo mine >/data/f && stat -c %u:%g /data/f"), "0:0\n");
    assert!(container.mounted_at("/data").1.contains("idmapped"));
    assert_eq!(test.node.sh_ok(&format!("stat -c %u:%g {TARGET}/f")), "0:0\n");
    drop(container);
    test.node.sh_ok(&format!("umount {TARGET}"));
    mounter.wait_for(events::UNMOUNTED, 1);
}
