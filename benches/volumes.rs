//! How a mount, a heal and a swap of one volume depend on how many others there are: bindfs, medians, and a plot of them.
//! `VOLUMES=10 ROUNDS=3` makes it shorter.

#[allow(dead_code, reason = "only a part of it is used here")]
#[path = "../tests/node/mod.rs"]
mod node;
mod page;

use hostmount::observe::events;
use node::mounter::Mounter;
use node::{NODE_BIN, TestNode, missing, obstacle, opened};
use page::{Line, median, number, timed};
use std::fmt::Write as _;
use std::fs;

const TARGET: &str = "/var/lib/kubelet/one";
const VOLUMES: [usize; 4] = [1, 10, 100, 1000];

fn main() {
    if let Some(why) = obstacle().or_else(|| missing(&["bindfs"])) {
        println!("SKIP: {why}");
        return;
    }
    let (most, rounds) = (number("VOLUMES", 1000), number("ROUNDS", 25));
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.sh_ok("mkdir /tmp/source && touch /tmp/source/f");
    test.configure(&opened("kubelet", &["bindfs"]));
    let mounter = test.start_mounter(&[], &[]);
    let mut lines: [Line; 3] = [("a mount", Vec::new()), ("a swap", Vec::new()), ("a heal", Vec::new())];
    let mut table = "| volumes on the node | a mount | a swap | a heal |\n|---|---|---|---|\n".to_owned();
    let mut there = 0;
    let mut so_far = 0;
    for volumes in VOLUMES.into_iter().filter(|volumes| *volumes <= most) {
        let others = format!(
            "cd /var/lib/kubelet; for n in $(seq {} {}); do mkdir v$n && {NODE_BIN}/mount -t fuse.bindfs /tmp/source $PWD/v$n \
             || exit 1; done",
            there + 1,
            volumes - 1
        );
        test.node.sh_ok(&others);
        there = volumes - 1;
        let times: Vec<[f64; 3]> = (0..rounds).map(|_| once(&test, &mounter, &mut so_far)).collect();
        let medians = [0, 1, 2].map(|what| median(times.iter().map(|time| time[what])));
        for (line, time) in lines.iter_mut().zip(medians) {
            line.1.push((volumes as f64, time));
        }
        let [mount, swap, heal] = medians;
        writeln!(table, "| {volumes} | {mount:.2} ms | {swap:.2} ms | {heal:.2} ms |").unwrap();
    }
    page::write("volumes", &table);
    page::write_plot("performance.svg", &page::plot("volumes on the node", "milliseconds", &lines));
}

/// A mount, until it answers; a swap, the whole command; and a heal, from the helper's death until its file can be opened.
fn once(test: &TestNode, mounter: &Mounter, so_far: &mut usize) -> [f64; 3] {
    *so_far += 1;
    let file = format!("{TARGET}/f");
    // The program is started from here, where nothing else is started first.
    let run = |program: &str, arguments: &[&str]| test.node.run(format!("{NODE_BIN}/{program}"), arguments).ok(program);
    let mount = timed(|| {
        run("mount", &["-t", "fuse.bindfs", "/tmp/source", TARGET]);
        test.node.visit(|| fs::metadata(&file).unwrap());
    });
    let swap = timed(|| drop(run("hostmount", &["swap", TARGET])));
    mounter.wait_for(events::DRAINED, *so_far);
    let status = run("hostmount", &["status", "--output", "json", TARGET]);
    let helper =
        status.split("\"pid\":").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit() && c != ' ').next());
    let helper = helper.expect("status tells the helper's process").trim().to_owned();
    test.node.sh_ok(&format!("kill -9 {helper}"));
    let heal = timed(|| mounter.wait_for(events::HEALED, *so_far));
    test.node.visit(|| fs::metadata(&file).unwrap());
    test.node.sh_ok(&format!("umount {TARGET}"));
    mounter.wait_for(events::UNMOUNTED, *so_far);
    [mount, swap, heal]
}
