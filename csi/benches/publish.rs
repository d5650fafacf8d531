//! A volume of bindfs for a pod through CSI, beside the same by hostmount's `mount` and by the real mount(8) where the helper is: in turn,
//! in one run. Then 200 volumes at once, and what the driver and the mounter take of memory and of a processor's time.
//!
//! Runs as root. The calls are kubelet's: each with a connection of its own.

#[allow(dead_code, reason = "only a part of it is used here")]
#[path = "../../tests/node/mod.rs"]
mod node;

#[path = "../tests/calls.rs"]
mod calls;
#[allow(dead_code, reason = "only a part of it is used here")]
#[path = "../tests/driver.rs"]
mod driver;
mod measure;

use driver::{Driver, Volume};
use measure::{median, milliseconds};
use node::{NODE_BIN, missing, obstacle};
use std::fs;
use std::time::Duration;

const ROUNDS: usize = 100;
const VOLUMES: usize = 200;
/// In the container, and on the node.
const TARGET: &str = "/tmp/target";
/// How long the programs are looked at while nobody asks anything of them.
const QUIET: Duration = Duration::from_secs(30);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if arguments.first().is_some_and(|word| word == measure::WORD) {
        return measure::measure(&arguments[1..]);
    }
    if let Some(why) = obstacle().or_else(|| missing(&["bindfs"])) {
        return println!("SKIP: {why}");
    }
    let kubelet = "[policy.kubelet]\ntargets = ['**']\n[policy.kubelet.filesystem.bindfs]\nsources = ['**']\n";
    let driver = Driver::with_config(kubelet);
    compare(&driver);
    many(&driver);
}

fn compare(driver: &Driver) {
    measure::install(&driver.test.container);
    for room in [&driver.test.node, &driver.test.container] {
        room.sh_ok(&format!("mkdir {TARGET}"));
    }
    driver.test.node.sh_ok(&format!("echo fuse.bindfs >{NODE_BIN}/served-types"));
    let arguments = ["-t", "fuse.bindfs", "/srv/source", TARGET];
    let (inline, shared) = (Volume::bindfs("inline").ephemeral(), Volume::bindfs("shared"));
    for volume in [&inline, &shared] {
        ["p", "q"]
            .iter()
            .for_each(|pod| drop(driver.test.node.sh_ok(&format!("mkdir -p $(dirname {})", volume.target(pod)))));
    }
    driver.test.node.sh_ok(&format!("mkdir -p $(dirname {})", shared.staged()));
    let answers = |target: &str| driver.test.node.visit(|| fs::metadata(target).map(drop).unwrap());
    let publish = |volume: &Volume, pod: &str| {
        let request = volume.to_publish(pod);
        milliseconds(|| {
            driver.node(|mut node| async move { node.node_publish_volume(request).await }).unwrap();
            answers(&volume.target(pod));
        })
    };
    let unpublish = |volume: &Volume, pod: &str| milliseconds(|| driver.unpublish(volume, pod).unwrap());
    let mut rounds = Vec::new();
    for _ in 0..=ROUNDS {
        let native = measure::in_room(&driver.test.container, "/usr/bin/mount", &arguments);
        let ours = measure::in_room(&driver.test.node, &format!("{NODE_BIN}/mount"), &arguments);
        let own = [publish(&inline, "p"), unpublish(&inline, "p")];
        let staged = milliseconds(|| {
            let request = shared.to_stage();
            driver.node(|mut node| async move { node.node_stage_volume(request).await }).unwrap();
        });
        let first = publish(&shared, "p");
        let second = [publish(&shared, "q"), unpublish(&shared, "q")];
        unpublish(&shared, "p");
        let unstaged = milliseconds(|| driver.unstage(&shared).unwrap());
        rounds.push([native, ours, own, [staged + first, second[1] + unstaged], second]);
    }
    // The first one warms the caches.
    rounds.remove(0);
    println!("| {ROUNDS} rounds, medians, bindfs | mounted | beside native | unmounted | beside native |");
    for (way, name) in [
        "the real mount(8), in the container",
        "kubelet's `mount`, on the node",
        "NodePublishVolume, a helper of the pod's own",
        "NodeStageVolume and NodePublishVolume",
        "NodePublishVolume of what is staged",
    ]
    .iter()
    .enumerate()
    {
        let columns = [0, 1].map(|what| {
            let time = median(rounds.iter().map(|round| round[way][what]));
            let ratio = median(rounds.iter().map(|round| round[way][what] / round[0][what]));
            format!("{time:.2} ms | {ratio:.2}")
        });
        println!("| {name} | {} |", columns.join(" | "));
    }
}

fn many(driver: &Driver) {
    let volumes: Vec<_> = (0..VOLUMES).map(|number| Volume::bindfs(&format!("claim-{number}"))).collect();
    let took = milliseconds(|| {
        for volume in &volumes {
            driver.stage(volume).unwrap();
            driver.publish(volume, "p").unwrap();
        }
    });
    println!("{VOLUMES} volumes, one after the other: {:.1} s", took / 1e3);
    let programs = [driver.csi.as_ref().unwrap(), driver.mounter()].map(|program| program.outer_pid());
    let before = programs.map(ticks);
    std::thread::sleep(QUIET);
    for (at, name) in ["the driver", "the mounter"].into_iter().enumerate() {
        let [most, now, shared] = ["VmHWM:", "VmRSS:", "RssFile:"].map(|field| kilobytes(programs[at], field));
        let took = (ticks(programs[at]) - before[at]) * 10;
        println!(
            "{name}: {now} KiB resident ({shared} KiB of its program), {most} KiB at most; in {} s without a call {took} ms of a processor",
            QUIET.as_secs()
        );
    }
    for volume in &volumes {
        driver.unpublish(volume, "p").unwrap();
        driver.unstage(volume).unwrap();
    }
    driver.wait_until_nothing_is_left("bindfs");
}

fn kilobytes(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Hundredths of a second of a processor.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
