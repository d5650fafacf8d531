//! Programs whose output nobody reads any more, as in `hostmount doctor | head -1`: each command of each program does what it does
//! otherwise, and none panics.

use crate::harness::{Test, tests};
use crate::node::{NODE_BIN, Place, TestNode, opened, programs};
use hostmount::observe::events;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use testbed::machine::Room;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        of_hostmount.quick(),
        of_the_nodes_programs.quick(),
        of_the_drivers_and_pods_programs.anywhere().quick(),
        of_the_mounters_log.quick(),
        a_disk_that_is_full.quick(),
    ]
}

/// Commands of `hostmount` that come to an end by themselves.
const END: &[&str] = &[
    "serve --no-such-option",
    "mount --explain -t fuse.talk good /mnt/w",
    "mount --explain --output json -t fuse.talk good /mnt/w",
    "mount -v -t fuse.talk bad /mnt/w",
    "mount -v -t fuse.talk good /mnt/w",
    "umount --help",
    "flexvolume init",
    "list",
    "ls -o wide",
    "list --output json",
    "list --output yaml",
    "list --output name",
    "status /mnt/v",
    "status --output json /mnt/v",
    "status --output yaml /mnt/v",
    "status /mnt/none",
    "logs --timestamps /mnt/v",
    "events",
    "events --output json",
    "top --once",
    "top --output json",
    "metrics",
    "policy show",
    "policy check --from kubelet mount -t fuse.talk good /mnt/w",
    "doctor",
    "doctor --output json",
    "doctor --support -",
    "heal --all",
    "heal --all --dry-run",
    "swap /mnt/v",
    "swap --all --dry-run",
    "swap --all",
    "completion bash",
    "manual",
    "manual hostmount-mount",
    "install --to /run/hostmount/bin",
    "--version",
];

/// Those that go on, until nobody reads.
const GO_ON: &[&str] = &["list --watch=1", "logs --follow /mnt/v", "events --follow", "events -f -o json", "top"];

/// Starts a command with a pipe without a reader as its standard output, and as its standard error, or else with one that we read.
pub(crate) fn unread(command: &mut Command, both: bool) -> BufReader<io::PipeReader> {
    let (errors, error_writer) = io::pipe().unwrap();
    let (_, writer) = io::pipe().unwrap();
    command.stdin(Stdio::null()).stdout(writer.try_clone().unwrap());
    if both {
        command.stderr(writer)
    } else {
        command.stderr(error_writer)
    };
    BufReader::new(errors)
}

/// Its exit code, once it has ended. It has not panicked, which it may have said to nobody.
#[track_caller]
pub(crate) fn ended(what: &str, child: &mut Child, mut errors: BufReader<io::PipeReader>) -> i32 {
    let status = child.wait().unwrap();
    let mut said = String::new();
    errors.read_to_string(&mut said).unwrap();
    let code = status.code().unwrap_or_else(|| panic!("{what}: {status}"));
    assert!(code != 101 && !said.contains("panicked"), "{what}: {code} {said}");
    code
}

/// The exit code of a program of a place, whose output nobody reads.
#[track_caller]
fn unread_in(place: &Place, program: &str, words: &str, both: bool) -> i32 {
    let what = format!("{program} {words}");
    let mut command = Room::command("timeout");
    command.args(["60", program]).args(words.split_whitespace());
    let errors = unread(&mut command, both);
    let mut process = place.spawn(command);
    ended(&what, &mut process, errors)
}

const HOSTMOUNT: &str = "/usr/local/bin/hostmount";

fn talking_node() -> TestNode {
    let test = TestNode::start();
    test.container.helper("fuse.talk", "echo told; [ $1 != bad ] || exit 3; exec mount.memfs \"$@\"");
    test.node.sh_ok("mkdir -p /mnt/v /mnt/w");
    test
}

/// The commands that a program's help has.
fn commands(help: &str) -> BTreeSet<&str> {
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    commands.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect()
}

fn of_hostmount() {
    let test = talking_node();
    let _mounter = test.start_mounter(&[], &[]);
    test.mount(&["-t", "fuse.talk", "good", "/mnt/v"]).ok("mount");
    let place = &test.container;
    let help = place.run(HOSTMOUNT, &["--help"]).ok("--help");
    for command in commands(&help) {
        let tried = END.iter().chain(GO_ON).any(|line| line.split(' ').next() == Some(command));
        assert!(tried || command == "list", "no line of '{command}' is tried");
        assert_eq!(unread_in(place, HOSTMOUNT, &format!("{command} --help"), false), 0, "{command}");
    }
    for line in END {
        let words: Vec<_> = line.split(' ').collect();
        before(&test, line);
        let code = place.run(HOSTMOUNT, &words).code;
        for both in [false, true] {
            before(&test, line);
            assert_eq!(Some(unread_in(place, HOSTMOUNT, line, both)), code, "hostmount {line}, {both}");
        }
    }
    for line in GO_ON {
        for both in [false, true] {
            assert_eq!(unread_in(place, HOSTMOUNT, line, both), 0, "hostmount {line}, {both}");
        }
    }
}

/// What would make a command another one the second time: something is mounted at its target, or nothing.
fn before(test: &TestNode, line: &str) {
    let Some((rest, target)) = line.rsplit_once(' ').filter(|(_, target)| target.starts_with('/')) else { return };
    match (rest, test.node.mount_at(target).is_some()) {
        ("umount", false) => drop(test.mount(&["-t", "fuse.talk", "good", target]).ok("mount")),
        (rest, true) if rest.starts_with("mount ") => drop(test.umount(&[target]).ok("umount")),
        _ => {}
    }
}

/// Where kubelet would mount.
const KUBELETS: &str = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~nfs/v";

fn of_the_nodes_programs() {
    let test = talking_node();
    test.node.sh_ok(&format!("mkdir -p {KUBELETS}"));
    test.configure(&opened("kubelet", &["talk"]));
    let _mounter = test.start_mounter(&[], &[]);
    for (line, code) in [
        (format!("mount -t fuse.talk bad {KUBELETS}"), 32),
        (format!("mount -t fuse.talk good {KUBELETS}"), 0),
        (format!("umount {KUBELETS}"), 0),
        ("mount -t fuse.talk good relative".to_owned(), 1),
        ("fuse init".to_owned(), 0),
        (format!("fuse mount {KUBELETS} {{}}"), 1),
        ("fuse nonsense".to_owned(), 1),
        ("--version".to_owned(), 0),
        ("nonsense".to_owned(), 1),
    ] {
        let shim = format!("{NODE_BIN}/hostmount-shim");
        let words: Vec<_> = line.split(' ').collect();
        before(&test, &line);
        assert_eq!(test.node.run(&shim, &words).code, Some(code), "{line}");
        for both in [false, true] {
            before(&test, &line);
            assert_eq!(unread_in(&test.node, &shim, &line, both), code, "{line}, {both}");
        }
    }
}

fn of_the_drivers_and_pods_programs() {
    for (program, lines) in [
        (
            &*programs::CSI,
            &["--help", "--version", "--nonsense", "--make-directories=0 relative", "--make-directories=0 /proc/x"][..],
        ),
        (
            &*programs::POD,
            &[
                "",
                "--version",
                "nonsense",
                "start",
                "start --help",
                "ready",
                "ready /none",
                "copy",
                "copy /proc/x",
                "fusermount3",
                "fusermount3 --version",
                "fusermount3 --help",
                "fusermount3 -u /none",
                "fusermount3 /none",
            ],
        ),
    ] {
        for line in lines {
            let command = || {
                let mut command = Command::new(program);
                command.args(line.split_whitespace()).env_clear();
                command
            };
            let code = command().stdin(Stdio::null()).output().unwrap().status.code();
            for both in [false, true] {
                let mut command = command();
                let errors = unread(&mut command, both);
                let mut child = command.spawn().unwrap();
                drop(command);
                let what = format!("{} {line}, {both}", program.display());
                assert_eq!(Some(ended(&what, &mut child, errors)), code, "{what}");
            }
        }
    }
    // The driver, whose log nobody reads from its first line on.
    let socket = std::env::temp_dir().join(format!("hostmount-csi-{}", std::process::id()));
    let mut driver = Command::new(&*programs::CSI);
    driver.args(["--node-id", "node-1", "--mounter", "/nonexistent", "--endpoint"]).arg(&socket);
    let mut driver = driver.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let ready = first_line(driver.stderr.take().unwrap());
    assert!(ready.contains("csi.ready"), "{ready}");
    kill(Pid::from_raw(driver.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(driver.wait().unwrap().code(), Some(0));
    let _ = std::fs::remove_file(Path::new(&socket));
}

/// The first line; what follows is read by nobody.
fn first_line(output: impl Read) -> String {
    // With no more than that in a buffer.
    let mut output = BufReader::with_capacity(1, output);
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line
}

/// As when a node's log daemon dies: volumes are mounted and healed all the same.
fn of_the_mounters_log() {
    let test = talking_node();
    let mut command = Room::command(HOSTMOUNT);
    command.arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut mounter = test.container.spawn(command);
    let mut log = BufReader::new(mounter.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(events::READY) {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the mounter has ended");
    }
    drop(log);
    test.mount(&["-t", "fuse.talk", "good", "/mnt/v"]).ok("mount");
    test.node.sh_ok("kill -9 $(pidof mount.memfs)");
    let healed = format!("timeout 60 {HOSTMOUNT} events --follow -o json --event healed | head -1");
    assert!(test.container.sh_ok(&healed).contains("volume.healed"));
    test.node.sh_ok("echo x >/mnt/v/f");
    test.umount(&["/mnt/v"]).ok("umount");
    assert!(mounter.try_wait().unwrap().is_none());
}

fn a_disk_that_is_full() {
    let test = talking_node();
    let full = test.container.sh(&format!("{HOSTMOUNT} doctor >/dev/full"));
    assert_eq!(full.code, Some(2));
    assert_eq!(full.stderr, "cannot write to standard output: No space left on device (os error 28)\n");
}
