//! What the caller of a mount that fails is answered, one test for each helper of `node::failures`: the cause, in the helper's own words or by
//! what it waits for. docs/why-a-mount-failed.md has these words; the last test writes it (`HOSTMOUNT_REWRITE=yes`), and otherwise compares.

use crate::harness::{Test, tests};
use crate::node::failures::{self, Cause, Cell, Failing, Outcome, SECRET, Wrong, make_addresses};
use crate::node::mounter::Mounter;
use crate::node::notes::note;
use crate::node::{NODE_BIN, TestNode};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use testbed::machine::{Network, Room};

pub(crate) fn tests() -> Vec<Test> {
    let row = |failing: &'static Failing| Test::new(failing.name, || run(failing)).needs(failing.programs);
    failures::all().map(row).chain(tests![the_page_has_these_words.anywhere().quick()]).collect()
}

const DOCUMENT: &str = "docs/why-a-mount-failed.md";

/// Which causes are tried together: those with a server; one that does not answer, with a short limit; and then without the server.
const ROUNDS: [(&[Cause], &str); 3] = [
    (&[Cause::Name, Cause::Credentials, Cause::Unreachable, Cause::Unresolved], "ready_timeout_seconds = 60\n"),
    (&[Cause::Silent], "ready_timeout_seconds = 4\n"),
    (&[Cause::Refused], "ready_timeout_seconds = 60\n"),
];

fn run(failing: &Failing) {
    let test = TestNode::start_in(&Network::new().unwrap());
    make_addresses(&test);
    // As `hostmount install` lists them on the node.
    test.node.sh_ok(&format!("echo {} >{NODE_BIN}/served-types", failing.fstype));
    let mut server = Some((failing.prepare)(&test));
    for (number, (causes, limit)) in ROUNDS.iter().enumerate() {
        if number + 1 == ROUNDS.len() {
            server.take();
        }
        test.configure(&format!("{limit}{}", failing.config));
        let mounter = test.start_mounter(&[], &[]);
        let cells = failing.cells.iter().enumerate().filter(|(_, cell)| causes.contains(&cell.cause));
        for (at, Cell { cause, outcome }) in cells {
            let what = format!("{} {cause:?} {at}", failing.name);
            let target = format!("/mnt/{at}");
            test.node.sh_ok(&format!("mkdir -p {target}"));
            match outcome {
                Outcome::Fails(wrong) => fails(&test, &what, failing.fstype, wrong, &target),
                Outcome::Mounts(wrong) => mounts(&test, &mounter, failing.fstype, wrong, &target),
                Outcome::Not(_) => continue,
            }
            assert!(!mounter.said().contains(SECRET), "{what}: {}", mounter.said());
        }
    }
}

fn arguments<'a>(fstype: &'a str, wrong: &'a Wrong, target: &'a str) -> [&'a str; 6] {
    ["-t", fstype, "-o", if wrong.options.is_empty() { "rw" } else { wrong.options }, wrong.source, target]
}

/// The message names the cause, as do `hostmount events` and `logs`; none of them has a secret, and nothing is left.
#[track_caller]
fn fails(test: &TestNode, what: &str, fstype: &str, wrong: &Wrong, target: &str) {
    let before = processes(test);
    let failed = test.mount(&arguments(fstype, wrong, target));
    note(format!("{what}: {:?}\n{}", failed.code, failed.stderr));
    assert_eq!(failed.code, Some(32), "{what}");
    let said = |command: &str| test.node.sh_ok(&format!("{NODE_BIN}/hostmount {command} {target}"));
    let message = failed.stderr.lines().rfind(|line| line.starts_with("mount: ")).unwrap_or_default().to_owned();
    for (place, text) in [("message", message), ("events", said("events")), ("logs", said("logs"))] {
        assert!(text.contains(wrong.words), "{what}: the {place} without {:?}: {text}", wrong.words);
        assert!(!text.contains(SECRET), "{what}: {text}");
    }
    assert!(!failed.stderr.contains(SECRET), "{what}: {}", failed.stderr);
    assert!(test.node.fuse_mounts().is_empty() && test.container.fuse_mounts().is_empty(), "{what}");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !processes(test).is_subset(&before) {
        assert!(Instant::now() < deadline, "{what}: {before:?} {:?}", processes(test));
        std::thread::yield_now();
    }
}

fn processes(test: &TestNode) -> BTreeSet<String> {
    test.processes().into_values().collect()
}

/// The helper asks its server only when the volume is used, and then the log has the words.
#[track_caller]
fn mounts(test: &TestNode, mounter: &Mounter, fstype: &str, wrong: &Wrong, target: &str) {
    test.mount(&arguments(fstype, wrong, target)).ok("mount");
    let mut list = Room::command("ls");
    list.arg(target).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let using = test.node.spawn(list);
    mounter.wait_for_helper(wrong.words, 1);
    let logs = test.node.sh_ok(&format!("{NODE_BIN}/hostmount logs {target}"));
    note(format!("{}: {logs}", wrong.source));
    assert!(logs.contains(wrong.words), "{logs}");
    assert!(!logs.contains(SECRET), "{logs}");
    drop(using);
    test.node.sh_ok(&format!("umount {target}"));
}

fn the_page_has_these_words() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let page = page();
    if std::env::var_os("HOSTMOUNT_REWRITE").is_some_and(|value| value == "yes") {
        return fs::write(&path, page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "{DOCUMENT} says otherwise: run this test with HOSTMOUNT_REWRITE=yes\n{page}");
}

fn page() -> String {
    let mut page = String::from(
        "# Why a mount failed\n\n\
         tests/integration/why_mounts_fail.rs writes this page and holds it: each line was tried with the real helper, and its server where it\n\
         has one. `HOSTMOUNT_REWRITE=yes cargo test why_mounts_fail` after a change.\n\n\
         What kubelet puts into the pod's event begins with the cause, as far as it can be known: the line of the helper's words that tells most,\n\
         whether it writes it, says it by syslog(3), or has it in its log file; or, where it ran out of time, the server that it waits for, which\n\
         its sockets tell. The rest of its words follow. `hostmount events TARGET` has the same, also when the pod is gone, and\n\
         `hostmount logs TARGET` has all that the helper said.\n\n\
         *mounts*: the helper asks its server only when the volume is used. The pod starts, what it asks fails, and the words are in\n\
         `hostmount logs TARGET`. A helper that waits for a server has `ready_timeout_seconds`, 120 by default.\n",
    );
    for Failing { name, cells, remark, .. } in failures::all() {
        let _ = write!(page, "\n## {name}\n\n| what is wrong | what is said |\n|---|---|\n");
        for cause in Cause::ALL {
            for cell in cells.iter().filter(|cell| cell.cause == cause) {
                let said = match cell.outcome {
                    Outcome::Fails(wrong) => format!("`{}`", code(wrong.words)),
                    Outcome::Mounts(wrong) => format!("*mounts*; `{}`", code(wrong.words)),
                    Outcome::Not(why) => format!("not tried: {why}"),
                };
                let _ = writeln!(page, "| {} | {said} |", cause.words());
            }
        }
        if !remark.is_empty() {
            let _ = write!(page, "\n{remark}\n");
        }
    }
    page
}

/// Words between backquotes, in a table.
fn code(words: &str) -> String {
    words.trim().replace('`', "'").replace('|', "\\|")
}
