//! Volumes that a program of a pod serves, when mounters go and come; in any order with programs and containers; and on older kernels.

use crate::harness::{Test, tests};
use crate::node::old_kernel::{self, without};
use crate::node::pod::{Pod, finish, start_in};
use crate::node::setting::Setting;
use crate::node::{Place, TestNode, chance};
use crate::pods::{DEAD, LINUX, OPTIONS, UID, kill, line, start};
use api::volume::VolumeState;
use hostmount::observe::events;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use testbed::machine::Process;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        the_next_mounter_knows_the_program,
        the_next_mounter_waits_for_a_program,
        a_mounter_that_is_killed_while_it_shows_a_program,
        a_mounter_that_is_killed_at_any_moment.needs_linux(LINUX.0, LINUX.1),
        programs_and_mounters_at_any_time.needs_linux(LINUX.0, LINUX.1),
        on_older_kernels.needs_linux(LINUX.0, LINUX.1),
    ]
    .into_iter()
    .map(Test::needs_cgroups)
    .collect()
}

fn next_mounter(setting: &mut Setting) {
    setting.mounter.signal(Signal::SIGKILL);
    setting.mounter.wait();
    setting.mounter = setting.test.start_mounter(&[], &[]);
    setting.mounter.wait_for(events::ADOPTED, 1);
}

fn the_next_mounter_knows_the_program() {
    let (mut setting, pod) = start("");
    let before = setting.state();
    pod.publish(&setting.test).unwrap();
    let (app, alive) = pod.container(&setting.test);
    let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
    app.sh_ok("echo x >/data/f");
    for _ in 0..2 {
        next_mounter(&mut setting);
        assert_eq!(app.sh_ok("cat /data/f"), "x\n");
        assert_eq!(pod.status(&setting.test).view.helper, "pod-program");
    }
    assert!(pod.publish(&setting.test).unwrap().already);
    kill(program);
    setting.mounter.wait_for(events::PROGRAM_ENDED, 1);
    let meanwhile = line(&setting, &pod, &app, "cat /data/f || echo y >/data/g");
    pod.wait_until_waiting(&setting.test, 1);
    let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
    assert_eq!(finish(meanwhile).0, Some(0));
    assert_eq!(app.sh_ok("cat /data/g"), "y\n");
    // One that dies while no mounter runs.
    setting.mounter.signal(Signal::SIGKILL);
    setting.mounter.wait();
    kill(program);
    assert!(app.sh("cat /data/g").stderr.contains(DEAD));
    setting.mounter = setting.test.start_mounter(&[], &[]);
    setting.mounter.wait_for(events::PROGRAM_AWAITED, 1);
    let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
    app.sh_ok("echo z >/data/h");
    drop((app, alive, program));
    pod.unpublish(&setting.test);
    setting.wait_until(&before);
}

/// What it leaves: the program's filesystem shows, and the record names the one before as what shows.
fn a_mounter_that_is_killed_while_it_shows_a_program() {
    let (mut setting, pod) = start("");
    let before = setting.state();
    pod.publish(&setting.test).unwrap();
    let (app, alive) = pod.container(&setting.test);
    let path = "/run/hostmount/programs";
    let record = || -> serde_json::Value {
        serde_json::from_str(&setting.test.container.sh_ok(&format!("cat {path}/*.json"))).unwrap()
    };
    let mut left = record();
    let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
    app.sh_ok("echo x >/data/f");
    assert_ne!(record()["filesystem"], left["filesystem"]);
    left["successor"] = record()["filesystem"].clone();
    setting.mounter.signal(Signal::SIGKILL);
    setting.mounter.wait();
    let name = setting.test.container.sh_ok(&format!("ls {path}/*.json"));
    setting.test.container.visit(|| std::fs::write(name.trim(), left.to_string()).unwrap());
    setting.mounter = setting.test.start_mounter(&[], &[]);
    setting.mounter.wait_for(events::ADOPTED, 1);
    let status = pod.status(&setting.test).view;
    assert_eq!((status.state, &*status.helper), (VolumeState::Mounted, "pod-program"));
    assert_eq!(app.sh_ok("cat /data/f"), "x\n");
    // And it goes on as any other.
    kill(program);
    let waits = line(&setting, &pod, &app, "cat /data/f || echo y >/data/g");
    pod.wait_until_waiting(&setting.test, 1);
    let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
    assert_eq!(finish(waits).0, Some(0));
    drop((app, alive, program));
    pod.unpublish(&setting.test);
    setting.wait_until(&before);
}

/// While it publishes, and while it puts a program's filesystem in the place of another: nothing is there that the next one does not know.
fn a_mounter_that_is_killed_at_any_moment() {
    let mut chance = chance();
    let (mut setting, pod) = start("program_timeout_seconds = 600\n");
    let before = setting.state();
    for round in 0..24 {
        let moment = Duration::from_micros(chance.u64(..40_000));
        let publishing = round % 3 == 0;
        if publishing {
            std::thread::scope(|scope| {
                // It fails, or it does not.
                scope.spawn(|| drop(pod.publish(&setting.test)));
                std::thread::sleep(moment);
                setting.mounter.signal(Signal::SIGKILL);
            });
        } else {
            let _early = pod.program(&setting.test, &format!("serve {OPTIONS}"));
            std::thread::sleep(moment);
            setting.mounter.signal(Signal::SIGKILL);
        }
        setting.mounter.wait();
        setting.mounter = setting.test.start_mounter(&[], &[]);
        // Kubelet asks again.
        pod.publish(&setting.test).unwrap();
        let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
        setting.test.node.sh_ok(&format!("echo {round} >{0}/f && cat {0}/f", pod.target()));
        drop(program);
        if round % 3 == 2 {
            pod.unpublish(&setting.test);
        }
    }
    pod.unpublish(&setting.test);
    setting.wait_until(&before);
}

fn the_next_mounter_waits_for_a_program() {
    let (mut setting, pod) = start("");
    let before = setting.state();
    pod.publish(&setting.test).unwrap();
    let (app, alive) = pod.container(&setting.test);
    for _ in 0..2 {
        next_mounter(&mut setting);
        setting.mounter.wait_for(events::PROGRAM_AWAITED, 1);
        let waits = line(&setting, &pod, &app, "ls /data");
        pod.wait_until_waiting(&setting.test, 1);
        let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
        assert_eq!(finish(waits), (Some(0), String::new()));
        assert_eq!(pod.call(&setting.test, "unmount").0, Some(0));
        assert_eq!(finish(program).0, Some(0));
    }
    // Unpublished while no mounter runs, by whoever it is.
    setting.mounter.signal(Signal::SIGKILL);
    setting.mounter.wait();
    drop((app, alive));
    setting.test.node.sh_ok(&format!("umount -l {0} && rmdir {0}", pod.target()));
    setting.mounter = setting.test.start_mounter(&[], &[]);
    pod.unpublish(&setting.test);
    let left = setting.test.container.sh_ok("ls /run/hostmount/programs");
    assert_eq!((&*left, setting.test.node.fuse_mounts()), ("", Vec::new()));
    drop(before);
}

/// All of it on older kernels, but for what waits when a program dies: the kernel that runs has FUSE_NOTIFY_RESEND.
fn on_older_kernels() {
    use old_kernel::{BENEATH, MOUNT_SETATTR, OPENAT2, PEER_PIDFD};
    for missing in [&[BENEATH][..], &[PEER_PIDFD], &[MOUNT_SETATTR, OPENAT2, PEER_PIDFD, BENEATH]] {
        let test = TestNode::start();
        let mounter = without(missing, || test.start_mounter(&[], &[]));
        let setting = Setting { test, mounter };
        let pod = Pod::new(&setting.test, UID);
        pod.publish(&setting.test).unwrap();
        let (app, _alive) = pod.container(&setting.test);
        for round in 1..=2 {
            let waits = line(&setting, &pod, &app, "echo x >/data/f && cat /data/f");
            pod.wait_until_waiting(&setting.test, 1);
            let program = pod.serve(&setting.test, &setting.mounter, OPTIONS);
            assert_eq!(finish(waits), (Some(0), "x\n".into()), "{missing:?}");
            kill(program);
            setting.mounter.wait_for(events::PROGRAM_ENDED, round);
        }
        let (code, said) =
            finish(start_in(&setting.test, &pod.sidecar, "x", "exec pod-program /run/hostmount/volume.sock ready"));
        assert!(code == Some(1) && said.contains("only processes of the volume's own pod"), "{said}");
        pod.unpublish(&setting.test);
        assert_eq!(setting.test.node.fuse_mounts(), [""; 0]);
    }
}

/// Three pods, whose programs and containers, and the mounter, come and go in any order. `ROUNDS=1000` for more of it, `HOSTMOUNT_SEED`
/// repeats it.
fn programs_and_mounters_at_any_time() {
    let rounds = std::env::var("ROUNDS").ok().map_or(60, |value| value.parse().unwrap());
    let mut chance = chance();
    let mut setting = Setting::with_config("program_timeout_seconds = 600\n");
    let uids = (1..=3).map(|number| format!("0000000{number}-0000-4a5b-8c6d-7e8f90a1b2c3"));
    let pods: Vec<_> = uids.map(|uid| Pod::new(&setting.test, &uid)).collect();
    let before = setting.state();
    let mut theirs: Vec<Theirs> = pods.iter().map(|_| Theirs::default()).collect();
    for _ in 0..rounds {
        let at = chance.usize(..pods.len());
        let published = pods.iter().zip(&theirs).filter(|(_, theirs)| theirs.published);
        let all: Vec<_> = published.map(|(pod, _)| pod.target()).collect();
        let (pod, theirs) = (&pods[at], &mut theirs[at]);
        if !theirs.published {
            assert!(!pod.publish(&setting.test).unwrap().already);
            theirs.published = true;
        }
        match chance.u32(..10) {
            0 => {
                pod.unpublish(&setting.test);
                *theirs = Theirs::default();
            }
            1 => {
                setting.mounter.signal(Signal::SIGKILL);
                setting.mounter.wait();
                setting.mounter = setting.test.start_mounter(&[], &[]);
                let none_is_dead =
                    || all.iter().all(|target| setting.test.node.sh(&format!("stat {target}")).code != Some(1));
                let deadline = Instant::now() + Duration::from_secs(30);
                while !none_is_dead() {
                    assert!(Instant::now() < deadline);
                }
            }
            2 | 3 => drop(theirs.programs.pop()),
            4 => theirs.programs.push(pod.program(&setting.test, "hold")),
            5 => drop(pod.call(&setting.test, "unmount")),
            6 => theirs.waiting.push(pod.start(&setting.test, &pod.sidecar, "true")),
            7 => {
                let container = pod.container(&setting.test);
                theirs.waiting.push(pod.start(&setting.test, &container.0, "cat /data/none; echo x >/data/f"));
                theirs.containers.push(container);
            }
            _ => {
                // Whatever was before: from now on it serves, in all containers.
                theirs.programs.push(pod.program(&setting.test, &format!("serve {OPTIONS}")));
                pod.wait_until_state(&setting.test, VolumeState::Mounted);
                for (container, _) in &theirs.containers {
                    let written = pod.start(&setting.test, container, "echo y >/data/g && cat /data/g");
                    assert_eq!(finish(written), (Some(0), "y\n".into()));
                }
            }
        }
    }
    drop(theirs);
    for pod in &pods {
        pod.unpublish(&setting.test);
        assert_eq!(setting.test.node.sh_ok(&format!("ls -A {}", pod.empty_dir())), "");
    }
    setting.wait_until(&before);
}

/// What there is of one pod.
#[derive(Default)]
struct Theirs {
    published: bool,
    programs: Vec<Process>,
    waiting: Vec<Process>,
    containers: Vec<(Place, Process)>,
}
