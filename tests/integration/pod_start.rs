//! `hostmount-pod start`, `ready` and `copy`, as a container runs them. The mounter is `testbed`'s `pod-mounter` here.

use crate::harness::{Test, tests};
use crate::node::Done;
use crate::node::pod_volume::{DIRECTORY, MOUNT_POINT, OURS, PodVolume, SHOWN};
use crate::node::programs::SMALL_POD;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use testbed::machine::{Process, Room};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_program_gets_its_descriptor_and_nobody_else_has_it.needs(&["squashfuse", "mksquashfs"]).quick(),
        it_exits_as_the_program_does_and_tells_its_last_words.quick(),
        what_the_program_says_is_passed_on_unchanged.quick(),
        signals_are_passed_on.quick(),
        as_pid_1_it_collects_what_ends.quick(),
        it_waits_for_its_socket.needs(&["squashfuse", "mksquashfs"]).quick(),
        a_program_that_does_not_serve_in_time_is_ended.needs(&["squashfuse", "mksquashfs"]).quick(),
        wrong_words_are_said_before_anything_is_asked.quick(),
        a_copy_of_it_has_all_its_names.quick(),
        it_is_small_and_needs_no_library.needs(&["make", "readelf"]).anywhere(),
    ]
}

/// `hostmount-pod` with these arguments, as a user without privilege.
fn pod(arguments: &[&str]) -> Command {
    let mut command = Room::command("setpriv");
    command.args(["--reuid", "4711", "--regid", "4711", "--clear-groups", "--no-new-privs", "--inh-caps=-all"]);
    command.arg(format!("{OURS}/hostmount-pod")).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(test: &PodVolume, arguments: &[&str]) -> Done {
    test.place.0.output(pod(arguments)).unwrap().into()
}

/// `start -- sh -c SCRIPT sh {}`.
fn script(lines: &str) -> Vec<&str> {
    vec!["start", "--", "sh", "-c", lines, "sh", "{}"]
}

/// A filesystem with a file `f` that squashfuse can show.
fn image(test: &PodVolume) {
    test.place.sh_ok("mkdir /tmp/source && echo packed >/tmp/source/f && mksquashfs /tmp/source /tmp/image -quiet");
}

/// Runs squashfuse by `start` in the background, and waits until it serves.
fn squashfuse(test: &PodVolume, options: &[&str]) -> Process {
    // The test looks as root.
    let command = ["-o", "allow_other", "--", "squashfuse", "-f", "/tmp/image", "{}"];
    let process = test.place.spawn(pod(&[&["start"], options, &command].concat()));
    test.asked();
    test.place.sh_ok(&format!("test \"$(cat {SHOWN}/f)\" = packed"));
    process
}

fn signal(process: &Process, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.id().cast_signed()), signal).unwrap();
}

fn a_program_gets_its_descriptor_and_nobody_else_has_it() {
    let test = PodVolume::start(&[]);
    image(&test);
    let before = run(&test, &["ready"]);
    assert_eq!(
        (before.code, &*before.stderr),
        (Some(1), "hostmount-pod ready: no program serves /run/hostmount/volume yet\n")
    );
    let mut process = squashfuse(&test, &["-o", "ro,fsname=packed"]);
    assert_eq!(
        test.place.mount_at(SHOWN).unwrap().split(" - ").nth(1).unwrap().split(',').next(),
        Some("fuse packed ro")
    );
    run(&test, &["ready"]).ok("ready");
    run(&test, &["ready", MOUNT_POINT]).ok("ready");
    // `start` itself has let go of it: the connection ends with the program.
    let holders = test.place.sh_ok("ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c ' -> /dev/fuse$'");
    assert_eq!(holders, "1\n");
    signal(&process, nix::sys::signal::Signal::SIGTERM);
    // libfuse ends in good order: with 8 after a signal, and with 0 in later versions.
    let code = process.wait().unwrap().code().unwrap();
    assert!([0, 8].contains(&code), "{code}");
    assert_eq!(test.asked(), format!("volume ended {code} "));
    assert_eq!(run(&test, &["ready"]).code, Some(1));
}

fn it_exits_as_the_program_does_and_tells_its_last_words() {
    let test = PodVolume::start(&[]);
    let done = run(&test, &script("echo first >&2; echo $1; printf 'bad\\tkey' >&2; exit 7"));
    assert_eq!((done.code, &*done.stderr), (Some(7), "first\nbad\tkey"));
    assert!(done.stdout.starts_with("/dev/fd/"), "{}", done.stdout);
    assert_eq!([test.asked(), test.asked()], ["volume mount ", "volume ended 7 first|bad\tkey"]);
    assert_eq!(run(&test, &script("kill -9 $$")).code, Some(137));
    assert_eq!([test.asked(), test.asked()], ["volume mount ", "volume ended 137 "]);
    for (program, code, words) in [("/nothing", 127, "No such file"), ("/etc/passwd", 126, "Permission denied")] {
        let done = run(&test, &["start", "--", program, "{}"]);
        assert_eq!(done.code, Some(code), "{program}");
        assert!(done.stderr.contains(words) && done.stderr.lines().count() == 1, "{}", done.stderr);
        let asked = [test.asked(), test.asked()];
        assert!(asked[1].starts_with(&format!("volume ended {code} cannot start {program}: {words}")), "{asked:?}");
    }
}

fn what_the_program_says_is_passed_on_unchanged() {
    let test = PodVolume::start(&[]);
    let done =
        test.place.0.output(pod(&script("head -c 300000 /dev/zero | tr '\\0' '\\377' >&2; echo out; exit 3"))).unwrap();
    assert_eq!((done.status.code(), &*done.stdout), (Some(3), &b"out\n"[..]));
    assert!(done.stderr.len() == 300_000 && done.stderr.iter().all(|byte| *byte == 255));
    // In time, and not at the end: the test answers by ending it.
    let mut process = test.place.spawn(pod(&script("echo up >&2; sleep infinity")));
    let mut said = BufReader::new(process.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    // A reader that goes away ends nothing.
    drop(said);
    assert!(process.try_wait().unwrap().is_none());
    signal(&process, nix::sys::signal::Signal::SIGTERM);
    assert_eq!(process.wait().unwrap().code(), Some(143));
    // A process that keeps the pipe is not waited for.
    let done = run(&test, &script("sleep infinity >/dev/null & exit 4"));
    assert_eq!(done.code, Some(4));
}

fn signals_are_passed_on() {
    let test = PodVolume::start(&[]);
    // A signal that comes just before bash waits is acted upon after that: so it never waits for long. One that was ignored when it began,
    // as SIGHUP is below nohup, it never hears of.
    let lines = "trap 'echo term >&2; exit 5' TERM; trap 'echo usr1 >&2' USR1; trap 'echo hup >&2' HUP; trap 'echo rt >&2' 34; \
                 echo up >&2; while :; do sleep 0.1 >/dev/null 2>&1 & wait; done";
    let mut process =
        test.place.spawn(pod(&["start", "--", "env", "--default-signal", "bash", "-c", lines, "bash", "{}"]));
    let mut said = BufReader::new(process.stderr.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(next(), "up\n");
    let pid = test.pid_of("hostmount-pod");
    for (name, word) in [("USR1", "usr1\n"), ("HUP", "hup\n"), ("34", "rt\n"), ("TERM", "term\n")] {
        test.place.sh_ok(&format!("kill -{name} {pid}"));
        assert_eq!(next(), word);
    }
    assert_eq!(process.wait().unwrap().code(), Some(5));
}

fn as_pid_1_it_collects_what_ends() {
    let test = PodVolume::start(&[]);
    // Children of a shell that has ended are PID 1's.
    let lines = "for n in 1 2 3 4 5; do sh -c 'true & exit 0'; done
        left() { cat /proc/[0-9]*/stat 2>/dev/null | grep -c ' Z '; }
        for n in $(seq 1000); do test $(left) = 0 && exit 6; done
        cat /proc/[0-9]*/stat >&2";
    let ours = format!("{OURS}/hostmount-pod");
    let arguments = [&["--pid", "--fork", "--kill-child", "--mount-proc", &ours], &*script(lines)].concat();
    let done = test.place.run("unshare", &arguments);
    assert_eq!((done.code, &*done.stderr), (Some(6), ""));
    // A signal that ends others by default is PID 1's to pass on.
    let mut command = Room::command("unshare");
    command.args(["--pid", "--fork", "--kill-child", &ours]).args(script("echo up >&2; exec sleep infinity"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = test.place.spawn(command);
    let mut said = BufReader::new(process.stderr.take().unwrap());
    said.read_line(&mut String::new()).unwrap();
    test.place.sh_ok("pkill -TERM -f '^/opt/pod/hostmount-pod start'");
    assert_eq!(process.wait().unwrap().code(), Some(143));
}

fn it_waits_for_its_socket() {
    let test = PodVolume::start(&[]);
    image(&test);
    let late = "/run/late/volume";
    test.place.sh_ok("mkdir /run/late && chmod 777 /run/late");
    // It comes too early, and gives up when it is told to.
    let arguments = ["start", "--at", late, "-o", "allow_other", "--", "squashfuse", "-f", "/tmp/image", "{}"];
    let start = || test.place.spawn(pod(&arguments));
    let mut early = start();
    let pid = test.pid_of("hostmount-pod");
    test.place.sh_ok(&format!("until grep -q 'SigBlk:.*[1-9a-f]' /proc/{pid}/status; do :; done; kill -WINCH {pid}"));
    assert!(early.try_wait().unwrap().is_none());
    test.place.sh_ok(&format!("kill -TERM {pid}"));
    assert_eq!(early.wait().unwrap().code(), Some(143));
    // The mounter comes while it waits.
    let mut early = start();
    test.pid_of("hostmount-pod");
    let mut command = Room::command("/usr/local/bin/pod-mounter");
    command.args(["/run/late", "volume=/mnt/late"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut mounter = test.place.spawn(command);
    let mut lines = BufReader::new(mounter.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!([lines.next().unwrap(), lines.next().unwrap()], ["ready", "volume mount allow_other"]);
    assert_eq!(test.place.sh_ok("cat /mnt/late/f"), "packed\n");
    signal(&early, nix::sys::signal::Signal::SIGTERM);
    assert!([Some(0), Some(8)].contains(&early.wait().unwrap().code()));
    // It does not wait for ever, and says for what.
    let done = run(&test, &["start", "--at", "/run/never/volume", "--wait", "1", "--", "true", "{}"]);
    assert_eq!(done.code, Some(32));
    assert!(done.stderr.contains("no socket /run/never/volume.sock"), "{}", done.stderr);
}

fn a_program_that_does_not_serve_in_time_is_ended() {
    let test = PodVolume::start(&[]);
    image(&test);
    let start = ["start", "--ready", "--wait", "1", "--"];
    let lines = "trap 'echo told >&2; exit 0' TERM; echo up >&2; while :; do sleep 0.1 >/dev/null 2>&1 & wait; done";
    let done = run(&test, &[&start[..], &["bash", "-c", lines, "bash", "{}"]].concat());
    assert_eq!(done.code, Some(32));
    let words = ["up", "hostmount-pod start: the program does not serve the volume after 1 s: it is ended", "told"];
    assert_eq!(done.stderr.lines().collect::<Vec<_>>(), words);
    let asked = [test.asked(), test.asked()];
    assert!(asked[1].starts_with("volume ended 32 up|the program does not serve"), "{asked:?}");
    // One that serves is left alone.
    let mut process = squashfuse(&test, &["--ready", "--wait", "30"]);
    let pid = test.pid_of("squashfuse");
    test.place.sh_ok(&format!("kill -9 {pid}"));
    assert_eq!(process.wait().unwrap().code(), Some(137));
    let mut said = String::new();
    process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

fn wrong_words_are_said_before_anything_is_asked() {
    let test = PodVolume::start(&[]);
    for (arguments, words) in [
        (&[][..], "usage"),
        (&["begin"], "usage"),
        (&["start", "--", "true"], "no {}"),
        (&["start", "-o", "uid=5", "--", "true", "{}"], "unknown option 'uid=5'"),
        (&["start", "-o", "auto_unmount", "--", "true", "{}"], "auto_unmount"),
        (&["ready", "a", "b"], "usage"),
        (&["copy"], "usage"),
    ] {
        let done = run(&test, arguments);
        assert_eq!(done.code, Some(1), "{arguments:?}");
        assert!(done.stderr.contains(words) && done.stderr.lines().count() == 1, "{arguments:?}: {}", done.stderr);
    }
    assert_eq!(test.was_asked(), [""; 0]);
    // Nobody reads what it says.
    let ours = format!("{OURS}/hostmount-pod");
    assert_eq!(
        test.place.sh(&format!("{{ {ours} --version; echo $? >/tmp/code; }} | true; cat /tmp/code")).stdout,
        "0\n"
    );
    assert_eq!(test.place.sh(&format!("{ours} ready /x/y 2>&-")).code, Some(1));
}

fn a_copy_of_it_has_all_its_names() {
    let test = PodVolume::start(&[]);
    test.place.sh_ok("mkdir /run/bin && chmod 777 /run/bin && echo old >/run/bin/fusermount3");
    for _ in 0..2 {
        run(&test, &["copy", "/run/bin"]).ok("copy");
        assert_eq!(test.place.sh_ok("ls -A /run/bin"), "fusermount\nfusermount3\nhostmount-pod\n");
    }
    for (name, said) in
        [("hostmount-pod --version", "hostmount-pod 0.1.0"), ("fusermount3 -V", "fusermount3 version: 3.")]
    {
        assert!(test.place.sh_ok(&format!("/run/bin/{name}")).starts_with(said), "{name}");
    }
    assert_eq!(
        test.place.sh_ok("cmp /run/bin/fusermount /opt/pod/hostmount-pod; stat -c %a /run/bin/fusermount"),
        "755\n"
    );
    let done = run(&test, &["copy", "/nothing"]);
    assert!(done.code == Some(2) && done.stderr.contains("cannot put it into /nothing"), "{}", done.stderr);
    assert!(!Path::new(DIRECTORY).join("bin").exists());
}

/// As it is shipped.
fn it_is_small_and_needs_no_library() {
    let program = &*SMALL_POD;
    assert!(std::fs::metadata(program).unwrap().len() < 1 << 20);
    let needed = Command::new("readelf").arg("--dynamic").arg(program).output().unwrap();
    assert!(needed.status.success() && !String::from_utf8_lossy(&needed.stdout).contains("NEEDED"));
    let done = Command::new(program).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout), "hostmount-pod 0.1.0\n");
}
