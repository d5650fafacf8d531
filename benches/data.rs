//! What goes through a volume once it is mounted: hostmount has no part in it, but its helper has a seccomp filter, which the kernel
//! runs for each of its system calls. Read and written in a bindfs volume beside the same one mounted natively, in turn:
//! sequentially, at random places, and many small files. `MEGABYTES=16 FILES=100 ROUNDS=1` makes it shorter.

#[allow(dead_code, reason = "only a part of it is used here")]
#[path = "../tests/node/mod.rs"]
mod node;
mod page;

use node::{Place, TestNode, missing, obstacle};
use page::{median, number, timed};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const TARGET: &str = "/var/lib/kubelet/v";
const MEGABYTE: usize = 1 << 20;
const PAGE: usize = 4096;

/// What is done in a directory, with so many megabytes and files.
type Work = fn(&Path, usize, usize);

const WORK: [(&str, Work); 5] = [
    ("sequential writes, 1 MiB each", |directory, megabytes, _| {
        let mut file = File::create(directory.join("large")).unwrap();
        let block = vec![7; MEGABYTE];
        (0..megabytes).for_each(|_| file.write_all(&block).unwrap());
    }),
    ("sequential reads, 1 MiB each", |directory, megabytes, _| {
        let mut file = direct(&directory.join("large"));
        let mut block = aligned(MEGABYTE);
        let start = block.as_ptr().align_offset(PAGE);
        (0..megabytes).for_each(|_| file.read_exact(&mut block[start..start + MEGABYTE]).unwrap());
    }),
    ("random reads, 4 KiB each", |directory, megabytes, _| {
        let file = direct(&directory.join("large"));
        let mut block = aligned(PAGE);
        let start = block.as_ptr().align_offset(PAGE);
        let mut chance = fastrand::Rng::with_seed(1);
        for _ in 0..megabytes * 16 {
            let at = chance.u64(0..(megabytes * MEGABYTE / PAGE) as u64) * PAGE as u64;
            file.read_exact_at(&mut block[start..start + PAGE], at).unwrap();
        }
    }),
    ("small files: create, write, close", |directory, _, files| {
        for number in 0..files {
            fs::write(directory.join(format!("small-{number}")), "some words").unwrap();
        }
    }),
    ("small files: stat, open, read, remove", |directory, _, files| {
        for number in 0..files {
            let path = directory.join(format!("small-{number}"));
            assert_eq!(fs::metadata(&path).unwrap().len(), 10);
            assert_eq!(fs::read(&path).unwrap().len(), 10);
            fs::remove_file(&path).unwrap();
        }
    }),
];

/// Past the page cache, so that every read reaches the helper.
fn direct(path: &Path) -> File {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap()
}

/// Room for so much that begins at a page.
fn aligned(length: usize) -> Vec<u8> {
    vec![0; length + PAGE]
}

fn main() {
    if let Some(why) = obstacle().or_else(|| missing(&["bindfs"])) {
        println!("SKIP: {why}");
        return;
    }
    let (megabytes, files, rounds) = (number("MEGABYTES", 128), number("FILES", 2000), number("ROUNDS", 15));
    let test = TestNode::start();
    test.container.sh_ok(&format!("mkdir -p /tmp/source /tmp/native {TARGET}"));
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    let _mounter = test.start_mounter(&[], &[]);
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    test.container.sh_ok(&format!("/usr/bin/mount -t fuse.bindfs /tmp/native {TARGET}"));
    let once =
        |place: &Place| place.visit(|| WORK.map(|(_, work)| timed(|| work(Path::new(TARGET), megabytes, files))));
    // The first round warms the caches.
    let measured: Vec<[[f64; 5]; 2]> =
        (0..=rounds).map(|_| [once(&test.container), once(&test.node)]).skip(1).collect();
    let mut table = format!("| {megabytes} MiB, {files} files | native | hostmount | ratio |\n|---|---|---|---|\n");
    for (number, (what, _)) in WORK.iter().enumerate() {
        let [native, ours] = [0, 1].map(|way| median(measured.iter().map(|round| round[way][number])));
        let ratio = median(measured.iter().map(|[native, ours]| ours[number] / native[number]));
        writeln!(table, "| {what} | {native:.1} ms | {ours:.1} ms | {ratio:.2} |").unwrap();
    }
    page::write("data", &table);
}
