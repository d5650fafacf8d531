//! What happened to volumes, and what helpers wrote: `events` and `logs`.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::two_pods::{self, DRIVER, FLEX, PLAIN};
use crate::node::{NODE_BIN, TestNode, opened};
use hostmount::observe::events;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{ChildStdout, Stdio};
use testbed::machine::{Process, Room};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        what_happened_is_known_over_restarts_and_of_volumes_that_are_gone.needs(&["bindfs"]).quick(),
        one_volumes_life_is_one_grep.needs(&["bindfs"]).quick(),
        the_journal_gets_a_line_with_a_priority_for_each_event.quick(),
        events_are_followed_over_a_restart.needs(&["bindfs"]).quick(),
        lines_are_followed_until_the_volume_ends.quick(),
    ]
}

fn start() -> (TestNode, Mounter) {
    let (test, mounter) = two_pods::start(&["flexvolume"]);
    test.node.sh_ok("mkdir -p /mnt/v");
    (test, mounter)
}

fn restarted(test: &TestNode, mut mounter: Mounter) -> Mounter {
    mounter.signal(Signal::SIGKILL);
    mounter.wait();
    test.start_mounter(&[], &[])
}

fn shown(test: &TestNode, arguments: &str) -> Vec<Value> {
    let text = test.node.sh_ok(&format!("{NODE_BIN}/hostmount events {arguments} --output json"));
    serde_json::from_str(&text).unwrap()
}

fn words(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

/// A command on the node whose output is read line by line. It is ended if nothing comes for far too long.
fn follow(test: &TestNode, arguments: &[&str]) -> (Process, BufReader<ChildStdout>) {
    let mut command = Room::command("timeout");
    command.args(["60", &format!("{NODE_BIN}/hostmount")]).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = test.node.spawn(command);
    let output = process.stdout.take().unwrap();
    (process, BufReader::new(output))
}

fn line(output: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line
}

fn what_happened_is_known_over_restarts_and_of_volumes_that_are_gone() {
    let (test, mounter) = start();
    let said = two_pods::of_the_first();
    let done = test.node.run(DRIVER, &["mount", FLEX, &said.to_string()]);
    assert!(done.stdout.contains("Success"), "{done:?}");
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    mounter.wait_for(events::HEALED, 1);
    test.node.sh_ok(&format!("{NODE_BIN}/hostmount swap {FLEX}"));
    mounter.wait_for(events::DRAINED, 1);
    let mounter = restarted(&test, mounter);
    test.umount(&[FLEX]).ok("umount");
    mounter.wait_for(events::UNMOUNTED, 1);
    // One that the rules refuse, and one that fails.
    assert_eq!(test.kubelets_mount(&["-t", "fuse.bindfs", "/tmp/source", PLAIN]).code, Some(1));
    let source = "https://me:hunter2@host/none?sig=hunter3";
    assert_eq!(test.mount(&["-t", "fuse.bindfs", source, "/mnt/v"]).code, Some(32));

    let mounter = restarted(&test, mounter);
    let all = shown(&test, "");
    let expected = ["mounted", "dead", "healed", "swapped", "adopted", "unmounted", "refused", "not-mounted"];
    assert_eq!(words(&all), expected.map(|word| format!("volume.{word}")));
    let pod = json!([{ "uid": "uid-1", "namespace": "shop", "name": "web-0" }]);
    for event in &all[..6] {
        assert_eq!((&event["target"], &event["pods"]), (&json!(FLEX), &pod), "{event}");
        assert_eq!((&event["type"], &event["source"]), (&json!("bindfs"), &json!("/tmp/source")), "{event}");
    }
    for took in [0, 2, 3, 7] {
        assert!(all[took]["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{}", all[took]);
    }
    let codes: Vec<_> = all.iter().map(|event| event["code"].as_i64()).collect();
    assert_eq!(codes[5..], [None, Some(1), Some(32)]);
    assert_eq!(all[6]["pods"], json!([{ "uid": "uid-2" }]));
    assert_eq!(all[7]["source"], "https://me:***@host/none?***");
    for file in ["events", "events.old"] {
        let kept = test.container.sh(&format!("cat /run/hostmount/{file}")).stdout;
        assert!(!kept.contains("hunter"), "{kept}");
    }
    assert!(!mounter.said().contains("hunter"), "{}", mounter.said());

    assert_eq!(words(&shown(&test, "--pod web-0 --event dead,refused")), ["volume.dead"]);
    assert_eq!(words(&shown(&test, &format!("{PLAIN} --since 1h"))), ["volume.refused"]);
    assert_eq!(shown(&test, "--since 2100-01-01T00:00:00Z"), [Value::Null; 0]);
    let table = test.node.sh_ok(&format!("{NODE_BIN}/hostmount events"));
    assert_eq!(table.lines().count(), 1 + expected.len(), "{table}");
    let first = table.lines().nth(1).unwrap();
    assert!(first.contains("Z  mounted      shop       web-0  bindfs"), "{table}");
}

/// The word is its target; the volume of another pod beside it has none of these lines.
fn one_volumes_life_is_one_grep() {
    let (test, mounter) = start();
    let said = two_pods::of_the_first();
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", "/mnt/v"]).ok("mount");
    let others = test.pids_of("bindfs");
    let mut refused = said.clone();
    refused["options"] = "exec".into();
    test.configure(&(opened("flexvolume", &["bindfs"]) + "[policy.flexvolume]\nforbidden_options = ['exec']\n"));
    mounter.wait_for(events::CONFIGURATION_TAKEN, 1);
    let done = test.node.run(DRIVER, &["mount", FLEX, &refused.to_string()]);
    assert!(done.stdout.contains("Failure"), "{done:?}");
    let done = test.node.run(DRIVER, &["mount", FLEX, &said.to_string()]);
    assert!(done.stdout.contains("Success"), "{done:?}");
    let helpers = test.pids_of("bindfs");
    let helper = helpers.iter().find(|pid| !others.contains(pid)).unwrap();
    test.node.sh_ok(&format!("kill -9 {helper}"));
    mounter.wait_for(events::HEALED, 1);
    test.node.sh_ok(&format!("{NODE_BIN}/hostmount swap {FLEX}"));
    mounter.wait_for(events::DRAINED, 1);
    test.umount(&[FLEX]).ok("umount");
    mounter.wait_for(events::UNMOUNTED, 1);

    let log = mounter.said();
    let (found, others): (Vec<_>, Vec<_>) = log.lines().partition(|line| line.contains(FLEX));
    let found: Vec<Value> = found.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut words: Vec<_> = found.iter().filter_map(|line| line["fields"]["event"].as_str()).collect();
    assert_eq!(
        (words[..2].to_vec(), words.last()),
        (vec![events::VOLUME_REFUSED, events::MOUNTED], Some(&events::UNMOUNTED))
    );
    let mut life = [
        events::VOLUME_REFUSED,
        events::MOUNTED,
        events::DEAD,
        events::HELD,
        events::REPLACED,
        events::HEALED,
        events::REPLACED,
        events::SWAPPED,
        events::DRAINED,
        events::UNMOUNTED,
    ];
    // Several threads say what happens in between.
    words.sort_unstable();
    life.sort_unstable();
    assert_eq!(words, life, "{log}");
    for line in &found {
        let (span, fields) = (&line["span"], &line["fields"]);
        let event = fields["event"].as_str().unwrap_or_default();
        assert_eq!((&span["target"], &span["fstype"]), (&json!(FLEX), &json!("bindfs")), "{line}");
        let timed = [events::MOUNTED, events::HEALED, events::SWAPPED].contains(&event);
        assert_eq!(fields["seconds"].as_f64().is_some(), timed, "{line}");
        assert_eq!((&span["source"], &span["pod"]), (&json!("/tmp/source"), &json!("shop/web-0")), "{line}");
        let code = (event == events::VOLUME_REFUSED).then_some(1);
        assert_eq!(fields["code"].as_u64(), code, "{line}");
    }
    let of_volumes = others.iter().filter(|line| line.contains(r#""event":"volume."#));
    assert!(of_volumes.clone().count() == 1 && of_volumes.clone().all(|line| line.contains("/mnt/v")), "{log}");
}

/// As systemd starts it: the file of its standard error is in the environment.
fn the_journal_gets_a_line_with_a_priority_for_each_event() {
    let test = TestNode::start();
    let mut command = Room::command("/bin/sh");
    let line =
        "export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2); exec timeout 60 /usr/local/bin/hostmount serve";
    command.args(["-c", line]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = test.container.spawn(command);
    let mut log = BufReader::new(process.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut next = |event: &str| log.find(|line| line.contains(&format!("event=\"{event}\""))).unwrap();
    assert!(next(events::READY).starts_with("<6> INFO "));
    test.container.helper("fuse.talk", "exec mount.memfs \"$@\"");
    test.node.sh_ok("mkdir /mnt/v");
    test.mount(&["-t", "fuse.talk", "m", "/mnt/v"]).ok("mount");
    let mounted = next(events::MOUNTED);
    assert!(mounted.starts_with("<6> INFO ") && mounted.contains("/mnt/v"), "{mounted}");
    test.node.sh_ok("kill -9 $(pidof mount.memfs)");
    let dead = next(events::DEAD);
    assert!(dead.starts_with("<3>ERROR ") && dead.contains("/mnt/v"), "{dead}");
    test.umount(&["/mnt/v"]).ok("umount");
    next(events::UNMOUNTED);
}

fn events_are_followed_over_a_restart() {
    let (test, mounter) = start();
    let (_process, mut output) = follow(&test, &["events", "--follow", "-o", "json", "/mnt/v"]);
    let mut next = || serde_json::from_str::<Value>(&line(&mut output)).unwrap()["event"].clone();
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", "/mnt/v"]).ok("mount");
    assert_eq!(next(), "volume.mounted");
    let _mounter = restarted(&test, mounter);
    assert_eq!(next(), "volume.adopted");
    test.umount(&["/mnt/v"]).ok("umount");
    assert_eq!(next(), "volume.unmounted");
}

fn lines_are_followed_until_the_volume_ends() {
    let (test, mounter) = start();
    test.container.helper("fuse.talk", "echo \"started $1\"; exec mount.memfs \"$@\"");
    test.mount(&["-t", "fuse.talk", "talk", "/mnt/v"]).ok("mount");
    let (mut process, mut output) = follow(&test, &["logs", "--follow", "/mnt/v"]);
    assert_eq!(line(&mut output), "started talk\n");
    let [helper] = test.pids_of("mount.memfs talk")[..] else { panic!("{:?}", test.processes()) };
    test.node.sh_ok(&format!("kill -9 {helper}"));
    assert_eq!(line(&mut output), "started talk\n", "what the next helper writes comes, and nothing twice");
    mounter.wait_for(events::HEALED, 1);
    let mounter = restarted(&test, mounter);
    let adopted = test.node.sh_ok(&format!("{NODE_BIN}/hostmount status /mnt/v"));
    assert!(adopted.contains("State       mounted"), "{adopted}");
    test.umount(&["/mnt/v"]).ok("umount");
    mounter.wait_for(events::UNMOUNTED, 1);
    assert_eq!(line(&mut output), "");
    assert!(process.wait().unwrap().success());

    test.mount(&["-t", "fuse.talk", "again", "/mnt/v"]).ok("mount");
    let logs = |arguments: &str| test.node.sh_ok(&format!("{NODE_BIN}/hostmount logs /mnt/v {arguments}"));
    assert_eq!(logs("--since 1h"), "started again\n");
    assert_eq!(logs("--since 2100-01-01T00:00:00Z"), "");
    let stamped = logs("--timestamps");
    assert!(stamped.starts_with("20") && stamped.ends_with("Z started again\n"), "{stamped}");
}
