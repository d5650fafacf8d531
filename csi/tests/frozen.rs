//! Volumes whose server is frozen, as kubelet has them: staged once, shown in several pods. A pod that is deleted goes in seconds, and takes
//! nothing from the others.

use crate::driver::{Driver, Volume};
use crate::harness::{Test, tests};
use crate::node::background::{end, start};
use crate::node::notes::note;
use crate::node::sshd::{PORT, Sshd};
use crate::node::{Place, SERVER_ADDRESS, sshd};
use hostmount::observe::events;
use std::fmt::Debug;
use std::io::Read;
use std::time::{Duration, Instant};
use testbed::machine::{Process, Propagation};
use tonic::Status;

pub(crate) fn tests() -> Vec<Test> {
    let tests = tests![
        a_pod_of_two_leaves_a_frozen_server.needs_linux(6, 9),
        the_last_pod_leaves_a_frozen_server,
        an_idle_volume_of_a_frozen_server_holds_nobody,
        a_killed_process_waits_for_a_slow_server_beside_a_living_one.needs(&["tc"]),
    ];
    tests.into_iter().map(|test| test.needs(&["sshfs"]).needs(sshd::PROGRAMS)).collect()
}

/// What kubelet waits for a call is two minutes, and it tries again after that; a mounter asks a filesystem for 5 s before it gives it up.
const SECONDS: Duration = Duration::from_secs(15);

/// A node with a server whose files are `f` and `g`, and the volume `v` of it in the pods `p` and `q`.
struct Setting {
    server: Sshd,
    driver: Driver,
    volume: Volume,
    pods: Vec<Place>,
}

impl Setting {
    fn with(pods: &[&str]) -> Self {
        let (server, test) = Sshd::with_node();
        server.place.sh_ok("for file in f g; do echo $file >/srv/export/$file; done");
        let driver = Driver::on(test, "abandoned_seconds = 2\nhang_seconds = 0\n");
        let mut this = Self { volume: of("v"), server, driver, pods: Vec::new() };
        this.driver.stage(&this.volume).unwrap();
        for pod in pods {
            this.driver.publish(&this.volume, pod).unwrap();
            this.pods.push(this.driver.test.pod(&[(&this.volume.target(pod), "/data")], Propagation::None));
        }
        this
    }

    fn freeze(&self) {
        self.server.place.sh_ok("kill -STOP $(pidof sshd)");
    }

    fn thaw(&self) {
        self.server.place.sh_ok("kill -CONT $(pidof sshd)");
    }

    fn helper(&self) -> Vec<u32> {
        self.driver.test.pids_of("sshfs")
    }

    fn count(&self, event: &str) -> usize {
        self.driver.mounter().count(event)
    }

    /// How many requests wait.
    fn waiting(&self) -> u64 {
        self.driver.list()[0].waiting.unwrap_or_default()
    }

    /// The call comes back, whatever the server does, and in which time.
    #[track_caller]
    fn in_seconds<T: Debug>(what: &str, call: impl FnOnce() -> Result<T, Status>) {
        let begin = Instant::now();
        call().unwrap();
        let took = begin.elapsed();
        note(format!("{what}: {took:?}"));
        assert!(took < SECONDS, "{what} took {took:?}");
    }
}

fn of(id: &str) -> Volume {
    let source = format!("root@{SERVER_ADDRESS}:/srv/export");
    let options = format!("port={PORT},dir_cache=no,attr_timeout=0,entry_timeout=0");
    Volume::of(id, &[("type", "sshfs"), ("source", &source), ("options", &options)])
}

/// A process that has opened files, and goes on when it is told to.
fn opens(pod: &Place, files: &str, then: &str) -> Process {
    pod.sh_ok("test -p /tmp/go || mkfifo /tmp/go");
    let mut process = start(pod, &format!("exec {files}; echo open; read go </tmp/go; {then}"));
    process.stdout.as_mut().unwrap().read_exact(&mut [0; 5]).unwrap();
    process
}

fn a_pod_of_two_leaves_a_frozen_server() {
    let mut setting = Setting::with(&["p", "q"]);
    let helper = setting.helper();
    let [p, q] = &setting.pods[..] else { panic!() };
    // Of the one pod a process writes, which sshfs does later, and reads; when it is killed it closes the one file, which waits for what is
    // not written yet.
    let mut goes = opens(p, "3</data/f 4>>/data/written", "echo line >&4; exec cat /data/f");
    let idle = opens(q, "3</data/f", "echo more >>/data/f; cat /data/f");
    setting.freeze();
    let stays = start(q, "cat /data/g");
    p.sh_ok("echo >/tmp/go");
    while setting.waiting() < 2 {
        std::thread::yield_now();
    }
    goes.kill().unwrap();
    setting.driver.mounter().wait_for(events::INTERRUPTED, 1);
    assert_eq!(end(goes), "");
    Setting::in_seconds("NodeUnpublishVolume", || setting.driver.unpublish(&setting.volume, "p"));
    // The other one has not noticed.
    setting.thaw();
    assert_eq!(end(stays), "g\n");
    q.sh_ok("echo >/tmp/go");
    assert_eq!(end(idle), "f\nmore\n");
    assert_eq!(setting.server.place.sh_ok("cat /srv/export/written"), "line\n");
    assert_eq!(setting.helper(), helper);
    assert_eq!([events::ABANDONED, events::DEAD, events::HEALED].map(|event| setting.count(event)), [0; 3]);
    setting.pods.clear();
    setting.driver.unpublish(&setting.volume, "q").unwrap();
    setting.driver.unstage(&setting.volume).unwrap();
    setting.driver.wait_until_nothing_is_left("sshfs");
}

fn the_last_pod_leaves_a_frozen_server() {
    let mut setting = Setting::with(&["p"]);
    let mut goes = opens(&setting.pods[0], "3</data/f", "exec cat /data/f");
    setting.freeze();
    setting.pods[0].sh_ok("echo >/tmp/go");
    goes.kill().unwrap();
    setting.driver.mounter().wait_for(events::ABANDONED, 1);
    assert_eq!(end(goes), "");
    setting.pods.clear();
    Setting::in_seconds("NodeUnpublishVolume", || setting.driver.unpublish(&setting.volume, "p"));
    Setting::in_seconds("NodeUnstageVolume", || setting.driver.unstage(&setting.volume));
    setting.driver.wait_until_nothing_is_left("sshfs");
    setting.thaw();
}

/// Of a pod that has two, one of which nobody has accessed since its server stopped.
fn an_idle_volume_of_a_frozen_server_holds_nobody() {
    let mut setting = Setting::with(&["p"]);
    let (driver, idle) = (&setting.driver, of("idle"));
    driver.stage(&idle).unwrap();
    driver.publish(&idle, "p").unwrap();
    setting.freeze();
    setting.pods.clear();
    for volume in [&idle, &setting.volume] {
        Setting::in_seconds("NodeGetVolumeStats", || driver.stats(volume, "p"));
        Setting::in_seconds("NodeUnpublishVolume", || driver.unpublish(volume, "p"));
        Setting::in_seconds("NodeUnstageVolume", || driver.unstage(volume));
    }
    driver.wait_until_nothing_is_left("sshfs");
    setting.thaw();
}

fn a_killed_process_waits_for_a_slow_server_beside_a_living_one() {
    let setting = Setting::with(&["p", "q"]);
    let [p, q] = &setting.pods[..] else { panic!() };
    // Packets as small as on a real network; one read of 128 KiB takes three times as long as it takes to be abandoned.
    setting.server.place.sh_ok(
        "truncate -s 64M /srv/export/f && ip link set lo mtu 1500 &&
        tc qdisc add dev lo root tbf rate 200kbit burst 8k latency 30s",
    );
    let stays = start(q, "exec dd if=/data/f bs=128k count=1 iflag=direct 2>/dev/null | wc -c");
    let mut goes = start(p, "exec dd if=/data/f of=/dev/null bs=128k count=1 iflag=direct");
    while setting.waiting() < 2 {
        std::thread::yield_now();
    }
    goes.kill().unwrap();
    goes.wait().unwrap();
    assert_eq!(end(stays).trim(), (128 << 10).to_string());
    assert_eq!([events::ABANDONED, events::DEAD, events::INTERRUPTED].map(|event| setting.count(event)), [0; 3]);
}
