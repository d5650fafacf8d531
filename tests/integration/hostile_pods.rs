//! A pod, or another one, that tries to get more than its own volume by the socket in its emptyDir, or to be in the way.

use crate::harness::{Test, tests};
use crate::node::helpers;
use crate::node::pod::{Pod, finish, start_in, wait_for_line};
use crate::node::programs::TESTBED;
use crate::node::setting::Setting;
use crate::pods::{OPTIONS, UID, start};
use api::client::CallError;
use hostmount::observe::events;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use testbed::machine::{Propagation, Recipe};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        who_is_of_no_pod_or_another_gets_nothing.quick(),
        what_a_pod_puts_into_its_empty_dir_leads_nowhere.quick(),
        names_that_are_exchanged_while_a_socket_is_made,
        connections_that_say_nothing_keep_no_program_out,
        a_program_that_never_answers_is_in_nobodys_way.quick(),
        an_answer_that_the_kernel_refuses_is_no_filesystem.quick(),
        a_flood_of_requests_that_nobody_serves,
        a_volume_of_programs_is_where_kubelet_has_it_and_nowhere_else.quick(),
    ]
    .into_iter()
    .map(Test::needs_cgroups)
    .collect()
}

const ANOTHER: &str = "1b2c3d4e-0000-4a5b-8c6d-7e8f90a1b2c4";

fn who_is_of_no_pod_or_another_gets_nothing() {
    let (setting, pod) = start("");
    pod.publish(&setting.test).unwrap();
    // Both see the socket, as they would if an administrator had shown it to them.
    let serve = format!("exec pod-program /run/hostmount/volume.sock serve {OPTIONS}");
    for cgroup in [
        format!("kubepods/burstable/pod{ANOTHER}"),
        "system.slice".to_owned(),
        // In its own cgroup a pod may have made others.
        format!("kubepods/pod{ANOTHER}/kubepods/pod{UID}"),
    ] {
        let (code, said) = finish(start_in(&setting.test, &pod.sidecar, &cgroup, &serve));
        assert!(code == Some(1) && said.contains("only processes of the volume's own pod"), "{cgroup}: {said}");
    }
    setting.mounter.wait_for(events::REFUSED, 3);
    let (code, said) = finish(start_in(
        &setting.test,
        &pod.sidecar,
        &format!("kubepods.slice/kubepods-pod{}.slice/cri-containerd-1.scope", UID.replace('-', "_")),
        "exec pod-program /run/hostmount/volume.sock ready",
    ));
    assert_eq!((code, &*said), (Some(2), ""), "as the systemd driver has it");
    pod.unpublish(&setting.test);
}

/// Kubelet's answer is an error with these words, and nothing is left.
#[track_caller]
fn refused(setting: &Setting, pod: &Pod, words: &str) {
    match pod.publish(&setting.test) {
        Err(CallError::Failed(failure)) => assert!(failure.message.contains(words), "{failure:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(setting.test.node.fuse_mounts(), [""; 0]);
    assert_eq!(setting.test.node.sh(&format!("ls -d {}", pod.target())).code, Some(2));
}

fn what_a_pod_puts_into_its_empty_dir_leads_nowhere() {
    let (setting, pod) = start("");
    let outside = "/var/lib/kubelet/outside";
    setting.test.node.sh_ok(&format!("mkdir {outside} && echo theirs >{outside}/file"));
    let before = setting.test.node.sh_ok(&format!("stat -c '%a %u %i %n' {outside} {outside}/*"));
    let in_pod = |line: &str| pod.sidecar.sh_ok(&format!("cd /run/hostmount && {line}"));
    // In the place of the directory.
    for made in [&*format!("ln -s {outside} volume"), "mkfifo volume", "touch volume", "ln -s nowhere volume"] {
        in_pod(made);
        refused(&setting, &pod, "is no directory");
        in_pod("rm volume");
    }
    // In that of the socket, and of what it is called until it is finished.
    for name in ["volume.sock", ".volume.sock.new"] {
        for made in
            [format!("ln -s {outside}/file {name}"), format!("ln -s {outside}/new {name}"), format!("mkfifo {name}")]
        {
            in_pod(&made);
            pod.publish(&setting.test).unwrap();
            let socket = format!("{}/volume.sock", pod.empty_dir());
            let kind = setting.test.node.visit(|| std::fs::symlink_metadata(&socket).unwrap().file_type());
            assert!(kind.is_socket(), "{made}: {kind:?}");
            pod.unpublish(&setting.test);
            assert_eq!(in_pod("ls -A"), "", "{made}");
        }
        in_pod(&format!("mkdir {name}"));
        refused(&setting, &pod, "cannot make volume.sock in the pod's emptyDir");
        in_pod(&format!("rmdir {name}"));
        assert_eq!(in_pod("ls -A"), "");
    }
    // What the pod has put there is its own, also if it has taken the socket away.
    pod.publish(&setting.test).unwrap();
    in_pod("touch volume/theirs && rm volume.sock && touch volume.sock");
    pod.unpublish(&setting.test);
    assert_eq!(in_pod("ls -A . volume"), ".:\nvolume\nvolume.sock\n\nvolume:\ntheirs\n");
    // The emptyDir itself is no link.
    let directory = pod.empty_dir();
    setting.test.node.sh_ok(&format!(
        "umount -l {directory} 2>/dev/null; mv {directory} {directory}.x && ln -s {outside} {directory}"
    ));
    refused(&setting, &pod, "cannot open the pod's emptyDir");
    setting.test.node.sh_ok(&format!("rm {directory}"));
    refused(&setting, &pod, "no emptyDir volume named 'fuse'");
    assert_eq!(setting.test.node.sh_ok(&format!("stat -c '%a %u %i %n' {outside} {outside}/*")), before);
}

/// Whatever the moment: nothing outside of the emptyDir is made, changed or removed.
fn names_that_are_exchanged_while_a_socket_is_made() {
    let (setting, pod) = start("");
    let outside = "/var/lib/kubelet/outside";
    setting
        .test
        .node
        .sh_ok(&format!("mkdir {outside} && echo theirs >{outside}/volume.sock && mkdir {outside}/volume"));
    let look = || setting.test.node.sh_ok(&format!("stat -c '%a %u %i %n' {outside} {outside}/*"));
    let before = look();
    let over = AtomicBool::new(false);
    let empty_dir = pod.empty_dir();
    thread::scope(|scope| {
        let (over, empty_dir, setting) = (&over, &empty_dir, &setting);
        scope.spawn(move || {
            setting.test.node.visit(|| {
                let at = |name: &str| format!("{empty_dir}/{name}");
                while !over.load(Ordering::Relaxed) {
                    for name in ["volume", "volume.sock", ".volume.sock.new"] {
                        let _ = std::fs::remove_dir(at(name));
                        let _ = std::fs::remove_file(at(name));
                        let _ = symlink(format!("{outside}/{name}"), at(name));
                        let _ = std::fs::rename(at(name), at("aside"));
                    }
                }
            });
        });
        for _ in 0..100 {
            // It works, or it does not.
            let _ = pod.publish(&setting.test);
            pod.unpublish(&setting.test);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(look(), before);
    setting.test.node.sh_ok(&format!("rm -rf {empty_dir}/* {empty_dir}/.v*"));
    pod.publish(&setting.test).unwrap();
    drop(pod.serve(&setting.test, &setting.mounter, OPTIONS));
    pod.unpublish(&setting.test);
}

fn connections_that_say_nothing_keep_no_program_out() {
    let (setting, pod) = start("");
    let before = setting.state();
    pod.publish(&setting.test).unwrap();
    let mut silent: Vec<_> = (0..24).map(|_| pod.program(&setting.test, "silence")).collect();
    silent.iter_mut().for_each(|process| wait_for_line(process, "silent"));
    let threads = setting.state().threads;
    let count: usize = threads.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(count <= 8, "{threads}");
    // Its turn comes after 5 s for each four of them.
    let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
    drop((silent, program));
    pod.unpublish(&setting.test);
    setting.wait_until(&before);
}

fn a_program_that_never_answers_is_in_nobodys_way() {
    let (setting, pod) = start("program_timeout_seconds = 600\n");
    let before = setting.state();
    pod.publish(&setting.test).unwrap();
    // Each is given up when the next one asks.
    let mut holding: Vec<_> = (0..6).map(|_| pod.program(&setting.test, "hold")).collect();
    holding.iter_mut().for_each(|process| wait_for_line(process, "holding"));
    let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
    setting.mounter.wait_for(events::PROGRAM_NOT_READY, 6);
    setting.test.node.sh_ok(&format!("echo x >{0}/f && cat {0}/f", pod.target()));
    drop((holding, program));
    pod.unpublish(&setting.test);
    setting.wait_until(&before);
    // Alone it is given up after a time.
    let (setting, pod) = start("program_timeout_seconds = 1\n");
    pod.publish(&setting.test).unwrap();
    let mut holds = pod.program(&setting.test, "hold");
    wait_for_line(&mut holds, "holding");
    setting.mounter.wait_for(events::PROGRAM_NOT_READY, 1);
    assert!(pod.status(&setting.test).lines[0].contains("did not answer the kernel within 1 s"));
    drop(holds);
    pod.unpublish(&setting.test);
}

/// With FUSE_ALLOW_IDMAP in it, and without `default_permissions` at the mount, the kernel takes no INIT: every call is refused then.
fn an_answer_that_the_kernel_refuses_is_no_filesystem() {
    let (setting, pod) = start("");
    pod.publish(&setting.test).unwrap();
    let program = pod.program(&setting.test, "serve");
    setting.mounter.wait_for(events::PROGRAM_NOT_READY, 1);
    assert!(pod.status(&setting.test).lines[0].contains("does not serve it: Connection refused"));
    drop(program);
    drop(pod.serve(&setting.test, &setting.mounter, OPTIONS));
    pod.unpublish(&setting.test);
}

/// Of the mounter: kB of memory, descriptors, threads.
fn costs(setting: &Setting) -> [usize; 3] {
    let pid = setting.mounter.pid();
    let of = |name: &str| {
        let line = setting.test.node.sh_ok(&format!("grep {name} /proc/{pid}/status"));
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    [of("VmRSS"), setting.test.descriptors(pid).len(), of("Threads")]
}

/// While they wait, when they wait no longer, and when a program comes: they are in nobody's way. Who looks for one and the same name
/// waits in the kernel for the first who does (d_alloc_parallel, in state D), and no request comes of it.
fn a_flood_of_requests_that_nobody_serves() {
    const THREADS: u64 = 300;
    let (setting, pod) = start("program_timeout_seconds = 10\n");
    let other = Pod::new(&setting.test, ANOTHER);
    let before = setting.state();
    let recipe = Recipe::userland().without(helpers()).read_only().bind(&*TESTBED, "/usr/local/bin/pod-program");
    pod.publish(&setting.test).unwrap();
    let flooding = recipe.from_node(pod.target(), "/data", Propagation::None);
    let flooding = setting.test.room(flooding.from_node(pod.empty_dir(), "/run/hostmount", Propagation::None));
    let quiet = costs(&setting);
    let mut floods = ["/data/one-{}", "/data/same"].map(|path| {
        let line = format!("exec nice -n 19 pod-program /run/hostmount/volume.sock flood {THREADS} {path}");
        let mut flood = pod.start(&setting.test, &flooding, &line);
        wait_for_line(&mut flood, "flooding");
        flood
    });
    let goes_on = || {
        other.publish(&setting.test).unwrap();
        let program = other.serve(&setting.test, &setting.mounter, OPTIONS);
        setting.test.node.sh_ok(&format!("echo x >{0}/f && cat {0}/f", other.target()));
        drop(program);
        other.unpublish(&setting.test);
        let now = costs(&setting);
        let more = |nth: usize, by: usize| now[nth] <= quiet[nth] + by;
        assert!(more(0, 8192) && more(1, 16) && more(2, 8), "{quiet:?}, {now:?}");
    };
    pod.wait_until_waiting(&setting.test, THREADS);
    goes_on();
    setting.mounter.wait_for(events::PROGRAM_LATE, 1);
    goes_on();
    let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
    goes_on();
    // It dies, and they wait again. They can be killed all the same.
    let ended = setting.mounter.count(events::PROGRAM_ENDED);
    drop(program);
    setting.mounter.wait_for(events::PROGRAM_ENDED, ended + 1);
    pod.wait_until_waiting(&setting.test, 1);
    for flood in &mut floods {
        flood.kill().unwrap();
        flood.wait().unwrap();
    }
    pod.unpublish(&setting.test);
    drop((floods, flooding, other));
    setting.wait_until(&before);
}

fn a_volume_of_programs_is_where_kubelet_has_it_and_nowhere_else() {
    let (setting, pod) = start("");
    let ask =
        |volume| setting.test.node.visit(|| api::client::Client::at(crate::node::mounter::SOCKET).program(volume));
    for target in [
        "/mnt",
        "/var/lib/kubelet/pods/p/volumes/v",
        "/var/lib/kubelet/pods/../pods/p/volumes/kubernetes.io~csi/v/mount",
    ] {
        let asked = ask(api::program::ProgramVolume { target: target.into(), ..pod.volume() });
        assert!(matches!(asked, Err(CallError::Failed(_))), "{target}: {asked:?}");
    }
    for (empty_dir, name) in
        [("../x", "volume"), ("fuse", "../x"), ("fuse", ".."), ("fuse/../../x", "volume"), ("nosuch", "volume")]
    {
        let (empty_dir, name) = (empty_dir.to_owned(), name.to_owned());
        let asked = ask(api::program::ProgramVolume { empty_dir, name, ..pod.volume() });
        assert!(matches!(asked, Err(CallError::Failed(_))), "{asked:?}");
    }
    assert_eq!(setting.test.node.fuse_mounts(), [""; 0]);
    // Something else is there.
    setting.test.node.sh_ok(&format!("mkdir -p {0} && mount -t tmpfs x {0}", pod.target()));
    assert!(
        matches!(pod.publish(&setting.test), Err(CallError::Failed(failure)) if failure.message.contains("something else"))
    );
}
