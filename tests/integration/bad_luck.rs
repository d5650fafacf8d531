//! Bad input and failures: a clear error, and nothing left behind.
//!
//! Helpers that misbehave are small scripts around the demo's filesystem.

use crate::harness::{Test, tests};
use crate::node::job::{TRY, assert_refused};
use crate::node::notes::note;
use crate::node::setting::{Setting, TARGET};
use crate::node::{self, NODE_BIN, Place, TestNode, operators_mount};
use api::message::VERSION;
use hostmount::observe::events;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        bad_input_gets_a_clear_answer.needs(&["bindfs"]).quick(),
        options_that_only_mount8_could_carry_out.needs(&["bindfs"]).quick(),
        symbolic_links_are_followed_outside_of_kubelets_directory_only.needs(&["bindfs"]).quick(),
        a_target_that_is_mounted_already.needs(&["bindfs"]).quick(),
        the_mounter_is_not_running.needs(&["bindfs"]).quick(),
        a_helper_that_never_gets_ready,
        a_helper_that_ends_too_early.quick(),
        a_helper_that_asks_for_more_than_its_mount.needs(&["strace", "bindfs"]).quick(),
        the_caller_is_killed_in_the_middle.quick(),
        the_caller_is_killed_at_any_moment.needs(&["bindfs"]),
        the_mounter_is_stopped_in_the_middle.needs(&["bindfs"]).quick(),
        a_dead_helper_is_reported_and_its_mount_can_be_unmounted.needs(&["bindfs"]).quick(),
        sixty_four_mounts_at_once.needs(&["bindfs"]),
        a_thousand_mounts_leak_nothing.needs(&["bindfs"]),
        malformed_messages_are_refused.quick(),
    ]
}

const FAULT: [&str; 4] = ["-t", "fuse.fault", "source", TARGET];

fn bad_input_gets_a_clear_answer() {
    let setting = Setting::start();
    let node = &setting.test.node;
    let bindfs = |target| ["-t", "fuse.bindfs", "/tmp/source", target];
    setting.refuses(
        32,
        &["unknown filesystem type 'fuse.nosuch'", "mount.fuse.nosuch"],
        &["-t", "fuse.nosuch", "a", TARGET],
    );
    setting.refuses(32, &["/nonexist", "No such file or directory"], &["-t", "fuse.bindfs", "/nonexist", TARGET]);
    setting.refuses(32, &["mount point does not exist"], &bindfs("/var/lib/kubelet/missing"));
    node.sh_ok("echo x >/var/lib/kubelet/file");
    setting.refuses(32, &["mount point is not a directory"], &bindfs("/var/lib/kubelet/file"));
    setting.refuses(1, &["must be an absolute path"], &bindfs("var/lib"));
    setting.refuses(1, &["must not contain '..'"], &bindfs("/var/lib/kubelet/../lib"));
    setting.refuses(1, &["root directory"], &bindfs("/"));
    let unbalanced = ["-t", "fuse.bindfs", "-o", "ro,context=\"a,b", "/tmp/source", TARGET];
    setting.refuses(1, &["the quote opened in option 'context' is never closed"], &unbalanced);
    setting.refuses(1, &["'suid' cannot be granted"], &["-t", "fuse.bindfs", "-o", "suid", "/tmp/source", TARGET]);
    // The helper's own message: bindfs gets an option that it does not know.
    setting.refuses(32, &["bindfs", "nonsense=1"], &["-t", "fuse.bindfs", "-o", "nonsense=1", "/tmp/source", TARGET]);
    // The mounter still works.
    setting.test.mount(&bindfs(TARGET)).ok("mount");
}

/// mount(8) would carry these out itself; without it they would be dropped silently.
fn options_that_only_mount8_could_carry_out() {
    let setting = Setting::start();
    let new = "/var/lib/kubelet/new";
    for (option, instead, target) in [
        ("X-mount.owner=1000", "uid=, gid= and umask=", TARGET),
        ("X-mount.group=1000", "uid=, gid= and umask=", TARGET),
        ("X-mount.mode=0700", "uid=, gid= and umask=", TARGET),
        ("X-mount.nocanonicalize", "mount(8) itself", TARGET),
        ("X-mount.mkdir", "make the target", new),
        ("x-mount.mkdir=0700", "make the target", new),
    ] {
        let name = option.split('=').next().unwrap();
        let named = format!("option '{name}' is not served");
        let options = format!("ro,{option}");
        setting.refuses(1, &[&named, instead], &["-t", "fuse.bindfs", "-o", &options, "/tmp/source", target]);
    }
    assert_ne!(setting.test.node.sh(&format!("test -e {new}")).code, Some(0));
    let bad = ["-t", "fuse.bindfs", "-o", "X-mount.subdir=../x", "/tmp/source", TARGET];
    setting.refuses(1, &["'X-mount.subdir' takes the path"], &bad);
    // Comments, for systemd and other readers of fstab.
    let comments = "x-systemd.automount,X-other=5";
    setting.test.mount(&["-t", "fuse.bindfs", "-o", comments, "/tmp/source", TARGET]).ok("mount");
}

fn symbolic_links_are_followed_outside_of_kubelets_directory_only() {
    let setting = Setting::start();
    let node = &setting.test.node;
    node.sh_ok("mkdir /mnt/real /mnt/real/v && ln -s /mnt/real /mnt/link && ln -s /mnt/real /var/lib/kubelet/link");
    for target in ["/var/lib/kubelet/link", "/var/lib/kubelet/link/v"] {
        let arguments = ["-t", "fuse.bindfs", "/tmp/source", target];
        setting.refuses(32, &["below a symbolic link", "/var/lib/kubelet"], &arguments);
    }
    // As mount(8) does.
    setting.test.mount(&["-t", "fuse.bindfs", "/tmp/source", "/mnt/link/v"]).ok("mount");
    assert!(node.mount_at("/mnt/real/v").is_some());
}

fn a_target_that_is_mounted_already() {
    let setting = Setting::start();
    setting.test.container.sh_ok("mkdir /tmp/other");
    let same = ["-t", "fuse.bindfs", "/tmp/source", TARGET];
    setting.test.mount(&same).ok("mount");
    setting.refuses(32, &[&format!("mount: {TARGET}: /tmp/source already mounted on {TARGET}.")], &same);
    // Another filesystem is mounted on top, as with mount(8).
    setting.test.mount(&["-t", "fuse.bindfs", "/tmp/other", TARGET]).ok("mount on top");
    setting.test.node.sh_ok(&format!("umount {TARGET}; umount {TARGET}"));
    setting.mounter.wait_for(events::UNMOUNTED, 2);
}

fn the_mounter_is_not_running() {
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    let done = test.mount(&["-t", "glusterfs", "h:/v", TARGET]);
    assert_eq!(done.code, Some(32));
    for words in ["the mounter is not running", "/run/hostmount/hostmount.sock", "check that"] {
        assert!(done.stderr.contains(words), "{}", done.stderr);
    }
    // A mounter that was killed leaves its socket behind: the error is the same, and the next mounter replaces the
    // socket.
    let mut mounter = test.start_mounter(&[], &[]);
    mounter.signal(nix::sys::signal::Signal::SIGKILL);
    mounter.wait();
    assert!(test.mount(&["-t", "glusterfs", "h:/v", TARGET]).stderr.contains("the mounter is not running"));
    test.container.sh_ok("mkdir /tmp/source");
    let _again = test.start_mounter(&[], &[]);
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount by the second");
    let second = test.container.sh("/usr/local/bin/hostmount serve");
    assert!(second.stderr.contains("another mounter is running"), "{}", second.stderr);
}

fn a_helper_that_never_gets_ready() {
    let setting = Setting::with_config("ready_timeout_seconds = 1\n");
    setting.fault("echo starting to wait\nsleep infinity & setsid sleep infinity & wait");
    setting.refuses(32, &["starting to wait", "not ready within 1 s", "it has not mounted"], &FAULT);
    // It mounts, and no process ever answers: the descriptor is kept open by a process that does not read it.
    setting.fault("exec 5<>/dev/fuse; mount -i -t fuse.fault -o fd=5,rootmode=40000,user_id=0,group_id=0 x \"$2\" || exit 9; setsid sleep infinity & exit 0");
    setting.refuses(32, &["not ready within 1 s", "does not answer"], &FAULT);
}

fn a_helper_that_ends_too_early() {
    let setting = Setting::start();
    setting.fault("mount.memfs \"$@\" && echo mounted and gone && exit 3");
    setting.refuses(32, &["mounted and gone", "exit status: 3"], &FAULT);
    setting.fault("mount.memfs \"$@\" && kill -9 $$");
    setting.refuses(32, &["signal: 9"], &FAULT);
    setting.fault("(mount.memfs \"$@\"; sleep infinity) & kill -9 $$");
    setting.refuses(32, &["signal: 9"], &FAULT);
    setting.fault("exit 0");
    setting.refuses(32, &["ended without having mounted anything"], &FAULT);
    setting.fault("mount.memfs \"$@\" && kill -9 $(pidof mount.memfs); exit 0");
    setting.refuses(32, &["does not answer"], &FAULT);
    setting.fault("mount.memfs \"$@\" && umount -i \"$2\"; exit 0");
    setting.refuses(32, &["unmounted again"], &FAULT);
    // Not a fault: it goes to the background before it mounts.
    setting.fault("(mount.memfs \"$@\") & exit 0");
    setting.test.mount(&FAULT).ok("mount");
    assert!(setting.test.node.mount_at(TARGET).is_some());
}

fn a_helper_that_asks_for_more_than_its_mount() {
    let setting = Setting::start();
    // Each line is a call that must fail; only the last one is granted.
    setting.fault(&format!(
        "{TRY}
        try mount -i -t tmpfs x \"$2\"
        try mount -i -t tmpfs x /tmp
        try mount --bind / \"$2\"
        try mount --make-rshared /
        try mount -i -o remount,rw /
        try mount -i -t fuse.fault -o fd=0,rootmode=40000,user_id=0,group_id=0 x \"$2\"
        mkdir -p /tmp/elsewhere; try mount.memfs x /tmp/elsewhere
        try umount -l /proc
        try unshare --user --map-root-user true
        try unshare --mount true
        try chroot / true
        mount.memfs \"$1\" \"$2\" || exit 7
        try mount.memfs \"$1\" \"$2\"
        exit 0",
    ));
    setting.test.mount(&FAULT).ok("mount");
    assert_refused(&setting.test, &setting.mounter, 12);
    let line = setting.test.node.mount_at(TARGET).unwrap();
    assert!(line.contains("nosuid,nodev"), "{line}");
}

fn the_caller_is_killed_in_the_middle() {
    let setting = Setting::start();
    setting.fault("echo waiting for the end; sleep infinity");
    let before = setting.state();
    for round in 1..=3 {
        let mut command = operators_mount();
        command.args(FAULT).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut caller = setting.test.node.spawn(command);
        setting.mounter.wait_for_helper("waiting for the end", round);
        caller.kill().unwrap();
        caller.wait().unwrap();
        setting.mounter.wait_for(events::NOT_MOUNTED, round);
        setting.wait_until(&before);
    }
}

fn the_caller_is_killed_at_any_moment() {
    let setting = Setting::start();
    let mut chance = node::chance();
    let before = setting.state();
    let (mut mounted, mut undone) = (0, 0);
    for _round in 0..100 {
        let mut command = operators_mount();
        command.args(["-t", "fuse.bindfs", "/tmp/source", TARGET]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut caller = setting.test.node.spawn(command);
        // The moment itself: a mount takes some milliseconds.
        thread::sleep(Duration::from_micros(chance.u64(0..8000)));
        caller.kill().unwrap();
        caller.wait().unwrap();
        setting.wait_until_idle(&before);
        // All or nothing: a volume that is mounted answers, and can be unmounted.
        if setting.test.node.mount_at(TARGET).is_some() {
            setting.test.node.sh_ok(&format!("ls {TARGET} && umount {TARGET}"));
            mounted += 1;
        } else {
            undone += 1;
        }
        setting.wait_until(&before);
    }
    note(format!("{mounted} stood, {undone} were undone"));
}

fn the_mounter_is_stopped_in_the_middle() {
    let mut setting = Setting::start();
    setting.test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    setting.fault("echo waiting for the end; sleep infinity");
    setting.test.node.sh_ok("mkdir /var/lib/kubelet/other");
    let mut command = operators_mount();
    command.args(["-t", "fuse.fault", "source", "/var/lib/kubelet/other"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let caller = setting.test.node.spawn(command);
    setting.mounter.wait_for_helper("waiting for the end", 1);
    setting.mounter.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(setting.mounter.wait().success());
    let mut caller = caller;
    let mut words = String::new();
    std::io::Read::read_to_string(caller.stderr.as_mut().unwrap(), &mut words).unwrap();
    assert_eq!(caller.wait().unwrap().code(), Some(8), "{words}");
    assert!(words.contains("the mounter is being stopped"), "{words}");
    setting.test.wait_for_processes("sleep", 0);
    // The mounted volume is still served.
    setting.test.node.sh_ok(&format!("echo still >{TARGET}/f && cat {TARGET}/f"));
}

fn a_dead_helper_is_reported_and_its_mount_can_be_unmounted() {
    let setting = Setting::with_config("heal = false\n");
    let before = setting.state();
    setting.test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    setting.test.node.sh_ok("kill -9 $(pidof bindfs)");
    setting.mounter.wait_for(events::DEAD, 1);
    let list = setting.test.node.sh_ok(&format!("{NODE_BIN}/hostmount list --output json"));
    assert!(list.contains("\"dead\""), "{list}");
    setting.test.umount(&[TARGET]).ok("umount");
    setting.mounter.wait_for(events::UNMOUNTED, 1);
    setting.wait_until(&before);
}

fn sixty_four_mounts_at_once() {
    let setting = Setting::start();
    let before = setting.state();
    let node = &setting.test.node;
    node.sh_ok(&format!(
        "cd /var/lib/kubelet; for n in $(seq 64); do mkdir m$n; done
        for n in $(seq 64); do {NODE_BIN}/hostmount mount -t fuse.bindfs /tmp/source /var/lib/kubelet/m$n & pids=\"$pids $!\"; done
        for pid in $pids; do wait $pid || exit 1; done"
    ));
    assert_eq!(node.fuse_mounts().len(), 64);
    setting.test.container.sh_ok("echo seen >/tmp/source/f");
    node.sh_ok("for n in $(seq 64); do grep -q seen /var/lib/kubelet/m$n/f || exit 1; done");
    node.sh_ok("for n in $(seq 64); do umount /var/lib/kubelet/m$n || exit 1; done; rmdir /var/lib/kubelet/m*");
    setting.mounter.wait_for(events::UNMOUNTED, 64);
    setting.wait_until(&before);
}

fn a_thousand_mounts_leak_nothing() {
    let setting = Setting::start();
    let once = format!("{NODE_BIN}/hostmount mount -t fuse.bindfs /tmp/source {TARGET} && umount {TARGET}");
    setting.test.node.sh_ok(&once);
    setting.mounter.wait_for(events::UNMOUNTED, 1);
    setting.test.wait_for_processes("bindfs", 0);
    let before = setting.state();
    setting.test.node.sh_ok(&format!("for n in $(seq 999); do {once} || exit 1; done"));
    setting.mounter.wait_for(events::UNMOUNTED, 1000);
    setting.wait_until(&before);
}

fn malformed_messages_are_refused() {
    let setting = Setting::start();
    let before = setting.state();
    let header = |version: u32, length: u32| [&b"HMNT"[..], &version.to_be_bytes(), &length.to_be_bytes()].concat();
    let say = |bytes: Vec<u8>| talk(&setting.test.container, bytes);
    for (bytes, answer) in [
        (header(VERSION, u32::MAX), "bytes long, at most"),
        (header(7, 2), "has version 7"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "not a message of hostmount's"),
        ([header(VERSION, 100), b"{}".to_vec()].concat(), "in the middle of a message"),
        (b"HM".to_vec(), "in the middle of a message"),
        ([header(VERSION, 7), b"\"lists\"".to_vec()].concat(), "not understood"),
        ([header(VERSION, 4), b"\xff\xfe[[".to_vec()].concat(), "not understood"),
    ] {
        let reply = say(bytes);
        assert!(reply.contains(answer) && reply.contains("\"usage\""), "{answer} is not in {reply}");
    }
    assert_eq!(say(Vec::new()), "", "nothing is answered to nothing");
    setting.wait_until(&before);
    // Another uid: the socket's mode keeps it out, and if that was changed, its credentials do.
    let list = format!("su -s /bin/sh nobody -c '{NODE_BIN}/hostmount list'");
    let done = setting.test.node.sh(&list);
    assert!(done.code == Some(1) && done.stderr.contains("only root may ask"), "{done:?}");
    setting.test.node.sh_ok("chmod 755 /run/hostmount; chmod 666 /run/hostmount/hostmount.sock");
    let done = setting.test.node.sh(&list);
    assert!(done.code == Some(1) && done.stderr.contains("you are uid 65534"), "{done:?}");
    setting.test.node.sh_ok(&format!("{NODE_BIN}/hostmount list"));
}

/// Sends bytes, says that this was all, and returns the reply's body.
fn talk(room: &Place, bytes: Vec<u8>) -> String {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    room.visit(|| {
        let mut stream = UnixStream::connect(node::mounter::SOCKET).unwrap();
        // The mounter may have answered and closed before all of it was sent.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        String::from_utf8_lossy(reply.get(12..).unwrap_or_default()).into_owned()
    })
}
