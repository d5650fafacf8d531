//! What a helper, or a pod, has prepared for a mounter that takes over a descriptor of theirs, or that is started while they are there:
//! files that wait when they are opened or closed, and mounts that look like a helper's.

use crate::harness::{Test, tests};
use crate::node::fault::{hostile, hostile_from};
use crate::node::mounter::Mounter;
use crate::node::preloaded::install;
use crate::node::{NODE_BIN, TestNode};
use hostmount::observe::events;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::Read;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};
use testbed::machine::{Process, Propagation, Room};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_file_that_is_never_closed_comes_to_the_preload_engine.needs(&["make", "perl", "bindfs"]).quick(),
        a_file_that_is_never_closed_is_called_like_the_device.needs(&["perl"]).quick(),
        an_output_that_is_exchanged_for_a_file_that_is_never_opened.needs(&["perl"]),
        a_pod_that_looks_like_a_helper.needs(&["perl", "unshare"]).quick(),
        a_user_who_looks_like_a_helper.needs(&["setpriv", "unshare", "bindfs"]).quick(),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";
const MOUNT: [&str; 4] = ["-t", "fuse.fault", "source", TARGET];
/// Longer than a list takes, which waits for nobody.
const BOUND: Duration = Duration::from_secs(10);

fn start(arguments: &[&str]) -> (TestNode, Mounter) {
    let test = TestNode::start();
    if arguments.contains(&"preload") {
        install(&test.container);
    }
    test.node.sh_ok(&format!("mkdir -p {TARGET} /mnt/other"));
    test.configure("ready_timeout_seconds = 2\nheal = false\n");
    let mounter = test.start_mounter(arguments, &[]);
    (test, mounter)
}

#[track_caller]
fn is_there(test: &TestNode, mounter: &Mounter) -> Vec<Value> {
    let list = test.node.sh(&format!("timeout -s KILL {} {NODE_BIN}/hostmount list --output json", BOUND.as_secs()));
    assert_eq!(list.code, Some(0), "the mounter waits: {list:?}\n{}", mounter.said());
    serde_json::from_str(&list.stdout).unwrap()
}

/// The mounter is killed, and the next one started; it panics if that one does not get ready.
fn next(test: &TestNode, mut mounter: Mounter) -> Mounter {
    mounter.signal(Signal::SIGKILL);
    mounter.wait();
    test.start_mounter(&[], &[])
}

/// sendmsg(2) to the engine's socket with the file `f` of its own filesystem, which does not answer FLUSH.
const OPEN: &str = "use Socket; open(my $file, '<', qq($target/f)) or die;";
const SEND: &str = r"socket(my $socket, PF_UNIX, SOCK_DGRAM, 0) or die; connect($socket, sockaddr_un('/run/hostmount/preload/socket')) or die;
    my $data = 'x'; my $control = pack('QLLLLLL', 28, 1, 1, (fileno $file) x 3, 0);
    my $part = pack('PQ', $data, 1); my $message = pack('QLx4PQPQLx4', 0, 0, $part, 1, $control, length $control, 0);
    syscall(46, fileno $socket, $message, 0) >= 0 or die $!;";

fn a_file_that_is_never_closed_comes_to_the_preload_engine() {
    // When it has mounted, and while it gets ready.
    for then in [
        format!("if (!fork) {{ {OPEN} sleep 1; {SEND} sleep 1000 }} select undef, undef, undef, 0.3; exit 0;"),
        format!("if (!fork) {{ {OPEN} {SEND} sleep 1000 }} sleep 1; exit 0;"),
    ] {
        let (test, mounter) = start(&["--engine", "preload"]);
        test.container.helper("fuse.fault", &hostile("$op == 25", &then));
        let done = test.node.sh(&format!("timeout -s KILL 20 {NODE_BIN}/hostmount mount {}", MOUNT.join(" ")));
        mounter.wait_for(events::HELPER_REFUSED, 1);
        // Another's.
        let begun = Instant::now();
        is_there(&test, &mounter);
        test.mount(&["-t", "fuse.bindfs", "/tmp", "/mnt/other"]).ok("mount");
        test.node.sh_ok("umount /mnt/other");
        assert!(begun.elapsed() < BOUND && done.code != Some(137), "{done:?}\n{}", mounter.said());
    }
}

/// Its first process has a file called `fuse` open where /dev/fuse may be, and that does not answer FLUSH.
fn a_file_that_is_never_closed_is_called_like_the_device() {
    let (test, mounter) = start(&[]);
    let first = r"if (!fork) { setpgrp; my $file; until (open($file, '<', qq($target/fuse))) { select undef, undef, undef, 0.01 }
        require POSIX; POSIX::dup2(fileno $file, 0); print qq(OPEN\n); sleep 1000 }";
    let then = "select undef, undef, undef, 0.5; exit 0;";
    test.container.helper("fuse.fault", &hostile_from(first, "$op == 25", then));
    let threads = |mounter: &Mounter| test.node.sh_ok(&format!("ls /proc/{}/task | wc -l", mounter.pid()));
    let before = threads(&mounter);
    test.mount(&MOUNT).ok("mount");
    mounter.wait_for_helper("OPEN", 1);
    let deadline = Instant::now() + BOUND;
    while threads(&mounter) != before {
        assert!(Instant::now() < deadline, "a thread waits: {}", threads(&mounter));
        thread::sleep(Duration::from_millis(50));
    }
    let mounter = next(&test, mounter);
    assert_eq!(is_there(&test, &mounter).len(), 1);
    test.node.sh_ok("pkill -9 perl");
}

/// Its first process exchanges its standard output, a pipe of the mounter's, for a file that waits when it is opened, and back, all the time.
fn an_output_that_is_exchanged_for_a_file_that_is_never_opened() {
    let (test, mut mounter) = start(&[]);
    let first = r"if (!fork) { setpgrp; my $file; until (sysopen($file, qq($target/f), 010000000)) { select undef, undef, undef, 0.01 }
        require POSIX; open(my $pipe, '>&', *STDOUT); my @both = (fileno $pipe, fileno $file); print qq(OPEN\n);
        while (1) { for my $one (@both) { POSIX::dup2($one, 1); POSIX::dup2($one, 2) } } }";
    test.container.helper("fuse.fault", &hostile_from(first, "$op == 14", "select undef, undef, undef, 0.5; exit 0;"));
    test.mount(&MOUNT).ok("mount");
    for _ in 0..8 {
        mounter = next(&test, mounter);
        assert_eq!(is_there(&test, &mounter).len(), 1);
    }
    test.node.sh_ok("pkill -9 perl");
}

/// Runs a line of shell in a mount namespace of its own, as a user of no privilege outside of it, until it says `ready`.
fn in_own_mounts(place: &crate::node::Place, line: &str) -> Process {
    let mut command = Room::command("setpriv");
    command.args(["--reuid=65534", "--clear-groups", "unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg(format!("set -e; {line}; echo ready; exec sleep 1000000"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut process = place.spawn(command);
    let mut said = [0; 6];
    process.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"ready\n");
    process
}

/// It shows its volume where helpers have their mount points, and on the way there as well; then the volume does not answer any more.
fn a_pod_that_looks_like_a_helper() {
    let (test, mounter) = start(&[]);
    test.container.helper("fuse.fault", &hostile("$op == 1 && -e '/tmp/silent'", "exit 0;"));
    test.mount(&MOUNT).ok("mount");
    let pod = test.pod(&[(TARGET, "/data")], Propagation::None);
    let line =
        "mount --bind /data /run; mount -t tmpfs hostmount:/mnt/other /run/hostmount/mnt; mkdir /run/hostmount/mnt/x;
        mount --bind /data /run/hostmount/mnt/x";
    let mut pretender = in_own_mounts(&pod, line);
    test.container.sh_ok("touch /tmp/silent");
    let mounter = next(&test, mounter);
    let targets: Vec<_> = is_there(&test, &mounter).into_iter().map(|volume| volume["target"].clone()).collect();
    assert_eq!(targets, [TARGET]);
    assert!(pretender.try_wait().unwrap().is_none(), "it was killed");
    test.container.sh_ok("rm /tmp/silent");
}

/// It claims a filesystem of others, which is mounted on the node, and the volume of a helper that died while there was no mounter.
fn a_user_who_looks_like_a_helper() {
    let (test, mut mounter) = start(&[]);
    test.container.sh_ok("mkdir /tmp/source");
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    test.node.sh_ok("mount -t tmpfs x /mnt/other");
    let claim = |target: &str| {
        in_own_mounts(
            &test.node,
            &format!(
                "mount -t tmpfs x /run; mkdir -p /run/hostmount/mnt; mount -t tmpfs hostmount:{target} /run/hostmount/mnt"
            ),
        )
    };
    let mut pretenders = [claim(TARGET), claim("/mnt/other")];
    mounter.signal(Signal::SIGTERM);
    mounter.wait();
    let mounter = test.start_mounter(&[], &[]);
    assert_eq!(is_there(&test, &mounter).len(), 1);
    for pretender in &mut pretenders {
        assert!(pretender.try_wait().unwrap().is_none(), "it was killed");
    }
    assert!(!mounter.said().contains("is killed"), "{}", mounter.said());
}
