//! A helper that was taken over tries all that we could think of, before its mount and after it, with either engine: what
//! testbed/src/hostile/ does. What it got is in docs/hostile-helper.md, which the test writes (`HOSTMOUNT_REWRITE=yes`) and
//! otherwise compares with: nothing more may be got than is said there, and for what is got there is a reason in [`ALLOWED`].

use crate::harness::{Test, tests};
use crate::node::job::{TARGET, use_it};
use crate::node::mounter::Mounter;
use crate::node::notes::note;
use crate::node::programs::TESTBED;
use crate::node::{NODE_BIN, Place, TestNode, manifest};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};
use testbed::hostile::{self, Attempt, GOT, KILLED, NOTHING, OUTCOMES};

pub(crate) fn tests() -> Vec<Test> {
    tests![a_helper_that_was_taken_over_gets_nothing.needs(&["bindfs", "make"]).needs_cgroups().needs_linux(6, 12)]
}

/// Each helper has a uid of its own, unless its type is set to be root.
const USERS: [&str; 2] = ["own", "root"];
const ENGINES: [&str; 2] = ["seccomp", "preload"];
const PHASES: [&str; 2] = ["before", "after"];
const DOCUMENT: &str = "docs/hostile-helper.md";
const HOSTILE: &str = "/usr/sbin/hostile";

const SAME_UID: &str = "only where its type has `user = \"root\"`: the other is root too, and no other wall is there";
const NODES_NETWORK: &str = "helpers use the node's network to reach their servers, with no capability";
const OWN_CALLS: &str = "only it and what it starts see this socket: it hinders itself";

/// What is got all the same, and why that is no harm, or a known limit.
const ALLOWED: &[(&str, &str)] = &[
    ("write its own /proc/self/loginuid", "what the kernel's audit log calls it: it had no name there before"),
    ("put a filter of its own over ours", "it answers calls of its own processes, which it could make otherwise too"),
    ("a socket for MPTCP", "it is TCP"),
    ("a socket for netlink: routes", NODES_NETWORK),
    ("listen on a port of the node", NODES_NETWORK),
    ("send a datagram to the node's loopback", NODES_NETWORK),
    ("leave a file in /root", "its home: a tmpfs of its own is mounted there"),
    ("read /proc/self/mountinfo", "it tells what it sees anyway, and the target of its volume"),
];

/// The same for helpers that are root.
const ALLOWED_AS_ROOT: &[(&str, &str)] = &[
    ("lower the priority of another helper", SAME_UID),
    ("lower the priority of a process of the node", SAME_UID),
    ("bind to a processor another helper", SAME_UID),
    ("set the scheduler of another helper", SAME_UID),
    ("set the I/O priority of another helper", SAME_UID),
    ("bind to a processor a process of the node", SAME_UID),
    ("set the scheduler of a process of the node", SAME_UID),
    ("set the I/O priority of a process of the node", SAME_UID),
    ("read /etc/shadow", "only where its type has `user = \"root\"`: the file is root's"),
    ("start 3,000 processes", "only all helpers together have a limit of processes then: 65,536"),
    (
        "leave a link in the state directory as it sees it",
        "a tmpfs of its own is mounted there, and nothing is looked up in it",
    ),
    ("rename the preload engine's socket", OWN_CALLS),
    ("put a socket of its own there", OWN_CALLS),
    ("write /etc/ld.so.preload", "a file of its own is mounted there: what it starts itself loads what is in it"),
];

/// What one helper's attempts came to, by phase and number of the attempt.
type Outcomes = BTreeMap<(String, usize), i32>;

fn a_helper_that_was_taken_over_gets_nothing() {
    let attempts = hostile::attempts();
    assert!(attempts.len() >= 150, "{} attempts", attempts.len());
    let outcomes: Vec<Outcomes> =
        USERS.iter().flat_map(|user| ENGINES.map(|engine| try_all(user, engine, attempts.len()))).collect();
    let rows: Vec<Row> =
        attempts.iter().enumerate().map(|(number, attempt)| Row::of(number, attempt, &outcomes)).collect();
    let unexplained: Vec<_> = rows.iter().filter(|row| row.is_got() && row.reason.is_none()).map(Row::line).collect();
    assert!(unexplained.is_empty(), "a helper gets what it must not get:\n{}", unexplained.concat());

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    let now = document(&rows);
    if std::env::var_os("HOSTMOUNT_REWRITE").is_some_and(|value| value == "yes") {
        fs::write(&path, now).unwrap();
        let got = |name: &str| rows.iter().any(|row| row.name == name && row.is_got());
        let idle = ALLOWED.iter().chain(ALLOWED_AS_ROOT).map(|(name, _)| *name).filter(|name| !got(name));
        return assert_eq!(idle.collect::<Vec<_>>(), [""; 0], "these have a reason, and are not got");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let differing = differences(&written, &rows);
    assert!(
        differing.is_empty(),
        "{DOCUMENT} says otherwise: run this test with HOSTMOUNT_REWRITE=yes\n{differing:#?}"
    );
}

/// Runs a helper that tries everything and then serves its volume like any other.
fn try_all(user: &str, engine: &str, count: usize) -> Outcomes {
    let test = TestNode::start();
    let container = container(&test, user);
    test.node.program(&format!("{NODE_BIN}/hostile"), fs::read(&*TESTBED).unwrap());
    test.node.sh_ok(&format!("mkdir -p {TARGET} /mnt/victim"));
    let mounter = Mounter::start(&container, &["--engine", engine], &[]);
    test.mount(&["-t", "fuse.bindfs", "/data/victim", "/mnt/victim"]).ok("mount");
    // A process of uid 0 without capabilities: nothing but walls keeps another one of that kind from it.
    test.node.sh_ok(&format!("setpriv --bounding-set -all {NODE_BIN}/hostile stand-by >/dev/null 2>&1 </dev/null &"));
    let [victim, bystander] =
        ["/usr/bin/bindfs /data/victim", &format!("{NODE_BIN}/hostile stand-by")].map(|line| pid(&test, line));
    let others = format!("{} {victim} {bystander}", mounter.pid());
    container.visit(|| fs::write("/etc/hostmount/others", others).unwrap());
    test.mount(&["-t", "fuse.hostile", "/data/source", TARGET]).ok("mount");
    mounter.wait_for_helper(&format!("{OUTCOMES} after end"), 1);
    // Its volume, the other one and the node go on as if nothing were.
    use_it(&test);
    test.node.sh_ok("echo still >/mnt/victim/f; cat /mnt/victim/f");
    test.wait_for_processes("hostile stand-by", 1);
    let said = mounter.said();
    for line in said.lines().filter(|line| line.contains("\"hostile: ")) {
        note(format!("{engine}: {line}"));
    }
    let outcomes = read(&said);
    assert_eq!(outcomes.len(), 2 * count, "{engine}: not all of them were tried\n{said}");
    outcomes
}

/// Waits for a process whose command line begins so. What starts it may have the same words in its own, and while a process
/// becomes a program it has none.
fn pid(test: &TestNode, begins: &str) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = test.processes().into_iter().find(|(_, line)| line.starts_with(begins));
        match found {
            Some((pid, _)) => return pid,
            None => assert!(Instant::now() < deadline, "no {begins}: {:?}", test.processes()),
        }
    }
}

/// The mounter's container, with the hostile helper in its image. /data is what a volume serves.
fn container(test: &TestNode, user: &str) -> Place {
    let config = format!("[filesystem.hostile]\nuser = \"{user}\"\n");
    manifest::container(test, manifest::recipe().bind(&*TESTBED, HOSTILE).writable(["/data"]), move || {
        let attempt = |phase: &str| format!("{HOSTILE} try {phase} \"$2\" $(cat /etc/hostmount/others) 2>&1");
        let (before, after) = (attempt("before"), attempt("after"));
        let script = format!("#!/bin/sh\n{before} || exit 7\nbindfs \"$@\" || exit 8\n{after} &\nexit 0\n");
        fs::write("/usr/sbin/mount.fuse.hostile", script)?;
        fs::set_permissions("/usr/sbin/mount.fuse.hostile", fs::Permissions::from_mode(0o755))?;
        fs::write("/etc/hostmount/config.toml", config)?;
        ["/data/source", "/data/victim"].iter().try_for_each(|path| {
            fs::create_dir(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o777))
        })
    })
}

/// The outcomes in a mounter's log.
fn read(said: &str) -> Outcomes {
    let lines = said.lines().filter_map(|line| line.split_once(OUTCOMES)?.1.split('"').next());
    let words = lines.filter_map(|line| line.trim().split_once(' '));
    let outcome = |phase: &str, word: &str| {
        let (number, outcome) = word.split_once('=')?;
        Some(((phase.to_owned(), number.parse().ok()?), outcome.parse().ok()?))
    };
    words.flat_map(|(phase, rest)| rest.split(' ').filter_map(move |word| outcome(phase, word))).collect()
}

/// One attempt, and its outcome for each engine and phase.
struct Row {
    name: String,
    gives: &'static str,
    outcomes: Vec<i32>,
    reason: Option<&'static str>,
}

impl Row {
    fn of(number: usize, attempt: &Attempt, outcomes: &[Outcomes]) -> Self {
        let each: Vec<i32> =
            outcomes.iter().flat_map(|of| PHASES.map(|phase| of[&(phase.to_owned(), number)])).collect();
        let (own, _) = each.split_at(each.len() / USERS.len());
        let lists = if own.contains(&GOT) { &[ALLOWED][..] } else { &[ALLOWED, ALLOWED_AS_ROOT] };
        let reason = lists.iter().copied().flatten().find(|(name, _)| *name == attempt.name).map(|(_, reason)| *reason);
        Self { name: attempt.name.clone(), gives: attempt.gives, outcomes: each, reason }
    }

    fn is_got(&self) -> bool {
        self.outcomes.contains(&GOT)
    }

    fn line(&self) -> String {
        let cells: Vec<String> = self.outcomes.iter().map(|outcome| in_words(*outcome)).collect();
        let why = self.reason.filter(|_| self.is_got()).map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("| {} | {}{why} | {} |\n", self.name, self.gives, cells.join(" | "))
    }
}

const ALLOWED_WORD: &str = "**allowed**";

fn in_words(outcome: i32) -> String {
    match outcome {
        GOT => ALLOWED_WORD.to_owned(),
        NOTHING => "nothing".to_owned(),
        KILLED => "killed".to_owned(),
        errno => format!("{:?}", nix::errno::Errno::from_raw(errno)),
    }
}

fn document(rows: &[Row]) -> String {
    let allowed = rows.iter().filter(|row| row.is_got()).count();
    let mut text = format!(
        "# What a helper that was taken over gets\n\n\
        tests/integration/hostile_helper.rs writes this page: `HOSTMOUNT_REWRITE=yes make test` after a change. A hostile helper\n\
        (testbed/src/hostile/) tries {count} things before its mount and again after it, under both engines, in a container like\n\
        static-pods/mounter.yaml's. The test fails if one gets more than is said here. The words are the kernel's answers on\n\
        Linux {release}; other kernels may refuse with others. *nothing*: there is nothing to be had, or the call had no effect.\n\n\
        {allowed} are allowed, each for the reason that stands after it. The last four columns are for a helper whose type has\n\
        `user = \"root\"`; the others are for one with a uid of its own, as most have.\n\n\
        | it tries to | which would give | seccomp, before | after | preload, before | after | root: seccomp, before | after | preload, before | after |\n\
        |---|---|---|---|---|---|---|---|---|---|\n",
        count = rows.len(),
        release =
            fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().split('-').next().unwrap_or_default().trim(),
    );
    for row in rows {
        let _ = write!(text, "{}", row.line());
    }
    text
}

/// Where the page and what happened differ in more than the kernel's words.
fn differences(document: &str, rows: &[Row]) -> Vec<String> {
    let lines: Vec<Vec<&str>> =
        document.lines().map(|line| line.split(" | ").collect()).filter(|line: &Vec<_>| line.len() == 10).collect();
    let said = |name: &str| lines.iter().find(|line| line[0].trim_start_matches("| ") == name);
    let mut found = Vec::new();
    for row in rows {
        let Some(said) = said(&row.name) else {
            found.push(format!("it is not there: {}", row.name));
            continue;
        };
        if said[1] != row.line().split(" | ").nth(1).unwrap_or_default() && row.is_got() {
            found.push(format!("its reason is another: {}", row.name));
        }
        for (cell, outcome) in said[2..].iter().zip(&row.outcomes) {
            let allowed = cell.trim_end_matches(" |") == ALLOWED_WORD;
            if allowed != (*outcome == GOT) && !(allowed && is_absent(*outcome)) {
                found.push(format!("{}: it says {cell}, and it is {}", row.name, in_words(*outcome)));
            }
        }
    }
    if lines.len() != rows.len() + 1 {
        found.push(format!("it has {} lines for {} attempts", lines.len(), rows.len()));
    }
    found
}

/// The kernel does not have it at all.
fn is_absent(outcome: i32) -> bool {
    let absent = [libc::ENOENT, libc::ENODEV, libc::ENXIO, libc::ENOSYS, libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT];
    absent.contains(&outcome) || [libc::ESOCKTNOSUPPORT, libc::EINVAL, NOTHING].contains(&outcome)
}
