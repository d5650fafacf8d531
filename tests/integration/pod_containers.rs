//! A pod whose own program serves its volume, in real containers without any privilege. The program asks by itself here;
//! `pod_programs` has real ones.

use crate::harness::{Test, tests};
use crate::node::container::{Container, Image, SECCOMP, Spec};
use crate::node::pod::finish;
use crate::node::programs::TESTBED;
use crate::pods::{OPTIONS, start};
use hostmount::observe::events;
use std::fs;

pub(crate) fn tests() -> Vec<Test> {
    tests![containers_of_a_pod_without_any_privilege.needs(&["runc", "busybox", SECCOMP]).needs_linux(6, 9),]
        .into_iter()
        .map(Test::needs_cgroups)
        .collect()
}

fn containers_of_a_pod_without_any_privilege() {
    let (setting, pod) = start("");
    pod.publish(&setting.test).unwrap();
    let image = Image::with(&setting.test, &[]);
    image.put(&setting.test, "/bin/pod-program", fs::read(&*TESTBED).unwrap());
    let container = |spec, arguments: &[&str]| Container::start(&setting.test, &pod, &image, &spec, arguments);
    let application = || container(Spec::default().mount(pod.target(), "/data"), &["sleep", "infinity"]);
    let serve = ["pod-program", "/run/hostmount/volume.sock", "serve", OPTIONS];
    let program = || container(Spec::default().mount(pod.empty_dir(), "/run/hostmount"), &serve);
    // The application's container comes first: the runtime is not held.
    let first = application();
    assert_eq!(
        first.sh("id -u; grep -E \"CapBnd|NoNewPrivs|Seccomp:\" /proc/self/status"),
        "1000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"
    );
    let early = first.begin("cat /data/f || echo one >/data/f");
    pod.wait_until_waiting(&setting.test, 1);
    let serving = program();
    setting.mounter.wait_for(events::PROGRAM_SERVES, 1);
    assert_eq!(finish(early).0, Some(0));
    assert_eq!(first.sh("cat /data/f"), "one\n");
    // The program's container is started again, and so is another one of the application's meanwhile.
    serving.kill();
    setting.mounter.wait_for(events::PROGRAM_ENDED, 1);
    drop(serving);
    let second = application();
    let waits = [&first, &second].map(|container| container.begin("cat /data/f || echo two >>/data/f"));
    pod.wait_until_waiting(&setting.test, 2);
    let serving = program();
    setting.mounter.wait_for(events::PROGRAM_SERVES, 2);
    waits.into_iter().for_each(|waiting| assert_eq!(finish(waiting).0, Some(0)));
    assert!(first.sh("cat /data/f").starts_with("two\n") && second.sh("cat /data/f").starts_with("two\n"));
    // Kubelet ends the containers, and then unpublishes.
    drop((first, second, serving));
    pod.unpublish(&setting.test);
    assert_eq!(setting.test.node.fuse_mounts(), [""; 0]);
    assert_eq!(setting.test.node.sh_ok(&format!("ls -A {}", pod.empty_dir())), "");
}
