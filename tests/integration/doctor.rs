//! `doctor`: each finding, with what it is about broken on purpose; and the file for a report.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::old_kernel::{self, Missing, without};
use crate::node::{CSI_DOOR, NODE_BIN, Place, TestNode};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use testbed::machine::{Process, Propagation, Room};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        what_is_around_the_mounter_is_found_when_it_breaks.quick(),
        kubelet_is_shown_as_it_runs.quick(),
        a_kubelet_that_does_not_find_the_driver_is_told.quick(),
        a_dead_mount_that_nobody_has_is_found.needs(&["bindfs"]).quick(),
        without_privileges_each_wall_is_missed.quick(),
        what_the_kernel_or_a_profile_lacks_is_found.quick(),
        a_file_for_a_report_has_no_secret.needs(&["bindfs"]).quick(),
    ]
}

const PROGRAMS: &str = "/opt/hostmount/own";

fn start(arguments: &[&str]) -> (TestNode, Mounter) {
    let test = TestNode::start();
    test.configure(&format!("[doors]\ncsi = {{ socket = '{CSI_DOOR}/mounter.sock', uid = 65532 }}\n"));
    let mounter = test.start_mounter(arguments, &[]);
    (test, mounter)
}

/// The findings by their names: level, message and advice.
fn findings_of(place: &Place, command: &str) -> BTreeMap<String, (String, String, String)> {
    let done = place.sh(&format!("{command} doctor --output json"));
    let found: Vec<Value> = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let finding = |found: &Value| {
        (text(&found["name"]), (text(&found["level"]), text(&found["message"]), text(&found["advice"])))
    };
    found.iter().map(finding).collect()
}

fn findings(test: &TestNode) -> BTreeMap<String, (String, String, String)> {
    findings_of(&test.container, "/usr/local/bin/hostmount")
}

#[track_caller]
fn is_ok(test: &TestNode, name: &str) -> String {
    let (level, message, advice) = findings(test).remove(name).unwrap();
    assert_eq!((level.as_str(), advice.as_str()), ("ok", ""), "{name}: {message}");
    message
}

#[track_caller]
fn is_warning(test: &TestNode, name: &str, words: &str) {
    let (level, message, advice) = findings(test).remove(name).unwrap();
    assert!(level == "warning" && message.contains(words) && !advice.is_empty(), "{name}: {level} {message} {advice}");
}

fn what_is_around_the_mounter_is_found_when_it_breaks() {
    let (test, mounter) = start(&["--install", PROGRAMS]);
    for name in
        ["programs", "version", "sockets", "propagation", "orphans", "selinux", "mounter", "configuration", "types"]
    {
        is_ok(&test, name);
    }
    assert!(is_ok(&test, "mounter").starts_with("answers; it has 0 volumes, for "));
    test.node.sh_ok(&format!("echo x >>{PROGRAMS}/hostmount-shim"));
    is_warning(&test, "programs", &format!("{PROGRAMS}/hostmount-shim"));

    test.node.sh_ok(&format!("mount --bind {PROGRAMS} {PROGRAMS} && mount -o remount,bind,noexec {PROGRAMS}"));
    is_warning(&test, "programs", "its filesystem is mounted noexec");
    test.node.sh_ok(&format!("umount {PROGRAMS}"));

    is_warning(&test, "csi", "/var/lib/kubelet/plugins_registry on the node has no socket");
    test.node.sh_ok("mkdir -p /var/lib/kubelet/plugins_registry/hostmount.csi");
    let socket = "/var/lib/kubelet/plugins_registry/hostmount.csi/reg.sock";
    let _listener = test.node.visit(|| UnixListener::bind(socket).unwrap());
    assert!(is_ok(&test, "csi").contains("hostmount.csi"));

    test.container.sh_ok("rm /run/hostmount/kubelet.sock");
    is_warning(&test, "sockets", "/run/hostmount/kubelet.sock for kubelet");
    let on = test.node.sh_ok("findmnt --noheadings --output TARGET --target /var/lib/kubelet | tail -1");
    test.node.sh_ok(&format!("mount --make-private {on}"));
    is_warning(&test, "propagation", "is not shared");
    drop(mounter);
    is_warning(&test, "mounter", "the mounter is not running");
}

/// Runs a room's /tmp/kubelet; returns when it is one by its name.
fn run(place: &Place, arguments: &[&str]) -> Process {
    let mut command = Room::command("/tmp/kubelet");
    command.args(arguments).env("PATH", format!("{PROGRAMS}:/usr/bin:/bin")).stdout(Stdio::piped());
    let mut process = place.spawn(command);
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
    process
}

fn kubelet_is_shown_as_it_runs() {
    let (test, _mounter) = start(&["--install", PROGRAMS]);
    is_warning(&test, "kubelet", "no process of that name");
    // A pod's process may call itself so, and name a program: it is not run.
    let pod = test.pod(&[], Propagation::None);
    pod.program("/tmp/kubelet", "#!/bin/sh\necho runs\nsleep infinity & wait\n");
    let _forged = run(&pod, &["--root-dir=/forged"]);
    is_warning(&test, "kubelet", "no process of that name");
    test.node.program(
        "/tmp/kubelet",
        "#!/bin/sh\n[ \"$1\" != --version ] || { echo Kubernetes v1.99.7; exit; }\necho runs\nsleep infinity & wait\n",
    );
    let kubelet = run(&test.node, &["--volume-plugin-dir=/opt/plugins"]);
    let message = is_ok(&test, "kubelet");
    for words in [
        "Kubernetes v1.99.7, process ",
        "its directory: /var/lib/kubelet",
        "plugin directory: /opt/plugins",
        "/opt/hostmount/own/mount (hostmount's)",
    ] {
        assert!(message.contains(words), "{message}");
    }
    drop(kubelet);
    test.node.sh_ok("pkill --parent 1 sleep; true");
    let _kubelet = run(&test.node, &["--root-dir", "/opt/kubelet"]);
    is_warning(&test, "kubelet", "its directory: /opt/kubelet");
    let (_, _, advice) = findings(&test).remove("kubelet").unwrap();
    assert!(advice.contains("kubelet_dir = \"/opt/kubelet\""), "{advice}");
}

fn a_kubelet_that_does_not_find_the_driver_is_told() {
    const PLUGINS: &str = "/opt/hostmount/plugins";
    let (test, _mounter) = start(&["--install-flexvolume", PLUGINS]);
    test.node.program("/tmp/kubelet", "#!/bin/sh\necho runs\nsleep infinity & wait\n");
    test.node.sh_ok(&format!("ln -s {PLUGINS} /tmp/plugins"));
    for (arguments, is_found) in
        [(&[][..], false), (&["--volume-plugin-dir=/opt/other"], false), (&["--volume-plugin-dir=/tmp/plugins/"], true)]
    {
        let kubelet = run(&test.node, arguments);
        if is_found {
            is_ok(&test, "kubelet");
        } else {
            is_warning(&test, "kubelet", "its FlexVolume plugin directory: /");
            let (_, _, advice) = findings(&test).remove("kubelet").unwrap();
            assert!(advice.contains(&format!("volumePluginDir: {PLUGINS}")), "{advice}");
        }
        drop(kubelet);
        test.node.sh_ok("pkill --parent 1 sleep; true");
    }
}

fn a_dead_mount_that_nobody_has_is_found() {
    let (test, mut mounter) = start(&[]);
    let target = "/var/lib/kubelet/pods/u/volumes/v";
    test.node.sh_ok(&format!("mkdir -p {target}"));
    test.mount(&["-t", "fuse.bindfs", "/tmp", target]).ok("mount");
    is_ok(&test, "orphans");
    mounter.signal(Signal::SIGKILL);
    mounter.wait();
    test.node.sh_ok("kill -9 $(pidof bindfs)");
    test.container.sh_ok("rm /run/hostmount/volumes/*");
    let _mounter = test.start_mounter(&[], &[]);
    is_warning(&test, "orphans", target);
    test.node.sh_ok(&format!("umount {target}"));
    is_ok(&test, "orphans");
}

/// In a user namespace of its own a root may little.
fn without_privileges_each_wall_is_missed() {
    let test = TestNode::start();
    let alone = findings_of(&test.container, "unshare --user --map-root-user /usr/local/bin/hostmount");
    let level = |name: &str| alone[name].0.as_str();
    for needed in ["mounts", "node"] {
        assert_eq!(level(needed), "failure", "{needed}: {alone:?}");
    }
    for wall in ["uids", "outliving", "processes"] {
        assert_eq!(level(wall), "warning", "{wall}: {alone:?}");
    }
    // On the node itself there is neither the device nor a helper.
    let on_node = findings_of(&test.node, &format!("{NODE_BIN}/hostmount"));
    for needed in ["/dev/fuse", "node", "types"] {
        assert_eq!(on_node[needed].0, "failure", "{needed}: {on_node:?}");
    }
}

fn what_the_kernel_or_a_profile_lacks_is_found() {
    let test = TestNode::start();
    let level = |missing: &[Missing], name: &str| {
        let found = without(missing, || findings(&test));
        let (level, message, advice) = found[name].clone();
        assert!(level == "ok" || !advice.is_empty(), "{name}: {message}");
        level
    };
    for (missing, name, expected) in [
        (old_kernel::LANDLOCK, "landlock", "warning"),
        (old_kernel::BENEATH, "kernel", "warning"),
        (old_kernel::SECCOMP, "engine", "failure"),
        (old_kernel::SECCOMP, "filter", "warning"),
        (old_kernel::CAPSET, "confinement", "failure"),
        (old_kernel::OPEN_TREE, "mounts", "failure"),
    ] {
        assert_eq!(level(&[], name), "ok", "{name}");
        assert_eq!(level(&[missing], name), expected, "{name}");
    }
}

fn a_file_for_a_report_has_no_secret() {
    let (test, _mounter) = start(&[]);
    test.configure("[filesystem.talk]\nenvironment = { WORD = 'hunter1' }\n");
    test.container.helper("fuse.talk", "echo 'password=hunter2'; exec mount.memfs x \"$2\"");
    test.node.sh_ok("mkdir -p /mnt/v /mnt/w");
    test.mount(&["-t", "fuse.talk", "https://me:hunter3@h/", "/mnt/v"]).ok("mount");
    test.mount(&["-t", "fuse.bindfs", "-o", "password=hunter4", "/nowhere", "/mnt/w"]);
    let said = test.container.sh_ok("/usr/local/bin/hostmount doctor --support /tmp/report.tar");
    assert!(said.starts_with("/tmp/report.tar: ") && said.contains("read README"), "{said}");
    assert_eq!(test.container.sh_ok("stat -c %a /tmp/report.tar"), "600\n");
    let names = test.container.sh_ok("tar tf /tmp/report.tar");
    for name in [
        "README",
        "doctor.json",
        "volumes/0.json",
        "events.json",
        "policy.toml",
        "config.toml",
        "metrics.txt",
        "proc/1/mountinfo",
    ] {
        assert!(names.contains(&format!("hostmount-support/{name}\n")), "{names}");
    }
    let of = |name: &str| test.container.sh_ok(&format!("tar xOf /tmp/report.tar hostmount-support/{name}"));
    let volume: Value = serde_json::from_str(&of("volumes/0.json")).unwrap();
    assert_eq!((&volume["target"], &volume["lines"][0]), (&"/mnt/v".into(), &"password=***".into()));
    assert!(of("events.json").contains("volume.not-mounted") && of("config.toml").contains("WORD"));
    let all = test.container.sh_ok("tar xOf /tmp/report.tar");
    assert!(!all.contains("hunter"), "{all}");
    let again = test.container.sh("/usr/local/bin/hostmount doctor --support /tmp/report.tar");
    assert!(again.code == Some(2) && again.stderr.contains("File exists"), "{again:?}");
    let program = format!("{NODE_BIN}/hostmount");
    assert!(test.node.sh(&format!("{program} doctor --support - | tar t")).stdout.contains("doctor.json"));
}
