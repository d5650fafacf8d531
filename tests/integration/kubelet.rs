//! Kubelet's calls: the FlexVolume driver, and every call that real kubelets were seen to make.
//!
//! `captured/*.jsonl` holds the calls of kubelet 1.20.2 and 1.36.2, one a line, with pod ids replaced.

use crate::harness::{Test, tests};
use crate::node::gluster::{self, Gluster};
use crate::node::mounter::Mounter;
use crate::node::{Done, Place, TestNode, opened};
use hostmount::observe::events;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        flexvolume_mounts_and_unmounts.needs(&["bindfs"]).quick(),
        flexvolume_failures_are_one_object.needs(&["bindfs"]).quick(),
        every_call_that_real_kubelets_made.needs(&["bindfs"]).quick(),
        glusterfs_writes_the_log_file_that_kubelet_reads.needs(gluster::PROGRAMS),
    ]
}

const PLUGINS: &str = "/run/hostmount/plugins";
const DRIVER: &str = "/run/hostmount/plugins/hostmount~fuse/fuse";
const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/hostmount~fuse/v";

/// A node whose mounter has installed the driver and the binary in a directory that both share.
fn start() -> (TestNode, Mounter) {
    let test = TestNode::start();
    let install = format!("/usr/local/bin/hostmount install --to /run/hostmount/bin --flexvolume {PLUGINS}");
    test.container.sh_ok(&install);
    // A new version takes the old one's place.
    test.container.sh_ok(&install);
    test.container.sh_ok("mkdir /tmp/source && echo served >/tmp/source/f");
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    // Helpers write there what they were called with: of the container's own filesystem they can write to nothing.
    test.container.sh_ok("mount -t tmpfs srv /srv");
    // A password with a comma was captured, too: what is behind it is an option to mount.cifs as it is to the mounter.
    let comma = "[policy.kubelet.filesystem.cifs]\noptions = [\"with\"]\n";
    test.configure(&(opened("flexvolume", &["bindfs"]) + comma));
    let mounter = test.start_mounter(&[], &[]);
    (test, mounter)
}

/// A call of the driver: its exit code and the one object it prints, with nothing beside it.
#[track_caller]
fn call(node: &Place, arguments: &[&str]) -> (Option<i32>, Value) {
    let Done { code, stdout, stderr } = node.run(DRIVER, arguments);
    assert_eq!(stderr, "", "{arguments:?}");
    let answer = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}"));
    assert_eq!(stdout.lines().count(), 1);
    (code, answer)
}

fn options(fstype: &str, access: &str) -> String {
    // As kubelet 1.36.2 sends them.
    json!({
        "kubernetes.io/fsType": "",
        "kubernetes.io/pod.name": "p",
        "kubernetes.io/pod.namespace": "default",
        "kubernetes.io/pod.uid": "11111111-2222-3333-4444-555555555555",
        "kubernetes.io/pvOrVolumeName": "v",
        "kubernetes.io/readwrite": access,
        "kubernetes.io/serviceAccount.name": "",
        "fstype": fstype,
        "source": "/tmp/source",
        "options": "noexec",
    })
    .to_string()
}

fn flexvolume_mounts_and_unmounts() {
    let (test, mounter) = start();
    let node = &test.node;
    let (code, answer) = call(node, &["init"]);
    assert_eq!((code, &answer["status"]), (Some(0), &json!("Success")));
    assert_eq!(answer["capabilities"]["attach"], json!(false));
    let success = (Some(0), json!({ "status": "Success" }));
    // Unmounted before it was mounted, mounted twice, unmounted twice.
    assert_eq!(call(node, &["unmount", TARGET]), success);
    for _again in 0..2 {
        assert_eq!(call(node, &["mount", TARGET, &options("fuse.bindfs", "rw")]), success);
    }
    assert_eq!(node.mountinfo().iter().filter(|line| line.contains(TARGET)).count(), 1);
    node.sh_ok(&format!("cat {TARGET}/f && touch {TARGET}/new"));
    assert!(node.mount_at(TARGET).unwrap().contains("noexec"));
    for _again in 0..2 {
        assert_eq!(call(node, &["unmount", TARGET]), success);
    }
    mounter.wait_for(events::UNMOUNTED, 1);
    assert_eq!(call(node, &["mount", TARGET, &options("fuse.bindfs", "ro")]), success);
    assert!(node.sh(&format!("touch {TARGET}/new2")).stderr.contains("Read-only"));
    assert_eq!(call(node, &["unmount", "/var/lib/kubelet/no-such-directory"]), success);
}

fn flexvolume_failures_are_one_object() {
    let (test, mounter) = start();
    let node = &test.node;
    let fails = |arguments: &[&str], words: &[&str]| {
        let (code, answer) = call(node, arguments);
        assert_eq!((code, &answer["status"]), (Some(1), &json!("Failure")), "{arguments:?}");
        let message = answer["message"].as_str().unwrap();
        for word in words {
            assert!(message.contains(word), "{word} is not in {message}");
        }
    };
    fails(&["mount", TARGET, "{"], &["not a JSON object"]);
    fails(&["mount", TARGET, "{}"], &["'fstype' is missing"]);
    fails(&["mount", TARGET], &["number of arguments"]);
    fails(&[], &["no call is named"]);
    fails(
        &["mount", TARGET, &options("nosuch", "rw")],
        &["type 'nosuch' is refused by the default policy for flexvolume"],
    );
    fails(&["mount", "/var/lib/kubelet/missing", &options("fuse.bindfs", "rw")], &["mount point does not exist"]);
    // The helper's own words.
    let bad = options("fuse.bindfs", "rw").replace("/tmp/source", "/nonexist");
    fails(&["mount", TARGET, &bad], &["No such file or directory", "bindfs could not mount"]);
    let (_, answer) = call(node, &["mount", TARGET, &bad]);
    let first = answer["message"].as_str().unwrap().lines().next().unwrap();
    assert!(first.starts_with("bindfs could not mount /nonexist: ") && first.contains("No such file"), "{answer}");
    for unsupported in [
        "attach",
        "waitforattach",
        "isattached",
        "detach",
        "mountdevice",
        "unmountdevice",
        "expandvolume",
        "expandfs",
        "getvolumename",
    ] {
        let (code, answer) = call(node, &[unsupported, "{}"]);
        assert_eq!((code, &answer["status"]), (Some(1), &json!("Not supported")));
    }
    drop(mounter);
    fails(&["mount", TARGET, &options("fuse.bindfs", "rw")], &["the mounter is not running"]);
    assert_eq!(node.mount_at(TARGET), None);
}

/// Replays each captured call. The helpers for types without a server in the test are recorders: they write their
/// arguments down and mount the demo's filesystem. A captured driver call has options of the user's own, and must be
/// refused with an error.
fn every_call_that_real_kubelets_made() {
    let (test, mounter) = start();
    let recorder = "printf '%s\\n' \"$@\" >/srv/recorded\nexec /usr/sbin/mount.memfs \"$1\" \"$2\"";
    // Some of these helpers have a uid of their own.
    test.container.sh_ok("touch /srv/recorded && chmod 666 /srv/recorded");
    for fstype in ["glusterfs", "nfs", "ceph", "cifs"] {
        test.container.helper(fstype, recorder);
    }
    let mut seen = BTreeSet::new();
    for file in ["v1.20.2", "v1.36.2", "v1.36.2-standalone"] {
        let text = fs::read_to_string(format!("{}/tests/captured/{file}.jsonl", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for line in text.lines() {
            let call: Value = serde_json::from_str(line).unwrap();
            let argv: Vec<&str> = call["argv"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
            replay(&test, &argv);
            seen.insert(format!("{} {}", argv[0].rsplit('/').next().unwrap(), argv[1]));
        }
    }
    for secret in ["AQBcephkey", "k3y", "cEBzcyB3b3JkIic"] {
        assert!(!mounter.said().contains(secret), "{secret} is in the log");
    }
    let kinds: Vec<_> = seen.iter().filter(|kind| !kind.starts_with("umount ")).map(String::as_str).collect();
    assert_eq!(kinds, ["fuse init", "fuse mount", "fuse unmount", "mount -o", "mount mount"]);
}

fn replay(test: &TestNode, argv: &[&str]) {
    let node = &test.node;
    match argv {
        [program, "init"] if program.ends_with("~fuse/fuse") => assert_eq!(call(node, &["init"]).0, Some(0)),
        [program, "mount", target, options] if program.ends_with("~fuse/fuse") => {
            let (code, answer) = call(node, &["mount", target, options]);
            let message = answer["message"].as_str().unwrap_or_default();
            assert_eq!(code, Some(1), "{answer}");
            let known = ["unknown option", "'fstype' is missing"];
            assert!(known.iter().any(|words| message.contains(words)), "{message}");
            assert!(!message.contains("cEBzcyB3b3JkIic"), "a secret is in {message}");
        }
        [program, "unmount", target] if program.ends_with("~fuse/fuse") => {
            assert_eq!(call(node, &["unmount", target]).0, Some(0));
        }
        ["/opt/hostmount/bin/mount", arguments @ ..] => external_mounter(test, arguments),
        // subPath, and umount: kubelet's PATH leads to the node's own programs or to ours, with the same outcome.
        ["mount", "-o", "bind", _, target] => {
            node.sh_ok(&format!("mkdir -p '{target}' /mnt/subpath"));
            test.kubelets_mount(&["-o", "bind", "/mnt/subpath", target]).ok("bind");
        }
        ["mount", "-o", "bind,remount", _, target] => {
            test.kubelets_mount(&["-o", "bind,remount,ro", "/mnt/subpath", target]).ok("bind,remount");
        }
        ["umount", target] => {
            let mounted = node.mount_at(&target.replace(' ', "\\040")).is_some();
            let done = test.umount(&[target]);
            assert_eq!(done.code == Some(0), mounted, "{target}: {}", done.stderr);
            // It tries a directory that is not mounted to learn the message of the node's umount.
            let words = ["not mounted", "no mount point specified"];
            assert!(mounted || words.iter().any(|words| done.stderr.contains(words)), "{}", done.stderr);
        }
        other => panic!("a call that the test does not know: {other:?}"),
    }
}

/// A call of the external mounter: the helper gets kubelet's options, with `rw` or `ro` in front.
fn external_mounter(test: &TestNode, arguments: &[&str]) {
    let (options, rest) = match &arguments[3..] {
        ["-o", options, rest @ ..] => (*options, rest),
        rest => ("", rest),
    };
    let [source, target] = rest else { panic!("{arguments:?}") };
    test.node.sh_ok(&format!("mkdir -p '{target}'"));
    // Kubelet makes the log file's directory. The helper gets another path for it, in its own mount namespace.
    let log = options.split(',').find_map(|word| word.strip_prefix("log-file="));
    if let Some(log) = log {
        test.node.sh_ok(&format!("mkdir -p $(dirname '{log}')"));
    }
    if test.node.mount_at(&target.replace(' ', "\\040")).is_some() {
        test.umount(&[target]).ok("umount of an earlier call's");
    }
    let done = test.kubelets_mount(arguments);
    let recorded = test.container.sh_ok("cat /srv/recorded");
    let recorded: Vec<&str> = recorded.lines().collect();
    let place = format!("/run/hostmount/mnt{target}");
    assert_eq!(recorded[..3], [*source, &*place, "-o"], "{arguments:?}");
    let own_name = log.map(|_| "log-file=/run/hostmount/mnt/.log");
    let as_given =
        options.split(',').filter(|word| !word.is_empty() && *word != "ro" && !word.starts_with("log-file="));
    // So that mount.nfs says what is wrong.
    let at_once = (arguments[2] == "nfs").then_some("retry=0");
    let wanted: BTreeSet<_> = as_given.chain(own_name).chain(at_once).collect();
    let mut given: Vec<_> = recorded[3].split(',').collect();
    let access = given.remove(0);
    assert_eq!(access, if options.split(',').any(|word| word == "ro") { "ro" } else { "rw" });
    assert_eq!(given.iter().copied().collect::<BTreeSet<_>>(), wanted);
    // The recorder mounts a FUSE filesystem, which may serve the kernel's own types as well.
    done.ok("mount");
    assert!(test.node.mount_at(target).is_some());
}

fn glusterfs_writes_the_log_file_that_kubelet_reads() {
    let (_server, source, test) = Gluster::with_node();
    let mounter = test.start_mounter(&[], &[]);
    let plugin = "/var/lib/kubelet/plugins/kubernetes.io/glusterfs/gl";
    test.node.sh_ok(&format!("mkdir -p {TARGET} {plugin}"));
    let mount = |source: &str, log: &str| {
        let options = format!("auto_unmount,backup-volfile-servers=10.77.0.1:10.77.0.1,log-file={log},log-level=INFO");
        test.kubelets_mount(&["mount", "-t", "glusterfs", "-o", &options, source, TARGET])
    };
    // A failure: kubelet reads why from the file on the node.
    let log = format!("{plugin}/pod-glusterfs.log");
    let done = mount("10.77.0.1:/no-such-volume", &log);
    assert_eq!(done.code, Some(32), "{}", done.stderr);
    assert!(test.node.sh_ok(&format!("cat {log}")).contains("failed to get the 'volume file' from server"));
    mount(&source, &log).ok("mount");
    test.node.sh_ok(&format!("echo x >{TARGET}/f && umount {TARGET}"));
    mounter.wait_for(events::UNMOUNTED, 1);
    // A path outside of kubelet's own directory is the container's for a helper, and no link is followed.
    test.node.sh_ok(&format!("ln -s /var/lib/kubelet/secret {plugin}/link.log"));
    let done = mount(&source, &format!("{plugin}/link.log"));
    assert!(done.code == Some(32) && done.stderr.contains("cannot open the log file"), "{}", done.stderr);
    let done = mount(&source, "/var/lib/kubelet/plugins/kubernetes.io/glusterfs/missing/x.log");
    assert!(done.stderr.contains("the directory of the log file: mount point does not exist"), "{}", done.stderr);
    mount(&source, "/var/lib/kubelet/elsewhere.log");
    assert_ne!(test.node.sh("test -e /var/lib/kubelet/elsewhere.log -o -e /var/lib/kubelet/secret").code, Some(0));
}
