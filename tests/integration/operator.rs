//! The operator's commands: doctor, status, logs.

use crate::harness::{Test, tests};
use crate::node::{Done, NODE_BIN, Place, TestNode};
use hostmount::observe::events;
use std::fs;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        doctor_reports_what_works_and_what_to_do.needs(&["bindfs"]).quick(),
        the_probe_is_quiet.quick(),
        a_source_is_shown_without_its_password.needs(&["bindfs"]).quick(),
        a_volumes_output_outlives_it.quick()
    ]
}

/// A helper for type `fuse.talk` that prints `started` and its source, and fails if the source is `bad`.
const TALK: &str =
    "#!/bin/sh\necho started for $2\necho told $1 >&2\n[ $1 != bad ] || exit 3\nexec mount.memfs \"$@\"\n";

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

/// Of a URL, wherever volumes are shown, while they are there, and afterwards. Their helpers, which repeat it, are heard without it.
fn a_source_is_shown_without_its_password() {
    let test = talking_node();
    let mounter = test.start_mounter(&[], &[]);
    let (source, shown) = ("https://me:hunter2@host/x?sig=hunter3", "https://me:***@host/x?***");
    test.mount(&["-t", "fuse.talk", source, "/mnt/v"]).ok("mount");
    test.mount(&["-t", "fuse.bindfs", source, "/mnt/w"]);
    let look = |words: &str| {
        let said = hostmount(&test.node, &words.split(' ').collect::<Vec<_>>()).ok(words);
        assert!(!said.contains("hunter"), "{words}: {said}");
        said
    };
    let everywhere = [
        "list",
        "list -o wide",
        "list -o json",
        "list -o yaml",
        "status /mnt/v",
        "status -o json /mnt/v",
        "status /mnt/w",
        "status -o json /mnt/w",
        "top --once",
        "top -o json",
        "events",
        "events -o json",
    ];
    everywhere.iter().for_each(|words| assert!(look(words).contains(shown), "{words}"));
    assert_eq!(look("logs /mnt/v"), format!("started for /mnt/v\ntold {shown}\n"));
    look("metrics");
    // The next helper gets all of it, and so does that of the next mounter.
    look("swap /mnt/v");
    drop(mounter);
    let mounter = test.start_mounter(&[], &[]);
    test.node.sh_ok("kill -9 $(pidof mount.memfs)");
    mounter.wait_for(events::HEALED, 1);
    assert!(look("logs /mnt/v").ends_with(&format!("told {shown}\n")));
    assert!(test.processes().values().any(|line| line.contains(source)), "{:?}", test.processes());
    test.umount(&["/mnt/v"]).ok("umount");
    mounter.wait_for(events::UNMOUNTED, 1);
    assert!(look("status /mnt/v").contains(shown));
    assert!(!mounter.said().contains("hunter"), "{}", mounter.said());
}
