//! Time to mount and unmount through hostmount, beside the same helper mounted natively by the real mount(8): the
//! filesystems of `tests/node/filesystems/`, with their real servers.
//!
//! One machine: natively the real mount(8) mounts in the container, which has the helpers; ours mounts on the node.
//! Both in turn, in one run; what is printed are the medians, and the median of the ratios. Arguments name filesystems.

#[allow(dead_code, reason = "only a part of it is used here")]
#[path = "../tests/node/mod.rs"]
mod node;

mod measure;

use measure::median;
use node::filesystems::{Filesystem, all};
use node::{NODE_BIN, Place, TestNode, missing, obstacle};
use std::time::{Duration, Instant};
use testbed::machine::Network;

/// On the node, and in the container.
const TARGET: &str = "/tmp/target";
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
    if arguments.first().is_some_and(|word| word == measure::WORD) {
        return measure::measure(&arguments[1..]);
    }
    println!("| filesystem | rounds | mount: native | hostmount | ratio | umount: native | hostmount | ratio |");
    let chosen = |name| NAMES.contains(&name) && (arguments.is_empty() || arguments.iter().any(|word| word == name));
    all().filter(|filesystem| chosen(filesystem.name)).for_each(compare);
}

fn compare(filesystem: &Filesystem) {
    if let Some(why) = obstacle().or_else(|| missing(filesystem.programs)) {
        println!("SKIP {}: {why}", filesystem.name);
        return;
    }
    let test = TestNode::start_in(&Network::new().unwrap());
    measure::install(&test.container);
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
    let once = |room: &Place, mount: &str| {
        let options: &[&str] = if volume.options.is_empty() { &[] } else { &["-o", &volume.options] };
        let arguments = [&["-t", volume.fstype], options, &[&volume.source, TARGET]].concat();
        measure::in_room(room, mount, &arguments)
    };
    for room in [&test.node, &test.container] {
        room.sh_ok(&format!("mkdir {TARGET}"));
    }
    let begin = Instant::now();
    let mut rounds = Vec::new();
    while rounds.len() <= ROUNDS && begin.elapsed() < LONG_ENOUGH {
        let native = once(&test.container, "/usr/bin/mount");
        rounds.push([native, once(&test.node, &format!("{NODE_BIN}/mount"))]);
    }
    rounds.remove(0);
    let row = [0, 1].map(|what| {
        let [native, ours] = [0, 1].map(|way| median(rounds.iter().map(|round| round[way][what])));
        let ratio = median(rounds.iter().map(|[native, ours]| ours[what] / native[what]));
        format!("{native:.2} ms | {ours:.2} ms | {ratio:.2}")
    });
    println!("| {} | {} | {} |", filesystem.name, rounds.len(), row.join(" | "));
}
