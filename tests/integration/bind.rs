//! A volume at more places than its target: it is shown at another one and taken away again by request, healed and swapped at all
//! of them, and says how it is without anybody waiting for it.

use crate::harness::{Test, tests};
use crate::node::TestNode;
use crate::node::job::list;
use crate::node::mounter::{Mounter, SOCKET};
use api::client::{CallError, Client};
use api::message::{Bind, Changes, Failure, Mount, Reason};
use api::options::MountOptions;
use api::request::{Request, Switches};
use api::secret::Secrets;
use api::volume::{Stats, VolumeState};
use hostmount::observe::events;
use std::time::{Duration, Instant};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_volume_at_more_places_is_healed_and_swapped_at_all_of_them.needs(&["bindfs"]).quick(),
        what_cannot_be_shown_is_said_and_leaves_nothing.needs(&["bindfs"]).quick(),
        one_place_alone.needs(&["bindfs"]).quick(),
        a_volume_is_taken_away_from_one_place.needs(&["bindfs"]).quick(),
        no_other_mount_is_taken_away.needs(&["bindfs"]).quick(),
        a_volume_that_hangs_says_what_it_last_said,
        shown_while_it_is_swapped_all_the_time.needs(&["bindfs"]),
    ]
}

const STAGED: &str = "/var/lib/kubelet/plugins/v/globalmount";
const POD: &str = "/var/lib/kubelet/pods/p/v/mount";
const OTHER: &str = "/var/lib/kubelet/pods/q/v/mount";

/// A mounter, and a volume of bindfs at [`STAGED`].
fn staged() -> (TestNode, Mounter) {
    let test = TestNode::start();
    test.node.sh_ok("mkdir -p /var/lib/kubelet/plugins/v /var/lib/kubelet/pods/p/v /var/lib/kubelet/pods/q/v");
    test.container.sh_ok("mkdir -p /tmp/source/d && echo content >/tmp/source/f");
    let mounter = test.start_mounter(&[], &[]);
    mount(&test, "fuse.bindfs", "/tmp/source");
    (test, mounter)
}

fn mount(test: &TestNode, fstype: &str, source: &str) {
    let (options, switches, secrets) = (MountOptions::default(), Switches::default(), Secrets::new());
    let (fstype, source, target) = (fstype.to_owned(), source.to_owned(), STAGED.to_owned());
    let request = Request { fstype, source, target, options, switches, secrets };
    let asked = Mount { unless_mounted: true, make_target: true, ..request.into() };
    ask(test, |client| client.mount(asked)).unwrap();
}

fn ask<T: Send>(test: &TestNode, what: impl FnOnce(Client) -> Result<T, CallError> + Send) -> Result<T, Failure> {
    test.node.visit(|| what(Client::at(SOCKET))).map_err(CallError::into_failure)
}

fn at(target: &str) -> Bind {
    let (source, target) = (STAGED.to_owned(), target.to_owned());
    Bind { source, target, read_only: false, alone: false, make_target: true, pod: None }
}

fn show(test: &TestNode, bind: Bind) -> Result<bool, Failure> {
    ask(test, |client| client.bind(bind)).map(|mounted| mounted.already)
}

fn take_away(test: &TestNode, target: &str) -> Result<bool, Failure> {
    ask(test, |client| client.unmount(target, true)).map(|unmounted| unmounted.was_mounted)
}

fn stats(test: &TestNode, target: &str) -> Result<Stats, Failure> {
    ask(test, |client| client.stats(target))
}

#[track_caller]
fn both_work(test: &TestNode) {
    test.node.sh_ok(&format!("cat {STAGED}/f {POD}/f {OTHER}/f && echo x >{POD}/x && rm {STAGED}/x"));
    let refused = test.node.sh(&format!("echo y >{OTHER}/y"));
    assert!(refused.stderr.contains("Read-only file system"), "{}", refused.stderr);
}

fn a_volume_at_more_places_is_healed_and_swapped_at_all_of_them() {
    let (test, mounter) = staged();
    assert!(!show(&test, at(POD)).unwrap());
    let read_only = || Bind { read_only: true, ..at(OTHER) };
    assert!(!show(&test, read_only()).unwrap());
    both_work(&test);
    assert!(show(&test, at(POD)).unwrap() && show(&test, read_only()).unwrap(), "they show already");
    assert_eq!(test.pids_of("bindfs").len(), 1, "one helper serves all places");
    // A pod whose container runtime has copied it, and not as a mount that follows.
    let pod = test.pod(&[(POD, "/data")], testbed::machine::Propagation::None);
    let _life = pod.live();

    let helper = test.pids_of("bindfs")[0];
    test.node.sh_ok(&format!("kill -9 {helper}"));
    mounter.wait_for(events::HEALED, 1);
    both_work(&test);
    pod.sh_ok("cat /data/f");

    let swapped = ask(&test, |client| client.swap(STAGED, Changes::default())).unwrap();
    assert_eq!((swapped.places, swapped.left), (4, vec![]));
    both_work(&test);
    pod.sh_ok("cat /data/f");

    // The next mounter knows it as before.
    drop(mounter);
    let mounter = test.start_mounter(&[], &[]);
    assert!(show(&test, at(POD)).unwrap());
    let helper = test.pids_of("bindfs")[0];
    test.node.sh_ok(&format!("kill -9 {helper}"));
    mounter.wait_for(events::HEALED, 1);
    both_work(&test);
}

fn what_cannot_be_shown_is_said_and_leaves_nothing() {
    let (test, _mounter) = staged();
    let before = test.node.sh_ok("find /var/lib/kubelet /mnt -xdev; cat /proc/self/mountinfo");
    let refused = |bind: Bind, reason: Reason, words: &str| {
        let failure = show(&test, bind).unwrap_err();
        assert!(failure.reason == reason && failure.message.contains(words), "{failure:?}");
    };
    let from = |source: &str| Bind { source: source.into(), ..at(POD) };
    refused(from("/var/lib/kubelet/none"), Reason::NotMounted, "no volume is mounted at /var/lib/kubelet/none");
    refused(from("/var/lib/kubelet/pods"), Reason::NotMounted, "no volume is mounted");
    refused(from(&format!("{STAGED}/d")), Reason::NotMounted, "no volume is mounted");
    refused(from("/tmp"), Reason::Denied, "no volume of hostmount's");
    refused(from("relative"), Reason::Other, "absolute");
    refused(at("/var/lib/kubelet/../x"), Reason::Other, "'..'");
    refused(at("/proc/x"), Reason::Denied, "not for volumes");
    refused(at("/run/hostmount/x"), Reason::Denied, "not for volumes");
    refused(at("/mnt/made"), Reason::Other, "does not exist");
    refused(at("/var/lib/kubelet/none/made"), Reason::Other, "does not exist");
    refused(at(STAGED), Reason::Occupied, "something else is mounted");
    assert_eq!(test.node.sh_ok("find /var/lib/kubelet /mnt -xdev; cat /proc/self/mountinfo"), before);
    test.node.sh_ok(&format!("ln -s /mnt /var/lib/kubelet/pods/link && mkdir {POD} && mount -t tmpfs x {POD}"));
    refused(at("/var/lib/kubelet/pods/link/made"), Reason::Other, "symbolic link");
    refused(at(POD), Reason::Occupied, "something else is mounted");
    test.node.sh_ok(&format!("umount {POD}"));
    show(&test, at(POD)).unwrap();
    refused(Bind { read_only: true, ..at(POD) }, Reason::Occupied, "already, and not read-only");
    let long = show(&test, at(&format!("/var/lib/kubelet/{}", "x".repeat(5000)))).unwrap_err();
    assert!(long.message.contains("at most 4096"), "{long:?}");
}

fn one_place_alone() {
    let (test, _mounter) = staged();
    let alone = |target| Bind { alone: true, ..at(target) };
    let both = std::thread::scope(|scope| {
        let calls = [POD, OTHER].map(|target| {
            scope.spawn({
                let test = &test;
                move || show(test, alone(target))
            })
        });
        calls.map(|call| call.join().unwrap())
    });
    assert_eq!(both.iter().filter(|shown| shown.is_ok()).count(), 1, "{both:?}");
    let failure = both.into_iter().find_map(Result::err).unwrap();
    assert!([Reason::InUse, Reason::Busy].contains(&failure.reason), "{failure:?}");
    let (here, there) = if test.node.mount_at(POD).is_some() { (POD, OTHER) } else { (OTHER, POD) };
    assert!(show(&test, alone(here)).unwrap(), "it shows here already");
    let failure = show(&test, alone(there)).unwrap_err();
    assert!(failure.reason == Reason::InUse && failure.message.contains(here), "{failure:?}");
    take_away(&test, here).unwrap();
    assert!(!show(&test, alone(there)).unwrap());
}

fn a_volume_is_taken_away_from_one_place() {
    let (test, mounter) = staged();
    for target in [POD, OTHER] {
        show(&test, at(target)).unwrap();
    }
    // Open files do not hinder it.
    let _user = test.node.spawn({
        let mut command = testbed::machine::Room::command("sh");
        command.args(["-c", &format!("exec 3<{POD}/f; exec sleep infinity")]);
        command
    });
    test.wait_for_processes("sleep infinity", 1);
    assert!(take_away(&test, POD).unwrap());
    assert!(!take_away(&test, POD).unwrap(), "it is gone already");
    assert!(!take_away(&test, "/var/lib/kubelet/none/at/all").unwrap());
    assert_ne!(test.node.sh(&format!("test -e {POD}")).code, Some(0), "its directory is removed");
    test.node.sh_ok(&format!("cat {STAGED}/f {OTHER}/f"));
    // The target goes before the last of the other places: the helper serves those.
    assert!(take_away(&test, STAGED).unwrap());
    test.node.sh_ok(&format!("cat {OTHER}/f"));
    assert!(list(&test).contains("detached"));
    let failure = show(&test, at(POD)).unwrap_err();
    assert_eq!(failure.reason, Reason::NotMounted);
    drop(_user);
    assert!(take_away(&test, OTHER).unwrap());
    mounter.wait_for(events::UNMOUNTED, 1);
    assert_eq!((list(&test).as_str(), test.node.fuse_mounts()), ("[]", vec![]));
    // Dead, and nobody heals it as its source is gone.
    mount(&test, "fuse.bindfs", "/tmp/source");
    show(&test, at(POD)).unwrap();
    test.container.sh_ok("mv /tmp/source /tmp/gone");
    let helper = test.pids_of("bindfs")[0];
    test.node.sh_ok(&format!("kill -9 {helper}"));
    mounter.wait_for(events::HEAL_FAILED, 1);
    assert_eq!(stats(&test, POD).unwrap().state, VolumeState::Dead);
    assert!(take_away(&test, POD).unwrap() && take_away(&test, STAGED).unwrap());
    mounter.wait_for(events::UNMOUNTED, 2);
    assert_eq!((list(&test).as_str(), test.node.fuse_mounts()), ("[]", vec![]));
}

fn no_other_mount_is_taken_away() {
    let (test, _mounter) = staged();
    let refused = |target: &str, reason: Reason| {
        let failure = take_away(&test, target).unwrap_err();
        assert_eq!(failure.reason, reason, "{failure:?}");
    };
    test.node.sh_ok(&format!("mkdir {POD} && mount -t tmpfs x {POD} && ln -s {STAGED} /var/lib/kubelet/pods/link"));
    refused(POD, Reason::Denied);
    refused("/tmp", Reason::Denied);
    refused("/proc", Reason::Denied);
    refused("/run/hostmount", Reason::Denied);
    refused("/", Reason::Other);
    refused("/var/lib/kubelet/pods/link", Reason::Other);
    test.node.sh_ok("mkdir /mnt/empty");
    assert!(!take_away(&test, "/mnt/empty").unwrap());
    test.node.sh_ok(&format!("test -d /mnt/empty && cat {STAGED}/f"));
    assert!(test.node.mount_at(POD).is_some());
}

fn a_volume_that_hangs_says_what_it_last_said() {
    let test = TestNode::start();
    test.node.sh_ok("mkdir -p /var/lib/kubelet/plugins/v /var/lib/kubelet/pods/p/v");
    let _mounter = test.start_mounter(&[], &[]);
    mount(&test, "memfs", "x");
    show(&test, at(POD)).unwrap();
    let space = stats(&test, POD).unwrap().space.unwrap();
    assert!(space.total >= space.available, "{space:?}");
    let helper = test.pids_of("memfs")[0];
    test.node.sh_ok(&format!("kill -STOP {helper}"));
    // Asked again and again, by many: one process at most waits for it.
    let before = test.processes().len();
    let begin = Instant::now();
    for _ in 0..200 {
        let stats = stats(&test, POD).unwrap();
        assert!(stats.space.is_some_and(|said| said.total == space.total), "{stats:?}");
    }
    assert!(begin.elapsed() < Duration::from_secs(30), "they have waited for it");
    assert!(test.processes().len() <= before + 1, "{:?}", test.processes());
    test.node.sh_ok(&format!("kill -CONT {helper}"));
    assert_eq!(stats(&test, POD).unwrap().state, VolumeState::Mounted);
    for (target, words) in [("/var/lib/kubelet/pods/p", "no volume is mounted"), ("/none", "no volume is mounted")] {
        let failure = stats(&test, target).unwrap_err();
        assert!(failure.reason == Reason::NotMounted && failure.message.contains(words), "{failure:?}");
    }
}

fn shown_while_it_is_swapped_all_the_time() {
    let (test, _mounter) = staged();
    show(&test, at(OTHER)).unwrap();
    std::thread::scope(|scope| {
        let swaps = scope.spawn(|| {
            for _ in 0..6 {
                ask(&test, |client| client.swap(STAGED, Changes::default())).unwrap();
            }
        });
        let mut shown = 0;
        while !swaps.is_finished() {
            // It is a repeated call all the time, and never fails.
            assert!(show(&test, at(OTHER)).unwrap());
            match show(&test, at(POD)) {
                Ok(_) => {
                    shown += 1;
                    test.node.sh_ok(&format!("cat {POD}/f"));
                    take_away(&test, POD).unwrap();
                }
                Err(failure) => assert_eq!(failure.reason, Reason::Busy, "{failure:?}"),
            }
        }
        assert!(shown > 0);
        swaps.join().unwrap();
    });
    // Nothing of the helpers before is left.
    show(&test, at(POD)).unwrap();
    let devices: std::collections::BTreeSet<_> =
        test.node.fuse_mounts().iter().map(|line| line.split(' ').nth(2).unwrap().to_owned()).collect();
    assert_eq!(devices.len(), 1, "{:?}", test.node.fuse_mounts());
    test.wait_for_processes("bindfs", 1);
}
