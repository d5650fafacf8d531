//! The processes that serve placeholders are killed, at any moment: containers that have the volume keep it, and others wait for a fresh one.
//! Containers are crun's, as in [`host_users`](super::host_users).

use super::host_users::{OPTION, POD, TARGET, has_placeholder, node_has_placeholder, start, unmounted};
use crate::harness::{Test, tests};
use crate::node::mapped_container::MappedContainer;
use crate::node::{NODE_BIN, TestNode, chance};
use hostmount::observe::events;
use nix::sys::signal::Signal;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) fn tests() -> Vec<Test> {
    let all = tests![
        killed_before_anybody_has_looked,
        killed_when_some_containers_have_the_volume,
        killed_while_a_container_waits,
        killed_while_no_mounter_runs,
        killed_again_and_again,
        killed_at_random_moments,
        what_it_says_is_logged,
    ];
    all.into_iter().map(|test| test.needs(&["bindfs", "crun", "busybox"]).needs_linux(6, 12)).collect()
}

const SERVES: &str = "serve-placeholder";

/// Kills the processes of placeholders: which ones.
fn kill(test: &TestNode) -> Vec<u32> {
    let killed = test.pids_of(SERVES);
    killed.iter().for_each(|pid| _ = test.node.sh(&format!("kill -9 {pid}")));
    killed
}

/// Waits until one process serves the placeholder that is not this one.
#[track_caller]
fn another(test: &TestNode, killed: &[u32]) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match test.pids_of(SERVES)[..] {
            [pid] if !killed.contains(&pid) => return,
            _ => assert!(Instant::now() < deadline, "{:?} instead of {killed:?}", test.processes()),
        }
        thread::yield_now();
    }
}

fn killed_before_anybody_has_looked() {
    let (test, mounter) = start(TARGET, OPTION);
    let container = MappedContainer::start(&test, &[(TARGET, "/data")], "/");
    let killed = kill(&test);
    assert_eq!(killed.len(), 1);
    // It waits.
    assert_eq!(container.sh("cat /data/f"), "served\n");
    assert!(!has_placeholder(&container, "/data"));
    mounter.wait_for(events::PLACEHOLDER_RENEWED, 1);
    another(&test, &killed);
    test.wait_for_processes("bindfs", 1);
    node_has_placeholder(&test, TARGET);
    // And before there is any container.
    drop(container);
    kill(&test);
    mounter.wait_for(events::PLACEHOLDER_RENEWED, 2);
    let container = MappedContainer::start(&test, &[(TARGET, "/data")], "/");
    assert!(has_placeholder(&container, "/data"));
    assert_eq!(container.sh("cat /data/sub/g"), "served too\n");
    drop(container);
    unmounted(&test, &mounter);
}

fn killed_when_some_containers_have_the_volume() {
    let (test, mounter) = start(TARGET, OPTION);
    let sub = format!("{POD}/volume-subpaths/v/c/0");
    test.node.sh_ok(&format!("mkdir -p {sub} && /bin/mount --bind {TARGET}/sub {sub}"));
    let [has, has_not] = [0, 1].map(|_| MappedContainer::start(&test, &[(TARGET, "/data"), (&sub, "/sub")], "/"));
    assert_eq!(has.sh("cat /data/f"), "served\n");
    let helper = test.pids_of("bindfs");
    let killed = kill(&test);
    assert_eq!(has.sh("cat /data/f"), "served\n");
    assert_eq!(has_not.sh("cat /sub/g /data/f"), "served too\nserved\n");
    another(&test, &killed);
    let later = MappedContainer::start(&test, &[(TARGET, "/data"), (&sub, "/sub")], "/");
    assert!(has_placeholder(&later, "/data") && has_placeholder(&later, "/sub"));
    assert_eq!(later.sh("cat /sub/g /data/f; stat -c %u /data/f"), "served too\nserved\n0\n");
    // The helper is the same, and its volume is healed everywhere when it dies.
    assert_eq!((test.pids_of("bindfs"), mounter.count(events::HEALED)), (helper, 0));
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::HEALED, 1);
    let newest = MappedContainer::start(&test, &[(TARGET, "/data")], "/");
    for container in [&has, &has_not, &later, &newest] {
        assert_eq!(container.sh("cat /data/f"), "served\n");
    }
    // Both at once.
    kill(&test);
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::PLACEHOLDER_RENEWED, 2);
    let last = MappedContainer::start(&test, &[(&sub, "/sub")], "/");
    assert_eq!(last.sh("cat /sub/g"), "served too\n");
    for container in [&has, &has_not, &later, &newest] {
        assert_eq!(container.sh("cat /data/f"), "served\n");
    }
    assert_eq!(mounter.count(events::PLACE_LEFT), 0);
    drop((has, has_not, later, newest, last));
    test.node.sh_ok(&format!("umount {sub}"));
    unmounted(&test, &mounter);
}

/// The process has read the request, and is at work for it: the directory must be asked for, and the helper does not answer.
fn killed_while_a_container_waits() {
    let (test, mounter) = start(TARGET, &format!("{OPTION},entry_timeout=0,attr_timeout=0"));
    let sub = format!("{POD}/volume-subpaths/v/c/0");
    test.node.sh_ok(&format!("mkdir -p {sub} && /bin/mount --bind {TARGET}/sub {sub}"));
    let other = MappedContainer::start(&test, &[(TARGET, "/data")], "/");
    assert_eq!(other.sh("cat /data/f"), "served\n");
    let container = MappedContainer::start(&test, &[(&sub, "/sub")], "/");
    test.node.sh_ok("kill -STOP $(pidof bindfs)");
    thread::scope(|scope| {
        let read = scope.spawn(|| container.sh("cat /sub/g"));
        // A process of its own asks the helper.
        test.wait_for_processes(SERVES, 2);
        kill(&test);
        mounter.wait_for(events::PLACEHOLDER_ENDED, 1);
        test.node.sh_ok("kill -CONT $(pidof bindfs)");
        assert_eq!(read.join().unwrap(), "served too\n");
    });
    mounter.wait_for(events::PLACEHOLDER_RENEWED, 1);
    assert!(!has_placeholder(&container, "/sub"));
    drop((container, other));
    test.node.sh_ok(&format!("umount {sub}"));
    unmounted(&test, &mounter);
}

fn killed_while_no_mounter_runs() {
    let (test, mut mounter) = start(TARGET, OPTION);
    for has_it in [true, false] {
        let container = MappedContainer::start(&test, &[(TARGET, "/data")], "/");
        if has_it {
            assert_eq!(container.sh("cat /data/f"), "served\n");
        }
        let other = MappedContainer::start(&test, &[(TARGET, "/data")], "/");
        mounter.signal(Signal::SIGKILL);
        mounter.wait();
        let killed = kill(&test);
        let said = other.sh("cat /data/f; true");
        assert!(said.contains("connect"), "{said}");
        mounter = test.start_mounter(&[], &[]);
        mounter.wait_for(events::PLACEHOLDER_RENEWED, 1);
        another(&test, &killed);
        let later = MappedContainer::start(&test, &[(TARGET, "/data")], "/");
        for container in [&container, &other, &later] {
            assert_eq!(container.sh("cat /data/f"), "served\n");
        }
        // A mounter that has found it watches over it.
        mounter.signal(Signal::SIGKILL);
        mounter.wait();
        mounter = test.start_mounter(&[], &[]);
        let killed = kill(&test);
        mounter.wait_for(events::PLACEHOLDER_RENEWED, 1);
        another(&test, &killed);
        let newest = MappedContainer::start(&test, &[(TARGET, "/data")], "/");
        assert_eq!(newest.sh("cat /data/f"), "served\n");
    }
    unmounted(&test, &mounter);
}

/// It is tried again later and later, and nobody waits for it without end.
fn killed_again_and_again() {
    let (test, mounter) = start(TARGET, OPTION);
    // So the volume's helper is the same all the time.
    let has_it = MappedContainer::start(&test, &[(TARGET, "/data")], "/");
    assert_eq!(has_it.sh("cat /data/f"), "served\n");
    let began = Instant::now();
    for times in 1..=4 {
        kill(&test);
        mounter.wait_for(events::PLACEHOLDER_RENEWED, times);
    }
    // 0.25 s, 0.5 s and 1 s.
    assert!(began.elapsed() >= Duration::from_millis(1750), "{:?}", began.elapsed());
    let container = MappedContainer::start(&test, &[(TARGET, "/data")], "/");
    kill(&test);
    // Unmounted while it waits.
    let began = Instant::now();
    test.node.sh_ok(&format!("{NODE_BIN}/umount {TARGET}"));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    drop((container, has_it));
    test.wait_for_processes("bindfs", 0);
    test.wait_for_processes(SERVES, 0);
    assert_eq!(test.node.fuse_mounts(), [""; 0]);
}

fn killed_at_random_moments() {
    let mut chance = chance();
    let (test, mut mounter) = start(TARGET, OPTION);
    let mut containers: Vec<MappedContainer<'_>> = Vec::new();
    for _ in 0..10 {
        let (delay, restart) = (Duration::from_millis(chance.u64(0..120)), chance.u8(0..3));
        if restart == 1 {
            mounter.signal(Signal::SIGKILL);
            mounter.wait();
        }
        thread::scope(|scope| {
            let killed = scope.spawn(|| {
                thread::sleep(delay);
                kill(&test)
            });
            if restart == 1 {
                killed.join().unwrap();
                mounter = test.start_mounter(&[], &[]);
                // Until then calls fail.
                mounter.wait_for(events::PLACEHOLDER_RENEWED, 1);
            }
            let (container, refused) = MappedContainer::try_start(&test, &[(TARGET, "/data")], "/");
            assert_eq!(refused, None);
            assert_eq!(container.sh("cat /data/f"), "served\n");
            containers.push(container);
        });
        if restart == 2 {
            mounter.signal(Signal::SIGKILL);
            mounter.wait();
            mounter = test.start_mounter(&[], &[]);
        }
        for container in &containers {
            assert_eq!(container.sh("cat /data/sub/g"), "served too\n");
        }
        if chance.bool() {
            containers.swap_remove(chance.usize(0..containers.len()));
        }
    }
    drop(containers);
    test.node.sh_ok(&format!("umount {TARGET}"));
    test.wait_for_processes("bindfs", 0);
    test.wait_for_processes(SERVES, 0);
    drop(mounter);
}

/// The volume has no such directory any more when a container looks for it.
fn what_it_says_is_logged() {
    let (test, mut mounter) = start(TARGET, &format!("{OPTION},entry_timeout=0,attr_timeout=0"));
    let sub = format!("{POD}/volume-subpaths/v/c/0");
    test.node.sh_ok(&format!("mkdir -p {sub} && /bin/mount --bind {TARGET}/sub {sub}"));
    for _ in 0..2 {
        let container = MappedContainer::start(&test, &[(&sub, "/sub")], "/");
        test.container.sh_ok("mv /tmp/source/sub /tmp/source/away");
        assert!(container.sh("cat /sub/g; true").contains("Input/output error"));
        mounter.wait_for_helper("cannot show the volume in the container of process", 1);
        test.container.sh_ok("mv /tmp/source/away /tmp/source/sub");
        assert_eq!(container.sh("cat /sub/g"), "served too\n");
        // The next mounter hears it as well.
        drop(container);
        mounter.signal(Signal::SIGKILL);
        mounter.wait();
        mounter = test.start_mounter(&[], &[]);
    }
    test.node.sh_ok(&format!("umount {sub} {TARGET}"));
    test.wait_for_processes(SERVES, 0);
}
