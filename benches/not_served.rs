//! The cost of hostmount's `mount` and `umount` if the node's own do the work: a tmpfs and a bind mount,
//! as for every secret and subPath, through hostmount first in PATH and by the real mount(8), in turn, on one node. No
//! mounter runs.

#[allow(dead_code, reason = "only a part of it is used here")]
#[path = "../tests/node/mod.rs"]
mod node;
mod page;

use node::{NODE_BIN, TestNode, obstacle};
use page::{median, milliseconds};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Instant;

/// This program, on the node: it measures from there, as kubelet would call.
const MEASURE: &str = "/run/hostmount/measure";
const ROUNDS: usize = 500;

fn main() {
    if std::env::args().nth(1).is_some_and(|word| word == "measure") {
        measure();
        return;
    }
    if let Some(why) = obstacle() {
        println!("SKIP: {why}");
        return;
    }
    let test = TestNode::start();
    let program = fs::read("/proc/self/exe").unwrap();
    test.node.visit(|| {
        fs::write(MEASURE, program).unwrap();
        fs::set_permissions(MEASURE, fs::Permissions::from_mode(0o755)).unwrap();
    });
    test.node.sh_ok("mkdir /mnt/source /mnt/target");
    let rows = test.node.run(MEASURE, &["measure"]).ok("measure");
    let head = "| call | mount(8) | hostmount | ratio | difference |\n|---|---|---|---|---|\n";
    page::write("not-served", &format!("{head}{rows}"));
}

fn measure() {
    for mount in [&["-t", "tmpfs", "x", "/mnt/target"][..], &["-o", "bind", "/mnt/source", "/mnt/target"]] {
        let mut rounds = Vec::new();
        for _ in 0..=ROUNDS {
            let once = |directory: &str| {
                [timed(&format!("{directory}/mount"), mount), timed(&format!("{directory}/umount"), &["/mnt/target"])]
            };
            rounds.push([once("/usr/bin"), once(NODE_BIN)]);
        }
        // The first one warms the caches.
        rounds.remove(0);
        for (what, call) in [format!("mount {}", mount.join(" ")), "umount /mnt/target".into()].iter().enumerate() {
            let [native, ours] = [0, 1].map(|way| median(rounds.iter().map(|round| round[way][what])));
            let ratio = median(rounds.iter().map(|[native, ours]| ours[what] / native[what]));
            println!("| `{call}` | {native:.2} ms | {ours:.2} ms | {ratio:.2} | {:.2} ms |", ours - native);
        }
    }
}

/// In milliseconds.
fn timed(program: &str, arguments: &[&str]) -> f64 {
    let begin = Instant::now();
    let path = format!("{NODE_BIN}:/usr/sbin:/usr/bin");
    let output = Command::new(program).args(arguments).env("PATH", path).output().expect("the program starts");
    let took = begin.elapsed();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    milliseconds(took)
}
