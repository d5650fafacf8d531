//! Volumes that a program of a pod serves, an unprivileged one: from the first publish to the last unpublish.

use crate::harness::{Test, tests};
use crate::node::Place;
use crate::node::pod::{Pod, finish, wait_for_line};
use crate::node::setting::Setting;
use api::client::CallError;
use api::message::{Failure, Reason};
use api::volume::VolumeState;
use hostmount::observe::events;
use nix::sys::signal::Signal;
use std::thread;
use std::time::{Duration, Instant};
use testbed::machine::{Process, Propagation};

/// Since when there is FUSE_NOTIFY_RESEND.
pub(crate) const LINUX: (u32, u32) = (6, 9);

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_program_comes_dies_and_comes_back.needs_linux(LINUX.0, LINUX.1).quick(),
        a_program_that_does_not_come_is_not_waited_for_and_heals_all_the_same.quick(),
        unpublished_at_any_time.needs_linux(LINUX.0, LINUX.1),
        who_waits_can_be_killed.quick(),
        a_program_unmounts_and_says_why_it_ended.quick(),
        a_program_unmounts_its_own_filesystem_and_no_others.quick(),
        a_source_with_a_comma_is_shown_as_it_is.quick(),
        a_program_in_the_background_is_watched.needs_linux(LINUX.0, LINUX.1),
        what_is_read_only_stays_so,
        an_empty_dir_that_comes_later_is_waited_for,
        each_container_goes_on_and_a_directory_of_the_volume_too.needs_linux(LINUX.0, LINUX.1),
    ]
    .into_iter()
    .map(Test::needs_cgroups)
    .collect()
}

pub(crate) const UID: &str = "1b2c3d4e-0000-4a5b-8c6d-7e8f90a1b2c3";

/// With `default_permissions`, as the filesystem in memory wants it.
pub(crate) const OPTIONS: &str = "default_permissions";

pub(crate) fn start(config: &str) -> (Setting, Pod) {
    let setting = Setting::with_config(config);
    let pod = Pod::new(&setting.test, UID);
    (setting, pod)
}

pub(crate) fn kill(mut program: Process) {
    program.kill().unwrap();
    program.wait().unwrap();
}

/// What the container's processes get from a line of shell, in the background.
pub(crate) fn line(setting: &Setting, pod: &Pod, container: &Place, line: &str) -> Process {
    pod.start(&setting.test, container, line)
}

/// What kubelet is told.
#[track_caller]
fn told(setting: &Setting, pod: &Pod) -> Failure {
    match pod.publish(&setting.test) {
        Err(CallError::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    }
}

pub(crate) const DEAD: &str = "Transport endpoint is not connected";

fn a_program_comes_dies_and_comes_back() {
    let (setting, pod) = start("");
    let before = setting.state();
    assert!(!pod.publish(&setting.test).unwrap().already);
    // Kubelet and the runtime look at its root, and bind it.
    setting.test.node.sh_ok(&format!("stat -f {0} && stat {0} && mountpoint {0}", pod.target()));
    assert_eq!(setting.test.node.sh_ok(&format!("ls -A {}", pod.empty_dir())), "volume\nvolume.sock\n");
    let (app, alive) = pod.container(&setting.test);
    let early = line(&setting, &pod, &app, "cd /data && echo hi >f && cat /data/f");
    pod.wait_until_waiting(&setting.test, 1);
    assert_eq!(pod.status(&setting.test).view.state, VolumeState::Waiting);
    let program = pod.serve(&setting.test, &setting.mounter, "fsname=mine,subtype=memfs,default_permissions");
    assert_eq!(finish(early), (Some(0), "hi\n".into()));
    let shown = setting.test.node.mount_at(&pod.target()).unwrap();
    assert!(shown.contains(" rw,nosuid,nodev,") && shown.contains(" - fuse.memfs mine "), "{shown}");
    assert_eq!(app.sh_ok("ls /data"), "f\n");
    let status = pod.status(&setting.test).view;
    assert_eq!((status.state, &*status.helper, &*status.source), (VolumeState::Mounted, "pod-program", "fuse/volume"));
    kill(program);
    setting.mounter.wait_for(events::PROGRAM_ENDED, 1);
    let meanwhile = line(&setting, &pod, &app, "ls -A /data; echo back >/data/g");
    pod.wait_until_waiting(&setting.test, 1);
    let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
    assert_eq!(finish(meanwhile), (Some(0), String::new()), "the fresh one has nothing in it");
    assert_eq!(app.sh_ok("cat /data/g"), "back\n");
    assert!(pod.publish(&setting.test).unwrap().already, "kubelet asks again and again");
    drop((app, alive));
    pod.unpublish(&setting.test);
    assert_eq!(setting.test.node.sh_ok(&format!("ls -A {}", pod.empty_dir())), "");
    // The kernel ends it: nobody has its filesystem any more.
    assert_eq!(finish(program), (Some(0), "serving\n".into()));
    setting.wait_until(&before);
    assert!(!pod.publish(&setting.test).unwrap().already);
    pod.unpublish(&setting.test);
    setting.wait_until(&before);
}

fn a_program_that_does_not_come_is_not_waited_for_and_heals_all_the_same() {
    let (setting, pod) = start("program_timeout_seconds = 1\n");
    let before = setting.state();
    pod.publish(&setting.test).unwrap();
    let (app, alive) = pod.container(&setting.test);
    let early = line(&setting, &pod, &app, "cat /data/f");
    let (code, said) = finish(early);
    assert!(code == Some(1) && said.contains(DEAD), "{said}");
    setting.mounter.wait_for(events::PROGRAM_LATE, 1);
    assert!(app.sh("ls /data").stderr.contains(DEAD));
    // Who shows it elsewhere is not hindered.
    setting.test.node.sh_ok(&format!("stat {}", pod.target()));
    let failure = told(&setting, &pod);
    assert_eq!(failure.reason, Reason::NotServed);
    for word in ["volume.sock", "emptyDir 'fuse'", "hostmount-pod start"] {
        assert!(failure.message.contains(word), "{failure:?}");
    }
    // A kubelet whose first answer was lost must not hear the same for ever: the program comes up with the pod.
    assert!(pod.publish(&setting.test).unwrap().already);
    let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
    app.sh_ok("echo late >/data/f && cat /data/f");
    assert!(pod.publish(&setting.test).unwrap().already);
    drop((app, alive, program));
    pod.unpublish(&setting.test);
    setting.wait_until(&before);
}

fn unpublished_at_any_time() {
    let (setting, pod) = start("program_timeout_seconds = 600\n");
    let before = setting.state();
    for _ in 0..2 {
        // While something waits for the first program.
        pod.publish(&setting.test).unwrap();
        let (app, alive) = pod.container(&setting.test);
        let waits = line(&setting, &pod, &app, "cat /data/f");
        pod.wait_until_waiting(&setting.test, 1);
        pod.unpublish(&setting.test);
        let (_, said) = finish(waits);
        assert!(said.contains(DEAD) || said.contains("connection abort"), "{said}");
        drop((app, alive));
        setting.wait_until(&before);
        // While it serves, and has a file open.
        pod.publish(&setting.test).unwrap();
        let (app, alive) = pod.container(&setting.test);
        let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
        let mut open = line(&setting, &pod, &app, "exec 3>/data/f; echo open; exec sleep infinity");
        wait_for_line(&mut open, "open");
        pod.unpublish(&setting.test);
        kill(open);
        drop((app, alive, program));
        setting.wait_until(&before);
        // While it is dead, something waits for the next one, and something has a file open.
        pod.publish(&setting.test).unwrap();
        let (app, alive) = pod.container(&setting.test);
        let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
        let mut open = line(&setting, &pod, &app, "exec 3>/data/f; echo open; exec sleep infinity");
        wait_for_line(&mut open, "open");
        let ended = setting.mounter.count(events::PROGRAM_ENDED);
        kill(program);
        setting.mounter.wait_for(events::PROGRAM_ENDED, ended + 1);
        let waits = line(&setting, &pod, &app, "cat /data/f");
        pod.wait_until_waiting(&setting.test, 1);
        pod.unpublish(&setting.test);
        kill(open);
        let (_, said) = finish(waits);
        assert!(said.contains(DEAD) || said.contains("connection abort"), "{said}");
        drop((app, alive));
        setting.wait_until(&before);
        // And while a program has its filesystem, and does not answer.
        pod.publish(&setting.test).unwrap();
        let mut holds = pod.program(&setting.test, "hold");
        wait_for_line(&mut holds, "holding");
        pod.unpublish(&setting.test);
        kill(holds);
        setting.wait_until(&before);
    }
}

fn who_waits_can_be_killed() {
    let (setting, pod) = start("program_timeout_seconds = 600\n");
    pod.publish(&setting.test).unwrap();
    let (app, _alive) = pod.container(&setting.test);
    for _ in 0..2 {
        let waits = line(&setting, &pod, &app, "cat /data/f");
        pod.wait_until_waiting(&setting.test, 1);
        kill(waits);
    }
    // While others wait, who look for something else.
    let first = line(&setting, &pod, &app, "cat /data/f");
    pod.wait_until_waiting(&setting.test, 1);
    let second = line(&setting, &pod, &app, "cat /data/g");
    pod.wait_until_waiting(&setting.test, 2);
    kill(second);
    kill(first);
    // The same where a program has been, with what it had read and not answered.
    let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(program.id().try_into().unwrap()), Signal::SIGSTOP).unwrap();
    let waits = line(&setting, &pod, &app, "cat /data/f");
    pod.wait_until_waiting(&setting.test, 1);
    kill(program);
    kill(waits);
    pod.unpublish(&setting.test);
}

fn a_program_unmounts_and_says_why_it_ended() {
    let (setting, pod) = start("program_timeout_seconds = 600\n");
    let before = setting.state();
    pod.publish(&setting.test).unwrap();
    assert_eq!(pod.call(&setting.test, "ready"), (Some(2), String::new()));
    let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
    assert_eq!(pod.call(&setting.test, "ready"), (Some(0), String::new()));
    let (app, alive) = pod.container(&setting.test);
    let awaited = setting.mounter.count(events::PROGRAM_AWAITED);
    assert_eq!(pod.call(&setting.test, "unmount"), (Some(0), String::new()));
    setting.mounter.wait_for(events::PROGRAM_AWAITED, awaited + 1);
    // As after any umount.
    assert_eq!(finish(program), (Some(0), "serving\n".into()));
    assert_eq!(pod.call(&setting.test, "ready"), (Some(2), String::new()));
    let (code, said) = pod.call(&setting.test, "unmount");
    assert!(code == Some(1) && said.contains("nothing is mounted"), "{said}");
    let waits = line(&setting, &pod, &app, "cat /data/f || true");
    pod.wait_until_waiting(&setting.test, 1);
    // Kubelet hears of it at once.
    assert!(pod.publish(&setting.test).unwrap().already);
    assert_eq!(pod.call(&setting.test, "ended 139 'no such bucket'").0, Some(0));
    let failure = told(&setting, &pod);
    assert_eq!((failure.reason, failure.output.len()), (Reason::NotServed, 2), "{failure:?}");
    assert!(failure.output[0] == "no such bucket" && failure.output[1].contains("signal 11"), "{failure:?}");
    assert_eq!(pod.status(&setting.test).lines, failure.output);
    let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
    assert!(finish(waits).1.contains("No such file"));
    assert!(pod.status(&setting.test).lines.is_empty());
    // What is refused is said to the program.
    let (code, said) = pod.call(&setting.test, "serve context=x");
    assert!(code == Some(1) && said.contains("unknown option 'context'"), "{said}");
    drop((app, alive, program));
    pod.unpublish(&setting.test);
    setting.wait_until(&before);
}

/// As fusermount3 does when the one that it mounts for is gone.
fn a_program_unmounts_its_own_filesystem_and_no_others() {
    let (setting, pod) = start("program_timeout_seconds = 600\n");
    let before = setting.state();
    pod.publish(&setting.test).unwrap();
    for served in [false, true] {
        let program = served.then(|| pod.serve(&setting.test, &setting.mounter, OPTIONS));
        if served {
            setting.test.node.sh_ok(&format!("echo x >{}/f", pod.target()));
        }
        // One that has not answered yet is not waited for.
        let given_up = setting.mounter.count(events::PROGRAM_NOT_READY);
        let (code, said) = pod.call(&setting.test, "regret");
        assert!(code == Some(0) && said.contains("nothing is mounted"), "{said}");
        setting.mounter.wait_for(events::PROGRAM_NOT_READY, given_up + 1);
        assert_eq!(pod.call(&setting.test, "ready").0, Some(if served { 0 } else { 2 }));
        if served {
            assert_eq!(setting.test.node.sh_ok(&format!("cat {}/f", pod.target())), "x\n");
        }
        drop(program);
    }
    pod.unpublish(&setting.test);
    setting.wait_until(&before);
}

fn a_source_with_a_comma_is_shown_as_it_is() {
    let (setting, pod) = start("");
    pod.publish(&setting.test).unwrap();
    let program = pod.serve(&setting.test, &setting.mounter, "'fsname=\"host:/a,b\",default_permissions'");
    let shown = setting.test.node.mount_at(&pod.target()).unwrap();
    assert!(shown.contains(" - fuse host:/a,b "), "{shown}");
    drop(program);
    pod.unpublish(&setting.test);
}

fn a_program_in_the_background_is_watched() {
    let (setting, pod) = start("");
    pod.publish(&setting.test).unwrap();
    let (app, _alive) = pod.container(&setting.test);
    for time in 1..=3 {
        // Who has asked is gone before it is served.
        let (code, said) = pod.call(&setting.test, &format!("background {OPTIONS} </dev/null >/dev/null 2>&1"));
        assert_eq!((code, &*said), (Some(0), ""));
        setting.mounter.wait_for(events::PROGRAM_SERVES, time);
        app.sh_ok("echo x >/data/f && cat /data/f");
        setting.test.node.sh_ok("pkill -9 -x pod-program");
        setting.mounter.wait_for(events::PROGRAM_ENDED, time);
        pod.wait_until_state(&setting.test, VolumeState::Waiting);
    }
    pod.unpublish(&setting.test);
}

fn what_is_read_only_stays_so() {
    let (setting, pod) = start("");
    let volume = api::program::ProgramVolume { read_only: true, ..pod.volume() };
    setting.test.node.visit(|| api::client::Client::at(crate::node::mounter::SOCKET).program(volume)).unwrap();
    let (app, alive) = pod.container(&setting.test);
    let program = pod.serve(&setting.test, &setting.mounter, "rw,suid,dev,default_permissions");
    let refused = app.sh("echo x >/data/f");
    assert!(refused.stderr.contains("Read-only file system"), "{refused:?}");
    let shown = setting.test.node.mount_at(&pod.target()).unwrap();
    assert!(shown.contains(" ro,nosuid,nodev,"), "{shown}");
    // As one that may be written to it is another volume.
    assert_eq!(told(&setting, &pod).reason, Reason::Occupied);
    drop((app, alive, program));
    pod.unpublish(&setting.test);
}

/// Kubelet makes a pod's volumes ready at the same time.
fn an_empty_dir_that_comes_later_is_waited_for() {
    let (setting, pod) = start("");
    let directory = pod.empty_dir();
    let of_kubelet = directory.replace("/volumes/", "/plugins/");
    for memory in [false, true] {
        setting.test.node.sh_ok(&format!("umount -l {directory} 2>/dev/null; rm -r {directory} {of_kubelet}"));
        thread::scope(|scope| {
            let published = scope.spawn(|| pod.publish(&setting.test));
            // It looks, and then waits.
            let deadline = Instant::now() + Duration::from_secs(30);
            let watches = || {
                setting.test.descriptors(setting.mounter.pid()).values().any(|to| to.ends_with("anon_inode:inotify"))
            };
            while !watches() {
                assert!(Instant::now() < deadline);
                thread::sleep(Duration::from_millis(2));
            }
            setting.test.node.sh_ok(&format!("mkdir -m 777 {directory}"));
            if memory {
                setting.test.node.sh_ok(&format!("mount -t tmpfs -o mode=777 x {directory}"));
            }
            setting.test.node.sh_ok(&format!("mkdir -p {of_kubelet} && touch {of_kubelet}/ready"));
            published.join().unwrap().unwrap();
        });
        assert_eq!(setting.test.node.sh_ok(&format!("ls {directory}")), "volume\nvolume.sock\n");
        pod.unpublish(&setting.test);
    }
}

/// Several containers, one of which shows a directory of the volume.
fn each_container_goes_on_and_a_directory_of_the_volume_too() {
    let (setting, pod) = start("");
    let before = setting.state();
    pod.publish(&setting.test).unwrap();
    let make = "mkdir -m 777 /data/sub && echo of";
    let first = pod.container(&setting.test);
    let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
    first.0.sh_ok(&format!("{make} first >/data/sub/f"));
    let sub = setting.test.pod(&[(&format!("{}/sub", pod.target()), "/data")], Propagation::None);
    let alive = sub.live();
    assert_eq!(sub.sh_ok("cat /data/f"), "of first\n");
    let second = pod.container(&setting.test);
    // It ends, and the next one has the directory as well, by the time that it answers.
    kill(program);
    setting.mounter.wait_for(events::PROGRAM_ENDED, 1);
    let waits = pod.start(&setting.test, &sub, "cat /data/none 2>&1 || echo there");
    pod.wait_until_waiting(&setting.test, 1);
    let program = pod.serve(&setting.test, &setting.mounter, "default_permissions,with=sub");
    let (_, said) = finish(waits);
    assert!(said.ends_with("there\n") && said.contains("No such file"), "{said}");
    for container in [&first.0, &second.0] {
        container.sh_ok("echo of second >/data/sub/f");
    }
    assert_eq!(sub.sh_ok("cat /data/f"), "of second\n");
    // What is unmounted has no directory: there the old one is left, and the next program is shown there again.
    assert_eq!(pod.call(&setting.test, "unmount").0, Some(0));
    assert_eq!(sub.sh_ok("cat /data/f"), "of second\n");
    kill(program);
    let program = pod.serve(&setting.test, &setting.mounter, "default_permissions,with=sub");
    assert_eq!(sub.sh_ok("ls /data"), "");
    first.0.sh_ok("echo of third >/data/sub/f");
    assert_eq!(sub.sh_ok("cat /data/f"), "of third\n");
    drop((first, second, alive, sub, program));
    pod.unpublish(&setting.test);
    setting.wait_until(&before);
}
