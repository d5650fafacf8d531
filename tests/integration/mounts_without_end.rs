//! A pod with one volume that mounts it again and again, on top of itself or elsewhere, in a mount namespace of its own, as every user may
//! make one. A swap finds all of these places: it ends all the same, the mounter stays as small as it was, and who has the same volume is
//! served by the fresh helper.

use crate::harness::{Test, tests};
use crate::node::fault::hostile;
use crate::node::notes::note;
use crate::node::setting::{Setting, TARGET};
use crate::node::{Done, NODE_BIN, Place};
use hostmount::observe::events;
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};
use testbed::machine::{Process, Propagation, Room};

pub(crate) fn tests() -> Vec<Test> {
    const NEEDED: &[&str] = &["bindfs", "perl", "unshare"];
    tests![
        a_pile_of_a_volumes_own_mounts.needs(NEEDED),
        a_pile_of_others_mounts_on_a_volume.needs(NEEDED),
        mounts_beside_each_other.needs(NEEDED),
        mounts_that_come_as_fast_as_they_are_replaced.needs(NEEDED),
        many_directories_that_are_not_answered_for.needs(&["perl", "unshare"]),
    ]
}

/// A swap of a volume with a few places takes a second.
const BOUND: Duration = Duration::from_secs(60);
/// `mount($what, $where)` binds, `away($where)` detaches; `ready` is said when all is there.
const BEGINNING: &str = r#"use strict; $| = 1;
    sub mount { my ($what, $where) = @_; my $type = 'none'; my $none = ''; syscall(165, $what, $where, $type, 0x1000, $none) == 0 }
    sub away { my ($where) = @_; syscall(166, $where, 2) == 0 }
    sub ready { print "ready\n" }
"#;

/// Runs lines of Perl in a mount namespace of the pod's own, whose user has no privilege outside of it, until they are ready.
fn in_own_mounts(pod: &Place, lines: &str) -> Process {
    let mut command = Room::command("unshare");
    command.args(["--user", "--map-root-user", "--mount", "perl", "-e", &format!("{BEGINNING}{lines}")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut process = pod.spawn(command);
    let mut said = [0; 6];
    process.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"ready\n");
    process
}

/// A volume that two pods have: one is the attacker's.
fn start() -> (Setting, [Place; 2], Process) {
    let setting = Setting::start();
    setting.test.container.sh_ok("cd /tmp/source && mkdir sub && echo served >f");
    setting.test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    let pods = [(); 2].map(|()| setting.test.pod(&[(TARGET, "/data")], Propagation::None));
    let alive = pods[1].live();
    (setting, pods, alive)
}

fn memory(setting: &Setting, what: &str) -> u64 {
    let pid = setting.mounter.pid();
    let line = setting.test.node.sh_ok(&format!("grep {what} /proc/{pid}/status"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Swaps, within the bound; the victim has the fresh filesystem then. Returns what was said.
fn swap(setting: &Setting, victim: &Place) -> Done {
    let before = (memory(setting, "VmRSS"), Instant::now());
    let device = || victim.mount_at("/data").unwrap().split(' ').nth(2).unwrap().to_owned();
    let old = device();
    let done = setting.test.node.sh(&format!("timeout {} {NODE_BIN}/hostmount swap {TARGET}", BOUND.as_secs()));
    let grown = memory(setting, "VmHWM") - before.0;
    note(format!("{grown} KiB, {:?}; {} bytes said", before.1.elapsed(), done.stdout.len() + done.stderr.len()));
    assert_ne!(done.code, Some(124), "it does not end");
    assert!(grown < 64 << 10, "{grown} KiB");
    assert!(done.stdout.len() + done.stderr.len() < 16 << 10, "{} bytes are said", done.stdout.len());
    assert_ne!(device(), old, "{done:?}");
    assert_eq!(victim.sh_ok("cat /data/f"), "served\n");
    assert_eq!(setting.test.node.sh_ok(&format!("cat {TARGET}/f")), "served\n");
    done
}

/// Nothing is locked, and it is healed as well.
fn goes_on(setting: &Setting, victim: &Place, attacker: Process) {
    setting.test.node.sh_ok("kill -9 $(pidof -s bindfs)");
    setting.mounter.wait_for(events::HEALED, 1);
    assert_eq!(victim.sh_ok("cat /data/f"), "served\n");
    drop(attacker);
    setting.test.node.sh_ok(&format!("{NODE_BIN}/hostmount swap {TARGET}"));
}

fn a_pile_of_a_volumes_own_mounts() {
    let (setting, [pod, victim], _alive) = start();
    let attacker = in_own_mounts(&pod, "for (1..3000) { mount('/data', '/data') or die $! } ready; sleep 1000000;");
    swap(&setting, &victim);
    goes_on(&setting, &victim, attacker);
}

fn a_pile_of_others_mounts_on_a_volume() {
    let (setting, [pod, victim], _alive) = start();
    let lines = "for (1..6000) { mount('/tmp', '/data/sub') or die $! } ready; sleep 1000000;";
    let attacker = in_own_mounts(&pod, lines);
    swap(&setting, &victim);
    goes_on(&setting, &victim, attacker);
}

fn mounts_beside_each_other() {
    let (setting, [pod, victim], _alive) = start();
    let lines = "for (1..20000) { mkdir qq(/tmp/m$_); mount('/data', qq(/tmp/m$_)) or die $! } ready; sleep 1000000;";
    let attacker = in_own_mounts(&pod, lines);
    let done = swap(&setting, &victim);
    assert!(format!("{}{}", done.stdout, done.stderr).contains("of its mounts are there"), "{done:?}");
    drop(attacker);
    setting.test.node.sh_ok(&format!("{NODE_BIN}/hostmount swap {TARGET}"));
}

/// A mount of the old filesystem is always made from another one before that is found.
fn mounts_that_come_as_fast_as_they_are_replaced() {
    let (setting, [pod, victim], _alive) = start();
    let lines = r#"mkdir "/tmp/m$_" for 0..499; mount('/data', "/tmp/m$_") or die $! for 0..499; my $old = (stat '/data')[0]; ready;
        while (1) {
            my ($from, $to) = map { '/tmp/m' . int rand 500 } 1, 2;
            if ((stat $from)[0] == $old) { away($to); mount($from, $to) }
        }"#;
    let attacker = in_own_mounts(&pod, lines);
    swap(&setting, &victim);
    goes_on(&setting, &victim, attacker);
}

/// The fresh helper never answers for a directory that shows at many places.
fn many_directories_that_are_not_answered_for() {
    let setting = Setting::start();
    setting.fault(&hostile("$op == 1 && -e '/tmp/silent'", "exit 0;"));
    setting.test.mount(&["-t", "fuse.fault", "source", TARGET]).ok("mount");
    let pod = setting.test.pod(&[(&format!("{TARGET}/sub"), "/sub")], Propagation::None);
    let lines = "for (1..100) { mkdir qq(/tmp/m$_); mount('/sub', qq(/tmp/m$_)) or die $! } ready; sleep 1000000;";
    let attacker = in_own_mounts(&pod, lines);
    setting.test.container.sh_ok("touch /tmp/silent");
    let begun = Instant::now();
    let done = setting.test.node.sh(&format!("timeout {} {NODE_BIN}/hostmount swap {TARGET}", BOUND.as_secs()));
    note(format!("{:?}", begun.elapsed()));
    assert_ne!(done.code, Some(124), "it does not end");
    setting.test.container.sh_ok("rm /tmp/silent");
    setting.test.node.sh_ok(&format!("timeout {} {NODE_BIN}/hostmount swap {TARGET}", BOUND.as_secs()));
    drop(attacker);
}
