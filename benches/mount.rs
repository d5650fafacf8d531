//! Time to mount and unmount through hostmount, beside the same helper mounted natively by the real mount(8): the
//! filesystems of `tests/node/filesystems/`, with their real servers.
//!
//! One machine: natively the real mount(8) mounts in the container, which has the helpers; ours mounts on the node.
//! Both in turn, in one run; what is printed are the medians, and the median of the ratios. Arguments name filesystems. An umount of
//! ours is measured both ways: by the real umount(8), and by ours, which kubelet runs where ours is first in its PATH. `LOAD=4` keeps so many threads busy meanwhile.

#[allow(dead_code, reason = "only a part of it is used here")]
#[path = "../tests/node/mod.rs"]
mod node;
mod page;

use node::filesystems::{Filesystem, all};
use node::{NODE_BIN, Place, TestNode, missing, obstacle};
use page::{median, milliseconds};
use std::fs;
use std::hint;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use testbed::machine::{Network, Room};

/// On the node, and in the container.
const TARGET: &str = "/tmp/target";
/// This program, in both rooms: it measures from there, as kubelet would call.
const MEASURE: &str = "/run/hostmount/measure";
/// Rounds go on until one of these is reached; the first one warms the caches and does not count.
const ROUNDS: usize = 100;
const LONG_ENOUGH: Duration = Duration::from_secs(15);

/// Filesystems that the real mount(8) mounts with no more than a type, a source and options.
const NAMES: [&str; 14] = [
    "bindfs",
    "squashfuse",
    "mergerfs",
    "gocryptfs",
    "fuse_overlayfs",
    "unionfs_fuse",
    "archivemount",
    "fuse_zip",
    "fuseiso",
    "fuse2fs",
    "sshfs_with_a_key_file",
    "s3fs",
    "glusterfs",
    "moosefs",
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if arguments.first().is_some_and(|word| word == "measure") {
        measure(&arguments[1], &arguments[2], &arguments[3..]);
        return;
    }
    let head = "| filesystem | rounds | mount: native | hostmount | ratio | umount: native | hostmount | ratio | our umount | ratio |\n";
    print!("{head}");
    let chosen = |name| NAMES.contains(&name) && (arguments.is_empty() || arguments.iter().any(|word| word == name));
    let load = page::number("LOAD", 0);
    // Until this program ends.
    (0..load).for_each(|_| {
        drop(thread::spawn(|| {
            loop {
                hint::spin_loop()
            }
        }))
    });
    let rows: String = all().filter(|filesystem| chosen(filesystem.name)).filter_map(compare).collect();
    page::write(
        if load > 0 { "mount-loaded" } else { "mount" },
        &format!("{head}|---|---|---|---|---|---|---|---|---|---|\n{rows}"),
    );
}

/// Mounts, until the filesystem answers, and unmounts; prints how many milliseconds each took.
fn measure(mount: &str, umount: &str, arguments: &[String]) {
    // Some helpers go to the background first and ask their server then. mount(8) does not wait for that, ours does.
    let mounted = timed(Command::new(mount).args(arguments)) + page::timed(|| fs::metadata(TARGET).map(drop).unwrap());
    let unmounted = timed(Command::new(umount).arg(TARGET));
    println!("{mounted} {unmounted}");
}

fn timed(command: &mut Command) -> f64 {
    let begin = Instant::now();
    let output = command.output().expect("the program starts");
    let took = milliseconds(begin.elapsed());
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    took
}

/// The filesystem's row of the table.
fn compare(filesystem: &Filesystem) -> Option<String> {
    if let Some(why) = obstacle().or_else(|| missing(filesystem.programs)) {
        println!("SKIP {}: {why}", filesystem.name);
        return None;
    }
    let test = TestNode::start_in(&Network::new().unwrap());
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    test.container.visit(|| {
        fs::write(MEASURE, program).unwrap();
        fs::set_permissions(MEASURE, fs::Permissions::from_mode(0o755)).unwrap();
    });
    let mut volume = (filesystem.prepare)(&test);
    test.node.sh_ok(&format!("echo {} >{NODE_BIN}/served-types", volume.fstype));
    // Natively no options are forced: both ways get the same ones from the caller.
    if filesystem.name == "s3fs" {
        volume.options += ",url=http://10.77.0.1:8081,use_path_request_style";
    }
    // By the program that kubelet runs.
    let name = volume.fstype.trim_start_matches("fuse.");
    // A list of directories is no `**`: it is named as it is.
    let policy = format!(
        "[policy.kubelet]\ntargets = [\"**\"]\n[policy.kubelet.filesystem.{name}]\nsources = [\"**\", {:?}]\noptions = [\"*\"]\n",
        volume.source
    );
    test.configure(&format!("{policy}{}", filesystem.config));
    let _mounter = test.start_mounter(&[], &[]);
    let once = |room: &Place, mount: &str, umount: &str| {
        let mut command = Room::command(MEASURE);
        command.args(["measure", mount, umount, "-t", volume.fstype]);
        if !volume.options.is_empty() {
            command.args(["-o", &volume.options]);
        }
        command.args([&volume.source, TARGET]);
        let output = room.0.output(command).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let times = String::from_utf8_lossy(&output.stdout);
        let mut times = times.split_whitespace().map(|time| time.parse::<f64>().unwrap());
        [times.next().unwrap(), times.next().unwrap()]
    };
    for room in [&test.node, &test.container] {
        room.sh_ok(&format!("mkdir {TARGET}"));
    }
    let begin = Instant::now();
    let mut rounds = Vec::new();
    while rounds.len() <= ROUNDS && begin.elapsed() < LONG_ENOUGH {
        let [mount, umount] = ["mount", "umount"].map(|name| format!("{NODE_BIN}/{name}"));
        let native = once(&test.container, "/usr/bin/mount", "/usr/bin/umount");
        let ours = once(&test.node, &mount, "/usr/bin/umount");
        let [_, our_umount] = once(&test.node, &mount, &umount);
        rounds.push([[native[0], native[1], native[1]], [ours[0], ours[1], our_umount]]);
    }
    rounds.remove(0);
    let of = |what: usize, way: usize| median(rounds.iter().map(|round| round[way][what]));
    let ratio = |what: usize| median(rounds.iter().map(|[native, ours]| ours[what] / native[what]));
    let row = format!(
        "| {} | {} | {:.2} ms | {:.2} ms | {:.2} | {:.2} ms | {:.2} ms | {:.2} | {:.2} ms | {:.2} |\n",
        filesystem.name,
        rounds.len(),
        of(0, 0),
        of(0, 1),
        ratio(0),
        of(1, 0),
        of(1, 1),
        ratio(1),
        of(2, 1),
        ratio(2)
    );
    print!("{row}");
    Some(row)
}
