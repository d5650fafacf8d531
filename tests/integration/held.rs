//! A helper's death costs no failed call by path: requests wait for the next helper, for so long.
//!
//! `DEATHS=200` for more of them, `HOSTMOUNT_SEED` repeats their moments.

use crate::harness::{Test, tests};
use crate::node::by_path::{Outcome, use_while};
use crate::node::notes::note;
use crate::node::old_kernel::{self, without};
use crate::node::setting::{Setting, TARGET};
use crate::node::{NODE_BIN, Place, chance};
use hostmount::node::connections::Connections;
use hostmount::observe::events;
use linux::mount_table::Device;
use nix::sys::signal::Signal;
use rustix::fs::{Mode, OFlags, fstatfs, open, openat, statfs};
use rustix::io::Errno;
use std::io::Read;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use testbed::machine::{Process, Propagation, Room};

pub(crate) fn tests() -> Vec<Test> {
    // FUSE_NOTIFY_RESEND.
    const LINUX: (u32, u32) = (6, 9);
    let needs = |test: Test| test.needs_linux(LINUX.0, LINUX.1);
    tests![
        a_helpers_death_costs_no_call_by_path.needs(&["bindfs"]).alone(),
        a_helpers_death_costs_no_call_by_path_with_the_preload_engine.needs(&["bindfs"]).alone(),
        a_mounter_that_dies_with_the_helper_changes_nothing.needs(&["bindfs"]),
        the_next_mounter_holds_as_well.needs(&["bindfs"]),
        a_helper_that_never_comes_up_again_is_not_waited_for.quick(),
        what_waits_hinders_no_unmount.quick(),
        a_flood_of_requests_costs_nothing_but_itself,
        a_helper_that_dies_as_soon_as_it_has_mounted,
        a_server_that_dies_before_its_children.quick(),
        what_was_open_is_answered_for_so_long_and_then_ends.quick(),
        nothing_is_held_where_it_is_off.quick(),
    ]
    .into_iter()
    .map(needs)
    .collect()
}

/// At so many deaths, all of these volumes' together.
fn deaths() -> u64 {
    std::env::var("DEATHS").ok().map_or(30, |value| value.parse().unwrap())
}

/// Time for a helper to have served for so long that the next one is not kept waiting (src/mounter/volume/state.rs).
const SERVED: Duration = Duration::from_millis(1050);

/// Volumes of bindfs at `TARGET-1` and so on, and a pod that shows them at `/data-1` and so on; each has the file `f`.
fn volumes(config: &str, arguments: &[&str], count: u64) -> (Setting, Place, Vec<String>) {
    let setting = Setting::with_config_and(config, arguments);
    let at = |n: u64| (format!("{TARGET}-{n}"), format!("/data-{n}"));
    for n in 1..=count {
        let (source, (target, _)) = (format!("/tmp/source-{n}"), at(n));
        setting.test.container.sh_ok(&format!("mkdir {source} && echo served >{source}/f && chmod -R a+rwX {source}"));
        setting.test.node.sh_ok(&format!("mkdir -p {target}"));
        setting.test.mount(&["-t", "fuse.bindfs", &source, &target]).ok("mount");
    }
    let places: Vec<_> = (1..=count).map(at).collect();
    let shown: Vec<_> = places.iter().map(|(from, to)| (&**from, &**to)).collect();
    let pod = setting.test.pod(&shown, Propagation::None);
    (setting, pod, places.into_iter().map(|(_, to)| to).collect())
}

fn pids_of_bindfs(setting: &Setting) -> String {
    setting.test.pids_of("bindfs").iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

fn dies_under_load(arguments: &[&str]) {
    const VOLUMES: u64 = 3;
    let (setting, pod, directories) = volumes("hold_seconds = 60\n", arguments, VOLUMES);
    let _alive = pod.live();
    let (mut chance, rounds) = (chance(), deaths().div_ceil(VOLUMES));
    let outcome = use_while(&pod, &directories, || {
        for round in 1..=rounds {
            thread::sleep(SERVED);
            for pid in setting.test.pids_of("bindfs") {
                thread::sleep(Duration::from_micros(chance.u64(0..100_000)));
                setting.test.node.sh_ok(&format!("kill -9 {pid}"));
            }
            setting.mounter.wait_for(events::HEALED, usize::try_from(round * VOLUMES).unwrap());
        }
    });
    let Outcome { calls, failed, done_twice, open_files, makers, makers_calls } = &outcome;
    note(format!("{} deaths, {calls} calls by path, failed: {failed:?}", rounds * VOLUMES));
    note(format!("known exceptions: done twice {done_twice:?}; open files {open_files:?}"));
    note(format!("of {makers_calls} mkdir and the like: {makers:?}"));
    assert!(failed.is_empty(), "{outcome:?}");
    assert!(*calls > 1000, "{outcome:?}");
    assert_eq!(setting.mounter.count(events::HOLD_OVER), 0);
}

fn a_helpers_death_costs_no_call_by_path() {
    dies_under_load(&[]);
}

fn a_helpers_death_costs_no_call_by_path_with_the_preload_engine() {
    dies_under_load(&["--engine", "preload"]);
}

/// As without any of it: calls fail until the next mounter has healed the volume, and none waits for ever.
fn a_mounter_that_dies_with_the_helper_changes_nothing() {
    let (mut setting, pod, directories) = volumes("hold_seconds = 60\n", &[], 1);
    let _alive = pod.live();
    for _ in 0..5 {
        let outcome = use_while(&pod, &directories, || {
            setting.mounter.signal(Signal::SIGKILL);
            setting.test.node.sh_ok(&format!("kill -9 {}", pids_of_bindfs(&setting)));
            setting.mounter.wait();
            setting.mounter = setting.test.start_mounter(&[], &[]);
            setting.mounter.wait_for(events::HEALED, 1);
        });
        assert!(outcome.failed.keys().all(|what| is_dead(what)), "{outcome:?}");
        assert_eq!(pod.sh_ok("cat /data-1/f"), "served\n");
    }
}

fn the_next_mounter_holds_as_well() {
    let (mut setting, pod, directories) = volumes("hold_seconds = 60\n", &[], 1);
    let _alive = pod.live();
    setting.mounter.signal(Signal::SIGKILL);
    setting.mounter.wait();
    setting.mounter = setting.test.start_mounter(&[], &[]);
    let outcome = use_while(&pod, &directories, || {
        thread::sleep(SERVED);
        setting.test.node.sh_ok(&format!("kill -9 {}", pids_of_bindfs(&setting)));
        setting.mounter.wait_for(events::HEALED, 1);
    });
    assert!(outcome.failed.is_empty(), "{outcome:?}");
    assert_eq!(setting.mounter.count(events::HELD), 1);
}

/// A helper with a filesystem in memory, which does not start while there is a file /tmp/fail.
const UNLESS_FAIL: &str = "[ ! -e /tmp/fail ] || exit 3\nexec mount.memfs \"$1\" \"$2\"";

/// One volume of it at `TARGET`, which a pod shows at /data.
fn memfs(config: &str, lines: &str) -> (Setting, Place) {
    let setting = Setting::with_config(config);
    setting.fault(lines);
    setting.test.mount(&["-t", "fuse.fault", "x", TARGET]).ok("mount");
    let pod = setting.test.pod(&[(TARGET, "/data")], Propagation::None);
    (setting, pod)
}

/// Whether a call failed as in a filesystem whose connection has ended, or just ends.
fn is_dead(said: &str) -> bool {
    said.contains("Transport endpoint is not connected") || said.contains("Software caused connection abort")
}

/// Starts a line of shell in the background.
fn start(place: &Place, line: &str) -> Process {
    let mut command = Room::command("/bin/sh");
    command.args(["-c", line]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    place.spawn(command)
}

/// Waits until so many requests wait in the volume at `TARGET`.
fn wait_until_waiting(setting: &Setting, count: u64) {
    let line = setting.test.node.mount_at(TARGET).unwrap();
    let minor = line.split(' ').nth(2).and_then(|device| device.split_once(':')?.1.parse().ok()).unwrap();
    let connections = Connections::open().unwrap();
    let filesystem = connections.identify(Device { major: 0, minor });
    let deadline = Instant::now() + Duration::from_secs(60);
    while connections.waiting(filesystem).unwrap() < count {
        assert!(Instant::now() < deadline, "{:?} wait", connections.waiting(filesystem));
        thread::sleep(Duration::from_millis(5));
    }
}

/// In KiB.
fn memory(setting: &Setting) -> u64 {
    let status = setting.test.node.sh_ok(&format!("grep VmRSS /proc/{}/status", setting.mounter.pid()));
    status.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The helper dies, and no other comes up.
fn dies_for_good(setting: &Setting) {
    setting.test.container.sh_ok("touch /tmp/fail");
    setting.test.node.sh_ok("kill -9 $(pidof mount.memfs)");
    setting.mounter.wait_for(events::HELD, 1);
}

fn a_helper_that_never_comes_up_again_is_not_waited_for() {
    let (setting, pod) = memfs("hold_seconds = 1\n", UNLESS_FAIL);
    let _alive = pod.live();
    dies_for_good(&setting);
    // It waits, and then it fails as it does without.
    assert!(is_dead(&pod.sh("stat /data/none").stderr));
    setting.mounter.wait_for(events::HOLD_OVER, 1);
    assert!(pod.sh("stat /data/none").stderr.contains("not connected"));
    // It comes up after all.
    setting.test.container.sh_ok("rm /tmp/fail");
    setting.mounter.wait_for(events::HEALED, 1);
    pod.sh_ok("stat /data");
}

/// Nor does anything else that has to do with it wait.
fn what_waits_hinders_no_unmount() {
    let setting = Setting::with_config("hold_seconds = 600\nready_timeout_seconds = 600\n");
    setting.fault(UNLESS_FAIL);
    let before = setting.state();
    setting.test.mount(&["-t", "fuse.fault", "x", TARGET]).ok("mount");
    // One descriptor more for a volume, and no other.
    let kept = || setting.test.descriptors(setting.mounter.pid()).values().filter(|to| to.ends_with("fuse")).count();
    let deadline = Instant::now() + Duration::from_secs(30);
    while kept() != 1 {
        assert!(Instant::now() < deadline, "{:?}", setting.test.descriptors(setting.mounter.pid()));
        thread::sleep(Duration::from_millis(5));
    }
    dies_for_good(&setting);
    assert_eq!(kept(), 1);
    let mut waits = start(&setting.test.node, &format!("exec stat {TARGET}/none 2>&1"));
    wait_until_waiting(&setting, 1);
    let list = setting.test.node.sh_ok(&format!("{NODE_BIN}/hostmount list; {NODE_BIN}/hostmount status {TARGET}"));
    assert!(list.contains("  dead  ") && list.contains("State       dead"), "{list}");
    // As kubelet looks for a mount point.
    setting.test.node.visit(|| {
        use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat2, statx};
        let flags = AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW;
        let _ = statx(CWD, TARGET, flags, StatxFlags::TYPE).unwrap();
        let looked = openat2(CWD, TARGET, OFlags::PATH, Mode::empty(), ResolveFlags::NO_XDEV);
        assert_eq!(looked.err(), Some(rustix::io::Errno::XDEV));
    });
    // Although it is in use, and its answer would be waited for: without clone3(2) nobody can be started to wait.
    without(&[old_kernel::CLONE3], || setting.test.umount(&[TARGET])).ok("umount");
    assert_eq!(setting.test.node.mount_at(TARGET), None);
    let mut said = String::new();
    waits.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(is_dead(&said), "{said}");
    drop(waits);
    setting.mounter.wait_for(events::UNMOUNTED, 1);
    setting.wait_until(&before);
}

fn a_flood_of_requests_costs_nothing_but_itself() {
    const THREADS: u64 = 300;
    let (setting, pod) = memfs("hold_seconds = 600\n", UNLESS_FAIL);
    let _alive = pod.live();
    let hostmount = |arguments: &str| setting.test.node.sh(&format!("{NODE_BIN}/hostmount {arguments}"));
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = (memory(&setting), setting.test.descriptors(setting.mounter.pid()).len());
    // What it has open leads to the connection of the helper that dies.
    let root = pod.visit(|| open("/data", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap());
    thread::scope(|scope| {
        dies_for_good(&setting);
        let flood = scope.spawn(|| {
            pod.visit(|| {
                thread::scope(|scope| {
                    for _ in 0..THREADS {
                        let (root, stop, answered) = (&root, &stop, &answered);
                        scope.spawn(move || {
                            while !stop.load(Ordering::Relaxed) {
                                statfs("/data").unwrap();
                                // What was open leads nowhere any more.
                                assert_eq!(fstatfs(root).err(), Some(Errno::STALE));
                                answered.fetch_add(1, Ordering::Relaxed);
                            }
                        });
                    }
                });
            });
        });
        wait_until_waiting(&setting, THREADS);
        assert_eq!(answered.load(Ordering::Relaxed), 0);
        hostmount("list").ok("list");
        let held = (memory(&setting), setting.test.descriptors(setting.mounter.pid()).len());
        assert!(held.1 <= before.1 && held.0 < before.0 + 8192, "{before:?}, {held:?}");
        setting.test.container.sh_ok("rm /tmp/fail");
        setting.mounter.wait_for(events::HEALED, 1);
        let begin = answered.load(Ordering::Relaxed);
        while answered.load(Ordering::Relaxed) < begin + 10 * THREADS {
            hostmount(&format!("status {TARGET}")).ok("status");
        }
        let flooded = (memory(&setting), setting.test.descriptors(setting.mounter.pid()).len());
        assert!(flooded.1 <= before.1 + 3 && flooded.0 < before.0 + 8192, "{before:?}, {flooded:?}");
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap();
    });
    // Nothing of it is open any more: its connection ends.
    drop(root);
    let deadline = Instant::now() + Duration::from_secs(30);
    while setting.test.descriptors(setting.mounter.pid()).len() > before.1 {
        assert!(Instant::now() < deadline, "{:?}", setting.test.descriptors(setting.mounter.pid()));
        thread::sleep(Duration::from_millis(5));
    }
}

fn what_was_open_is_answered_for_so_long_and_then_ends() {
    let (setting, pod) = memfs("hold_seconds = 1\n", UNLESS_FAIL);
    let _alive = pod.live();
    let root = pod.visit(|| open("/data", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap());
    setting.test.node.sh_ok("kill -9 $(pidof mount.memfs)");
    setting.mounter.wait_for(events::HEALED, 1);
    let answers = || openat(&root, "none", OFlags::PATH, Mode::empty()).unwrap_err();
    assert_eq!(answers(), Errno::STALE);
    let deadline = Instant::now() + Duration::from_secs(30);
    while answers() != Errno::NOTCONN {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(setting.mounter.count(events::HOLD_OVER), 0);
}

fn a_helper_that_dies_as_soon_as_it_has_mounted() {
    let setting = Setting::with_config("hold_seconds = 60\n");
    let before = setting.state();
    // While its filesystem is coming up nothing waits for another one.
    setting.fault("mount.memfs \"$1\" \"$2\" && kill -9 $(pidof mount.memfs)");
    for _ in 0..3 {
        let done = setting.test.mount(&["-t", "fuse.fault", "x", TARGET]);
        if done.code == Some(0) {
            setting.test.umount(&[TARGET]).ok("umount");
        }
        setting.wait_until(&before);
    }
    setting.fault(UNLESS_FAIL);
    for time in 1..=5 {
        setting.test.mount(&["-t", "fuse.fault", "x", TARGET]).ok("mount");
        setting.test.node.sh_ok("kill -9 $(pidof mount.memfs)");
        setting.mounter.wait_for(events::HEALED, time);
        setting.test.node.sh_ok(&format!("stat {TARGET}"));
        setting.test.umount(&[TARGET]).ok("umount");
        setting.wait_until(&before);
    }
}

/// As sshfs may, and its ssh lives on.
fn a_server_that_dies_before_its_children() {
    let lines = "sleep 86399 </dev/null >/dev/null 2>&1 &\nexec mount.memfs \"$1\" \"$2\"";
    let (mut setting, pod) = memfs("hold_seconds = 60\n", lines);
    let _alive = pod.live();
    for next_mounter in [false, true] {
        if next_mounter {
            setting.mounter.signal(Signal::SIGKILL);
            setting.mounter.wait();
            setting.mounter = setting.test.start_mounter(&[], &[]);
        }
        setting.test.node.sh_ok("kill -9 $(pidof mount.memfs)");
        pod.sh_ok("stat /data/");
        setting.mounter.wait_for(events::HEALED, 1);
        setting.test.wait_for_processes("sleep 86399", 1);
    }
}

fn nothing_is_held_where_it_is_off() {
    for config in ["hold_seconds = 0\n", "heal = false\n", "[filesystem.fault]\nhold_seconds = 0\n"] {
        let (setting, pod) = memfs(config, UNLESS_FAIL);
        let _alive = pod.live();
        setting.test.container.sh_ok("touch /tmp/fail");
        setting.test.node.sh_ok("kill -9 $(pidof mount.memfs)");
        setting.mounter.wait_for(events::DEAD, 1);
        assert!(is_dead(&pod.sh("stat /data/none").stderr));
        assert_eq!(setting.mounter.count(events::HELD), 0);
    }
    // Nor is one that was unmounted.
    let (setting, pod) = memfs("", UNLESS_FAIL);
    drop(pod);
    setting.test.umount(&[TARGET]).ok("umount");
    setting.mounter.wait_for(events::UNMOUNTED, 1);
    assert_eq!(setting.mounter.count(events::HELD), 0);
}
