//! 200 volumes on a node: what the driver takes of the node then, in memory, descriptors, threads and processor time.

use crate::driver::{Driver, Volume};
use crate::harness::{Test, tests};
use crate::node::notes::note;
use hostmount::observe::events;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) fn tests() -> Vec<Test> {
    tests![two_hundred_volumes_cost_the_driver_nothing.needs(&["bindfs"]).alone()]
}

const VOLUMES: usize = 200;
/// Calls at a time.
const AT_ONCE: usize = 8;
/// What the driver may take of memory, in KiB, whatever it does.
const MEMORY: u64 = 15 << 10;

/// What a process takes of the machine.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    threads: usize,
    descriptors: usize,
    /// Voluntary ones and others, of all threads.
    switches: u64,
    /// Of a processor.
    ticks: u64,
}

impl Taken {
    fn by(pid: u32) -> Self {
        let count = |of: &str| fs::read_dir(format!("/proc/{pid}/{of}")).unwrap().count();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // From the state on, which follows the name: user's and kernel's time are the 14th and 15th field.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        let switches = threads(pid).map(|thread| status(&thread, "voluntary_ctxt_switches:")).sum();
        Self { threads: count("task"), descriptors: count("fd"), switches, ticks }
    }
}

fn threads(pid: u32) -> impl Iterator<Item = String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map(|thread| thread.unwrap().path().to_str().unwrap().to_owned())
}

/// The sum of the numbers of all lines of a process's or thread's status that end in `name`.
fn status(directory: &str, name: &str) -> u64 {
    let status = fs::read_to_string(format!("{directory}/status")).unwrap();
    let numbers = status.lines().filter_map(|line| line.split_once(name)?.1.split_whitespace().next());
    numbers.map(|number| number.parse::<u64>().unwrap()).sum()
}

/// Whether each thread waits for a descriptor, and for no time to come: epoll_wait(2) and epoll_pwait(2) have the timeout as their fourth
/// argument.
fn sleeps_without_a_timer(pid: u32) -> bool {
    threads(pid).all(|thread| {
        let call = fs::read_to_string(format!("{thread}/syscall")).unwrap();
        let words: Vec<_> = call.split_whitespace().collect();
        let polls = [libc::SYS_epoll_pwait, EPOLL_WAIT].map(|call| call.to_string());
        polls.iter().any(|call| words.first() == Some(&call.as_str()))
            && u64::from_str_radix(words[4].trim_start_matches("0x"), 16).is_ok_and(|timeout| timeout as i32 == -1)
    })
}

#[cfg(target_arch = "x86_64")]
const EPOLL_WAIT: i64 = libc::SYS_epoll_wait;
/// There is one of the two.
#[cfg(not(target_arch = "x86_64"))]
const EPOLL_WAIT: i64 = libc::SYS_epoll_pwait;

fn wait_until_asleep(pid: u32) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !sleeps_without_a_timer(pid) {
        assert!(Instant::now() < deadline, "the driver is not asleep");
        thread::yield_now();
    }
}

fn two_hundred_volumes_cost_the_driver_nothing() {
    let driver = Driver::start();
    let pid = driver.csi.as_ref().unwrap().outer_pid();
    let volumes: Vec<_> = (0..VOLUMES).map(|number| Volume::bindfs(&format!("claim-{number}"))).collect();
    // What it makes when it is first called it keeps.
    assert!(driver.ready());
    wait_until_asleep(pid);
    let before = Taken::by(pid);
    for_all(&volumes, |volume| {
        driver.stage(volume).unwrap();
        driver.publish(volume, "p").unwrap();
    });
    assert_eq!(driver.list().len(), VOLUMES);
    for_all(&volumes, |volume| {
        let stats = driver.stats(volume, "p").unwrap();
        assert!(!stats.usage.is_empty() && !stats.volume_condition.unwrap().abnormal);
    });
    assert!(driver.ready());
    wait_until_asleep(pid);
    let with_all = Taken::by(pid);
    assert_eq!((with_all.threads, with_all.descriptors), (before.threads, before.descriptors));
    let (most, now) = (status(&format!("/proc/{pid}"), "VmHWM:"), status(&format!("/proc/{pid}"), "VmRSS:"));
    assert!(most < MEMORY, "{most} KiB");

    // The driver sleeps, and what happens meanwhile on the node does not wake it.
    for (number, helper) in driver.test.pids_of("bindfs").into_iter().take(3).enumerate() {
        driver.test.node.sh_ok(&format!("kill -KILL {helper}"));
        driver.mounter().wait_for(events::HEALED, number + 1);
    }
    assert!(sleeps_without_a_timer(pid));
    assert_eq!(Taken::by(pid), with_all);

    for_all(&volumes, |volume| {
        driver.unpublish(volume, "p").unwrap();
        driver.unstage(volume).unwrap();
    });
    driver.wait_until_nothing_is_left("bindfs");
    wait_until_asleep(pid);
    let after = Taken::by(pid);
    assert_eq!((after.threads, after.descriptors), (before.threads, before.descriptors));
    note(format!("the driver, with {VOLUMES} volumes: {now} KiB, at most {most} KiB; {with_all:?}"));
}

/// As kubelet does it: some at a time.
fn for_all(volumes: &[Volume], call: impl Fn(&Volume) + Sync) {
    let call = &call;
    thread::scope(|scope| {
        for part in volumes.chunks(volumes.len().div_ceil(AT_ONCE)) {
            scope.spawn(move || part.iter().for_each(call));
        }
    });
}
