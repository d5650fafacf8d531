//! A helper that was taken over: what it tries beyond its mount, with either engine, under a uid of its own and as root. Each attempt
//! is one that succeeded once.
//!
//! The helper is a Perl program: its `syscall` makes calls that no other program of the container has.

use crate::harness::{Test, tests};
use crate::node::cgroups::HIERARCHIES;
use crate::node::job::{TARGET, use_it};
use crate::node::mounter::Mounter;
use crate::node::{NODE_BIN, TestNode, preloaded};
use hostmount::helper::domain::{Domain, enter_domain};
use hostmount::observe::events;
use rustix::process::{Resource, getrlimit};
use std::fs;

pub(crate) fn tests() -> Vec<Test> {
    const NEEDED: &[&str] = &["bindfs", "make", "perl"];
    tests![
        what_is_refused_is_in_the_logs.needs(&["bindfs", "perl"]),
        calls_that_no_helper_needs.needs(NEEDED),
        io_uring_for_a_type_that_is_set_to_have_it.needs(NEEDED),
        the_node_and_the_container_are_read_only.needs(NEEDED).needs_cgroups(),
        what_a_helper_may_write_to.needs(NEEDED),
        other_processes_of_its_uid.needs(NEEDED).needs_linux(6, 12).needs_no(no_landlock),
        what_it_leaves_behind.needs(NEEDED),
        the_doings_of_others.needs(NEEDED).needs_no(no_landlock),
        sysfs_for_a_type_that_is_set_to_have_it.needs(NEEDED).quick(),
        processes_without_end.needs(NEEDED).needs_cgroups(),
        files_without_end.needs(NEEDED),
        all_helpers_together.needs(NEEDED).needs_cgroups(),
        a_process_that_left_its_mount_namespace.needs(NEEDED).needs_cgroups(),
    ]
}

const MOUNT: [&str; 4] = ["-t", "fuse.hostile", "/tmp/source", TARGET];

/// `attempt NAME, sub { … }` says whether it got something; `process WORDS` is the id of another process; `sys` makes a
/// system call.
const BEGINNING: &str = r#"#!/usr/bin/perl
$| = 1;
open(STDERR, '>&', STDOUT);
sub attempt { my ($name, $code) = @_; print((eval { $code->() } ? 'GRANTED' : 'refused'), ": $name\n") }
sub sys { syscall(shift, @_) >= 0 }
sub process {
    for my $file (glob '/proc/[0-9]*/cmdline') {
        open(my $f, '<', $file) or next;
        my ($line, $pid) = (<$f>, $file =~ /(\d+)/);
        $line =~ tr/\0/ /;
        return $pid if $pid != $$ && index($line, $_[0]) >= 0;
    }
    die;
}
"#;

/// A node with a mounter of this engine and a volume of somebody else's.
fn start(engine: &str, config: &str) -> (TestNode, Mounter) {
    let test = TestNode::start();
    preloaded::install(&test.container);
    test.node.sh_ok(&format!("mkdir -p {TARGET} /mnt/victim"));
    test.container.sh_ok("mkdir -m 777 /tmp/source && mkdir /tmp/victim");
    test.container.visit(|| fs::write("/tmp/config.toml", config).unwrap());
    let mounter = test.start_mounter(&["--engine", engine, "--config", "/tmp/config.toml"], &[]);
    test.mount(&["-t", "fuse.bindfs", "/tmp/victim", "/mnt/victim"]).ok("mount");
    (test, mounter)
}

/// Mounts with a helper that tries these first, and says what it said. Its volume works all the same.
fn attempt(test: &TestNode, mounter: &Mounter, attempts: &[(&str, String)]) -> String {
    let mut lines = BEGINNING.to_owned();
    for (name, code) in attempts {
        lines.push_str(&format!("attempt q({name}), sub {{ {code} }};\n"));
    }
    lines.push_str("print \"all tried\\n\";\nexec 'bindfs', @ARGV;\n");
    test.container.program("/usr/sbin/mount.fuse.hostile", lines);
    let times = mounter.said().matches("all tried").count();
    test.mount(&MOUNT).ok("mount");
    mounter.wait_for_helper("all tried", times + 1);
    use_it(test);
    let said = mounter.said();
    assert_eq!(said.matches("refused: ").count() + said.matches("GRANTED: ").count(), attempts.len(), "{said}");
    said
}

/// They all fail, with both engines and both users.
#[track_caller]
fn assert_nothing_granted(prepare: fn(&TestNode), attempts: &[(&str, String)]) {
    let mut granted = Vec::new();
    for (engine, user) in [("seccomp", "own"), ("seccomp", "root"), ("preload", "own"), ("preload", "root")] {
        let (test, mounter) = start(engine, &format!("[filesystem.hostile]\nuser = '{user}'\n"));
        prepare(&test);
        let said = attempt(&test, &mounter, attempts);
        let names = attempts.iter().filter(|(name, _)| said.contains(&format!("GRANTED: {name}\"")));
        granted.extend(names.map(|(name, _)| format!("{engine}, {user}: {name}")));
        test.node.sh_ok("echo still >/mnt/victim/f; cat /mnt/victim/f");
    }
    assert!(granted.is_empty(), "{granted:#?}");
}

/// What the kernel would refuse without a word: `hostmount logs` has it, of a helper that mounts and after it has mounted.
fn what_is_refused_is_in_the_logs() {
    use libc::*;
    let (test, mounter) = start("seccomp", "");
    let call = |number: c_long, arguments: &str| format!("sys({number}, {arguments})");
    let attempts = [
        ("trace", call(SYS_ptrace, "0, 0, 0, 0")),
        ("unshare", call(SYS_unshare, "0x10000000")),
        ("io_uring", call(SYS_io_uring_setup, "1, 0")),
        ("limit", call(SYS_prlimit64, "1, 4, 0, 0")),
        ("later", format!("if (!fork) {{ sleep 1; sys({SYS_bpf}, 0, 0, 0) while 1; }}; 0")),
    ];
    attempt(&test, &mounter, &attempts);
    let logs = || test.node.sh_ok(&format!("{NODE_BIN}/hostmount logs {TARGET}"));
    let said = logs();
    for call in ["ptrace(2)", "unshare(2)", "io_uring_setup(2)", "prlimit64(2)"] {
        assert!(said.contains(&format!("hostmount refused a call of it: {call}")), "{call}: {said}");
    }
    // A call that is made without end is there once.
    mounter.wait_for(events::HELPER_REFUSED, attempts.len() + 10);
    let said = logs();
    assert_eq!(said.matches("bpf(2)").count(), 1, "{said}");
    test.node.sh_ok("pkill -9 mount.fuse.host");
}

fn calls_that_no_helper_needs() {
    use libc::*;
    let sys = |number: c_long, arguments: &str| format!("sys({number}, {arguments})");
    assert_nothing_granted(
        |_| {},
        &[
            ("trace another helper", sys(SYS_ptrace, "0x4206, process('/tmp/victim'), 0, 0")),
            (
                "read the memory of another helper",
                format!(
                    "my $pid = process('/tmp/victim'); open(my $maps, '<', \"/proc/$pid/maps\") or die; my $buffer = ' ' x 16;
                    sys({SYS_process_vm_readv}, $pid, pack('PQ', $buffer, 16), 1, pack('QQ', hex((split '-', <$maps>)[0]), 16), 1, 0)"
                ),
            ),
            (
                "take a descriptor of another helper",
                format!("sys({SYS_pidfd_getfd}, syscall({SYS_pidfd_open}, process('/tmp/victim'), 0), 0, 0)"),
            ),
            ("limit the mounter", sys(SYS_prlimit64, "process('hostmount serve'), 4, pack('QQ', 0, 0), 0")),
            ("limit another helper", sys(SYS_prlimit64, "process('/tmp/victim'), 4, pack('QQ', 0, 0), 0")),
            ("enter its own namespace", format!("open(my $f, '<', '/proc/self/ns/ipc'); sys({SYS_setns}, fileno($f), 0)")),
            ("make a user namespace", sys(SYS_unshare, "0x10000000")),
            ("start in a user namespace", format!("my $p = syscall({SYS_clone}, 0x10000011, 0, 0, 0, 0); exit if $p == 0; $p > 0")),
            ("look for its session keyring", sys(SYS_keyctl, "0, -3, 1")),
            ("leave a key for others", sys(SYS_add_key, "'user', 'evil', 'x', 1, -4")),
            ("set up io_uring", format!("my $p = \"\\0\" x 120; sys({SYS_io_uring_setup}, 4, $p)")),
            ("userfaultfd", sys(SYS_userfaultfd, "1")),
            (
                "count events",
                format!("my $a = pack('LLQQQQQ', 1, 128, 1, 0, 0, 0, 0x60) . \"\\0\" x 80; sys({SYS_perf_event_open}, $a, 0, -1, -1, 0)"),
            ),
            ("read the kernel log", format!("my $b = ' ' x 4096; sys({SYS_syslog}, 3, $b, 4096)")),
            ("ask the clock", format!("my $b = \"\\0\" x 256; sys({SYS_adjtimex}, $b)")),
        ],
    );
}

fn io_uring_for_a_type_that_is_set_to_have_it() {
    let attempts = [("set up io_uring", format!("my $p = \"\\0\" x 120; sys({}, 4, $p)", libc::SYS_io_uring_setup))];
    for engine in ["seccomp", "preload"] {
        let (test, mounter) = start(engine, "[filesystem.hostile]\nio_uring = true\n");
        let said = attempt(&test, &mounter, &attempts);
        // Where the kernel itself has it.
        let has_it = test
            .container
            .sh(&format!("perl -e 'my $p = \"\\0\" x 120; exit(syscall({}, 4, $p) < 0)'", libc::SYS_io_uring_setup));
        assert_eq!(said.contains("GRANTED"), has_it.code == Some(0), "{engine}: {said}");
    }
}

/// What is there to be changed: as on a node.
fn devices_and_programs(test: &TestNode) {
    test.container.sh_ok("cd /dev; for d in 'mem 1 1' 'port 1 4' 'loop-control 10 237'; do mknod ${d%% *} c ${d#* }; done; mknod loop0 b 7 0");
    test.container.helper("fuse.other", "exec bindfs \"$@\"");
    test.container.sh_ok("mkdir -p /srv/other && echo theirs >/srv/other/file");
}

fn the_node_and_the_container_are_read_only() {
    let write = |files: &str| format!("grep {{ open(my $f, '+<', $_) || open($f, '>>', $_) }} glob '{files}'");
    let mut attempts = vec![
        ("make a cgroup", "grep { mkdir \"$_/evil\" } ('/sys/fs/cgroup', glob '/sys/fs/cgroup/*')".to_owned()),
        ("make a device", "system('mknod /tmp/mem c 1 1') == 0 && open(my $f, '<', '/tmp/mem')".to_owned()),
        ("read the timers", "my $f; open($f, '<', '/proc/timer_list') && <$f>".to_owned()),
        ("add a helper", "open(my $f, '>', '/usr/sbin/mount.fuse.evil')".to_owned()),
        ("replace a helper", "rename('/usr/sbin/mount.fuse.other', '/usr/sbin/mount.fuse.evil')".to_owned()),
        ("remove a helper", "unlink('/usr/sbin/mount.fuse.other')".to_owned()),
        ("open a helper to all", "chmod(0777, '/usr/sbin/mount.fuse.other')".to_owned()),
        ("leave a library to others", "open(my $f, '>', '/etc/ld.so.cache.new')".to_owned()),
        ("leave a link for others", "symlink('/', '/srv/x')".to_owned()),
    ];
    for (name, files) in [
        ("core_pattern", "/proc/sys/kernel/core_pattern"),
        ("modprobe", "/proc/sys/kernel/modprobe"),
        ("any sysctl", "/proc/sys/*/*"),
        ("the system request key", "/proc/sysrq-trigger"),
        ("interrupts", "/proc/irq/default_smp_affinity"),
        ("power", "/sys/power/*"),
        ("a module's parameters", "/sys/module/*/parameters/*"),
        ("huge pages", "/sys/kernel/mm/transparent_hugepage/enabled"),
        ("uevents", "/sys/kernel/uevent_helper /sys/kernel/profiling"),
        (
            "the helpers' cgroup",
            "/sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/*/hostmount/*/*.limit_in_bytes",
        ),
        ("memory", "/dev/mem /dev/port /dev/kmem"),
        ("loop devices", "/dev/loop-control /dev/loop0"),
        ("virtual machines", "/dev/kvm"),
        ("the mounter", "/usr/local/bin/hostmount"),
        ("a helper", "/usr/sbin/mount.fuse.other /usr/sbin/mount.memfs"),
        ("the container's users", "/etc/passwd"),
        ("the container's files", "/srv/other/file"),
        ("the settings", "/etc/hostmount/*"),
    ] {
        attempts.push((name, write(files)));
    }
    assert_nothing_granted(devices_and_programs, &attempts);
}

/// Its own directories, the devices that programs need, and what an administrator has mounted in the container.
fn what_a_helper_may_write_to() {
    let write = |file: &str| format!("my $f; open($f, '>', '{file}') && print($f 'x') && close($f)");
    let attempts = [
        ("scratch", write("/var/tmp/x")),
        ("a log", write("/var/log/x")),
        ("shared memory", write("/dev/shm/x")),
        ("nothing", write("/dev/null")),
        ("a volume", write("/data/x")),
        ("its own settings", write("/proc/self/comm")),
        ("chance", "my ($f, $x); open($f, '<', '/dev/urandom') && read($f, $x, 8)".to_owned()),
        ("its output", "open(my $f, '>', '/dev/stdout')".to_owned()),
        ("its cache", write("/var/cache/x")),
    ];
    for engine in ["seccomp", "preload"] {
        let test = TestNode::start();
        preloaded::install(&test.container);
        test.container.sh_ok("mkdir /data && mount -t tmpfs data /data");
        test.node.sh_ok(&format!("mkdir -p {TARGET}"));
        test.container.sh_ok("mkdir -m 777 /tmp/source && chmod 777 /data");
        let config = "[filesystem.hostile]\nwritable = ['/var/cache']\n";
        test.container.visit(|| fs::write("/tmp/config.toml", config).unwrap());
        let mounter = test.start_mounter(&["--engine", engine, "--config", "/tmp/config.toml"], &[]);
        let said = attempt(&test, &mounter, &attempts);
        assert!(!said.contains("refused"), "{engine}: {said}");
        assert_eq!(test.container.sh_ok("cat /data/x; ls /var/cache/x /var/log/x 2>/dev/null | cat"), "x");
    }
}

fn no_landlock() -> Option<String> {
    let domain = std::thread::spawn(enter_domain).join().unwrap();
    (domain != Domain::Whole).then(|| format!("Landlock: {domain}"))
}

/// The others are of uid 0, and have no capability, as this one if it is root.
fn other_processes_of_its_uid() {
    let of_victim = |code: &str| format!("my ($f, $x); my $pid = process('/tmp/victim'); {code}");
    let attempts = [
        ("signal the mounter", "kill(0, process('hostmount serve'))".to_owned()),
        ("signal another helper", of_victim("kill(0, $pid)")),
        ("end a shell of root's", "kill(9, process('sleep 424242'))".to_owned()),
        (
            "read the environment of another helper",
            of_victim("open($f, '<', \"/proc/$pid/environ\") && read($f, $x, 8)"),
        ),
        ("write into another helper", of_victim("open($f, '+<', \"/proc/$pid/mem\")")),
        ("see the files of another helper", of_victim("opendir($f, \"/proc/$pid/root/\")")),
        (
            "see the descriptors of another helper",
            of_victim("opendir($f, \"/proc/$pid/fd\") && grep { readlink(\"/proc/$pid/fd/$_\") } 0..9"),
        ),
        ("open the user namespace of another helper", of_victim("open($f, '<', \"/proc/$pid/ns/user\")")),
    ];
    let bystander = |test: &TestNode| {
        test.node.sh_ok("setpriv --bounding-set -all sleep 424242 >/dev/null 2>&1 </dev/null &");
        test.wait_for_processes("sleep 424242", 1);
    };
    assert_nothing_granted(bystander, &attempts);
}

fn what_it_leaves_behind() {
    let attempts = [("a core dump", "`sh -c 'ulimit -Hc'` !~ /^0$/".to_owned())];
    assert_nothing_granted(|_| {}, &attempts);
}

/// What /proc and /sys tell of the node and of other processes.
fn the_doings_of_others() {
    let attempts = [
        ("see that the mounter is there", "process('hostmount serve')".to_owned()),
        ("see that another helper is there", "process('/tmp/victim')".to_owned()),
        ("see that the node's first process is there", "-e '/proc/1/status'".to_owned()),
        (
            "see more than its own",
            "my @seen = grep { !m#/$$/# && (stat)[4] != $> } glob '/proc/[0-9]*/stat'; @seen > 0".to_owned(),
        ),
        (
            "see the node's devices",
            "grep { -e } ('/sys/class', '/sys/block', '/sys/fs/cgroup', '/sys/kernel')".to_owned(),
        ),
        ("put something there", "mkdir '/sys/x'".to_owned()),
        ("take the cover away", format!("sys({}, '/sys', 2)", libc::SYS_umount2)),
    ];
    assert_nothing_granted(|_| {}, &attempts);
}

fn sysfs_for_a_type_that_is_set_to_have_it() {
    for engine in ["seccomp", "preload"] {
        let (test, mounter) = start(engine, "[filesystem.hostile]\nsysfs = true\nuser = 'root'\n");
        let write = "grep { open(my $f, '+<', $_) } glob('/sys/power/* /sys/kernel/mm/*/*')";
        let said = attempt(&test, &mounter, &[("see", "-d '/sys/kernel'".to_owned()), ("write", write.to_owned())]);
        assert!(said.contains("GRANTED: see") && said.contains("refused: write"), "{engine}: {said}");
    }
}

/// Forks until it is refused, with nothing of it left when it tells how many there were.
const FORK: &str = "my @all; while (@all < 700) { my $p = fork; last unless defined $p; if ($p == 0) { sleep 99; exit } push @all, $p }
    kill 9, @all; waitpid $_, 0 for @all; print scalar(@all), \" processes\\n\"; @all == 700";

fn processes_without_end() {
    for engine in ["seccomp", "preload"] {
        for (config, granted) in [("process_limit = 300", false), ("", true)] {
            let (test, mounter) = start(engine, &format!("[filesystem.hostile]\n{config}\n"));
            let said = attempt(&test, &mounter, &[("fork", FORK.to_owned())]);
            // The limit is of this helper alone: the victim's works, and 1,024 are allowed by default.
            assert_eq!(said.contains("GRANTED: fork"), granted, "{engine} {config}: {said}");
            assert!(granted || said.contains("299 processes"), "{said}");
            test.node.sh_ok("echo still >/mnt/victim/f; cat /mnt/victim/f");
        }
    }
}

/// Opens files until it is refused.
const OPEN: &str =
    "my @all; while (@all < 70000) { open(my $f, '<', '/dev/null') or last; push @all, $f } my $n = @all;
    @all = (); print \"$n open\n\"; $n == 70000";

fn files_without_end() {
    // The mounter has as many as we.
    let usual = getrlimit(Resource::Nofile).maximum.map_or(65_536, |ours| ours.min(65_536));
    for engine in ["seccomp", "preload"] {
        for (config, most) in [("descriptor_limit = 300", 300), ("user = 'root'", usual)] {
            let (test, mounter) = start(engine, &format!("[filesystem.hostile]\n{config}\n"));
            let said = attempt(&test, &mounter, &[("open", OPEN.to_owned())]);
            // Three of them it had before.
            assert!(said.contains(&format!("\"{} open\"", most - 3)), "{engine} {config}: {said}");
            assert!(said.contains("refused: open"), "{said}");
            test.node.sh_ok("echo still >/mnt/victim/f; cat /mnt/victim/f");
        }
    }
}

/// Limits of the cgroup that all helpers are in.
fn all_helpers_together() {
    let read = |test: &TestNode, file: &str| {
        test.node.sh_ok(&format!("for h in $({HIERARCHIES}); do cat $h/hostmount/{file} 2>/dev/null; done; true"))
    };
    let (test, _mounter) = start("seccomp", "");
    let total = test.node.sh_ok("grep MemTotal /proc/meminfo");
    let total: u64 = total.split_whitespace().nth(1).unwrap().parse().unwrap();
    // Rounded down to pages.
    let (limit, half) = (read(&test, "memory.limit_in_bytes") + &read(&test, "memory.max"), total * 512 / 4096 * 4096);
    assert_eq!((limit.trim(), read(&test, "pids.max").trim()), (half.to_string().as_str(), "65536"));

    // Root's processes have no limit of their own.
    let config = "[helpers]\nmemory_limit = '1Gi'\nprocess_limit = 100\n[filesystem.hostile]\nuser = 'root'\n";
    let (test, mounter) = start("seccomp", config);
    assert_eq!((read(&test, "memory.limit_in_bytes") + &read(&test, "memory.max")).trim(), (1 << 30).to_string());
    let said = attempt(&test, &mounter, &[("fork", FORK.to_owned())]);
    assert!(said.contains("refused: fork") && !said.contains("700 processes"), "{said}");
    test.node.sh_ok("echo still >/mnt/victim/f; cat /mnt/victim/f");
}

/// A kernel's fault, say, lets one go; it is ended with its helper all the same.
fn a_process_that_left_its_mount_namespace() {
    for engine in ["seccomp", "preload"] {
        let (test, mounter) = start(engine, "");
        test.node.sh_ok("umount /mnt/victim");
        mounter.wait_for(events::UNMOUNTED, 1);
        test.mount(&["-t", "fuse.bindfs", "/tmp/victim", "/mnt/victim"]).ok("mount");
        // By root of the node into the helper's cgroups, as no helper can.
        let helper = test.pids_of("/run/hostmount/mnt/mnt/victim")[0];
        test.node.sh_ok("sleep 434343 >/dev/null 2>&1 </dev/null &");
        test.node.wait_for_processes("sleep 434343", 1);
        let runaway = test.pids_of("sleep 434343")[0];
        test.node.sh_ok(&format!(
            "for h in $({HIERARCHIES}); do
                p=$(find $h/hostmount -name cgroup.procs 2>/dev/null | xargs -r grep -lx {helper}); [ -z \"$p\" ] || echo {runaway} >$p
            done"
        ));
        test.node.sh_ok(&format!("kill -9 {helper}"));
        test.node.wait_for_processes("sleep 434343", 0);
        mounter.wait_for(events::HEALED, 1);
    }
}
