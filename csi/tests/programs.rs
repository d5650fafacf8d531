//! Volumes that a program of the pod serves, as kubelet asks for them.

use crate::driver::{Driver, Volume, fails};
use crate::harness::{Test, tests};
use crate::node::pod::{Pod, finish};
use hostmount::observe::events;
use hostmount_csi::csi::NodePublishVolumeRequest;
use hostmount_csi::csi::volume_capability::access_mode::Mode;
use tonic::Code;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        published_served_and_unpublished.quick(),
        the_whole_way_by_a_descriptor.needs_linux(6, 9).quick(),
        the_whole_way_by_fusermount3.needs_linux(6, 9).quick(),
        the_last_words_of_a_program_reach_kubelet.quick(),
        two_volumes_of_a_pod_have_a_program_each.quick(),
        what_is_missing_is_told_and_changes_nothing.quick(),
        of_a_persistent_volume.quick(),
        what_is_asked_for_wrongly.quick(),
        a_rule_closes_it_and_forces_flags.quick(),
    ]
    .into_iter()
    .map(Test::needs_cgroups)
    .collect()
}

const UID: &str = "1b2c3d4e-0000-4a5b-8c6d-7e8f90a1b2c3";
const OPTIONS: &str = "default_permissions";

/// The volume `v` of a pod, in its own specification.
fn volume() -> Volume {
    Volume::of("v", &[("mode", "program"), ("emptyDir", "fuse")]).ephemeral()
}

fn published_served_and_unpublished() {
    let mut driver = Driver::start();
    let pod = Pod::new(&driver.test, UID);
    driver.publish(&volume(), UID).unwrap();
    let condition = driver.stats(&volume(), UID).unwrap().volume_condition.unwrap();
    assert!(condition.abnormal && condition.message.contains("no program of the pod"), "{condition:?}");
    // The driver keeps nothing, and the program does not need it.
    driver.start_csi();
    let program = pod.serve(&driver.test, driver.mounter(), OPTIONS);
    driver.start_csi();
    driver.publish(&volume(), UID).unwrap();
    let stats = driver.stats(&volume(), UID).unwrap();
    assert!(!stats.volume_condition.unwrap().abnormal && stats.usage[0].total > 0);
    let (app, alive) = pod.container(&driver.test);
    app.sh_ok("echo x >/data/f && cat /data/f");
    // Both at once.
    driver.start_csi();
    driver.start_mounter();
    assert_eq!(app.sh_ok("cat /data/f"), "x\n");
    driver.publish(&volume(), UID).unwrap();
    drop((app, alive));
    driver.unpublish(&volume(), UID).unwrap();
    driver.unpublish(&volume(), UID).unwrap();
    drop(program);
    driver.wait_until_nothing_is_left("pod-program");
}

fn the_whole_way_by_a_descriptor() {
    // PID 1 of a container ends with its program's exit code, and so does this.
    the_whole_way("exec hostmount-pod start -o default_permissions -- fuser-program {}", 137);
}

fn the_whole_way_by_fusermount3() {
    the_whole_way("fuser-program /run/hostmount/volume auto_unmount; exit $?", 137);
}

/// From kubelet's call to kubelet's call, with what a pod has beside its program: `hostmount-pod`.
fn the_whole_way(serve: &str, killed: i32) {
    let driver = Driver::start();
    let pod = Pod::new(&driver.test, UID);
    let in_pod = |line: &str| finish(pod.start(&driver.test, &pod.sidecar, line));
    driver.publish(&volume(), UID).unwrap();
    let (app, alive) = pod.container(&driver.test);
    assert_eq!(in_pod("hostmount-pod ready 2>&1").0, Some(1));
    let early = pod.start(&driver.test, &app, "echo one >/data/f && cat /data/f");
    pod.wait_until_waiting(&driver.test, 1);
    let first = pod.start(&driver.test, &pod.sidecar, serve);
    assert_eq!(finish(early), (Some(0), "one\n".into()));
    assert_eq!(in_pod("hostmount-pod ready"), (Some(0), String::new()));
    driver.publish(&volume(), UID).unwrap();
    // It dies, and its container is started again.
    driver.test.node.sh_ok("pkill -9 -x fuser-program");
    assert_eq!(finish(first).0, Some(killed));
    driver.mounter().wait_for(events::PROGRAM_ENDED, 1);
    let meanwhile = pod.start(&driver.test, &app, "cat /data/f; echo two >/data/f && cat /data/f");
    pod.wait_until_waiting(&driver.test, 1);
    let second = pod.start(&driver.test, &pod.sidecar, serve);
    let (code, said) = finish(meanwhile);
    assert!(code == Some(0) && said.contains("No such file") && said.ends_with("two\n"), "{said}");
    // It unmounts: its program ends, and calls wait again.
    assert_eq!(in_pod("fusermount3 -u /run/hostmount/volume"), (Some(0), String::new()));
    assert_eq!(finish(second).0, Some(0));
    let missing = "fusermount3: entry for /run/hostmount/volume not found in /etc/mtab\n";
    assert_eq!(in_pod("fusermount3 -u /run/hostmount/volume"), (Some(1), missing.into()));
    let late = pod.start(&driver.test, &app, "cat /data/f || true");
    pod.wait_until_waiting(&driver.test, 1);
    driver.unpublish(&volume(), UID).unwrap();
    finish(late);
    drop((app, alive));
    driver.unpublish(&volume(), UID).unwrap();
    driver.wait_until_nothing_is_left("fuser-program");
    assert_eq!(driver.test.node.sh_ok(&format!("ls -A {}", pod.empty_dir())), "");
}

fn the_last_words_of_a_program_reach_kubelet() {
    let driver = Driver::start();
    let pod = Pod::new(&driver.test, UID);
    driver.publish(&volume(), UID).unwrap();
    for (ends, words) in [
        ("exit 3", "no such bucket; the program has ended, exit code 3"),
        ("kill -9 $$", "no such bucket; the program has ended, killed by signal 9"),
    ] {
        let line = format!("exec hostmount-pod start -- sh -c 'echo no such bucket >&2; {ends}' sh {{}}");
        assert_ne!(finish(pod.start(&driver.test, &pod.sidecar, &line)).0, Some(0));
        fails(driver.publish(&volume(), UID), Code::FailedPrecondition, words);
    }
    driver.unpublish(&volume(), UID).unwrap();
    driver.wait_until_nothing_is_left("fuser-program");
}

fn two_volumes_of_a_pod_have_a_program_each() {
    let driver = Driver::start();
    let pod = Pod::new(&driver.test, UID);
    let names = ["first", "second"];
    let of = |name| Volume::of(name, &[("mode", "program"), ("emptyDir", "fuse"), ("name", name)]).ephemeral();
    let at = |name| of(name).target(UID);
    names.iter().for_each(|name| driver.publish(&of(name), UID).unwrap());
    let lines = names.map(|name| format!("fuser-program /run/hostmount/{name} auto_unmount; exit $?"));
    let programs = lines.map(|line| pod.start(&driver.test, &pod.sidecar, &line));
    driver.mounter().wait_for(events::PROGRAM_SERVES, 2);
    for name in names {
        driver.test.node.sh_ok(&format!("echo {name} >{}/f", at(name)));
    }
    // One is unmounted, and the other one goes on.
    let unmounts = pod.start(&driver.test, &pod.sidecar, "fusermount3 -u /run/hostmount/first");
    assert_eq!(finish(unmounts), (Some(0), String::new()));
    assert_eq!(driver.test.node.sh_ok(&format!("cat {}/f", at("second"))), "second\n");
    names.iter().for_each(|name| driver.unpublish(&of(name), UID).unwrap());
    for program in programs {
        assert_eq!(finish(program).0, Some(0));
    }
    driver.wait_until_nothing_is_left("fuser-program");
    assert_eq!(driver.test.node.sh_ok(&format!("ls -A {}", pod.empty_dir())), "");
}

fn what_is_missing_is_told_and_changes_nothing() {
    let driver = Driver::with_config("program_timeout_seconds = 1");
    let pod = Pod::new(&driver.test, UID);
    driver.publish(&volume(), UID).unwrap();
    let before = driver.test.node.mountinfo();
    driver.mounter().wait_for(events::PROGRAM_LATE, 1);
    fails(driver.publish(&volume(), UID), Code::FailedPrecondition, "volume.sock in the pod's emptyDir 'fuse'");
    driver.publish(&volume(), UID).unwrap();
    assert_eq!(driver.test.node.mountinfo(), before);
    assert_eq!(pod.call(&driver.test, "ended 3 'no credentials'").0, Some(0));
    fails(
        driver.publish(&volume(), UID),
        Code::FailedPrecondition,
        "no credentials; the program has ended, exit code 3",
    );
    driver.publish(&volume(), UID).unwrap();
    assert_eq!(driver.test.node.mountinfo(), before);
    driver.unpublish(&volume(), UID).unwrap();
    driver.wait_until_nothing_is_left("pod-program");
}

fn of_a_persistent_volume() {
    let driver = Driver::start();
    let pod = Pod::new(&driver.test, UID);
    let volume = Volume::of("v", &[("mode", "program"), ("emptyDir", "fuse"), ("name", "data")]);
    let volume = Volume { mode: Mode::MultiNodeReaderOnly, ..volume };
    driver.stage(&volume).unwrap();
    assert_eq!(driver.test.node.fuse_mounts(), [""; 0], "it is each pod's own");
    driver.publish(&volume, UID).unwrap();
    assert_eq!(driver.test.node.sh_ok(&format!("ls {}", pod.empty_dir())), "data\ndata.sock\n");
    let shown = driver.test.node.mount_at(&volume.target(UID)).unwrap();
    assert!(shown.contains(" ro,nosuid,nodev,"), "{shown}");
    driver.unpublish(&volume, UID).unwrap();
    driver.unstage(&volume).unwrap();
    driver.wait_until_nothing_is_left("pod-program");
}

fn what_is_asked_for_wrongly() {
    let driver = Driver::start();
    let _pod = Pod::new(&driver.test, UID);
    let of = |attributes: &[(&str, &str)]| Volume::of("v", attributes).ephemeral();
    let publish = |attributes: &[(&str, &str)]| driver.publish(&of(attributes), UID);
    fails(publish(&[("mode", "program")]), Code::InvalidArgument, "'emptyDir'");
    fails(publish(&[("mode", "program"), ("emptyDir", "fuse"), ("source", "x")]), Code::InvalidArgument, "'source'");
    fails(publish(&[("mode", "program"), ("emptyDir", "../x")]), Code::InvalidArgument, "'emptyDir'");
    fails(publish(&[("mode", "program"), ("emptyDir", "fuse"), ("name", "a/b")]), Code::InvalidArgument, "'name'");
    fails(publish(&[("mode", "program"), ("emptyDir", "nosuch")]), Code::Internal, "no emptyDir volume named 'nosuch'");
    fails(publish(&[("mode", "programs"), ("type", "x"), ("source", "y")]), Code::InvalidArgument, "'program'");
    driver.publish(&volume(), UID).unwrap();
    let read_only = NodePublishVolumeRequest { readonly: true, ..volume().to_publish(UID) };
    fails(driver.publish_as(read_only), Code::AlreadyExists, "with other attributes");
    driver.unpublish(&volume(), UID).unwrap();
    driver.wait_until_nothing_is_left("pod-program");
}

fn a_rule_closes_it_and_forces_flags() {
    let mut driver = Driver::with_config("[policy.csi]\ntypes = ['bindfs']\n");
    let pod = Pod::new(&driver.test, UID);
    fails(driver.publish(&volume(), UID), Code::PermissionDenied, "type 'program' is refused by policy.csi.types");
    driver.wait_until_nothing_is_left("pod-program");
    assert_eq!(driver.test.node.sh_ok(&format!("ls -A {}", pod.empty_dir())), "");
    let configure = |driver: &Driver, line: &str| {
        driver.test.container.sh_ok(&format!("sed -i \"s/^types = .*/{line}/\" /etc/hostmount/config.toml"));
    };
    configure(&driver, "types = ['program']\\nforced_options = 'noexec'");
    driver.start_mounter();
    driver.publish(&volume(), UID).unwrap();
    let program = pod.serve(&driver.test, driver.mounter(), OPTIONS);
    let shown = driver.test.node.mount_at(&volume().target(UID)).unwrap();
    assert!(shown.contains(" rw,nosuid,nodev,noexec,"), "{shown}");
    // What is there stays.
    configure(&driver, "types = []");
    driver.start_mounter();
    driver.publish(&volume(), UID).unwrap();
    drop(program);
    driver.unpublish(&volume(), UID).unwrap();
    driver.wait_until_nothing_is_left("pod-program");
}
