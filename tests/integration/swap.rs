//! Swapping to something new: other options, other secrets, another key, another version of the helper; one volume
//! after the other.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::sshd::{PORT, Sshd};
use crate::node::{Done, NODE_BIN, SERVER_ADDRESS, TestNode, opened, sshd};
use hostmount::observe::events;
use nix::sys::signal::Signal;
use std::fs;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        new_options_take_the_old_ones_place.quick(),
        options_that_a_swap_cannot_change_change_nothing.quick(),
        a_new_version_of_the_helper_serves_from_a_swap_on.quick(),
        a_secret_is_given_anew.quick(),
        a_new_key_in_the_container_is_used_from_a_swap_on.needs(&["sshfs"]).needs(sshd::PROGRAMS),
        all_volumes_a_few_at_a_time_up_to_the_first_that_fails.quick(),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

/// A helper that prints its options; it fails while there is a file /tmp/fail-<name of the source>.
const TALK: &str = "echo VERSION got \"$*\" and $WORD\n[ ! -e \"/tmp/fail-$1\" ] || exit 3\n\
                    exec mount.memfs \"$1\" \"$2\"";

fn install(test: &TestNode, version: &str) {
    test.container.helper("fuse.talk", &TALK.replace("VERSION", version));
}

fn start(config: &str) -> (TestNode, Mounter) {
    let test = TestNode::start();
    install(&test, "one");
    test.container.visit(|| {
        fs::create_dir_all("/etc/hostmount").unwrap();
        fs::write("/etc/hostmount/config.toml", config).unwrap();
    });
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    let mounter = test.start_mounter(&[], &[]);
    (test, mounter)
}

fn hostmount(test: &TestNode, arguments: &str) -> Done {
    test.node.sh(&format!("{NODE_BIN}/hostmount {arguments}"))
}

/// The helper's last line.
fn last_words(test: &TestNode) -> String {
    let words = hostmount(test, &format!("logs {TARGET}")).ok("logs");
    words.lines().last().unwrap_or_default().to_owned()
}

fn kill_helper(test: &TestNode) {
    test.node.sh_ok("kill -9 $(pidof mount.memfs)");
}

fn new_options_take_the_old_ones_place() {
    let (test, mut mounter) = start("[filesystem.talk]\nforced_options = 'forced'\n");
    test.mount(&["-t", "fuse.talk", "-o", "colour=red,size=1", "x", TARGET]).ok("mount");
    assert!(last_words(&test).contains("colour=red,size=1"), "{}", last_words(&test));
    hostmount(&test, &format!("swap {TARGET} -o colour=blue -o noisy")).ok("swap");
    let told = |words: &str| {
        let said = last_words(&test);
        assert!(said.contains("colour=blue,noisy") && said.contains("forced") && !said.contains("size"), "{said}");
        assert!(said.starts_with(words), "{said}");
    };
    told("one got");
    test.wait_for_processes("mount.memfs", 1);
    // A later heal uses the new options.
    install(&test, "two");
    kill_helper(&test);
    mounter.wait_for(events::HEALED, 1);
    told("two got");
    // So does the next mounter.
    mounter.signal(Signal::SIGKILL);
    mounter.wait();
    install(&test, "three");
    let mounter = test.start_mounter(&[], &[]);
    kill_helper(&test);
    mounter.wait_for(events::HEALED, 1);
    told("three got");
}

fn options_that_a_swap_cannot_change_change_nothing() {
    let (test, _mounter) = start("");
    test.mount(&["-t", "fuse.talk", "x", TARGET]).ok("mount");
    let before = (test.processes(), test.node.mount_at(TARGET));
    for (options, words) in [
        (format!("{TARGET} -o ro"), "mount flags"),
        (format!("{TARGET} -o X-mount.idmap=b:0:1:1"), "X-mount.idmap"),
        (format!("{TARGET} -o suid"), "nosuid,nodev"),
        (format!("{TARGET} -o 'a=\"b'"), "never closed"),
        (format!("{TARGET} --secret key"), "KEY=FILE"),
        (format!("{TARGET} --secret key=/none"), "/none"),
        (format!("{TARGET} --secret key=/etc/passwd"), "'key'"),
    ] {
        let done = hostmount(&test, &format!("swap {options}"));
        assert!(done.code == Some(1) && done.stderr.contains(words), "{options}: {done:?}");
    }
    assert_ne!(hostmount(&test, "swap --all -o x").code, Some(0));
    let helpers = |(processes, mount): (std::collections::BTreeMap<u32, String>, Option<String>)| {
        (processes.into_iter().filter(|(_, line)| line.contains("memfs")).collect::<Vec<_>>(), mount)
    };
    assert_eq!(helpers((test.processes(), test.node.mount_at(TARGET))), helpers(before));
}

fn a_new_version_of_the_helper_serves_from_a_swap_on() {
    let (test, _mounter) = start("");
    test.mount(&["-t", "fuse.talk", "x", TARGET]).ok("mount");
    install(&test, "two");
    hostmount(&test, "swap --all").ok("swap");
    assert!(last_words(&test).starts_with("two got"), "{}", last_words(&test));
    test.wait_for_processes("mount.memfs", 1);
}

fn a_secret_is_given_anew() {
    let config = "[filesystem.talk]\nenvironment = { WORD = '{secret:word}' }\n";
    let (test, mounter) = start(&format!("{config}{}", opened("flexvolume", &["talk"])));
    let install = "/usr/local/bin/hostmount install --to /run/hostmount/bin --flexvolume /run/hostmount/plugins";
    test.container.sh_ok(install);
    // "first", as kubelet writes it.
    let options = r#"{"fstype": "fuse.talk", "source": "x", "kubernetes.io/secret/word": "Zmlyc3Q="}"#;
    test.node.run("/run/hostmount/plugins/hostmount~fuse/fuse", &["mount", TARGET, options]).ok("mount");
    assert!(last_words(&test).ends_with("and first"), "{}", last_words(&test));
    test.node.sh_ok("printf second >/tmp/word");
    hostmount(&test, &format!("swap {TARGET} --secret word=/tmp/word")).ok("swap");
    assert!(last_words(&test).ends_with("and second"), "{}", last_words(&test));
    test.wait_for_processes("mount.memfs", 1);
    kill_helper(&test);
    mounter.wait_for(events::HEALED, 1);
    assert_eq!(hostmount(&test, &format!("logs {TARGET}")).ok("logs").matches("and second").count(), 2);
}

fn a_new_key_in_the_container_is_used_from_a_swap_on() {
    let (server, test) = Sshd::with_node();
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    server.place.sh_ok("echo served >/srv/export/f");
    let mounter = test.start_mounter(&[], &[]);
    let source = format!("root@{SERVER_ADDRESS}:/srv/export");
    test.mount(&["-t", "fuse.sshfs", "-o", &format!("port={PORT}"), &source, TARGET]).ok("mount");
    // The server takes another key from now on, and the container has it: no fresh helper could use the old one.
    server.place.sh_ok("ssh-keygen -q -t ed25519 -N '' -f /run/new && cp /run/new.pub /root/.ssh/authorized_keys");
    let done = hostmount(&test, "swap --all");
    assert_eq!(done.code, Some(32), "{done:?}");
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/f")), "served\n");
    let key = server.place.visit(|| fs::read("/run/new").unwrap());
    test.container.visit(|| fs::write("/root/.ssh/id_ed25519", key).unwrap());
    hostmount(&test, "swap --all").ok("swap");
    assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/f")), "served\n");
    mounter.wait_for(events::DRAINED, 1);
    test.wait_for_processes("sshfs", 1);
}

fn all_volumes_a_few_at_a_time_up_to_the_first_that_fails() {
    let (test, _mounter) = start("");
    let targets: Vec<String> = (0..10).map(|number| format!("/mnt/{number}")).collect();
    for (number, target) in targets.iter().enumerate() {
        test.node.sh_ok(&format!("mkdir {target}"));
        test.mount(&["-t", "fuse.talk", &format!("source-{number}"), target]).ok("mount");
    }
    let devices = || targets.iter().map(|target| test.node.mount_at(target).unwrap()).collect::<Vec<_>>();
    let same = |before: &[String]| -> Vec<bool> {
        devices().iter().zip(before).map(|(now, before)| now.split(' ').nth(2) == before.split(' ').nth(2)).collect()
    };
    let before = devices();
    let said = hostmount(&test, "swap --all").ok("swap");
    assert!(same(&before).iter().all(|same| !same), "{said}");
    let mut lines: Vec<_> = said.lines().map(|line| line.split("  ").next().unwrap()).collect();
    assert_eq!(lines.pop(), Some("10 volumes: 10 got a fresh helper"));
    assert_eq!(lines, (1..=10).map(|number| format!("{number}/10")).collect::<Vec<_>>());
    // The sixth fails: it and all later ones keep their helpers.
    test.container.sh_ok("touch /tmp/fail-source-5");
    let before = devices();
    let done = hostmount(&test, "swap --all");
    assert!(done.code == Some(32) && done.stderr.contains("/mnt/5"), "{done:?}");
    let same = same(&before);
    assert!(same[..4].iter().all(|same| !same) && same[5] && same[8..].iter().all(|same| *same), "{same:?}");
    assert_eq!(done.stdout.lines().last(), Some("10 volumes: 7 got a fresh helper, 1 failed, 2 not tried"));
    // What would be done is said, and nothing of it done.
    let before = devices();
    let would = hostmount(&test, "swap --all --dry-run").ok("swap --dry-run");
    assert!(would.contains("/mnt/5: it is mounted, and would get a fresh helper (mount.fuse.talk)\n"), "{would}");
    assert!(would.ends_with("10 volumes would be swapped, 4 at a time\n"), "{would}");
    assert_eq!(hostmount(&test, "heal --all --dry-run").ok("heal"), "0 volumes would be healed\n");
    let would = hostmount(&test, "heal /mnt/1 --dry-run").ok("heal");
    assert_eq!(would, "/mnt/1: it is mounted: nothing to be done\n");
    hostmount(&test, "swap /mnt/1 --dry-run -o x=y").ok("swap --dry-run");
    for (options, why) in [("suid", "option 'suid'"), ("ro", "the new options change mount flags")] {
        let refused = hostmount(&test, &format!("swap /mnt/1 --dry-run -o {options}"));
        let said = format!("/mnt/1: it would not be swapped: {why}");
        assert!(refused.code == Some(1) && refused.stderr.contains(&said), "{refused:?}");
    }
    assert_eq!(devices(), before);
    let done = hostmount(&test, "swap --all --keep-going");
    assert!(done.code == Some(32) && done.stderr.contains("/mnt/5"), "{done:?}");
    assert_eq!(done.stdout.lines().last(), Some("10 volumes: 9 got a fresh helper, 1 failed"));
    assert!(!hostmount(&test, "list").ok("list").contains("dead"));
    test.wait_for_processes("mount.memfs", 10);
}
