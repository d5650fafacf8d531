//! Files that are open when a helper dies: they go on where it is certain which ones they are in the fresh filesystem, and fail as they
//! did where it is not.

use crate::harness::{Test, tests};
use crate::node::notes::note;
use crate::node::open_files::{User, file};
use crate::node::setting::{Setting, TARGET};
use crate::node::{Place, chance};
use hostmount::observe::events;
use nix::sys::signal::Signal;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use testbed::machine::Propagation;

pub(crate) fn tests() -> Vec<Test> {
    // FUSE_NOTIFY_RESEND.
    const LINUX: (u32, u32) = (6, 9);
    let needs = |test: Test| test.needs_linux(LINUX.0, LINUX.1).needs(&["bindfs", "python3"]);
    tests![
        readers_go_on.quick(),
        readers_of_a_directory_go_on_with_the_preload_engine,
        appenders_go_on,
        what_is_not_certain_fails_as_it_did,
        what_is_written_otherwise_than_through_fails_as_it_did,
        nothing_goes_on_where_it_is_off,
        what_is_locked_later_is_not_written,
        a_thousand_files_go_on,
        an_heir_outlives_the_mounter_and_its_own_death_is_an_error,
        what_is_open_outlasts_the_volume,
        helpers_die_at_any_moment_under_readers,
    ]
    .into_iter()
    .map(needs)
    .collect()
}

/// What a dead filesystem answers, and what the kernel says of a file whose attributes it cannot have any more.
const DEAD: [&str; 2] = ["Transport endpoint is not connected", "Stale file handle"];

/// A volume of bindfs, in whose source these lines of shell have made files; a pod that shows it at /data.
fn volume(config: &str, lines: &str) -> (Setting, Place) {
    let setting = Setting::with_config(config);
    setting.test.container.sh_ok(&format!("cd /tmp/source && {lines} && chmod -R a+rwX ."));
    setting.test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    let pod = setting.test.pod(&[(TARGET, "/data")], Propagation::None);
    (setting, pod)
}

/// Time for a helper to have served for so long that the next one is not kept waiting (src/mounter/volume/state.rs).
const SERVED: Duration = Duration::from_millis(1050);

/// The helper dies, and the volume is healed.
fn dies(setting: &Setting) {
    thread::sleep(SERVED);
    let healed = setting.mounter.count(events::HEALED);
    let pids: Vec<_> = setting.test.pids_of("bindfs").iter().map(u32::to_string).collect();
    setting.test.node.sh_ok(&format!("kill -9 {}", pids.join(" ")));
    setting.mounter.wait_for(events::HEALED, healed + 1);
}

/// Waits until no heir is left.
fn wait_for_no_heir(setting: &Setting) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !setting.test.pids_of("serve-open-files").is_empty() {
        assert!(Instant::now() < deadline, "{:?}", setting.test.processes());
        thread::sleep(Duration::from_millis(5));
    }
}

/// The user's file `name` fails as in a dead filesystem.
#[track_caller]
fn is_dead(user: &mut User, what: &str) {
    let said = user.does(what);
    assert!(DEAD.contains(&&*said), "{what}: {said}");
}

fn readers_go_on() {
    let (setting, pod) = volume("", &file("big", 8));
    let mut user = User::start(&pod);
    user.ok("open a /data/big O_RDONLY");
    user.ok("open b /data/big O_RDONLY|O_DIRECT");
    user.ok("open c /data/big O_RDONLY");
    user.ok("map c");
    user.ok("close c");
    for _ in 0..3 {
        user.reads("reads a 100000 20");
        dies(&setting);
        // One heir has what another has.
        user.reads("reads a 100000 20");
        user.reads("direct b 1048576 131072");
        user.reads("mapped c 3000000 100000");
        assert_eq!(user.ok("stat a"), "8388608 bytes");
    }
    for close in ["close a", "close b", "unmap c"] {
        user.ok(close);
    }
    wait_for_no_heir(&setting);
}

/// A pod that has a directory of the volume, as with subPath, and a helper of the other engine.
fn readers_of_a_directory_go_on_with_the_preload_engine() {
    let setting = Setting::with_config_and("", &["--engine", "preload"]);
    setting
        .test
        .container
        .sh_ok(&format!("cd /tmp/source && mkdir -p 'a b/c' && {} && chmod -R a+rwX .", file("'a b/c/f'", 1)));
    setting.test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    let pod = setting.test.pod(&[(&*format!("{TARGET}/a b"), "/data")], Propagation::None);
    let mut user = User::start(&pod);
    user.ok("open f /data/c/f O_RDONLY");
    dies(&setting);
    user.reads("reads f 4096 20");
    assert_eq!(setting.mounter.count(events::HEIR), 1);
}

/// Each line that a process was told is written is there, once, whatever moment its helper died at.
fn appenders_go_on() {
    let deaths = std::env::var("DEATHS").ok().map_or(12, |value| value.parse().unwrap());
    let (setting, pod) = volume("", "touch log in-place");
    let (mut user, mut chance) = (User::start(&pod), chance());
    user.ok("open log /data/log O_WRONLY|O_APPEND");
    user.ok("open place /data/in-place O_RDWR");
    let stop = AtomicBool::new(false);
    let lines = thread::scope(|scope| {
        let lines = scope.spawn(|| {
            let mut lines = 0;
            while !stop.load(Ordering::Relaxed) {
                user.ok(&format!("line log {lines}"));
                user.ok(&format!("pwrite place {} {:07}", lines * 7, lines));
                user.ok("sync log");
                lines += 1;
            }
            lines
        });
        let _stop = Stop(&stop);
        for _ in 0..deaths {
            thread::sleep(Duration::from_micros(chance.u64(0..100_000)));
            dies(&setting);
        }
        drop(_stop);
        lines.join().unwrap()
    });
    note(format!("{deaths} deaths, {lines} lines"));
    assert!(lines > deaths, "{lines} lines");
    user.ok("close log");
    user.ok("close place");
    let expected: String = (0..lines).map(|line| format!("line {line}\n")).collect();
    assert_eq!(setting.test.container.sh_ok("cat /tmp/source/log"), expected);
    let expected: String = (0..lines).map(|line| format!("{line:07}")).collect();
    assert_eq!(setting.test.container.sh_ok("cat /tmp/source/in-place"), expected);
    wait_for_no_heir(&setting);
}

/// What others have done to a file while its helper was dead, or before: none of them is read or written.
fn what_is_not_certain_fails_as_it_did() {
    let files = ["removed", "renamed", "replaced", "grown", "shrunk", "touched", "changed", "locked", "sound"];
    let make: Vec<_> = files.iter().map(|name| file(name, 1)).collect();
    // While there is a file /tmp/fail no helper comes up.
    let (setting, pod) = volume(
        r#"hold_seconds = 60
[filesystem.bindfs]
command = ["/bin/sh", "-c", "while [ -e /tmp/fail ]; do sleep 0.01; done; exec bindfs \"$0\" \"$1\"", "{source}", "{target}"]
"#,
        &make.join(" && "),
    );
    let mut user = User::start(&pod);
    for name in files {
        user.ok(&format!("open {name} /data/{name} O_RDONLY"));
        user.reads(&format!("pread {name} 4096 4096"));
    }
    user.ok("lock locked shared");
    setting.test.container.sh_ok("touch /tmp/fail");
    thread::sleep(SERVED);
    let pids: Vec<_> = setting.test.pids_of("bindfs").iter().map(u32::to_string).collect();
    setting.test.node.sh_ok(&format!("kill -9 {}", pids.join(" ")));
    setting.mounter.wait_for(events::HELD, 1);
    setting.test.container.sh_ok(
        "cd /tmp/source && rm removed && mv renamed elsewhere && cp -p replaced new && mv new replaced && echo >>grown \
         && truncate -s -1 shrunk && touch touched && chmod 600 changed && rm /tmp/fail",
    );
    setting.mounter.wait_for(events::HEALED, 1);
    for name in &files[..files.len() - 1] {
        is_dead(&mut user, &format!("pread {name} 4096 4096"));
    }
    user.reads("pread sound 4096 4096");
}

fn what_is_written_otherwise_than_through_fails_as_it_did() {
    let (setting, pod) = volume("[filesystem.bindfs]\nopen_files = \"read\"\n", "touch log && seq 100 >both");
    let mut user = User::start(&pod);
    user.ok("open log /data/log O_WRONLY|O_APPEND");
    user.ok("open writer /data/both O_WRONLY");
    user.ok("open reader /data/both O_RDONLY");
    user.ok("line log 1");
    dies(&setting);
    is_dead(&mut user, "line log 2");
    is_dead(&mut user, "pwrite writer 0 x");
    // The dead helper may have kept what the other one wrote.
    is_dead(&mut user, "reads reader 8 1");
    assert_eq!(setting.test.container.sh_ok("cat /tmp/source/log"), "line 1\n");
}

fn nothing_goes_on_where_it_is_off() {
    let (setting, pod) = volume("open_files = \"none\"\n", &file("f", 1));
    let mut user = User::start(&pod);
    user.ok("open f /data/f O_RDONLY");
    dies(&setting);
    is_dead(&mut user, "pread f 4096 4096");
    assert_eq!(setting.mounter.count(events::HEIR), 0);
}

/// A lock is on the old file: what is written behind one that was taken since fails.
fn what_is_locked_later_is_not_written() {
    let (setting, pod) = volume("", "touch log");
    let mut user = User::start(&pod);
    user.ok("open log /data/log O_RDWR|O_APPEND");
    dies(&setting);
    user.ok("line log 1");
    user.ok("lock log exclusive");
    is_dead(&mut user, "line log 2");
    assert_eq!(setting.test.container.sh_ok("cat /tmp/source/log"), "line 1\n");
}

fn a_thousand_files_go_on() {
    const FILES: usize = 1000;
    let (setting, pod) = volume("", &format!("{} && for n in $(seq {FILES}); do cp f f$n; done", file("f", 1)));
    let mut user = User::start(&pod);
    for n in 1..=FILES {
        user.ok(&format!("open {n} /data/f{n} O_RDONLY"));
    }
    dies(&setting);
    for n in 1..=FILES {
        user.reads(&format!("pread {n} {} 4096", n * 512));
    }
    assert_eq!(setting.mounter.count(events::HEIR), 1);
}

/// The heir is no part of the mounter; and its end is that of the connection, as a helper's is.
fn an_heir_outlives_the_mounter_and_its_own_death_is_an_error() {
    let (mut setting, pod) = volume("", &file("f", 1));
    let mut user = User::start(&pod);
    user.ok("open f /data/f O_RDONLY");
    dies(&setting);
    user.reads("pread f 4096 4096");
    setting.mounter.signal(Signal::SIGKILL);
    setting.mounter.wait();
    user.reads("pread f 8192 4096");
    setting.mounter = setting.test.start_mounter(&[], &[]);
    user.reads("pread f 12288 4096");
    let heir = setting.test.pids_of("serve-open-files");
    assert_eq!(heir.len(), 1);
    let status = setting.test.node.sh_ok(&format!("cat /proc/{}/status", heir[0]));
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    // CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_CHECKPOINT_RESTORE, and none to be had.
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(u64::from_str_radix(&field(set), 16).unwrap(), 1 << 1 | 1 << 2 | 1 << 19 | 1 << 40, "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    setting.test.node.sh_ok(&format!("kill -9 {}", heir[0]));
    wait_for_no_heir(&setting);
    is_dead(&mut user, "pread f 16384 4096");
}

/// An unmount is not hindered, and what is open stays readable, as after `umount -l`; the helper ends with it.
fn what_is_open_outlasts_the_volume() {
    let (setting, pod) = volume("", &file("f", 1));
    let mut user = User::start(&pod);
    user.ok("open f /data/f O_RDONLY");
    dies(&setting);
    user.reads("pread f 4096 4096");
    pod.sh_ok("umount /data");
    setting.test.umount(&[TARGET]).ok("umount");
    user.reads("pread f 8192 4096");
    user.ok("close f");
    wait_for_no_heir(&setting);
    setting.test.wait_for_processes("bindfs", 0);
}

/// Readers of several processes, while helpers die at any moment, but for the first milliseconds after a heal: once the heir has
/// the file it does not matter when the next one dies.
fn helpers_die_at_any_moment_under_readers() {
    let deaths = std::env::var("DEATHS").ok().map_or(12, |value| value.parse().unwrap());
    let (setting, pod) = volume("hold_seconds = 60\n", &format!("{} && touch log", file("big", 4)));
    let mut chance = chance();
    let stop = AtomicBool::new(false);
    let rounds = [(); 3].map(|()| AtomicU64::new(0));
    thread::scope(|scope| {
        let readers: Vec<_> = rounds
            .iter()
            .map(|rounds| {
                let (pod, stop) = (&pod, &stop);
                scope.spawn(move || {
                    let mut user = User::start(pod);
                    user.ok("open f /data/big O_RDONLY");
                    while !stop.load(Ordering::Relaxed) {
                        user.reads("reads f 70000 5");
                        rounds.fetch_add(1, Ordering::Relaxed);
                    }
                    user.ok("close f");
                })
            })
            .collect();
        let _stop = Stop(&stop);
        for _ in 0..deaths {
            let before = setting.mounter.count(events::HEALED);
            thread::sleep(SERVED + Duration::from_micros(chance.u64(0..100_000)));
            setting.test.node.sh_ok("pkill -9 bindfs; true");
            setting.mounter.wait_for(events::HEALED, before + 1);
            // Two: the one that is under way may have had its answers from the helper.
            let so_far = read(&rounds);
            while read(&rounds).iter().zip(&so_far).any(|(now, then)| *now < then + 2) {
                assert!(readers.iter().all(|reader| !reader.is_finished()), "a reader has failed");
                thread::sleep(Duration::from_millis(1));
            }
        }
        drop(_stop);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        note(format!("{deaths} deaths, rounds of readers {:?}", read(&rounds)));
    });
    wait_for_no_heir(&setting);
}

fn read(rounds: &[AtomicU64]) -> Vec<u64> {
    rounds.iter().map(|rounds| rounds.load(Ordering::Relaxed)).collect()
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
