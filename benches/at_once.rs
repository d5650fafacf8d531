//! Mounts in a second, with one, eight and sixty-four callers at once: bindfs through kubelet's `mount`, beside the same
//! helper mounted natively by the real mount(8), in turn. `MOUNTS=16` makes it shorter.

#[allow(dead_code, reason = "only a part of it is used here")]
#[path = "../tests/node/mod.rs"]
mod node;
mod page;

use node::{NODE_BIN, Place, TestNode, missing, obstacle, opened};
use page::{median, number};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;
use testbed::machine::{Network, Room};

/// This program, in both rooms: it calls from there, as kubelet would.
const MEASURE: &str = "/run/hostmount/measure";
const TARGETS: &str = "/var/lib/kubelet/at-once";
const CALLERS: [usize; 3] = [1, 8, 64];
const ROUNDS: usize = 5;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [word, mount, callers, mounts] = &*arguments
        && word == "measure"
    {
        println!("{}", measure(mount, callers.parse().unwrap(), mounts.parse().unwrap()));
        return;
    }
    if let Some(why) = obstacle().or_else(|| missing(&["bindfs"])) {
        println!("SKIP: {why}");
        return;
    }
    let mounts = number("MOUNTS", 128);
    let test = TestNode::start_in(&Network::new().unwrap());
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    test.container.visit(|| {
        fs::write(MEASURE, program).unwrap();
        fs::set_permissions(MEASURE, fs::Permissions::from_mode(0o755)).unwrap();
    });
    test.container.sh_ok("mkdir /tmp/source");
    for room in [&test.node, &test.container] {
        room.sh_ok(&format!("mkdir -p {TARGETS} && cd {TARGETS} && mkdir $(seq 0 {})", mounts - 1));
    }
    test.configure(&opened("kubelet", &["bindfs"]));
    let _mounter = test.start_mounter(&[], &[]);
    let once = |room: &Place, mount: &str, callers: usize| {
        let mut command = Room::command(MEASURE);
        command.args(["measure", mount, &callers.to_string(), &mounts.to_string()]);
        let output = room.0.output(command).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().parse::<f64>().unwrap()
    };
    let mut table = "| callers at once | native, mounts a second | hostmount | ratio |\n|---|---|---|---|\n".to_owned();
    for callers in CALLERS {
        let rounds: Vec<[f64; 2]> = (0..ROUNDS)
            .map(|_| {
                let native = once(&test.container, "/usr/bin/mount", callers);
                [native, once(&test.node, &format!("{NODE_BIN}/mount"), callers)]
            })
            .collect();
        let [native, ours] = [0, 1].map(|way| median(rounds.iter().map(|round| round[way])));
        let ratio = median(rounds.iter().map(|[native, ours]| ours / native));
        writeln!(table, "| {callers} | {native:.0} | {ours:.0} | {ratio:.2} |").unwrap();
    }
    page::write("at-once", &table);
}

/// Mounts in a second; all of them are unmounted again.
fn measure(mount: &str, callers: usize, mounts: usize) -> f64 {
    let next = AtomicUsize::new(0);
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..callers {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= mounts {
                        return;
                    }
                    let target = format!("{TARGETS}/{number}");
                    run(Command::new(mount).args(["-t", "fuse.bindfs", "/tmp/source", &target]));
                    // Until it answers.
                    fs::metadata(&target).unwrap();
                }
            });
        }
    });
    let took = begin.elapsed().as_secs_f64();
    let targets = (0..mounts).map(|number| format!("{TARGETS}/{number}"));
    run(Command::new("/usr/bin/umount").args(targets));
    mounts as f64 / took
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
