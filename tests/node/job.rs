//! The main job, with either engine: using a volume on the node, and checking its helper.
//!
//! Runs in the tests' process, as root.

use super::mounter::Mounter;
use super::{NODE_BIN, Processes, TestNode};
use hostmount::observe::events;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Where the volume is mounted.
pub const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

/// Longer than a process takes to go: only a failing test waits for it.
const FAR_TOO_LONG: Duration = Duration::from_secs(10);

/// Writes, reads, lists, renames and removes on the node; leaves a file `kept` with the line `stays`.
#[track_caller]
pub fn use_it(test: &TestNode) {
    test.node.sh_ok(&format!(
        "set -e; cd {TARGET}; rm -f kept
        echo hello >a; test \"$(cat a)\" = hello
        mkdir d; mv a d/b; test \"$(ls d)\" = b; test \"$(cat d/b)\" = hello
        dd if=/dev/urandom of=/tmp/c bs=64k count=16 2>/dev/null; cp /tmp/c d/c; cmp /tmp/c d/c
        rm d/b d/c; rmdir d; test -z \"$(ls)\"; echo stays >kept"
    ));
}

/// Every process of the helper's (known by a word of its command line) has empty capability sets, no way to new ones,
/// no group but its own, and no descriptor of the mounter's. Returns their uid, which is one of its own or root's. Processes that were there `before` are not the helper's.
#[track_caller]
pub fn assert_confined(test: &TestNode, engine: &str, helper: &str, before: &Processes) -> u32 {
    let is_mounter = |line: &str| line.contains("hostmount serve");
    let processes = test.processes();
    let group = |pid| test.node.sh_ok(&format!("cut -d' ' -f5 /proc/{pid}/stat"));
    let ours = processes.iter().find(|(_, line)| is_mounter(line)).map(|(pid, _)| group(pid));
    let helpers = processes.iter().filter(|(pid, line)| line.contains(helper) && !before.contains_key(pid));
    let mut users = BTreeSet::new();
    for (pid, _) in helpers {
        let status = test.node.sh_ok(&format!("cat /proc/{pid}/status"));
        let value = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line[key.len()..].trim().to_owned()
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(value(set), "0000000000000000", "{helper} {set}");
        }
        assert_eq!(value("NoNewPrivs:"), "1", "{helper}");
        let ids = |key: &str| value(key).split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(
            (ids("Uid:").len(), ids("Gid:"), value("Groups:")),
            (1, ids("Uid:"), String::new()),
            "{helper}: {status}"
        );
        users.extend(ids("Uid:"));
        // The preload engine has no filter of its own.
        assert!(engine != "seccomp" || value("Seccomp:") == "2", "{helper}: {status}");
        assert_ne!(Some(group(pid)), ours, "{helper} shares our process group");
        for (number, leads_to) in test.descriptors(*pid) {
            let leads_to = leads_to.to_string_lossy().into_owned();
            let foreign = ["seccomp", "signalfd", "hostmount.sock", "mnt:[", "mountinfo"];
            assert!(!foreign.iter().any(|word| leads_to.contains(word)), "{helper} holds {number} -> {leads_to}");
        }
    }
    assert_eq!(users.len(), 1, "no process of {helper}, or of several uids: {users:?} {processes:?}");
    users.first().unwrap().parse().unwrap()
}

/// The first lines of a helper that asks for more than it is granted: `try COMMAND` prints the result.
pub const TRY: &str = r#"exec 2>&1
    try() { if "$@" >/tmp/said 2>&1; then echo "GRANTED: $*"; else echo "refused: $*"; fi; }"#;

/// So many tries were refused and none was granted; the mounter has logged the reasons, and shows them with the helper's words.
#[track_caller]
pub fn assert_refused(test: &TestNode, mounter: &Mounter, tries: usize) {
    let said = mounter.said();
    let shown = test.node.sh_ok(&format!("{NODE_BIN}/hostmount logs {TARGET}"));
    assert!(!said.contains("GRANTED"), "{said}");
    assert_eq!(said.matches("refused: ").count(), tries, "{said}");
    for objection in [
        "a filesystem of type 'tmpfs' is not granted",
        "they act on existing mounts",
        "does not name an open /dev/fuse",
        "anywhere but at its own mount point",
        "a second mount of the same helper",
    ] {
        assert!(said.contains(objection), "{objection} is not in {said}");
        assert!(shown.contains(objection) && shown.contains("hostmount refused"), "{objection} is not in {shown}");
    }
}

/// Unmounts with the node's own umount(8), and waits for the helper to exit by itself: nothing is left but what was there
/// `before`. It is the mounter's unmount number `times`.
#[track_caller]
pub fn unmount_and_see_it_end(test: &TestNode, mounter: &Mounter, before: &Processes, times: usize) {
    test.node.sh_ok(&format!("umount {TARGET}"));
    mounter.wait_for(events::UNMOUNTED, times);
    assert_eq!(test.node.mount_at(TARGET), None);
    assert_eq!(list(test), "[]");
    // A process is listed for a moment after it has exited, maybe before as well.
    let deadline = Instant::now() + FAR_TOO_LONG;
    while !test.processes().iter().all(|(pid, line)| before.get(pid) == Some(line)) {
        assert!(Instant::now() < deadline, "left behind: {:?}, before: {before:?}", test.processes());
        std::thread::yield_now();
    }
}

/// `hostmount list`, as JSON.
#[track_caller]
pub fn list(test: &TestNode) -> String {
    test.node.sh_ok(&format!("{NODE_BIN}/hostmount list --output json")).trim().to_owned()
}
