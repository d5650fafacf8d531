//! What a mount and an umount cost, counted and held against limits, which are just above what they are: ten needless system
//! calls, a thread or a process do not come in unnoticed. The same table is in docs/performance.md, which this test writes
//! (`HOSTMOUNT_REWRITE=yes`).

use crate::harness::{Test, tests};
use crate::node::counted::{Counts, count};
use crate::node::preloaded;
use crate::node::programs::show_shipped;
use crate::node::setting::{Setting, TARGET};
use crate::node::{TestNode, opened};
use hostmount::observe::events;
use std::fmt::Write as _;
use std::fs;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_mount_and_an_umount.needs(&["make", "bindfs", "strace"]).needs_linux(6, 8),
        a_mount_and_an_umount_with_the_preload_engine.needs(&["make", "bindfs", "strace"]).needs_linux(6, 8),
        the_page_has_the_limits.anywhere().quick(),
    ]
}

/// Each is counted so many times, and the least counts: what comes in between only adds to it.
const ROUNDS: usize = 5;

/// Limits of a volume: while it is mounted, and its descriptors in the mounter from then on; and of its umount, after which all is
/// as before.
struct Limits {
    engine: &'static str,
    mount: Counts,
    descriptors: usize,
    umount: Counts,
}

const fn counts([client_calls, mounter_calls, threads, processes, table_bytes]: [u64; 5]) -> Counts {
    Counts { client_calls, mounter_calls, threads, processes, table_bytes }
}

const SECCOMP: Limits =
    Limits { engine: "seccomp", mount: counts([22, 287, 3, 1, 0]), descriptors: 4, umount: counts([22, 49, 1, 0, 0]) };

const PRELOAD: Limits =
    Limits { engine: "preload", mount: counts([22, 316, 3, 1, 0]), descriptors: 8, umount: counts([22, 64, 1, 0, 0]) };

/// A mounter in a container whose usual directories are empty, whatever the machine has in them.
fn start(engine: &str) -> Setting {
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.sh_ok("mkdir /tmp/source && rm -rf /var/log/* /var/tmp/*");
    test.configure(&opened("kubelet", &["bindfs"]));
    if engine == "preload" {
        preloaded::install(&test.container);
    }
    let mounter = test.start_mounter(&["--engine", engine], &[]);
    Setting { test, mounter }
}

#[track_caller]
fn costs_no_more(limits: &Limits) {
    let setting = start(limits.engine);
    let shipped = show_shipped(&setting.test.node);
    let before = setting.state();
    let descriptors = || setting.test.descriptors(setting.mounter.pid()).len();
    let count = |client: &str, done: &dyn Fn()| {
        count(&setting.test.container, &setting.test.node, &setting.mounter, client, done)
    };
    let mut least: Option<[Counts; 2]> = None;
    // The first round warms what is looked up once.
    for round in 0..=ROUNDS {
        let unmounted = descriptors();
        let idle = || setting.wait_until_idle(&before);
        let mount = count(&format!("{shipped}/mount -t fuse.bindfs /tmp/source {TARGET}"), &idle);
        let held = descriptors() - unmounted;
        let umount = count(&format!("{shipped}/umount {TARGET}"), &|| {
            setting.mounter.wait_for(events::UNMOUNTED, round + 1);
            idle();
        });
        assert!(held <= limits.descriptors, "{held} descriptors of a volume");
        if round > 0 {
            let sofar = least.unwrap_or([mount, umount]);
            least = Some([sofar[0].least(mount), sofar[1].least(umount)]);
        }
    }
    setting.wait_until(&before);
    let [mount, umount] = least.unwrap();
    println!("{}: mount {mount:?}, umount {umount:?}", limits.engine);
    assert!(mount.is_within(limits.mount), "a mount: {mount:?}, and allowed are {:?}", limits.mount);
    assert!(umount.is_within(limits.umount), "an umount: {umount:?}, and allowed are {:?}", limits.umount);
}

fn a_mount_and_an_umount() {
    costs_no_more(&SECCOMP);
}

fn a_mount_and_an_umount_with_the_preload_engine() {
    costs_no_more(&PRELOAD);
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.md");

fn the_page_has_the_limits() {
    let mut table =
        String::from("| at most | `seccomp`: mount | umount | `preload`: mount | umount |\n|---|---|---|---|---|\n");
    let each = [SECCOMP.mount, SECCOMP.umount, PRELOAD.mount, PRELOAD.umount];
    type Row = (&'static str, fn(Counts) -> u64);
    let rows: [Row; 5] = [
        ("system calls of the program that kubelet runs", |counts| counts.client_calls),
        ("system calls of the mounter, on all its threads", |counts| counts.mounter_calls),
        ("threads that the mounter starts", |counts| counts.threads),
        ("processes that the mounter starts", |counts| counts.processes),
        ("bytes of mount tables that both read", |counts| counts.table_bytes),
    ];
    for (what, number) in rows {
        let numbers = each.map(|counts| number(counts).to_string()).join(" | ");
        writeln!(table, "| {what} | {numbers} |").unwrap();
    }
    writeln!(
        table,
        "| descriptors of the mounter afterwards | {} more | as before | {} more | as before |",
        SECCOMP.descriptors, PRELOAD.descriptors
    )
    .unwrap();
    let page = fs::read_to_string(PAGE).unwrap();
    let (head, rest) = page.split_once("<!-- counts -->\n").unwrap();
    let (shown, tail) = rest.split_once("<!-- end -->\n").unwrap();
    if std::env::var_os("HOSTMOUNT_REWRITE").is_some() {
        fs::write(PAGE, format!("{head}<!-- counts -->\n{table}<!-- end -->\n{tail}")).unwrap();
    } else {
        assert_eq!(shown, table, "HOSTMOUNT_REWRITE=yes writes it anew");
    }
}
