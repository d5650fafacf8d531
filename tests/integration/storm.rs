//! Many callers at once, a third of them bad, and a mounter that has run out of something: the good ones succeed, or succeed
//! as soon as there is room again, and nothing is left.
//!
//! `HOSTMOUNT_SEED` repeats a run.

use crate::harness::{Test, tests};
use crate::node::mounter::SOCKET;
use crate::node::notes::note;
use crate::node::setting::{Setting, TARGET};
use crate::node::{self, TestNode, operators_mount};
use api::client::Client;
use api::options::MountOptions;
use api::request::{Request, Switches};
use api::secret::Secrets;
use hostmount::observe::events;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        two_thousand_requests_a_third_of_them_bad.needs(&["bindfs"]),
        helpers_that_end_while_they_are_launched,
        no_more_descriptors.needs(&["bindfs", "prlimit"]),
        no_more_processes.needs(&["bindfs"]).needs_no(no_pids_cgroup),
        a_full_state_directory.needs(&["bindfs"]),
    ]
}

const CALLERS: usize = 50;
const REQUESTS: usize = 2000;

fn request(fstype: &str, source: &str, target: &str) -> Request {
    let (fstype, source, target) = (fstype.to_owned(), source.to_owned(), target.to_owned());
    let (options, switches, secrets) = (MountOptions::default(), Switches::default(), Secrets::new());
    Request { fstype, source, target, options, switches, secrets }
}

fn two_thousand_requests_a_third_of_them_bad() {
    let setting = Setting::with_config("ready_timeout_seconds = 120\n");
    let mut chance = node::chance();
    setting
        .test
        .node
        .sh_ok(&format!("cd /var/lib/kubelet; for n in $(seq 0 {CALLERS}); do mkdir -p c$n b$n k$n; done"));
    setting.fault("echo no; exit 3");
    setting.test.container.helper("fuse.slow", "sleep 1; exit 3");
    let before = setting.state();
    let (left, over) = (AtomicUsize::new(REQUESTS), AtomicBool::new(false));
    let counts = Mutex::new(BTreeMap::<&str, usize>::new());
    let pid = setting.mounter.pid();
    let begin = Instant::now();
    let most = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = (0, 0);
            while !over.load(Ordering::Relaxed) {
                most = (most.0.max(memory(&setting.test, pid)), most.1.max(setting.test.descriptors(pid).len()));
                thread::sleep(Duration::from_millis(200));
            }
            most
        });
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                let (setting, left, counts) = (&setting, &left, &counts);
                let mut chance = fastrand::Rng::with_seed(chance.u64(..));
                scope.spawn(move || {
                    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                        let what = ask(&setting.test, number, &mut chance);
                        *counts.lock().unwrap().entry(what).or_default() += 1;
                    }
                })
            })
            .collect();
        let failed: Vec<_> = callers.into_iter().filter_map(|caller| caller.join().err()).collect();
        over.store(true, Ordering::Relaxed);
        let most = watch.join().unwrap();
        if let Some(panic) = failed.into_iter().next() {
            std::panic::resume_unwind(panic);
        }
        most
    });
    note(format!(
        "{:?} in {:?}; at most {} KiB and {} descriptors",
        counts.lock().unwrap(),
        begin.elapsed(),
        most.0,
        most.1
    ));
    assert!(most.0 < 256 << 10, "{} KiB of memory", most.0);
    assert!(most.1 < 4000, "{} descriptors", most.1);
    // What a killed caller's mount had come to: it stands, or it was undone.
    setting.wait_until_idle(&before);
    for number in 0..CALLERS {
        setting.test.node.sh(&format!("umount -l /var/lib/kubelet/k{number}"));
    }
    setting.wait_until(&before);
    let after = memory(&setting.test, pid);
    note(format!("{after} KiB afterwards"));
    assert!(after < 128 << 10, "{after} KiB of memory are left in use");
}

/// In version 1 the thread that launches a helper is in its cgroup, which is killed when the helper has failed. The mounter
/// stays.
fn helpers_that_end_while_they_are_launched() {
    let setting = Setting::start();
    setting.test.node.sh_ok("cd /var/lib/kubelet; for n in $(seq 0 8); do mkdir -p f$n; done");
    setting.fault("exit 3");
    let before = setting.state();
    thread::scope(|scope| {
        for number in 0..8 {
            let test = &setting.test;
            scope.spawn(move || {
                for _ in 0..60 {
                    let asked = request("fuse.fault", "a", &format!("/var/lib/kubelet/f{number}"));
                    let failed = test.node.visit(|| Client::at(SOCKET).mount(asked)).unwrap_err();
                    assert!(failed.into_failure().message.contains("exit status: 3"));
                }
            });
        }
    });
    setting.wait_until(&before);
}

/// One request of caller `number`'s; what it was.
fn ask(test: &TestNode, number: usize, chance: &mut fastrand::Rng) -> &'static str {
    let [good, bad, killed] = ['c', 'b', 'k'].map(|kind| format!("/var/lib/kubelet/{kind}{number}"));
    let connect = || test.node.visit(|| UnixStream::connect(SOCKET).unwrap());
    match chance.u8(0..18) {
        0..12 => {
            test.node.visit(|| {
                Client::at(SOCKET).mount(request("fuse.bindfs", "/tmp/source", &good)).unwrap();
                assert!(fs::read_dir(&good).is_ok());
                // Busy for as long as another thread's search of the mount tables holds it.
                let begin = Instant::now();
                while let Err(errno) = nix::mount::umount(good.as_str()) {
                    let busy = errno == nix::errno::Errno::EBUSY && begin.elapsed() < Duration::from_secs(10);
                    assert!(busy, "{good}: {errno}");
                    thread::sleep(Duration::from_millis(5));
                }
            });
            "good"
        }
        12 => {
            let failed = test.node.visit(|| Client::at(SOCKET).mount(request("fuse.nosuch", "a", &bad))).unwrap_err();
            assert!(failed.into_failure().message.contains("unknown filesystem type"));
            "of no type"
        }
        13 => {
            let failed = test.node.visit(|| Client::at(SOCKET).mount(request("fuse.fault", "a", &bad))).unwrap_err();
            assert_eq!(failed.into_failure().output, ["no"]);
            "with a helper that fails"
        }
        14 => {
            let mut command = operators_mount();
            command.args(["-t", if chance.bool() { "fuse.bindfs" } else { "fuse.slow" }, "/tmp/source", &killed]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut caller = test.node.spawn(command);
            thread::sleep(Duration::from_millis(chance.u64(0..100)));
            caller.kill().unwrap();
            caller.wait().unwrap();
            test.node.visit(|| nix::mount::umount2(killed.as_str(), nix::mount::MntFlags::MNT_DETACH).ok());
            "killed"
        }
        15 => {
            let mut stream = connect();
            for byte in b"HMNT\0\0\0\x04\0\0\x10\0{{{{" {
                if stream.write_all(&[*byte]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(chance.u64(0..100)));
            }
            "slow"
        }
        16 => {
            let bytes: Vec<u8> = (0..chance.usize(0..4096)).map(|_| chance.u8(..)).collect();
            let _ = connect().write_all(&bytes);
            "of noise"
        }
        _ => {
            let mut stream = connect();
            let mut bytes = Vec::new();
            api::message::send(&mut bytes, &api::message::Call::List).unwrap();
            let _ = stream.write_all(&bytes);
            "that does not read its answer"
        }
    }
}

/// In KiB.
fn memory(test: &TestNode, pid: u32) -> u64 {
    let status = test.node.visit(|| fs::read_to_string(format!("/proc/{pid}/status")).unwrap());
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

const BINDFS: [&str; 4] = ["-t", "fuse.bindfs", "/tmp/source", TARGET];

fn mount_and_unmount(setting: &Setting) {
    let before = setting.mounter.count(events::UNMOUNTED);
    setting.test.mount(&BINDFS).ok("mount");
    setting.test.node.sh_ok(&format!("umount {TARGET}"));
    setting.mounter.wait_for(events::UNMOUNTED, before + 1);
}

fn no_more_descriptors() {
    let setting = Setting::start();
    mount_and_unmount(&setting);
    let before = setting.state();
    let pid = setting.mounter.pid();
    let limit = |limit: usize| setting.test.node.sh_ok(&format!("prlimit --pid {pid} --nofile={limit}:"));
    let open = setting.test.descriptors(pid).len();
    // Room for the connection, and not for all that a mount needs.
    for more in [2, 4, 8, 12] {
        limit(open + more);
        let done = setting.test.mount(&BINDFS);
        assert!(done.stderr.contains("Too many open files") || done.code == Some(0), "{more} more: {done:?}");
        note(format!("{more} more: {}", done.stderr.trim()));
        if done.code == Some(0) {
            setting.test.node.sh_ok(&format!("umount {TARGET}"));
        }
        setting.wait_until(&before);
    }
    // No room for a connection: the caller waits, and the mounter does not spin.
    let held = setting.test.descriptors(pid);
    limit((0..).find(|number| !held.contains_key(number)).unwrap() as usize);
    let log = setting.mounter.said().len();
    thread::scope(|scope| {
        let waits = scope.spawn(|| setting.test.mount(&BINDFS));
        thread::sleep(Duration::from_secs(2));
        assert!(!waits.is_finished());
        let more = setting.mounter.said().len() - log;
        assert!(more < 16 << 10, "{more} bytes of log");
        limit(900);
        waits.join().unwrap().ok("mount");
    });
    setting.test.node.sh_ok(&format!("umount {TARGET}"));
    setting.wait_until(&before);
    mount_and_unmount(&setting);
    setting.wait_until(&before);
}

fn pids_cgroup() -> PathBuf {
    let version_1 = PathBuf::from("/sys/fs/cgroup/pids");
    if version_1.exists() { version_1 } else { "/sys/fs/cgroup".into() }
}

fn no_pids_cgroup() -> Option<String> {
    let probe = pids_cgroup().join(format!("hostmount-storm-probe-{}", std::process::id()));
    let made = fs::create_dir(&probe).is_ok() && probe.join("pids.max").exists();
    let _ = fs::remove_dir(&probe);
    (!made).then(|| "no pids cgroup can be made".to_owned())
}

fn no_more_processes() {
    let setting = Setting::start();
    mount_and_unmount(&setting);
    setting.test.mount(&BINDFS).ok("mount");
    let before = setting.state();
    let cgroup = pids_cgroup().join(format!("hostmount-storm-{}", std::process::id()));
    fs::create_dir(&cgroup).unwrap();
    fs::write(cgroup.join("cgroup.procs"), setting.mounter.outer_pid().to_string()).unwrap();
    let other = "/var/lib/kubelet/pods/p/volumes/other";
    setting.test.node.sh_ok(&format!("mkdir {other}"));
    let threads: usize = fs::read_to_string(cgroup.join("pids.current")).unwrap().trim().parse().unwrap();
    for more in 0..3 {
        fs::write(cgroup.join("pids.max"), (threads + more).to_string()).unwrap();
        let done = setting.test.mount(&["-t", "fuse.bindfs", "/tmp/source", other]);
        note(format!("{more} more: {}", done.stderr.trim()));
        assert!(done.code == Some(0) || done.stderr.contains("Resource temporarily unavailable"), "{done:?}");
        if done.code == Some(0) {
            setting.test.node.sh_ok(&format!("umount {other}"));
        }
        setting.wait_until(&before);
    }
    // A volume that dies now is healed when there is room again.
    fs::write(cgroup.join("pids.max"), threads.to_string()).unwrap();
    setting.test.node.sh_ok("kill -9 $(pidof bindfs)");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(setting.mounter.count(events::HEALED), 0);
    fs::write(cgroup.join("pids.max"), "max").unwrap();
    setting.mounter.wait_for(events::HEALED, 1);
    setting.test.node.sh_ok(&format!("ls {TARGET} && umount {TARGET}"));
    setting.mounter.wait_for(events::UNMOUNTED, 2);
    mount_and_unmount(&setting);
    drop(setting);
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::remove_dir(&cgroup).is_err() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(50));
    }
}

fn a_full_state_directory() {
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.sh_ok("mkdir /tmp/source /tmp/state && mount -t tmpfs -o size=64k,nr_inodes=64 state /tmp/state");
    let mounter = test.start_mounter(&["--state", "/tmp/state"], &[]);
    test.mount(&BINDFS).ok("mount");
    test.node.sh_ok(&format!("umount {TARGET}"));
    mounter.wait_for(events::UNMOUNTED, 1);
    let files = test.container.sh_ok("find /tmp/state");
    for round in 0..4 {
        // First there is no room for what is written, then for files neither.
        let inodes = if round < 2 { "" } else { "for n in $(seq 64); do mkdir full$n; done" };
        test.container.sh(&format!("cd /tmp/state; dd if=/dev/zero of=full bs=4k; {inodes}"));
        let done = test.mount(&BINDFS);
        note(format!("full: {:?} {}", done.code, done.stderr.trim()));
        if done.code == Some(0) {
            test.node.sh_ok(&format!("umount {TARGET}"));
            mounter.wait_for(events::UNMOUNTED, 2 + round);
        }
        let said = mounter.said();
        assert!(done.stderr.contains("No space left") || said.contains("No space left"), "{done:?}, {said}");
    }
    test.container.sh_ok("rm -r /tmp/state/full*");
    let times = mounter.count(events::UNMOUNTED);
    test.mount(&BINDFS).ok("mount when there is room again");
    test.node.sh_ok(&format!("umount {TARGET}"));
    mounter.wait_for(events::UNMOUNTED, times + 1);
    assert_eq!(test.container.sh_ok("find /tmp/state"), files);
}
