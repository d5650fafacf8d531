//! Nothing grows, and nobody waits, by what a helper or a caller does without end: their calls, their words, their connections.

use crate::harness::{Test, tests};
use crate::node::mounter::SOCKET;
use crate::node::notes::note;
use crate::node::setting::{Setting, TARGET};
use crate::node::{NODE_BIN, TestNode};
use hostmount::observe::events;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        calls_that_are_refused_without_end_before_the_mount,
        calls_that_are_refused_without_end_after_the_mount.needs(&["bindfs"]),
        words_without_end_cost_little.needs(&["bindfs"]),
        a_byte_now_and_then_keeps_no_connection.quick(),
        connections_without_end_keep_nobody_out,
        words_too_long_are_refused.quick(),
        no_word_of_a_caller_acts_on_a_terminal.needs(&["bindfs"]).quick(),
    ]
}

const OTHER: &str = "/var/lib/kubelet/pods/p/volumes/other";

/// mount(2) by number, with a type of its own each time, for these seconds.
const CALL_WITHOUT_END: &str = r#"call() { perl -e 'my $end = time + $ARGV[1]; my $n = 0;
    while (time < $end) { for (1..50) { my $type = ($n++) . "y" x 3000; my $none = "x"; my $to = $ARGV[0]; syscall(165, $none, $to, $type, 0, 0) } }
    print "tries: $n\n"' "$1" "$2"; }"#;

/// What the mounter has used so far: memory in KiB, processor time in hundredths of a second, bytes of its log.
fn used(setting: &Setting) -> (u64, u64, usize) {
    let pid = setting.mounter.pid();
    let number = |line: String| line.trim().parse::<u64>().unwrap();
    let memory =
        number(setting.test.node.sh_ok(&format!("sed -n 's/^VmRSS:\\s*\\([0-9]*\\) kB/\\1/p' /proc/{pid}/status")));
    let time = number(setting.test.node.sh_ok(&format!("sed 's/.*) //' /proc/{pid}/stat | awk '{{print $12 + $13}}'")));
    (memory, time, setting.mounter.said().len())
}

fn list_in_time(test: &TestNode) -> Duration {
    let begin = Instant::now();
    test.node.sh_ok(&format!("{NODE_BIN}/hostmount list"));
    begin.elapsed()
}

fn calls_that_are_refused_without_end_before_the_mount() {
    let setting = Setting::start();
    setting.fault(&format!("{CALL_WITHOUT_END}\ncall \"$2\" 3; exit 1"));
    let before = used(&setting);
    let done = setting.test.mount(&["-t", "fuse.fault", "source", TARGET]);
    let after = used(&setting);
    note(format!("(KiB, ticks, bytes of log): {before:?}, then {after:?}; {} bytes for the caller", done.stderr.len()));
    assert!(done.code == Some(32) && done.stderr.contains("tries: "), "{}", done.stderr);
    assert!(done.stderr.contains("more calls of it"), "{}", done.stderr);
    assert!(done.stderr.len() < 16 << 10, "{} bytes for the caller", done.stderr.len());
    assert!(after.0 < before.0 + (16 << 10), "memory in KiB: {} then {}", before.0, after.0);
    assert!(after.2 < before.2 + (256 << 10), "bytes of log: {} then {}", before.2, after.2);
    assert!(setting.mounter.said().contains("refused calls of the helper's were not logged"));
}

fn calls_that_are_refused_without_end_after_the_mount() {
    let setting = Setting::start();
    setting.test.node.sh_ok(&format!("mkdir {OTHER}"));
    let calls = "(call \"$2\" 8 & call \"$2\" 8 & call \"$2\" 8 &) ";
    setting.fault(&format!("{CALL_WITHOUT_END}\nmount.memfs \"$1\" \"$2\" || exit 7\n{calls}\nexit 0"));
    setting.test.mount(&["-t", "fuse.fault", "source", TARGET]).ok("mount");
    let (before, begin) = (used(&setting), Instant::now());
    let mut slowest = Duration::ZERO;
    while begin.elapsed() < Duration::from_secs(5) {
        slowest = slowest.max(list_in_time(&setting.test));
    }
    // Others are served meanwhile.
    setting.test.mount(&["-t", "fuse.bindfs", "/tmp/source", OTHER]).ok("mount of another");
    setting.test.node.sh_ok(&format!("umount {OTHER}"));
    setting.mounter.wait_for(events::UNMOUNTED, 1);
    let (after, time) = (used(&setting), begin.elapsed());
    note(format!("(KiB, ticks, bytes of log): {before:?}, {time:?} later {after:?}; slowest list {slowest:?}"));
    assert!(after.0 < before.0 + (16 << 10), "memory in KiB: {} then {}", before.0, after.0);
    assert!(after.2 < before.2 + (256 << 10), "bytes of log: {} then {}", before.2, after.2);
    let share = (after.1 - before.1) as f64 / 100.0 / time.as_secs_f64();
    assert!(share < 0.4, "the mounter was on a processor for {share} of the time");
    setting.test.node.sh_ok(&format!("umount {TARGET}"));
    setting.mounter.wait_for(events::UNMOUNTED, 2);
}

fn words_without_end_cost_little() {
    let setting = Setting::start();
    setting.fault("mount.memfs \"$1\" \"$2\" || exit 7\n(timeout 6 yes something is wrong &)\nexit 0");
    setting.test.mount(&["-t", "fuse.fault", "source", TARGET]).ok("mount");
    let (before, begin) = (used(&setting), Instant::now());
    while begin.elapsed() < Duration::from_secs(4) {
        assert!(list_in_time(&setting.test) < Duration::from_secs(10));
    }
    let (after, time) = (used(&setting), begin.elapsed());
    note(format!("(KiB, ticks, bytes of log): {before:?}, {time:?} later {after:?}"));
    assert!(after.0 < before.0 + (16 << 10) && after.2 < before.2 + (256 << 10), "{before:?} then {after:?}");
}

/// Sends the beginning of a message, a byte at a time; how long until the mounter has had enough.
fn send_slowly(test: &TestNode, between: Duration) -> Duration {
    let mut stream = test.node.visit(|| UnixStream::connect(SOCKET).unwrap());
    let begin = Instant::now();
    stream.set_read_timeout(Some(between)).unwrap();
    for byte in b"HMNT\0\0\0\x04\0\0\x10\0".iter().chain(&[b' '; 40]) {
        let mut answer = [0; 12];
        let ended = stream.write_all(&[*byte]).is_err();
        if ended || stream.read(&mut answer).is_ok() {
            break;
        }
    }
    begin.elapsed()
}

fn a_byte_now_and_then_keeps_no_connection() {
    let setting = Setting::start();
    let before = setting.state();
    let took = send_slowly(&setting.test, Duration::from_millis(400));
    assert!(took < Duration::from_secs(8), "it took {took:?}");
    setting.wait_until(&before);
}

fn connections_without_end_keep_nobody_out() {
    let setting = Setting::start();
    let before = setting.state();
    let idle: Vec<_> = setting.test.node.visit(|| (0..600).map(|_| UnixStream::connect(SOCKET).unwrap()).collect());
    let waited = list_in_time(&setting.test);
    let threads = setting.state().threads;
    note(format!("a list took {waited:?} behind 600 connections; {}", threads.trim()));
    let threads: usize = threads.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(threads < 300, "{threads} threads");
    assert!(waited < Duration::from_secs(40), "a list took {waited:?}");
    drop(idle);
    thread::sleep(Duration::from_millis(100));
    assert!(list_in_time(&setting.test) < Duration::from_secs(5));
    setting.wait_until(&before);
}

fn words_too_long_are_refused() {
    let setting = Setting::start();
    let source = "x".repeat(100_000);
    setting.refuses(1, &["the source is 100000 bytes long"], &["-t", "fuse.bindfs", &source, TARGET]);
}

fn no_word_of_a_caller_acts_on_a_terminal() {
    let setting = Setting::start();
    let source = "/tmp/a\u{1b}[2J\u{9b}31m\nb";
    setting.test.container.visit(|| std::fs::create_dir(source).unwrap());
    let acts = |text: &str| text.replace('\n', "").chars().any(char::is_control);
    let failed = setting.test.mount(&["-t", "fuse.none\u{1b}[2J", source, TARGET]);
    setting.fault("printf '\\033[2Jhelper\\n'; exit 3");
    let words = setting.test.mount(&["-t", "fuse.fault", source, TARGET]);
    assert!(failed.code != Some(0) && !acts(&failed.stderr), "{failed:?}");
    assert!(words.stderr.contains("\\u{1b}[2Jhelper") && !acts(&words.stderr), "{words:?}");
    let logs = setting.test.node.sh_ok(&format!("{NODE_BIN}/hostmount logs {TARGET}"));
    assert_eq!(logs, "\\u{1b}[2Jhelper\n");
    setting.test.mount(&["-t", "fuse.bindfs", source, TARGET]).ok("mount");
    for command in ["list".to_owned(), format!("status {TARGET}"), format!("swap {TARGET}")] {
        let said = setting.test.node.sh_ok(&format!("{NODE_BIN}/hostmount {command}"));
        assert!(!acts(&said), "{said:?}");
    }
    let list = setting.test.node.sh_ok(&format!("{NODE_BIN}/hostmount list --output json"));
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list[0]["source"], source, "JSON is exact");
    assert!(!acts(&setting.mounter.said()), "a log is read on terminals, too");
}
