//! The operator's commands: doctor, status, logs.

use crate::harness::{Test, tests};
use crate::node::{Done, NODE_BIN, Place, TestNode};
use hostmount::observe::events;
use std::fs;
use std::io::{self, Read};
use std::process::Stdio;
use testbed::machine::Room;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        doctor_reports_what_works_and_what_to_do.needs(&["bindfs"]).quick(),
        the_probe_is_quiet.quick(),
        a_reader_that_has_gone.quick(),
        a_volumes_output_outlives_it.quick()
    ]
}

/// A helper for type `fuse.talk` that prints `started` and its source, and fails if the source is `bad`.
const TALK: &str =
    "#!/bin/sh\necho started for $2\necho told $1 >&2\n[ $1 != bad ] || exit 3\nexec mount.memfs \"$@\"\n";

/// As `hostmount doctor | head -1`: no panic, and the exit code is what it is otherwise.
fn a_reader_that_has_gone() {
    let test = talking_node();
    let _mounter = test.start_mounter(&[], &[]);
    // The code, with a pipe without a reader as standard output, and perhaps as standard error.
    let run = |words: &[&str], both: bool| {
        let mut command = Room::command(format!("/usr/local/bin/{}", words[0]));
        let (_, writer) = io::pipe().unwrap();
        let (mut errors, error_writer) = io::pipe().unwrap();
        command.args(&words[1..]).stdin(Stdio::null()).stdout(writer.try_clone().unwrap());
        let (stderr, _) = if both { (writer, drop(error_writer)) } else { (error_writer, drop(writer)) };
        command.stderr(stderr);
        let code = test.container.spawn(command).wait().unwrap().code();
        let mut said = String::new();
        errors.read_to_string(&mut said).unwrap();
        assert!(!said.contains("panicked"), "{words:?}: {said}");
        code
    };
    for words in ["doctor", "metrics", "list", "list --output json", "policy show", "--help"] {
        let words: Vec<_> = ["hostmount"].into_iter().chain(words.split(' ')).collect();
        assert_eq!(run(&words, false), Some(0), "{words:?}");
    }
    for words in
        [&["hostmount", "status", "/mnt/none"][..], &["hostmount-shim", "mount", "-t", "fuse.talk", "bad", "/mnt/v"]]
    {
        let code = test.container.run(format!("/usr/local/bin/{}", words[0]), &words[1..]).code;
        assert_eq!(run(words, true), code, "{words:?}");
    }
    let full = test.container.sh("/usr/local/bin/hostmount doctor >/dev/full");
    assert_eq!(full.code, Some(2));
    assert_eq!(full.stderr, "cannot write to standard output: No space left on device (os error 28)\n");
}

fn hostmount(place: &Place, arguments: &[&str]) -> Done {
    let program =
        if place.sh("test -e /usr/local/bin/hostmount").code == Some(0) { "/usr/local/bin" } else { NODE_BIN };
    place.run(format!("{program}/hostmount"), arguments)
}

fn talking_node() -> TestNode {
    let test = TestNode::start();
    test.container.visit(|| fs::write("/usr/sbin/mount.fuse.talk", TALK).unwrap());
    test.container.sh_ok("chmod 755 /usr/sbin/mount.fuse.talk");
    test.node.sh_ok("mkdir /mnt/v /mnt/w");
    test
}

fn doctor_reports_what_works_and_what_to_do() {
    let test = talking_node();
    let before = test.container.mountinfo();
    let done = hostmount(&test.container, &["doctor"]);
    let words = done.stdout;
    assert_eq!(done.code, Some(0), "{words}{}", done.stderr);
    for good in ["/dev/fuse", "confinement", "engine", "mounts", "node", "types", "uids", "processes", "filter"] {
        assert!(words.contains(&format!("ok    {good}: ")), "{words}");
    }
    for (fstype, program) in [("fuse.talk", "/usr/sbin/mount.fuse.talk"), ("bindfs", "/usr/bin/bindfs")] {
        assert!(words.contains(&format!("{fstype:<24}{program}")), "{words}");
    }
    // The mounter may come later.
    assert!(words.contains("warn  mounter: the mounter is not running"), "{words}");
    assert_eq!(test.container.mountinfo(), before);
    let _mounter = test.start_mounter(&[], &[]);
    assert!(hostmount(&test.container, &["doctor"]).stdout.contains("ok    mounter: answers; it has 0 volumes"));

    // On the node itself there is neither the device nor a helper, and PID 1 is its own.
    let done = hostmount(&test.node, &["doctor"]);
    assert_eq!(done.code, Some(2), "{}", done.stdout);
    for words in ["FAIL  /dev/fuse: ", "modprobe fuse", "FAIL  node: /proc shows this container's own", "hostPID: true"]
    {
        assert!(done.stdout.contains(words), "{}", done.stdout);
    }
    // A broken configuration is a finding, too.
    test.container.visit(|| fs::write("/tmp/broken.toml", "kubelet_dri = 3").unwrap());
    let done = hostmount(&test.container, &["doctor", "--config", "/tmp/broken.toml"]);
    assert!(done.code == Some(2) && done.stdout.contains("FAIL  configuration: "), "{}", done.stdout);
}

fn the_probe_is_quiet() {
    let test = talking_node();
    let probe = |code| {
        let done = hostmount(&test.container, &["doctor", "--probe"]);
        assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (Some(code), "", ""));
    };
    probe(32);
    let mounter = test.start_mounter(&[], &[]);
    probe(0);
    drop(mounter);
    probe(32);
}

fn a_volumes_output_outlives_it() {
    let test = talking_node();
    let mounter = test.start_mounter(&[], &[]);
    let look = |arguments: &[&str]| hostmount(&test.node, arguments);
    let none = look(&["logs", "/mnt/v"]);
    assert!(none.code == Some(1) && none.stderr.contains("no volume of hostmount's is or was at /mnt/v"), "{none:?}");

    test.mount(&["-t", "fuse.talk", "good", "/mnt/v"]).ok("mount");
    // The helper's own place for the mount reads as the target.
    assert_eq!(look(&["logs", "/mnt//v/"]).ok("logs"), "started for /mnt/v\ntold good\n");
    let status = look(&["status", "/mnt/v"]).ok("status");
    for line in ["Target      /mnt/v\n", "State       mounted\n", "Helper      mount.fuse.talk\n", "told good\n"] {
        assert!(status.contains(line), "{status}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&look(&["status", "--output", "json", "/mnt/v"]).stdout).unwrap();
    assert_eq!((json["state"].as_str(), json["ended"].as_str()), (Some("mounted"), None));
    assert_eq!(json["lines"][1], "told good");

    test.umount(&["/mnt/v"]).ok("umount");
    mounter.wait_for(events::UNMOUNTED, 1);
    assert!(look(&["status", "/mnt/v"]).stdout.contains("State       ended\n"));
    assert_eq!(look(&["logs", "/mnt/v"]).ok("logs"), "started for /mnt/v\ntold good\n");
    assert_eq!(look(&["list", "--output", "json"]).stdout, "[]\n");

    assert_eq!(test.mount(&["-t", "fuse.talk", "bad", "/mnt/w"]).code, Some(32));
    assert!(look(&["status", "/mnt/w"]).stdout.contains("State       failed\n"));
    assert_eq!(look(&["logs", "/mnt/w"]).ok("logs"), "started for /mnt/w\ntold bad\n");
    // The output of a healed volume's dead helper is kept.
    test.mount(&["-t", "fuse.talk", "mortal", "/mnt/v"]).ok("mount");
    let processes = test.processes();
    let (helper, _) = processes.iter().find(|(_, line)| line.contains("mount.memfs mortal")).unwrap();
    test.node.sh_ok(&format!("kill -9 {helper}"));
    mounter.wait_for(events::HEALED, 1);
    // The old filesystem's removal from the node was not an unmount of the volume.
    assert_eq!(mounter.count(events::UNMOUNTED), 1);
    let words = "started for /mnt/v\ntold mortal\n";
    assert_eq!(look(&["logs", "/mnt/v"]).ok("logs"), format!("{words}{words}"));
    // The last volume at a target counts.
    test.mount(&["-t", "fuse.talk", "better", "/mnt/w"]).ok("mount");
    assert_eq!(look(&["logs", "/mnt/w"]).ok("logs"), "started for /mnt/w\ntold better\n");
}
