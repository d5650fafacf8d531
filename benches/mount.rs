//! Mount and unmount latency through hostmount, beside the same helper mounted natively by the real mount(8).
//!
//! Both ways run on one node, in turn, in one run: what is quoted is the median, and the ratio of each pair. The node
//! has the helpers, unlike an immutable one, because native mounting needs them there.

#[path = "../tests/node/mod.rs"]
mod node;

use hostmount::demo::machine::{Machine, Network, Recipe, Room};
use node::gluster::{self, Gluster};
use node::mounter::Mounter;
use node::{HOSTMOUNT, Place, require};
use std::process::Command;
use std::time::{Duration, Instant};

const OURS: &str = "/opt/hostmount/bin/mount";
const NATIVE: &str = "/usr/bin/mount";
const TARGET: &str = "/var/lib/kubelet/volume";
/// This program, on the node: it measures from there, as kubelet would call.
const MEASURE: &str = "/opt/hostmount/bin/measure";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|word| word == "measure") {
        measure(&arguments[2], &arguments[3], arguments[4].parse().expect("a number of rounds"));
        return;
    }
    if !require(&["bindfs"]) || !require(gluster::PROGRAMS) {
        return;
    }
    let network = Network::new().unwrap();
    let server = Gluster::start(&network);
    let volume = server.volume("gv0");
    let exe = std::env::current_exe().unwrap();
    let with_helpers = || {
        let writable = ["/var/lib/kubelet", "/var/log", "/run", "/tmp", "/opt/hostmount"];
        Recipe::userland().fuse().writable(writable).share("socket", "/run/hostmount").share("data", "/srv/data")
    };
    let node =
        with_helpers().bind(HOSTMOUNT, "/opt/hostmount/bin/hostmount").bind(&exe, MEASURE).shared().setup(|| {
            std::fs::create_dir_all(TARGET)?;
            std::os::unix::fs::symlink("hostmount", OURS)
        });
    let machine = Machine::start(&network, node).unwrap();
    let container = machine.room(with_helpers().bind(HOSTMOUNT, "/usr/local/bin/hostmount")).unwrap();
    let _mounter = Mounter::start(&Place(container), &[], &[]);
    println!("{:<10} {:<8} {:>14} {:>14} {:>7}", "helper", "", "native median", "ours median", "ratio");
    for (fstype, source, rounds) in [("fuse.bindfs", "/srv/data", 200), ("glusterfs", &*volume, 40)] {
        let mut command = Room::command(MEASURE);
        command.args(["measure", fstype, source, &rounds.to_string()]);
        let output = machine.node().output(command).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        print!("{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// Mounts and unmounts in turn, natively and through hostmount, and prints what it took.
fn measure(fstype: &str, source: &str, rounds: usize) {
    let mut times = [(); 4].map(|()| Vec::new());
    for round in 0..=rounds {
        let [native_mount, native_umount, our_mount, our_umount] = {
            let [native_mount, native_umount] = once(NATIVE, fstype, source);
            let [our_mount, our_umount] = once(OURS, fstype, source);
            [native_mount, native_umount, our_mount, our_umount]
        };
        // The first round warms the caches.
        if round > 0 {
            for (list, time) in times.iter_mut().zip([native_mount, native_umount, our_mount, our_umount]) {
                list.push(time);
            }
        }
    }
    let [native_mount, native_umount, our_mount, our_umount] = times;
    line(fstype, "mount", &native_mount, &our_mount);
    line(fstype, "umount", &native_umount, &our_umount);
}

fn once(program: &str, fstype: &str, source: &str) -> [Duration; 2] {
    let mount = timed(Command::new(program).args(["-t", fstype, source, TARGET]));
    let umount = timed(Command::new("/usr/bin/umount").arg(TARGET));
    [mount, umount]
}

fn timed(command: &mut Command) -> Duration {
    let begin = Instant::now();
    let output = command.output().expect("the program starts");
    let took = begin.elapsed();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    took
}

fn line(fstype: &str, what: &str, native: &[Duration], ours: &[Duration]) {
    let ratios = native.iter().zip(ours).map(|(native, ours)| ours.as_secs_f64() / native.as_secs_f64());
    let milliseconds = |times: &[Duration]| median(times.iter().map(|time| time.as_secs_f64() * 1e3));
    let name = fstype.trim_start_matches("fuse.");
    let (native, ours) = (milliseconds(native), milliseconds(ours));
    println!("{name:<10} {what:<8} {native:>11.2} ms {ours:>11.2} ms {:>7.2}", median(ratios));
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
