//! Files that are open when a helper dies: they go on where it is certain which ones they are in the fresh filesystem, and fail as they
//! did where it is not.

use crate::harness::{Test, tests};
use crate::node::open_files::{User, file};
use crate::node::setting::{Setting, TARGET};
use crate::node::Place;
use hostmount::observe::events;
use std::thread;
use std::time::{Duration, Instant};
use testbed::machine::Propagation;

pub(crate) fn tests() -> Vec<Test> {
    // FUSE_NOTIFY_RESEND.
    const LINUX: (u32, u32) = (6, 9);
    let needs = |test: Test| test.needs_linux(LINUX.0, LINUX.1).needs(&["bindfs", "python3"]);
    tests![readers_go_on.quick(),].into_iter().map(needs).collect()
}

/// What a dead filesystem answers.
const DEAD: &str = "Transport endpoint is not connected";

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

fn readers_go_on() {
    let (setting, pod) = volume("", &file("big", 8));
    let mut user = User::start(&pod);
    user.ok("open a /data/big O_RDONLY");
    user.ok("open b /data/big O_RDONLY|O_DIRECT");
    user.ok("open c /data/big O_RDONLY");
    user.ok("map c");
    user.ok("close c");
    for round in 0..3 {
        user.reads("reads a 100000 20");
        dies(&setting);
        user.reads("reads a 100000 20");
        user.reads("direct b 1048576 131072");
        user.reads("mapped c 3000000 100000");
        assert_eq!(user.ok("stat a"), "8388608 bytes", "{round}");
    }
    for close in ["close a", "close b", "unmap c"] {
        user.ok(close);
    }
    wait_for_no_heir(&setting);
    assert_eq!(DEAD.len(), 35);
}
