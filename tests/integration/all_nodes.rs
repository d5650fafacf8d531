//! `kubectl hostmount`: nodes with real mounters, and some that do not answer as they should. kubectl is a stand-in here: what it runs is real.
//! With a real one: `csi/tests/cluster`.

use crate::closed_pipes::{ended, unread};
use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::{Done, TestNode, programs};
use hostmount::observe::events;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use testbed::machine::Process;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        all_nodes_volumes_are_in_one_table.needs(&["nsenter"]).quick(),
        a_node_that_does_not_answer_is_a_line.needs(&["nsenter"]).quick(),
        nodes_are_swapped_one_after_the_other.needs(&["nsenter"]).quick(),
        what_happens_on_all_nodes_is_followed.needs(&["nsenter"]).quick(),
        what_nobody_reads_is_no_panic.needs(&["nsenter"]).quick(),
    ]
}

/// What stands in for kubectl: `get pods` answers with a file, `exec` runs the program that has the pod's name.
const STAND_IN: &str = r#"#!/bin/sh
# This is no kubectl: it stands in for one, in a test.
here=$(dirname "$0")
echo "$*" >>"$here/asked"
while [ $# -gt 0 ]; do
    case $1 in
        get) exec cat "$here/pods.json" ;;
        exec) pod=${2#pod/} ;;
        --) shift; break ;;
    esac
    shift
done
exec "$here/pod-$pod" "$@"
"#;

/// A cluster: a directory with the stand-in for kubectl, and a program for each pod.
struct Cluster {
    directory: PathBuf,
    pods: Vec<Value>,
}

/// A node with a mounter.
struct Node {
    test: TestNode,
    mounter: Mounter,
    /// What shows where its container is.
    _living: Process,
}

impl Cluster {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("hostmount-nodes-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        program(&directory.join("kubectl"), STAND_IN);
        Self { directory, pods: Vec::new() }
    }

    /// A node whose mounter answers with a script.
    fn add(&mut self, name: &str, script: &str) {
        program(&self.directory.join(format!("pod-{name}")), &format!("#!/bin/sh\n{script}\n"));
        self.pods.push(json!({
            "metadata": { "name": name },
            "spec": { "nodeName": name },
            "status": { "phase": "Running", "containerStatuses": [{ "name": "mounter", "state": { "running": {} } }] },
        }));
        fs::write(self.directory.join("pods.json"), json!({ "items": self.pods }).to_string()).unwrap();
    }

    /// A node with a real one, and a volume of the type `talk` at each of these targets.
    fn add_real(&mut self, name: &str, targets: &[&str]) -> Node {
        let test = TestNode::start();
        test.container.helper("fuse.talk", "echo \"told $1\"; exec mount.memfs \"$@\"");
        let mounter = test.start_mounter(&[], &[]);
        for target in targets {
            test.node.sh_ok(&format!("mkdir -p {target}"));
            test.mount(&["-t", "fuse.talk", name, target]).ok("mount");
        }
        let living = test.container.live();
        self.add(
            name,
            &format!("cmd=$1; shift; exec nsenter --target {} --all /usr/local/bin/$cmd \"$@\"", living.id()),
        );
        Node { test, mounter, _living: living }
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&*programs::KUBECTL);
        command.args(words.split_whitespace()).stdin(Stdio::null());
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.directory.display()));
        command
    }

    fn run(&self, words: &str) -> Done {
        let done: Done = self.command(words).output().unwrap().into();
        for said in [&done.stdout, &done.stderr] {
            assert!(!said.replace('\n', "").contains(char::is_control), "{words}: {said:?}");
        }
        done
    }

    fn json(&self, words: &str) -> Vec<Value> {
        serde_json::from_str(&self.run(words).ok(words)).unwrap()
    }

    /// What the stand-in was called with.
    fn asked(&self) -> String {
        fs::read_to_string(self.directory.join("asked")).unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn members(documents: &[Value], names: &[&str]) -> Vec<Vec<String>> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |document: &Value| names.iter().map(|name| word(&document[name])).collect();
    documents.iter().map(one).collect()
}

fn all_nodes_volumes_are_in_one_table() {
    let mut cluster = Cluster::new();
    let beta = cluster.add_real("beta", &["/mnt/b", "/mnt/shared"]);
    let alpha = cluster.add_real("alpha", &["/mnt/shared"]);
    let table = cluster.run("list --context prod --kubeconfig /tmp/config --as admin").ok("list");
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("NODE   NAMESPACE  POD  TYPE       SOURCE  STATE "), "{table}");
    assert!(lines.len() == 4 && lines[1].starts_with("alpha  -          -    fuse.talk  alpha   mounted "), "{table}");
    assert!(
        lines[2].starts_with("beta ") && lines[2].contains(" /mnt/b") && lines[3].contains("/mnt/shared"),
        "{table}"
    );
    for asked in [
        "--context=prod --kubeconfig=/tmp/config --as=admin --namespace=kube-system get pods --output json --selector app.kubernetes.io/name in (",
        "--as=admin --namespace=kube-system exec pod/alpha --container mounter -- hostmount list --output json",
    ] {
        assert!(cluster.asked().contains(asked), "{}", cluster.asked());
    }
    let shared = members(&cluster.json("list -o json --node beta --type talk"), &["node", "target", "state"]).concat();
    assert_eq!(shared, ["beta", "/mnt/b", "mounted", "beta", "/mnt/shared", "mounted"]);
    assert_eq!(cluster.run("list -o name").ok("list"), "alpha /mnt/shared\nbeta /mnt/b\nbeta /mnt/shared\n");
    assert_eq!(cluster.json("list -o json --state dead"), [Value::Null; 0]);
    let yaml = cluster.run("list -o yaml --node alpha").ok("list");
    assert!(yaml.starts_with("- node: alpha\n"), "{yaml}");

    // Of one target on both nodes, and of one that only one has.
    let status = cluster.run("status /mnt/shared").ok("status");
    assert!(status.starts_with("Node        alpha\nTarget      /mnt/shared\nType        fuse.talk\n"), "{status}");
    assert!(status.contains("told alpha\n\nNode        beta\n"), "{status}");
    assert_eq!(members(&cluster.json("status -o json /mnt/b"), &["node", "source"]), [["beta", "beta"]]);
    let none = cluster.run("status /mnt/none");
    assert!(none.code == Some(2) && none.stderr.contains("of 2 nodes none has a volume"), "{none:?}");
    assert_eq!(cluster.run("logs /mnt/b").ok("logs"), "beta  told beta\n");
    let logs = cluster.run("logs --timestamps --since 1h /mnt/shared").ok("logs");
    let sorted = |text: &str| {
        let mut times: Vec<_> = text.lines().map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect();
        let shown = times.clone();
        times.sort();
        times == shown
    };
    assert!(sorted(&logs) && logs.lines().count() == 2 && logs.contains("told alpha"), "{logs}");

    beta.test.umount(&["/mnt/b"]).ok("umount");
    beta.mounter.wait_for(events::UNMOUNTED, 1);
    let events = cluster.json("events -o json");
    let times: Vec<_> = events.iter().map(|event| event["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted() && times.len() == 4, "{events:?}");
    assert_eq!(members(&events, &["node", "event", "target"])[3], ["beta", "volume.unmounted", "/mnt/b"]);
    assert!(cluster.run("events --event unmounted").ok("events").lines().nth(1).unwrap().starts_with("beta "));

    let usage = cluster.json("top -o json");
    assert_eq!(members(&usage, &["node", "target"]), [["alpha", "/mnt/shared"], ["beta", "/mnt/shared"]]);
    assert!(usage.iter().all(|usage| usage["processes"] == 1 && usage["processor"].as_f64().is_some()), "{usage:?}");
    let top = cluster.run("top --once").ok("top");
    assert!(top.contains(" 2 volumes; memory ") && top.contains("\nNODE   NAMESPACE"), "{top}");
    let doctor = cluster.run("doctor").ok("doctor");
    let line = doctor.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>();
    assert!(line[0] == "alpha" && line[3] == "0" && line[1].parse::<u32>().unwrap() > 9, "{doctor}");
    assert!(doctor.contains("\nbeta\n  warn  "), "{doctor}");
    let found = members(&cluster.json("doctor -o json --node alpha"), &["node", "name", "level"]);
    assert!(found.iter().any(|found| *found == ["alpha", "mounter", "ok"]), "{found:?}");
    drop(alpha);
}

fn a_node_that_does_not_answer_is_a_line() {
    let mut cluster = Cluster::new();
    let _real = cluster.add_real("alpha", &["/mnt/v"]);
    cluster.add("endless", "exec cat /dev/zero");
    cluster.add("failed", "echo 'error: unable to upgrade connection: no route' >&2; exit 1");
    cluster.add("hangs", "exec sleep 1000");
    cluster.add("nonsense", r#"printf 'no \033[2J array'"#);
    cluster.add("old", "printf \"error: unexpected argument '--output' found\\n\\ncommand terminated with exit code 2\\n\" >&2; exit 2");
    cluster.add("rude", r#"printf '\033]0;title\007hostmount: \302\233A.\n' >&2; exit 32"#);
    // What it says of its volumes is its own, but not which node it is.
    let lie = json!([{ "node": "alpha", "target": "/mnt/\u{1b}[2J\n", "type": "x", "source": "s", "state": "best", "since": "1970-01-01T00:00:07Z" }]);
    cluster.add("liar", &format!("cat <<'END'\n{lie}\nEND"));
    cluster.pods.push(json!({
        "metadata": { "name": "down" }, "spec": { "nodeName": "down" },
        "status": { "phase": "Running", "containerStatuses": [
            { "name": "mounter", "state": { "waiting": { "reason": "CrashLoopBackOff" } } },
        ] },
    }));
    cluster.add("last", "echo '[]'");
    let done = cluster.run("list --timeout 15");
    assert_eq!(done.code, Some(2), "{done:?}");
    let nodes: Vec<_> = done.stdout.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(nodes, ["alpha", "liar"], "{done:?}");
    assert!(done.stdout.contains(r"/mnt/\u{1b}[2J\n"), "{done:?}");
    let complaints: Vec<_> = done.stderr.lines().collect();
    let expected = [
        "down: its mounter's container does not run: CrashLoopBackOff.",
        "endless: its answer is longer than 8388608 bytes, which is not hostmount's.",
        "failed: it failed (exit code 1): error: unable to upgrade connection: no route.",
        "hangs: no answer within 15s; --timeout is how long it may take.",
        "nonsense: its answer is not hostmount's: expected ident at line 1 column 2.",
        "old: its hostmount does not understand this, perhaps as it is older than 0.1.0: error: unexpected argument '--output' found.",
        r"rude: it failed (exit code 32): \u{1b}]0;title\u{7}hostmount: \u{9b}A.",
    ];
    assert_eq!(complaints, expected.map(|line| format!("kubectl hostmount: {line}")));
    // The others answer as they do if those are left out.
    assert_eq!(cluster.json("list -o json --node alpha,last").len(), 1);
    let none = cluster.run("list --node alpha,elsewhere");
    assert!(none.code == Some(2) && none.stderr.contains("no mounter's pod is on elsewhere"), "{none:?}");
    fs::write(cluster.directory.join("pods.json"), r#"{ "items": [] }"#).unwrap();
    let none = cluster.run("list --hostmount-namespace other");
    assert!(none.code == Some(2) && none.stderr.contains("is in the namespace other"), "{none:?}");
    fs::write(cluster.directory.join("pods.json"), "error").unwrap();
    let none = cluster.run("list");
    assert!(none.code == Some(2) && none.stderr.contains("kubectl's answer is no list of pods"), "{none:?}");
    fs::remove_file(cluster.directory.join("kubectl")).unwrap();
    let mut without = cluster.command("list");
    let none: Done = without.env("PATH", &cluster.directory).output().unwrap().into();
    assert!(none.code == Some(2) && none.stderr.contains("kubectl, which must be in the PATH"), "{none:?}");
}

fn helper(node: &Node) -> Vec<u32> {
    node.test.pids_of("mount.memfs")
}

fn nodes_are_swapped_one_after_the_other() {
    let mut cluster = Cluster::new();
    let (alpha, beta) = (cluster.add_real("alpha", &["/mnt/v", "/mnt/w"]), cluster.add_real("beta", &["/mnt/v"]));
    let gamma = cluster.add_real("gamma", &["/mnt/v"]);
    let before = [&alpha, &beta, &gamma].map(helper);
    let dry = cluster.run("swap --all --dry-run --node alpha").ok("swap");
    assert!(dry.starts_with("alpha  /mnt/v: it is mounted, and would get a fresh helper"), "{dry}");
    assert!(dry.ends_with("alpha  2 volumes would be swapped, 4 at a time\n1 node: 1 done\n"), "{dry}");
    assert_eq!([&alpha, &beta, &gamma].map(helper), before);

    beta.test.container.helper("fuse.talk", "echo why >&2; exit 3");
    let done = cluster.run("swap --all");
    assert_eq!(done.code, Some(32), "{done:?}");
    assert!(done.stdout.contains("alpha  2 volumes: 2 got a fresh helper\n"), "{done:?}");
    assert!(done.stdout.ends_with("\n3 nodes: 1 done, 1 failed, 1 not tried\n"), "{done:?}");
    assert!(
        done.stderr.starts_with("kubectl hostmount: beta: it failed (exit code 32): hostmount: /mnt/v: "),
        "{done:?}"
    );
    assert!(done.stderr.contains("why"), "{done:?}");
    alpha.mounter.wait_for(events::DRAINED, 2);
    assert!(helper(&alpha).iter().all(|pid| !before[0].contains(pid)), "{:?}", alpha.test.processes());
    assert_eq!([&beta, &gamma].map(helper), before[1..], "the one has failed, the other was left alone");

    let done = cluster.run("swap --all --keep-going");
    assert!(done.code == Some(32) && done.stdout.ends_with("\n3 nodes: 2 done, 1 failed\n"), "{done:?}");
    gamma.mounter.wait_for(events::DRAINED, 1);
    // A node that dies in between is a failure as well.
    fs::remove_file(cluster.directory.join("pod-beta")).unwrap();
    let done = cluster.run("heal --all");
    assert_eq!(done.stdout, "alpha  0 volumes: nothing to be done\n3 nodes: 1 done, 1 failed, 1 not tried\n");
    assert!(done.code.is_some_and(|code| code != 0) && done.stderr.contains(" beta: "), "{done:?}");
    assert_eq!(cluster.run("swap").code, Some(2), "of which node a target would be is not known");
}

/// A command whose output is read line by line. It is ended if nothing comes for far too long.
fn follow(cluster: &Cluster, words: &str) -> (Child, impl BufRead) {
    let words = format!("60 {} {words}", programs::KUBECTL.display());
    let mut command = Command::new("timeout");
    command.args(words.split(' ')).stdin(Stdio::null()).stdout(Stdio::piped());
    command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", cluster.directory.display()));
    command.stderr(fs::File::create(cluster.directory.join("said")).unwrap());
    let mut child = command.spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

fn line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line
}

fn what_happens_on_all_nodes_is_followed() {
    let mut cluster = Cluster::new();
    let (alpha, beta) = (cluster.add_real("alpha", &["/mnt/v"]), cluster.add_real("beta", &["/mnt/v", "/mnt/w"]));
    let (mut child, mut output) = follow(&cluster, "events --follow -o json");
    let mut next = || {
        let event: Value = serde_json::from_str(&line(&mut output)).unwrap();
        format!(
            "{} {} {}",
            event["node"].as_str().unwrap(),
            event["event"].as_str().unwrap(),
            event["target"].as_str().unwrap()
        )
    };
    let mut first = [next(), next(), next()];
    first.sort();
    let mounted = ["alpha volume.mounted /mnt/v", "beta volume.mounted /mnt/v", "beta volume.mounted /mnt/w"];
    assert_eq!(first, mounted);
    // Each once, though the streams begin with what was shown.
    beta.test.umount(&["/mnt/w"]).ok("umount");
    assert_eq!(next(), "beta volume.unmounted /mnt/w");
    alpha.test.umount(&["/mnt/v"]).ok("umount");
    assert_eq!(next(), "alpha volume.unmounted /mnt/v");
    // When nobody reads any more all of it ends.
    for node in [&alpha, &beta] {
        node.test.container.wait_for_processes("hostmount events --follow", 1);
    }
    drop(output);
    child.wait().unwrap();
    for node in [&alpha, &beta] {
        node.test.container.wait_for_processes("hostmount events --follow", 0);
    }

    let (mut child, mut output) = follow(&cluster, "logs --follow /mnt/v");
    let mut first = [line(&mut output), line(&mut output)];
    first.sort();
    assert_eq!(first, ["alpha  told alpha\n", "beta  told beta\n"]);
    let [pid] = helper(&beta)[..] else { panic!("{:?}", beta.test.processes()) };
    beta.test.node.sh_ok(&format!("kill -9 {pid}"));
    assert_eq!(line(&mut output), "beta  told beta\n", "what the next helper writes comes, and nothing twice");
    beta.mounter.wait_for(events::HEALED, 1);
    beta.test.umount(&["/mnt/v"]).ok("umount");
    assert_eq!(line(&mut output), "", "it ends with the last of these volumes");
    assert!(child.wait().unwrap().success());

    // One that is lost is said, and the others go on.
    let (mut child, mut output) = follow(&cluster, "events --follow -o json /mnt/x");
    alpha.test.container.wait_for_processes("hostmount events --follow", 1);
    beta.test.container.wait_for_processes("hostmount events --follow", 1);
    let [lost] = alpha.test.pids_of("hostmount events --follow")[..] else { panic!("{:?}", alpha.test.processes()) };
    alpha.test.node.sh_ok(&format!("kill -9 {lost}"));
    beta.test.node.sh_ok("mkdir /mnt/x");
    beta.test.mount(&["-t", "fuse.talk", "more", "/mnt/x"]).ok("mount");
    let event: Value = serde_json::from_str(&line(&mut output)).unwrap();
    assert_eq!((&event["node"], &event["event"]), (&json!("beta"), &json!("volume.mounted")));
    drop(output);
    assert_eq!(child.wait().unwrap().code(), Some(2));
    let said = fs::read_to_string(cluster.directory.join("said")).unwrap();
    assert_eq!(said, "kubectl hostmount: alpha: kubectl was ended by a signal.\n");
}

/// As in `kubectl hostmount list | head -1`, with each command.
fn what_nobody_reads_is_no_panic() {
    let mut cluster = Cluster::new();
    let _node = cluster.add_real("worker-1", &["/mnt/a"]);
    cluster.add("worker-2", "echo nonsense");
    for line in [
        "list",
        "list -o wide",
        "list -o json",
        "list -o yaml",
        "list -o name",
        "status /mnt/a",
        "status -o json /mnt/a",
        "status /mnt/none",
        "logs --timestamps /mnt/a",
        "logs --follow --node worker-1 /mnt/a",
        "events",
        "events -o json",
        "events --follow --node worker-1",
        "top --once",
        "top -o json",
        "top --interval 1",
        "doctor",
        "doctor -o json",
        "heal --all",
        "heal --all --dry-run",
        "swap --all --dry-run",
        "swap --all --keep-going",
        "completion bash",
        "manual",
        "manual kubectl-hostmount",
        "manual none",
        "--help",
        "--version",
        "swap --help",
    ] {
        // Those that go on do so until nobody reads.
        let ends = !["logs --follow", "events --follow", "top --interval"].iter().any(|start| line.starts_with(start));
        let code = if ends { self::code(&mut cluster.command(line)) } else { None };
        for both in [false, true] {
            let mut command = cluster.command(line);
            let errors = unread(&mut command, both);
            let mut child = command.spawn().unwrap();
            drop(command);
            let got = ended(line, &mut child, errors);
            assert!(code.is_none_or(|code| code == got), "{line}, {both}: {got}, and not {code:?}");
        }
    }
}

fn code(command: &mut Command) -> Option<i32> {
    command.output().unwrap().status.code()
}
