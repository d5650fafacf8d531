//! Attackers that race: they rename and link to and fro while the mounter looks. Whatever it meets, nothing but the volume is shown.
//!
//! `make races ROUNDS=1000` for longer; `HOSTMOUNT_SEED` repeats what was chosen by chance, though not the race.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::notes::note;
use crate::node::{NODE_BIN, Place, TestNode, chance, preloaded};
use hostmount::observe::events;
use std::process::Stdio;
use testbed::machine::{Process, Propagation, Room};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_directory_of_a_pods_that_becomes_a_link_and_back.needs(&["make", "bindfs", "perl"]),
        names_above_a_mount_point_that_a_helper_changes_all_the_time.needs(&["make", "bindfs", "perl"]),
        a_directory_of_log_files_that_becomes_a_link_and_back.needs(&["perl"]),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";
const MOUNT: [&str; 4] = ["-t", "fuse.bindfs", "/tmp/source", TARGET];
/// Where a link leads, in the container or on the node.
const LINKS: [&str; 7] =
    ["/", "/dev", "/proc", "/run/hostmount", "../../..", "/proc/self/root", "/var/lib/kubelet/pki"];

fn rounds() -> usize {
    std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(12)
}

/// Exchanges `path`, a directory, for a link and back, as fast as it goes. The link leads elsewhere each time.
fn exchange(place: &Place, path: &str, seed: u64) -> Process {
    let script = r#"my ($path, $seed, @links) = @ARGV; srand $seed;
        my $other = "$path.other"; my $n = 0;
        while ($n < 1e9) {
            unlink $other; symlink $links[rand @links], $other or die $!;
            for (1, 2) {
                syscall(316, -100, my $a = $path, -100, my $b = $other, 2) == 0 or die $!;
                select undef, undef, undef, rand 0.003;
            }
            $n++;
        }"#;
    let mut command = Room::command("perl");
    command.args(["-e", script, path, &seed.to_string()]).args(LINKS);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    place.spawn(command)
}

fn start(engine: &str) -> (TestNode, Mounter) {
    let test = TestNode::start();
    preloaded::install(&test.container);
    test.node.sh_ok(&format!("mkdir -p {TARGET} /var/lib/kubelet/pki && echo secret >/var/lib/kubelet/pki/key"));
    test.container.sh_ok("mkdir -p /tmp/source/sub && echo theirs >/tmp/source/sub/f");
    let mounter = test.start_mounter(&["--engine", engine], &[]);
    (test, mounter)
}

/// Every mount at or below `path` is the volume's, `nosuid,nodev`.
fn assert_nothing_else(place: &Place, path: &str, what: &str) {
    for line in place.mountinfo() {
        let target = line.split(' ').nth(4).unwrap();
        if target == path || target.starts_with(&format!("{path}/")) {
            assert!(line.contains(" - fuse /tmp/source ") && line.contains("nosuid,nodev"), "{what}: {line}");
        }
    }
}

/// A pod has it as subPath, and another client of the storage has the same directory to play with.
fn a_directory_of_a_pods_that_becomes_a_link_and_back() {
    for engine in ["seccomp", "preload"] {
        let (test, mounter) = start(engine);
        let mut chance = chance();
        test.mount(&MOUNT).ok("mount");
        let pod = test.pod(&[(&format!("{TARGET}/sub"), "/sub")], Propagation::None);
        let _alive = pod.live();
        let attacker = exchange(&test.container, "/tmp/source/sub", chance.u64(..));
        let (mut swapped, mut healed) = (0, 0);
        for round in 0..rounds() {
            if chance.bool() {
                swapped += usize::from(test.node.sh(&format!("{NODE_BIN}/hostmount swap {TARGET}")).code == Some(0));
            } else {
                test.node.sh_ok("kill -9 $(pidof bindfs)");
                healed += 1;
                mounter.wait_for(events::HEALED, healed);
            }
            let what = format!("{engine}, round {round}");
            assert_nothing_else(&test.node, TARGET, &what);
            assert_nothing_else(&pod, "/sub", &what);
            assert!(pod.mount_at("/sub").is_some(), "{what}: it is gone");
        }
        note(format!("{engine}: {swapped} swaps and {healed} heals"));
        drop(attacker);
        // What an attacker leaves behind is a directory again: it is found again too. bindfs knows a link for a second.
        test.container.sh_ok("cd /tmp/source && if [ -L sub ]; then rm sub && mv sub.other sub; fi && sleep 2");
        test.node.sh_ok(&format!("{NODE_BIN}/hostmount swap {TARGET}"));
        assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/sub/f")), "theirs\n");
    }
}

/// The helper itself, in its own mount namespace, before and after its mount.
fn names_above_a_mount_point_that_a_helper_changes_all_the_time() {
    for engine in ["seccomp", "preload"] {
        let (test, mounter) = start(engine);
        let seed = chance().u64(..);
        test.container.helper(
            "fuse.bindfs",
            &format!(
                r#"perl -e 'my ($own, $seed, @links) = @ARGV; srand $seed; my $end = time + 2; my @above;
                    for (my $path = $own; length $path > 1; $path =~ s,/[^/]*$,,) {{ push @above, $path }}
                    while (time < $end) {{
                        my $path = $above[rand @above];
                        rename $path, "$path.away" and symlink $links[rand @links], $path and print "MOVED $path\n";
                        unlink $path and rename "$path.away", $path;
                    }}' "$2" {seed} {links} &
                bindfs "$@" || exit 7; exit 0"#,
                links = LINKS.join(" "),
            ),
        );
        let mut mounted = 0;
        for round in 0..rounds().div_ceil(3) {
            let done = test.mount(&MOUNT);
            let what = format!("{engine}, round {round}: {done:?}");
            assert_nothing_else(&test.node, TARGET, &what);
            if done.code == Some(0) {
                mounted += 1;
                assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/sub/f")), "theirs\n", "{what}");
                test.node.sh_ok(&format!("umount {TARGET}"));
                mounter.wait_for(events::UNMOUNTED, mounted);
            }
        }
        assert!(mounted > 0, "{engine}: {}", mounter.said());
        note(format!("{engine}: {mounted} mounts; moved: {}", mounter.said().matches("MOVED").count()));
    }
}

/// Whoever can rename in kubelet's directory for GlusterFS' log files.
fn a_directory_of_log_files_that_becomes_a_link_and_back() {
    let (test, mounter) = start("seccomp");
    let logs = "/var/lib/kubelet/plugins/kubernetes.io/glusterfs";
    test.node.sh_ok(&format!("mkdir -p {logs}/v"));
    // It writes to the file that it was given.
    let lines = "for word in $(echo \"$*\" | tr ', ' '\\n\\n'); do case $word in log-file=*) echo evil >>${word#log-file=};; esac; done
        exec mount.memfs \"$1\" \"$2\"";
    test.container.helper("glusterfs", lines);
    let before = test.node.sh_ok("cd /var/lib/kubelet/pki && find . && cat key");
    let attacker = exchange(&test.node, &format!("{logs}/v"), chance().u64(..));
    let mut mounted = 0;
    for round in 0..rounds() {
        let name = ["key", "p.log"][round % 2];
        let done = test.mount(&["-t", "glusterfs", "-o", &format!("log-file={logs}/v/{name}"), "x", TARGET]);
        if done.code == Some(0) {
            mounted += 1;
            test.umount(&[TARGET]).ok("umount");
            mounter.wait_for(events::UNMOUNTED, mounted);
        }
        assert_eq!(test.node.sh_ok("cd /var/lib/kubelet/pki && find . && cat key"), before, "round {round}: {done:?}");
    }
    drop(attacker);
    note(format!("{mounted} of {} mounts", rounds()));
}
