//! Helpers have uids of their own: no other process has them, and what only others may read or touch is out of their reach.

use crate::harness::{Test, tests};
use crate::node::job::{TARGET, use_it};
use crate::node::mounter::Mounter;
use crate::node::old_kernel::{LANDLOCK, without};
use crate::node::{Done, TestNode, preloaded};
use hostmount::observe::events;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;
use testbed::machine::Room;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        no_other_process_has_it,
        it_has_an_account_of_its_own.needs(&["bindfs", "make"]),
        files_that_only_root_may_read.needs(&["bindfs", "make"]),
        what_cannot_be_shown_is_an_error.needs(&["bindfs"]).quick(),
        a_fixed_uid_serves_files_that_stay.needs(&["gocryptfs"]),
        capabilities_that_it_keeps.needs(&["bindfs"]).quick(),
        others_processes_without_landlock.needs(&["bindfs", "make"]),
    ]
}

const MOUNT: [&str; 4] = ["-t", "fuse.fault", "/srv/source", TARGET];

/// A node with something to serve, and its mounter.
fn start(engine: &str, config: &str) -> (TestNode, Mounter) {
    let test = TestNode::start();
    preloaded::install(&test.container);
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.sh_ok("mkdir -p /srv/source && echo served >/srv/source/f");
    test.container.visit(|| fs::write("/tmp/config.toml", config).unwrap());
    let mounter = test.start_mounter(&["--engine", engine, "--config", "/tmp/config.toml"], &[]);
    (test, mounter)
}

/// The uid of the processes of the helper at a target.
#[track_caller]
fn uid_of(test: &TestNode, target: &str) -> u32 {
    let pids = test.pids_of(&format!("/run/hostmount/mnt{target}"));
    let uid = |pid: &u32| test.node.sh_ok(&format!("grep ^Uid: /proc/{pid}/status | cut -f2")).trim().parse().unwrap();
    let uids: BTreeSet<u32> = pids.iter().map(uid).collect();
    assert_eq!(uids.len(), 1, "{target}: {uids:?}");
    *uids.first().unwrap()
}

fn no_other_process_has_it() {
    let test = TestNode::start();
    let targets: Vec<_> = (0..6).map(|number| format!("/mnt/{number}")).collect();
    test.node.sh_ok(&format!("mkdir -p {}", targets.join(" ")));
    test.container.visit(|| fs::write("/tmp/config.toml", "[helpers]\nuids = '1880000000-1880000005'").unwrap());
    let mut command = Room::command("setpriv");
    command.args(["--reuid", "1880000003", "--regid", "1880000003", "--clear-groups", "sleep", "infinity"]);
    let stranger = test.node.spawn(command);
    test.node.wait_for_processes("sleep infinity", 1);
    let serve = || test.start_mounter(&["--config", "/tmp/config.toml"], &[]);
    test.container.helper("fuse.plain", "exec mount.memfs \"$1\" \"$2\"");
    let mount = |target: &String| test.mount(&["-t", "fuse.plain", "x", target]);

    let mut mounter = serve();
    for target in &targets[..3] {
        mount(target).ok("mount");
    }
    let uids = |upto: usize| targets[..upto].iter().map(|target| uid_of(&test, target)).collect::<Vec<_>>();
    let before = uids(3);
    test.node.sh_ok(&format!("{}/hostmount swap {}", crate::node::NODE_BIN, targets[0]));
    // Its old helper ends, as nothing of it is open.
    test.wait_for_processes(&format!("/run/hostmount/mnt{}", targets[0]), 1);
    let killed = test.pids_of(&format!("/run/hostmount/mnt{}", targets[1]));
    test.node.sh_ok(&format!("kill -9 {}", killed[0]));
    mounter.wait_for(events::HEALED, 1);
    let after = uids(3);
    assert!(after[0] != before[0] && after[2] == before[2], "a swap has no fresh uid: {before:?} {after:?}");

    // The next mounter has no record of them.
    mounter.signal(Signal::SIGKILL);
    mounter.wait();
    let mounter = serve();
    for target in &targets[3..5] {
        mount(target).ok("mount");
    }
    let all = uids(5);
    assert_eq!(all[..3], after, "{all:?}");
    let different: BTreeSet<u32> = all.iter().copied().collect();
    assert_eq!(different, BTreeSet::from([0, 1, 2, 4, 5].map(|number| 1_880_000_000 + number)), "{all:?}");
    let full = mount(&targets[5]);
    let says = ["no uid is left for another helper", "1880000000-1880000005", "[helpers] uids"];
    assert!(full.code == Some(2) && says.iter().all(|word| full.stderr.contains(word)), "{full:?}");

    drop(stranger);
    test.node.wait_for_processes("sleep infinity", 0);
    mount(&targets[5]).ok("mount");
    assert_eq!(uid_of(&test, &targets[5]), 1_880_000_003);
    test.node.sh_ok(&format!("umount {}", targets[0]));
    mounter.wait_for(events::UNMOUNTED, 1);
}

/// A helper that says these, and then serves.
fn says(test: &TestNode, mounter: &Mounter, lines: &str) -> String {
    test.container.helper("fuse.fault", &format!("exec 2>&1\n{lines}\nexec bindfs \"$@\""));
    let (mounted, unmounted) = (mounter.count(events::MOUNTED), mounter.count(events::UNMOUNTED));
    let before = mounter.said().len();
    test.mount(&MOUNT).ok("mount");
    mounter.wait_for(events::MOUNTED, mounted + 1);
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/f")), "served\n");
    test.node.sh_ok(&format!("umount {TARGET}"));
    mounter.wait_for(events::UNMOUNTED, unmounted + 1);
    mounter.said()[before..].to_owned()
}

fn it_has_an_account_of_its_own() {
    const WORDS: &str = r#"echo "name=$(id -un):$(id -gn):$(id -G | wc -w)" "home=$HOME:$(stat -c %a:%u "$HOME")"
        echo x >"$HOME/x" && echo "writes=$(cat "$HOME/x")"
        echo "out=1" >/dev/stdout
        touch /var/log/mine && echo "scratch=$(stat -c %u /var/log/mine)"
        echo "allows=$(grep -cx user_allow_other /etc/fuse.conf)"
        echo x >>/etc/passwd || echo "passwd=refused"
        echo x >>/etc/fuse.conf || echo "conf=refused"
        rmdir "$2" || mv "$2" "$2.x" || echo "place=refused""#;
    for engine in ["seccomp", "preload"] {
        let (test, mounter) = start(engine, "[helpers]\nuids = '1880000000-1880000000'");
        test.container.sh_ok("[ -e /etc/fuse.conf ] || touch /etc/fuse.conf");
        let said = says(&test, &mounter, WORDS);
        for words in [
            "name=hostmount-helper:hostmount-helper:1",
            "home=/root:700:1880000000",
            "writes=x",
            "out=1",
            "scratch=1880000000",
            "passwd=refused",
            "conf=refused",
            "place=refused",
        ] {
            assert!(said.contains(words), "{engine}: no {words} in {said}");
        }
        assert!(!said.contains("allows=0"), "{said}");
        // Nobody else sees any of it.
        let seen = test
            .container
            .sh("grep hostmount-helper /etc/passwd /etc/group; ls /root/x /run/hostmount/passwd 2>/dev/null");
        assert_eq!(seen.stdout, "");
    }
    // An account of the container's.
    let (test, mounter) = start("seccomp", "[filesystem.fault]\nuser = 2007");
    test.container
        .sh_ok("echo 'keeper:x:2007:2008::/srv/keeper:/bin/sh' >>/etc/passwd; echo 'keepers:x:2008:' >>/etc/group");
    let said = says(&test, &mounter, "echo \"name=$(id -un):$(id -gn) home=$HOME user=$USER:$LOGNAME\"");
    assert!(said.contains("name=keeper:keepers home=/srv/keeper user=keeper:keeper"), "{said}");
}

/// What only root of the container may read, in a directory that only root may enter and elsewhere.
const CLOSED: &str =
    "mkdir -p -m 700 /root/keys /srv/deep/keys && echo k3y >/root/keys/mine && echo 0thers >/root/keys/others
    echo k3y >/srv/deep/keys/one
    echo k3y >/srv/single && echo 0thers >/srv/other
    mkdir /srv/secret /srv/secret/..data && echo k3y >/srv/secret/..data/key && ln -s ..data/key /srv/secret/key
    chmod 600 /root/keys/* /srv/deep/keys/one /srv/single /srv/other; chmod 700 /srv/secret";

const READ: &str = "for f in /root/keys/mine /srv/deep/keys/one /root/keys/others /srv/single /srv/other /srv/secret/key /etc/shadow; do
        if cat $f >/dev/null 2>&1; then echo GRANTED: $f.; else echo refused: $f.; fi; done
    for f in /root/keys/mine /srv/deep/keys/one /srv/deep/new /root/keys/new /srv/single /srv/secret/key /srv/secret/new; do
        if (echo x >>$f || chmod 666 $f || rm $f) 2>/dev/null; then echo CHANGED: $f.; fi; done";

fn files_that_only_root_may_read() {
    const READABLE: &str = "readable = ['/root/keys/mine', '/srv/deep/keys/one', '/srv/single', '/srv/secret']";
    const WANTED: [&str; 4] = ["/root/keys/mine", "/srv/deep/keys/one", "/srv/single", "/srv/secret/key"];
    const OTHERS: [&str; 3] = ["/root/keys/others", "/srv/other", "/etc/shadow"];
    for engine in ["seccomp", "preload"] {
        for (config, granted, refused) in [
            // As it was once for every helper.
            ("user = 'root'", [&WANTED[..], &OTHERS].concat(), vec![]),
            ("user = 'own'", vec![], [&WANTED[..], &OTHERS].concat()),
            (READABLE, WANTED.to_vec(), OTHERS.to_vec()),
        ] {
            let (test, mounter) = start(engine, &format!("[filesystem.fault]\n{config}\n"));
            test.container.sh_ok(CLOSED);
            let said = says(&test, &mounter, READ);
            for path in granted {
                assert!(said.contains(&format!("GRANTED: {path}.")), "{engine}, {config}: {path}: {said}");
            }
            for path in refused {
                assert!(said.contains(&format!("refused: {path}.")), "{engine}, {config}: {path}: {said}");
            }
            let failing = "cat /srv/other || exit 3";
            test.container.helper("fuse.fault", failing);
            let failed = test.mount(&MOUNT).stderr;
            let explained =
                failed.contains("its type's `readable`") && failed.contains("the helper does not run as root");
            assert_eq!(explained, !config.contains("user = 'root'"), "{failed}");
            assert!(!said.contains("CHANGED"), "{engine}, {config}: {said}");
            assert_eq!(
                test.container.sh_ok("cat /root/keys/mine /srv/single; stat -c %a /root/keys/mine"),
                "k3y\nk3y\n600\n"
            );
        }
    }
}

fn what_cannot_be_shown_is_an_error() {
    for (path, make, words) in [
        ("/srv/none", "true", "No such file"),
        ("/srv/big", "truncate -s 2M /srv/big", "larger than 1 MiB"),
        ("/srv/many", "mkdir /srv/many; cd /srv/many; for i in $(seq 300); do echo >$i; done", "more than 256 files"),
        ("/srv/loop", "mkdir /srv/loop; ln -s . /srv/loop/again", "directories deep"),
        ("/srv/pipe", "mkfifo /srv/pipe", "neither a file nor a directory"),
    ] {
        let (test, _mounter) = start("seccomp", &format!("[filesystem.fault]\nreadable = ['{path}']\n"));
        test.container.sh_ok(make);
        test.container.helper("fuse.fault", "exec bindfs \"$@\"");
        let done: Done = test.mount(&MOUNT);
        assert!(done.stderr.contains(path) && done.stderr.contains(words), "{path}: {done:?}");
        assert_eq!((done.code, test.node.mount_at(TARGET)), (Some(2), None));
    }
}

/// What docs/ownership.md says to do about files of the container that outlive their helper.
fn a_fixed_uid_serves_files_that_stay() {
    let config = "[filesystem.gocryptfs]\nuser = 2007\nreadable = ['/root/word']\n";
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.visit(|| fs::write("/tmp/config.toml", config).unwrap());
    test.container.sh_ok(
        "mkdir /srv/cipher && echo word >/root/word && chmod 600 /root/word
        gocryptfs -q -init -passfile /root/word /srv/cipher && mount -t tmpfs cipher /mnt && cp -r /srv/cipher/. /mnt
        chown -R 2007:2007 /mnt && chmod 700 /mnt",
    );
    let mounter = test.start_mounter(&["--config", "/tmp/config.toml"], &[]);
    let mount = ["-t", "fuse.gocryptfs", "-o", "passfile=/root/word", "/mnt", TARGET];
    for times in 1..3 {
        test.mount(&mount).ok("mount");
        assert_eq!(uid_of(&test, TARGET), 2007);
        use_it(&test);
        test.node.sh_ok(&format!("umount {TARGET}"));
        mounter.wait_for(events::UNMOUNTED, times);
    }
    let owners = test.container.sh_ok("find /mnt -mindepth 1 -printf '%u %g\\n' | sort -u");
    assert_eq!(owners, "2007 2007\n");
}

fn capabilities_that_it_keeps() {
    let config = "[filesystem.fault]\ncapabilities = ['CAP_DAC_READ_SEARCH']\n";
    let (test, mounter) = start("seccomp", config);
    test.container.sh_ok(CLOSED);
    let said = says(&test, &mounter, &format!("grep ^Cap /proc/self/status\n{READ}"));
    assert!(said.contains("GRANTED: /srv/other.") && !said.contains("CHANGED"), "{said}");
    for set in ["CapEff", "CapBnd"] {
        assert!(said.contains(&format!("{set}:\\t0000000000000004")), "{said}");
    }
}

/// Its uid alone keeps it from others' processes, root's and other helpers'.
fn others_processes_without_landlock() {
    const ATTEMPTS: &str =
        "try() { if eval \"$1\" >/dev/null 2>&1; then echo \"GRANTED: $1.\"; else echo \"refused: $1.\"; fi; }
        of() { grep -la \"$1\" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 | grep -vx $$ | head -1; }
        for pid in $(of 'sleep.424242') $(of hostmount/mnt/mnt/victim) $(of hostmount.serve); do
        try \"kill -0 $pid\"; try \"cat /proc/$pid/environ\"; try \"ls /proc/$pid/root/\"; try \"ls /proc/$pid/fd\"
        try \"head -c1 /proc/$pid/mem\"; try \"readlink /proc/$pid/ns/user\"; done";
    for (engine, user) in [("seccomp", "own"), ("preload", "own"), ("seccomp", "root")] {
        let (test, mounter) = without(&[LANDLOCK], || start(engine, &format!("[filesystem.fault]\nuser = '{user}'\n")));
        test.node.sh_ok("mkdir /mnt/victim; setpriv --bounding-set -all sleep 424242 >/dev/null 2>&1 </dev/null &");
        test.node.wait_for_processes("sleep 424242", 1);
        test.mount(&["-t", "fuse.bindfs", "/srv/source", "/mnt/victim"]).ok("mount");
        let said = says(&test, &mounter, ATTEMPTS);
        // Root's can be had without Landlock: what is tried is worth trying.
        assert_eq!(said.contains("GRANTED: kill"), user == "root", "{engine}: {said}");
        assert_eq!(said.contains("GRANTED"), user == "root", "{engine}: {said}");
    }
}
