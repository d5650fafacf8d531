//! Policy: who asks for what is not his, by each entrance, and what goes on working.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::{Done, NODE_BIN, TestNode, opened};
use hostmount::observe::events;
use serde_json::{Value, json};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_flexvolume_user_runs_no_program.needs(&["sshfs"]).quick(),
        a_flexvolume_user_gets_no_file_of_the_containers.needs(&["bindfs"]).quick(),
        where_all_is_open_the_same_does_what_it_says.needs(&["sshfs", "bindfs"]).quick(),
        kubelets_mount_is_no_way_around.needs(&["bindfs"]).quick(),
        an_administrator_opens_and_forces.needs(&["bindfs"]).quick(),
        what_is_mounted_is_not_judged_again.needs(&["bindfs"]).quick(),
        a_check_says_what_a_mount_would.needs(&["bindfs"]).quick(),
        what_is_explained_is_what_is_run.quick(),
        what_the_mounter_adds_is_explained.quick(),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/hostmount~fuse/v";

/// Helpers may write there.
const EVIL: &str = "#!/bin/sh\necho x >>/srv/granted\n";

fn start(config: &str) -> (TestNode, Mounter) {
    let test = TestNode::start();
    test.configure(config);
    test.container.sh_ok("mount -t tmpfs srv /srv; mkdir -p /srv/shared/a /srv/other; echo served >/srv/shared/a/f");
    test.node.sh_ok(&format!("mkdir -p {TARGET} /mnt/v"));
    let mounter = test.start_mounter(&[], &[]);
    (test, mounter)
}

/// A volume of a pod's author: what the driver answers.
fn flexvolume(test: &TestNode, fstype: &str, source: &str, options: &str) -> Result<(), String> {
    let volume = json!({ "fstype": fstype, "source": source, "options": options, "kubernetes.io/readwrite": "rw" });
    let arguments = ["flexvolume", "mount", TARGET, &volume.to_string()].map(str::to_owned);
    let Done { stdout, .. } = test.node.run(format!("{NODE_BIN}/hostmount"), &arguments);
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    match answer["status"].as_str() {
        Some("Success") => Ok(()),
        _ => Err(answer["message"].as_str().unwrap().to_owned()),
    }
}

#[track_caller]
fn refused(done: Result<(), String>, what: &str) {
    let message = done.expect_err(what);
    assert!(message.contains("is refused by"), "{what}: {message}");
}

/// Each of them ran a program in the container, before there was a policy.
fn a_flexvolume_user_runs_no_program() {
    let (test, _mounter) = start("");
    test.container.program("/srv/evil", EVIL);
    for options in [
        "ssh_command=/srv/evil",
        "ProxyCommand=/srv/evil",
        "proxycommand=/srv/evil",
        "port=22\\,ssh_command=/srv/evil",
        "user=\"x,ssh_command=/srv/evil\"",
        "fsname=\"x,ssh_command=/srv/evil\"",
        "x-a=\"b,ssh_command=/srv/evil\"",
        "ro=\"x,ssh_command=/srv/evil\"",
        "LocalCommand=/srv/evil,PermitLocalCommand=yes",
        "PKCS11Provider=/srv/evil",
        "modules=/srv/evil",
    ] {
        refused(flexvolume(&test, "sshfs", "me@127.0.0.1:/", options), options);
        refused(flexvolume(&test, "fuse.sshfs", "me@127.0.0.1:/", options), options);
    }
    for (fstype, source) in [
        ("sshfs", "[-oProxyCommand=/srv/evil]:/"),
        ("fuse", "sshfs#[-oProxyCommand=/srv/evil]:/"),
        ("perl", "/srv/evil"),
        ("fuse.perl", "/srv/evil"),
        ("fuse", "perl#/srv/evil"),
        ("fuse", "/srv/evil"),
        ("python3", "/srv/evil"),
        ("env", "/srv/evil"),
        ("rclone", ":sftp,ssh=/srv/evil:/"),
    ] {
        refused(flexvolume(&test, fstype, source, ""), fstype);
    }
    let message = flexvolume(&test, "fuse3", "sshfs#-oProxyCommand=/srv/evil", "").unwrap_err();
    assert!(message.contains("would be an option"), "{message}");
    test.container.sh_ok("! test -e /srv/granted");
    assert_eq!(test.node.mount_at(TARGET), None);
}

/// Each of them let a pod write to the container, or read what is root's there.
fn a_flexvolume_user_gets_no_file_of_the_containers() {
    let (test, _mounter) = start("");
    for source in ["/", "/run/hostmount", "/proc/sys/kernel", "/srv/shared", ".", "srv", "/etc/hostmount"] {
        for fstype in ["bindfs", "fuse.bindfs", "squashfuse", "fuse.mergerfs", "gocryptfs", "archivemount"] {
            refused(flexvolume(&test, fstype, source, ""), fstype);
        }
        refused(flexvolume(&test, "fuse", &format!("bindfs#{source}"), ""), source);
    }
    refused(flexvolume(&test, "fuse-overlayfs", "x", "lowerdir=/etc,upperdir=/srv,workdir=/srv"), "lowerdir");
    refused(flexvolume(&test, "rclone", ":local:/etc", ""), "rclone");
    for (fstype, source, option) in [
        ("s3fs", "bucket", "passwd_file=/etc/shadow"),
        ("s3fs", "bucket", "logfile=/srv/x"),
        ("s3fs", "bucket", "iam_role=auto"),
        ("glusterfs", "h:v", "log-file=/var/lib/kubelet/pki/kubelet.key"),
        ("glusterfs", "h:v", "log-level=x --dump-fuse=/srv/x"),
        ("nfs", "h:/x", "log-file=/var/lib/kubelet/plugins/kubernetes.io/glusterfs/x/y"),
        ("cifs", "//h/s", "credentials=/etc/shadow"),
        ("ceph", "h:/", "secretfile=/etc/shadow"),
        ("davfs", "http://h", "conf=/etc/shadow"),
    ] {
        refused(flexvolume(&test, fstype, source, option), option);
    }
    assert_eq!(test.node.mount_at(TARGET), None);
    // With what an operator may have.
    test.mount(&["-t", "fuse.bindfs", "/srv/shared", "/mnt/v"]).ok("mount");
}

/// As it was before there was a policy: otherwise the tests above would show nothing.
fn where_all_is_open_the_same_does_what_it_says() {
    let (test, _mounter) = start(&opened("flexvolume", &["sshfs", "bindfs"]));
    // sshfs is a user of its own.
    test.container.sh_ok("touch /srv/granted && chmod 666 /srv/granted");
    test.container.program("/srv/evil", EVIL);
    for (fstype, options) in [("sshfs", "ssh_command=/srv/evil"), ("fuse.sshfs", "ProxyCommand=/srv/evil")] {
        flexvolume(&test, fstype, "me@127.0.0.1:/", options).unwrap_err();
    }
    assert_eq!(test.container.sh_ok("cat /srv/granted").lines().count(), 2);
    flexvolume(&test, "bindfs", "/", "").unwrap();
    assert!(test.node.sh_ok(&format!("cat {TARGET}/etc/hostmount/config.toml")).contains("[policy.flexvolume"));
}

fn kubelets_mount_is_no_way_around() {
    let (test, mounter) = start("");
    for (arguments, rule) in [
        (["-t", "fuse.bindfs", "-o", "ro", "/srv/shared", TARGET], "the default policy for kubelet: a source"),
        (["-t", "fuse.sshfs", "-o", "ssh_command=x", "h:/", TARGET], "runs a program"),
        (["-t", "nfs", "-o", "ro", "h:/x", "/mnt/v"], "not below kubelet's directory"),
    ] {
        let done = test.kubelets_mount(&arguments);
        assert!(done.code == Some(1) && done.stderr.contains(rule), "{arguments:?}: {done:?}");
    }
    mounter.wait_for(events::VOLUME_REFUSED, 3);
    // By hand, and where the operator has closed it to himself.
    test.mount(&["-t", "fuse.bindfs", "/srv/shared", TARGET]).ok("mount");
    test.umount(&[TARGET]).ok("umount");
    drop(mounter);
    test.configure(
        "[policy.operator.filesystem.bindfs]\nsources = [\"/srv/other\"]\n[policy.operator]\ntargets = [\"/mnt/*\"]",
    );
    let _mounter = test.start_mounter(&[], &[]);
    let done = test.mount(&["-t", "fuse.bindfs", "/srv/shared", "/mnt/v"]);
    assert!(done.stderr.contains("policy.operator.filesystem.bindfs.sources"), "{done:?}");
    let done = test.mount(&["-t", "fuse.bindfs", "/srv/other", TARGET]);
    assert!(done.stderr.contains("policy.operator.targets"), "{done:?}");
    test.mount(&["-t", "fuse.bindfs", "/srv/other", "/mnt/v"]).ok("mount");
}

const OPENED: &str = "[policy.flexvolume]
forced_options = \"noexec\"
[policy.flexvolume.filesystem.bindfs]
sources = [\"/srv/shared/**\"]
forced_options = \"ro\"
forbidden_options = [\"perms\"]";

fn an_administrator_opens_and_forces() {
    let (test, _mounter) = start(OPENED);
    assert_eq!(flexvolume(&test, "bindfs", "/srv/shared/a", "exec,rw"), Ok(()));
    let line = test.node.mount_at(TARGET).unwrap();
    assert!(line.contains(" ro,nosuid,nodev,noexec"), "{line}");
    test.node.sh_ok(&format!("cat {TARGET}/f; umount {TARGET}"));
    for (source, options) in [
        ("/srv/other", ""),
        ("/srv/shared/../other", ""),
        ("/srv/shared/a", "perms=0777"),
        ("/srv/shared/a", "resolve-symlinks"),
        ("/srv/shared/a,resolve-symlinks", ""),
    ] {
        refused(flexvolume(&test, "bindfs", source, options), source);
    }
    // The other door has rules of its own.
    let done = test.kubelets_mount(&["-t", "fuse.bindfs", "/srv/shared/a", TARGET]);
    assert!(done.stderr.contains("the default policy for kubelet"), "{done:?}");
}

/// A rule becomes stricter: the volume is healed, and known to the next mounter; what is new is judged.
fn what_is_mounted_is_not_judged_again() {
    let (test, mounter) = start(OPENED);
    assert_eq!(flexvolume(&test, "bindfs", "/srv/shared/a", ""), Ok(()));
    drop(mounter);
    test.configure("[policy.operator]\nforbidden_options = [\"mirror\"]");
    let mounter = test.start_mounter(&[], &[]);
    let [helper] = test.pids_of("bindfs")[..] else { panic!("one helper") };
    test.node.sh_ok(&format!("kill -KILL {helper}"));
    mounter.wait_for(events::HEALED, 1);
    assert!(test.node.sh_ok(&format!("cat {TARGET}/f")).contains("served"));
    assert!(test.node.mount_at(TARGET).unwrap().contains("noexec"));
    let hostmount = |words: &str| test.node.sh(&format!("{NODE_BIN}/hostmount {words}"));
    hostmount(&format!("swap {TARGET}")).ok("a swap of what is there");
    let done = hostmount(&format!("swap {TARGET} -o ro,noexec,mirror=root"));
    assert!(done.code == Some(1) && done.stderr.contains("policy.operator.forbidden_options"), "{done:?}");
    hostmount(&format!("swap {TARGET} -o ro,noexec,perms=0555")).ok("a swap of the operator's");
    // Once it is gone it cannot be had again.
    test.node.sh_ok(&format!("umount {TARGET}"));
    refused(flexvolume(&test, "bindfs", "/srv/shared/a", ""), "bindfs");
}

fn a_check_says_what_a_mount_would() {
    let (test, mounter) = start(OPENED);
    let check = |words: &str| test.node.sh(&format!("{NODE_BIN}/hostmount policy check {words}"));
    for words in [
        "mount -t fuse.bindfs /etc /mnt/v",
        &format!("--from flexvolume mount -t fuse.bindfs -o ro /srv/shared/a {TARGET}"),
        "--from operator mount -t fuse.bindfs -o resolve-symlinks / /mnt/v",
    ] {
        check(words).ok(words);
    }
    for (words, why) in [
        (format!("--from kubelet mount -t fuse.bindfs /etc {TARGET}"), "the default policy for kubelet"),
        (
            format!("--from flexvolume mount -t fuse.bindfs /etc {TARGET}"),
            "policy.flexvolume.filesystem.bindfs.sources",
        ),
        (format!("--from csi mount -t nfs h:/x {TARGET}"), "its door is closed"),
        ("mount -t fuse.bindfs x /proc".to_owned(), "is not for volumes"),
        ("mount -t fuse.bindfs -o suid x /mnt/v".to_owned(), "cannot be granted"),
        ("mount -t tmpfs x /mnt/v".to_owned(), "the node's own mount"),
        ("umount /mnt/v".to_owned(), "hostmount policy check mount"),
    ] {
        let done = check(&words);
        assert!(done.code == Some(1) && done.stderr.contains(why), "{words}: {done:?}");
    }
    let done = check("mount -t fuse.perl x /mnt/v");
    assert!(done.code == Some(32) && done.stderr.contains("unknown filesystem type"), "{done:?}");
    assert_eq!(check("--from nobody mount -t nfs h:/x /mnt/v").code, Some(2));
    assert_eq!((mounter.count(events::MOUNTED), test.node.fuse_mounts().len()), (0, 0));
    let shown = test.node.sh_ok(&format!("{NODE_BIN}/hostmount policy show"));
    for words in ["[flexvolume.filesystem.bindfs]", "/srv/shared/**", "forced_options = \"noexec\"", "[csi", "closed"] {
        assert!(shown.contains(words), "{words} is not in {shown}");
    }
}

fn what_is_explained_is_what_is_run() {
    let (test, mounter) = start(
        "[filesystem.talk]\ndefault_options = 'size=7'\nforced_options = 'noexec'\nenvironment = { WORD = 'x' }\n\
         files.conf = { content = 'c', option = 'config' }\nmemory_limit = '512Mi'\n",
    );
    test.container.helper("fuse.talk", "echo \"args $*\"; echo \"uid $(id -u)\"; exec mount.memfs x \"$2\"");
    let mount = "-t fuse.talk -o color=red,password=hunter2 https://me:hunter2@h/x /mnt/v";
    let hostmount = |words: &str| test.node.sh(&format!("{NODE_BIN}/hostmount {words}"));
    let text = hostmount(&format!("mount --explain --output json {mount}")).ok("mount --explain");
    assert!(!text.contains("hunter"), "{text}");
    let explained: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((mounter.count(events::MOUNTED), test.pids_of("memfs").len()), (0, 0), "nothing is done");
    hostmount(&format!("mount {mount}")).ok("mount");
    let said = hostmount("logs /mnt/v").ok("logs");
    let words: Vec<_> = explained["arguments"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(words[0], "mount.fuse.talk");
    let args = words[1..].join(" ").replace("/run/hostmount/mnt/", "/");
    assert!(said.contains(&format!("args {}\n", args.replace("password=***", "password=hunter2"))), "{args}: {said}");
    assert_eq!(explained["program"], "/usr/sbin/mount.fuse.talk");
    assert_eq!(explained["options"]["flags"], json!(["noexec", "nosuid", "nodev"]));
    assert_eq!(explained["files"], json!(["/run/hostmount/files/conf"]));
    assert_eq!((&explained["environment"], &explained["memory_limit"]), (&json!(["WORD"]), &json!(512 << 20)));
    assert!(explained["user"].as_str().unwrap().starts_with("a uid of its own, one of "), "{explained}");
    assert!(!said.contains("uid 0\n"), "{said}");
    assert_eq!(explained["rules"][0]["rule"], "the default policy for operator: all that no rule closes");

    let done = hostmount(&format!("mount --explain --from kubelet -t fuse.bindfs /etc {TARGET}"));
    assert!(done.code == Some(1) && done.stderr.contains("it would be refused: the source is refused"), "{done:?}");
    assert!(
        done.stdout.starts_with("Verdict      refused\n") && done.stdout.contains("Runs as      uid 0\n"),
        "{done:?}"
    );
    let done = hostmount("mount --explain -t fuse.perl x /mnt/v");
    assert!(done.code == Some(32) && done.stderr.contains("unknown filesystem type"), "{done:?}");
    assert_eq!(
        hostmount("mount --from csi -t fuse.talk x /mnt/v").code,
        Some(2),
        "only what is explained has an origin"
    );
}

/// So that helpers say why they fail: of that, too, what is explained is what is run, and what a status shows.
fn what_the_mounter_adds_is_explained() {
    let (test, _mounter) = start("");
    test.container.program("/usr/local/bin/rclone", "#!/bin/sh\nenv | grep ^RCLONE_\nexec mount.memfs x \"$2\"\n");
    test.container.helper("nfs", "echo \"args $*\"; exit 32");
    test.node.sh_ok(&format!("echo nfs >{NODE_BIN}/served-types"));
    let hostmount = |words: &str| test.node.sh(&format!("{NODE_BIN}/hostmount {words}"));
    let explained = |words: &str| -> Value {
        serde_json::from_str(&hostmount(&format!("mount --explain --output json {words}")).ok(words)).unwrap()
    };
    let rclone = "-t fuse.rclone s3:bucket /mnt/v";
    assert_eq!(explained(rclone)["environment"], json!(["RCLONE_SYSLOG"]));
    hostmount(&format!("mount {rclone}")).ok("mount");
    assert_eq!(hostmount("logs /mnt/v").ok("logs"), "RCLONE_SYSLOG=true\n");
    // It is told elsewhere.
    assert_eq!(explained(&format!("-o log_file=/x {rclone}"))["environment"], json!([]));

    let given = |words: &str| {
        let explained = explained(words);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let called = explained["arguments"].as_array().unwrap().last().map(text).unwrap();
        (text(&explained["options"]["given"]), called)
    };
    let run = |words: &str| hostmount(&format!("mount {words}")).stderr;
    for (options, expected) in [("vers=3", "vers=3,retry=0"), ("vers=3,retry=2", "vers=3,retry=2")] {
        let words = format!("-t nfs -o {options} h:/x /srv");
        let (given, called) = given(&words);
        assert_eq!((given.as_str(), called), (expected, format!("rw,{expected}")));
        assert!(run(&words).contains(&format!("-o rw,{expected}\n")), "{}", run(&words));
    }
    // The type's own, which no caller of its knows.
    let status = "-t fuse.sshfs h:/x /srv";
    test.container.program("/usr/bin/sshfs", "#!/bin/sh\nexec mount.memfs x \"$2\"\n");
    hostmount(&format!("mount {status}")).ok("mount");
    let shown: Value = serde_json::from_str(&hostmount("status --output json /srv").ok("status")).unwrap();
    assert_eq!((&shown["options"]["asked"], &shown["options"]["given"]), (&json!(""), &json!("sshfs_verbose")));
}
