//! Volumes that a program of a pod with a user namespace serves (`mode: program`, `hostUsers: false`): a placeholder shows at the target, and the
//! program's filesystem is of the pod's user namespace, so that owners in it are the pod's own. By real containers of crun's, which
//! share that namespace as a pod's do.

use super::pods::UID;
use crate::harness::{Test, tests};
use crate::node::TestNode;
use crate::node::mapped_container::{Beside, FIRST_ID, MappedContainer};
use crate::node::mounter::{Mounter, SOCKET};
use crate::node::pod::Pod;
use crate::node::programs::{POD, TESTBED};
use crate::node::setting::Setting;
use api::client::Client;
use api::program::ProgramVolume;
use api::volume::VolumeState;
use hostmount::observe::events;
use nix::sys::signal::Signal;
use std::path::Path;
use std::thread;
use std::time::Duration;

pub(crate) fn tests() -> Vec<Test> {
    let all = tests![
        owners_are_those_of_the_pod,
        a_program_comes_later_dies_and_comes_back,
        a_directory_of_the_volume_and_what_kubelet_makes,
        a_program_whose_library_mounts,
        the_mounter_and_the_placeholder_are_killed,
        unpublished_at_any_time,
        nobody_outside_of_the_pod_enters,
    ];
    let all = all.into_iter().map(|test| test.needs(&["crun", "busybox"]).needs_linux(6, 12));
    all.map(Test::needs_cgroups).collect()
}

const SERVE: &str = "pod-program /run/hostmount/volume.sock serve default_permissions,with=sub";
const PROGRAM: &str = "pod-program";

/// A node with a pod, and its volume published.
fn start() -> (TestNode, Mounter, Pod) {
    let Setting { test, mounter } = Setting::start();
    let pod = Pod::new(&test, UID);
    publish(&test, &pod, false);
    let mounted = test.node.mount_at(&pod.target()).unwrap();
    assert!(mounted.contains(" fuse.placeholder "), "{mounted}");
    (test, mounter, pod)
}

fn publish(test: &TestNode, pod: &Pod, already: bool) {
    let asked = || Client::at(SOCKET).program(ProgramVolume { host_users: false, ..pod.volume() });
    assert_eq!(test.node.visit(asked).unwrap().already, already);
}

fn cgroup() -> String {
    format!("kubepods/burstable/pod{UID}")
}

/// The container that the program is to run in.
fn sidecar<'a>(test: &'a TestNode, pod: &Pod) -> MappedContainer<'a> {
    let programs: [(&str, &Path); 3] = [(PROGRAM, &TESTBED), ("fuser-program", &TESTBED), ("fusermount3", &POD)];
    let beside = Beside { pod: None, cgroup: Some(&cgroup()), programs: &programs };
    MappedContainer::start_beside(test, &[(&pod.empty_dir(), "/run/hostmount")], beside)
}

fn application<'a>(test: &'a TestNode, pod: &MappedContainer<'_>, mounts: &[(&str, &str)]) -> MappedContainer<'a> {
    let beside = Beside { pod: Some(pod), cgroup: Some(&cgroup()), programs: &[] };
    MappedContainer::start_beside(test, mounts, beside)
}

/// Starts a program in the sidecar; returns when it serves.
fn serve(mounter: &Mounter, sidecar: &MappedContainer<'_>, program: &str) {
    let before = mounter.count(events::PROGRAM_SERVES);
    sidecar.start_program(program);
    mounter.wait_for(events::PROGRAM_SERVES, before + 1);
}

fn kill(test: &TestNode, word: &str) {
    test.pids_of(word).iter().for_each(|pid| _ = test.node.sh(&format!("kill -9 {pid}")));
}

/// Nothing is left of the volume.
fn unpublished(test: &TestNode, pod: &Pod) {
    pod.unpublish(test);
    test.wait_for_processes("serve-placeholder", 0);
    test.wait_for_processes("pod-program /run", 0);
    assert_eq!(test.node.fuse_mounts(), [""; 0]);
}

fn owners_are_those_of_the_pod() {
    let (test, mounter, pod) = start();
    publish(&test, &pod, true);
    let sidecar = sidecar(&test, &pod);
    serve(&mounter, &sidecar, SERVE);
    publish(&test, &pod, true);
    assert_eq!(pod.status(&test).view.state, VolumeState::Mounted);
    let application = application(&test, &sidecar, &[(&pod.target(), "/data")]);
    let (fstype, options) = application.mounted_at("/data");
    assert!(fstype == "fuse.placeholder" && options.contains("idmapped"), "{fstype} {options}");
    assert_eq!(application.sh("echo roots >/data/r; cat /data/r; stat -c %u:%g /data/r /data"), "roots\n0:0\n0:0\n");
    assert_eq!(application.sh_as(1000, "echo its >/data/u; stat -c %u:%g /data/u"), "1000:1000\n");
    assert!(application.sh_as(1000, "echo x >>/data/r; true").contains("Permission denied"));
    let (fstype, options) = application.mounted_at("/data");
    assert!(
        fstype != "fuse.placeholder" && options.contains("nosuid") && options.contains("nodev"),
        "{fstype} {options}"
    );
    drop((application, sidecar));
    unpublished(&test, &pod);
}

fn a_program_comes_later_dies_and_comes_back() {
    let (test, mounter, pod) = start();
    let sidecar = sidecar(&test, &pod);
    // The application starts first, and waits.
    let [one, two] = [0, 1].map(|_| application(&test, &sidecar, &[(&pod.target(), "/data")]));
    thread::scope(|scope| {
        let waits = scope.spawn(|| one.sh("echo early >/data/f; cat /data/f"));
        while test.pids_of("echo early").is_empty() {
            thread::yield_now();
        }
        serve(&mounter, &sidecar, SERVE);
        assert_eq!(waits.join().unwrap(), "early\n");
    });
    assert_eq!(two.sh("cat /data/f"), "early\n");
    for round in 0..2 {
        kill(&test, "pod-program /run");
        mounter.wait_for(events::PROGRAM_ENDED, round + 1);
        thread::scope(|scope| {
            let waits = scope.spawn(|| two.sh("echo again >/data/g; cat /data/g; stat -c %u /data/g"));
            pod.wait_until_waiting(&test, 1);
            serve(&mounter, &sidecar, SERVE);
            assert_eq!(waits.join().unwrap(), "again\n0\n");
        });
        assert_eq!(one.sh("cat /data/g; ls -d /data/sub"), "again\n/data/sub\n");
        // One that starts with the later program.
        let later = application(&test, &sidecar, &[(&pod.target(), "/data")]);
        assert_eq!(later.sh("cat /data/g"), "again\n");
    }
    drop((one, two, sidecar));
    unpublished(&test, &pod);
}

/// Kubelet is not in the pod's user namespace, and prepares `subPath` all the same.
fn a_directory_of_the_volume_and_what_kubelet_makes() {
    let (test, mounter, pod) = start();
    let (target, node) = (pod.target(), &test.node);
    let sidecar = sidecar(&test, &pod);
    serve(&mounter, &sidecar, SERVE);
    node.sh_ok(&format!("cd / && stat {target} {target}/sub && mkdir {target}/made && chmod 755 {target}/made"));
    let sub = format!("/var/lib/kubelet/pods/{UID}/volume-subpaths/v/c/0");
    node.sh_ok(&format!("mkdir -p {sub} && /bin/mount --bind {target}/made {sub}"));
    let application = application(&test, &sidecar, &[(&sub, "/sub"), (&target, "/data")]);
    assert_eq!(application.sh("echo below >/sub/f; cat /data/made/f; stat -c %u /sub"), "below\n0\n");
    // The next program has that directory, too.
    kill(&test, "pod-program /run");
    serve(&mounter, &sidecar, &SERVE.replace("with=sub", "with=made"));
    assert_eq!(application.sh("echo again >/sub/g; cat /data/made/g"), "again\n");
    drop((application, sidecar));
    node.sh_ok(&format!("umount {sub}"));
    unpublished(&test, &pod);
}

/// By `fusermount3`, which is ours.
fn a_program_whose_library_mounts() {
    let (test, mounter, pod) = start();
    let sidecar = sidecar(&test, &pod);
    let application = application(&test, &sidecar, &[(&pod.target(), "/data")]);
    for _ in 0..2 {
        serve(&mounter, &sidecar, "fuser-program /run/hostmount/volume auto_unmount");
        assert_eq!(application.sh("echo by >/data/f; cat /data/f; stat -c %u:%a /data /data/f"), "by\n0:777\n0:644\n");
        kill(&test, "fuser-program /run");
        test.wait_for_processes("fuser-program /run", 0);
    }
    drop((application, sidecar));
    unpublished(&test, &pod);
}

fn the_mounter_and_the_placeholder_are_killed() {
    let (test, mut mounter, pod) = start();
    for has_it in [true, false] {
        let sidecar = sidecar(&test, &pod);
        serve(&mounter, &sidecar, SERVE);
        let first = application(&test, &sidecar, &[(&pod.target(), "/data")]);
        if has_it {
            assert_eq!(first.sh("echo one >/data/f; cat /data/f"), "one\n");
        }
        // Where no container has it the program ends with the placeholder, and the next one is waited for.
        let renewed = mounter.count(events::PLACEHOLDER_RENEWED);
        kill(&test, "serve-placeholder");
        mounter.wait_for(events::PLACEHOLDER_RENEWED, renewed + 1);
        if !has_it {
            test.wait_for_processes("pod-program /run", 0);
            serve(&mounter, &sidecar, SERVE);
        }
        let later = application(&test, &sidecar, &[(&pod.target(), "/data")]);
        for container in [&first, &later] {
            assert_eq!(container.sh("echo two >/data/g; cat /data/g"), "two\n");
        }
        drop((first, later, sidecar));
        test.wait_for_processes("pod-program /run", 0);
    }
    // The next mounter knows it.
    mounter.signal(Signal::SIGKILL);
    mounter.wait();
    mounter = test.start_mounter(&[], &[]);
    publish(&test, &pod, true);
    let sidecar = sidecar(&test, &pod);
    serve(&mounter, &sidecar, SERVE);
    let first = application(&test, &sidecar, &[(&pod.target(), "/data")]);
    assert_eq!(first.sh("echo three >/data/f; cat /data/f"), "three\n");
    mounter.signal(Signal::SIGKILL);
    mounter.wait();
    // A container starts meanwhile.
    let second = application(&test, &sidecar, &[(&pod.target(), "/data")]);
    assert_eq!(second.sh("cat /data/f"), "three\n");
    mounter = test.start_mounter(&[], &[]);
    publish(&test, &pod, true);
    assert_eq!(pod.status(&test).view.state, VolumeState::Mounted);
    kill(&test, "pod-program /run");
    mounter.wait_for(events::PROGRAM_ENDED, 1);
    serve(&mounter, &sidecar, SERVE);
    for container in [&first, &second] {
        assert_eq!(container.sh("echo four >/data/h; cat /data/h"), "four\n");
    }
    drop((first, second, sidecar));
    unpublished(&test, &pod);
}

fn unpublished_at_any_time() {
    let (test, mounter, pod) = start();
    for moment in 0..4 {
        if moment > 0 {
            publish(&test, &pod, false);
        }
        let sidecar = sidecar(&test, &pod);
        let application = application(&test, &sidecar, &[(&pod.target(), "/data")]);
        if moment > 0 {
            // It waits, if no program is there yet.
            application.start_program("timeout -s KILL 10 cat /data/none");
        }
        if moment > 1 {
            sidecar.start_program(SERVE);
        }
        if moment == 3 {
            mounter.wait_for(events::PROGRAM_SERVES, 1);
            kill(&test, "pod-program /run");
        }
        thread::sleep(Duration::from_millis(20 * moment));
        pod.unpublish(&test);
        drop((application, sidecar));
        test.wait_for_processes("serve-placeholder", 0);
        test.wait_for_processes("pod-program /run", 0);
        assert_eq!(test.node.fuse_mounts(), [""; 0]);
    }
}

/// Another pod's container, whose users have the same numbers on the node, and the node itself.
fn nobody_outside_of_the_pod_enters() {
    let (test, mounter, pod) = start();
    let sidecar = sidecar(&test, &pod);
    serve(&mounter, &sidecar, SERVE);
    let application = application(&test, &sidecar, &[(&pod.target(), "/data")]);
    assert_eq!(application.sh("echo secret >/data/f; cat /data/f"), "secret\n");
    let other = MappedContainer::start(&test, &[(&pod.target(), "/data")], "/");
    let said = other.sh("cat /data/f; true");
    assert!(said.contains("Permission denied"), "{said}");
    let on_node = test.node.sh(&format!("cd / && cat {}/f", pod.target()));
    assert!(on_node.stderr.contains("not supported"), "{on_node:?}");
    // It stores what the pod's users are inside, whatever their numbers on the node.
    assert_ne!(test.node.sh_ok(&format!("cd / && stat -c %u {}/sub", pod.target())), format!("{FIRST_ID}\n"));
    drop((other, application, sidecar));
    unpublished(&test, &pod);
}
