//! Who may ask the mounter, and for what: everybody here asks for more than is his.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::old_kernel::{PEER_PIDFD, without};
use crate::node::{NODE_BIN, TestNode, preloaded};
use hostmount::observe::events;
use rustix::fs::{FlockOperation, Mode, OFlags, fcntl_lock, open};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        a_helper_may_not_ask.needs(&["bindfs"]).quick(),
        a_helper_does_not_see_what_the_mounter_keeps.quick(),
        who_could_not_mount_may_not_ask.quick(),
        before_linux_6_5_callers_are_seen_by_their_ids.quick(),
        the_lock_is_the_mounters_alone.quick(),
        a_log_file_is_no_way_to_the_nodes_files.quick(),
        a_type_names_a_filesystem_and_no_other_program.quick(),
        a_source_is_not_an_option_and_a_target_not_the_kernels.quick(),
    ]
}

const TARGET: &str = "/mnt/v";

fn start(arguments: &[&str]) -> (TestNode, Mounter) {
    let test = TestNode::start();
    if arguments.contains(&"preload") {
        preloaded::install(&test.container);
    }
    test.node.sh_ok(&format!("mkdir {TARGET} /mnt/w"));
    test.container.helper("fuse.plain", "exec mount.memfs \"$1\" \"$2\"");
    let_spies_be_root(&test);
    let mounter = test.start_mounter(arguments, &[]);
    (test, mounter)
}

/// A helper of another uid does not even reach the socket.
fn let_spies_be_root(test: &TestNode) {
    test.container
        .sh_ok("mkdir -p /etc/hostmount; printf \"[filesystem.spy]\\nuser = 'root'\\n\" >/etc/hostmount/config.toml");
}

/// Its words are in the mounter's log.
fn spy(test: &TestNode, fstype: &str, lines: &str) {
    test.container.helper(fstype, &format!("exec 2>&1\n{lines}\nexec mount.memfs \"$1\" \"$2\""));
}

/// It has the uid, and with this socket the way, too.
fn a_helper_may_not_ask() {
    for engine in ["seccomp", "preload"] {
        let door = "/srv/door.sock";
        let (test, mounter) = start(&["--socket", door, "--engine", engine]);
        test.container.sh_ok("mkdir /srv/source");
        test.container.helper(
            "fuse.spy",
            &format!(
                "exec 2>&1; export HOSTMOUNT_SOCKET={door}; stat -c %F {door}
                /usr/local/bin/hostmount list && echo GRANTED: list
                /usr/local/bin/hostmount mount -t fuse.plain cover /mnt/w && echo GRANTED: mount
                exec bindfs \"$1\" \"$2\""
            ),
        );
        test.container
            .sh_ok(&format!("HOSTMOUNT_SOCKET={door} /usr/local/bin/hostmount mount -t fuse.spy /srv/source {TARGET}"));
        mounter.wait_for(events::MOUNTED, 1);
        let said = mounter.said();
        assert!(said.contains("socket") && !said.contains("GRANTED"), "{said}");
        assert_eq!(mounter.count(events::REFUSED), 2, "{said}");
        assert!(said.contains("refused a caller: no helper may ask the mounter"), "{said}");
        assert_eq!(test.node.mount_at("/mnt/w"), None);
    }
}

fn a_helper_does_not_see_what_the_mounter_keeps() {
    let (test, mounter) = start(&[]);
    test.mount(&["-t", "fuse.plain", "-o", "password=hunter2", "x", "/mnt/w"]).ok("mount");
    spy(
        &test,
        "fuse.spy",
        "echo \"sees: $(cd /run/hostmount && find . | sort | tr '\\n' ' ')\"
        cat /run/hostmount/volumes/* && echo GRANTED: records
        echo x >/run/hostmount/volumes/x.json && echo GRANTED: a record
        echo x >/run/hostmount/lock.taking && echo own: it may write to what nobody else sees
        umount /run/hostmount && echo GRANTED: umount
        /usr/local/bin/hostmount list && echo GRANTED: list",
    );
    test.mount(&["-t", "fuse.spy", "x", TARGET]).ok("mount");
    let said = mounter.said();
    assert!(said.contains(&format!("sees: . ./mnt ./mnt/.syslog ./mnt/mnt ./mnt{TARGET}\"")), "{said}");
    assert!(!said.contains("GRANTED") && !said.contains("hunter2"), "{said}");
    assert!(test.container.sh_ok("cat /run/hostmount/volumes/*").contains("hunter2"));
    // Nor does anybody who is not root.
    let modes = "stat -c '%a %n' /run/hostmount /run/hostmount/lock /run/hostmount/volumes /run/hostmount/volumes/*";
    for line in test.container.sh_ok(modes).lines() {
        assert!(line.starts_with("600 ") || line.starts_with("700 "), "{line}");
    }
}

fn who_could_not_mount_may_not_ask() {
    let (test, mounter) = start(&[]);
    let list = format!("{NODE_BIN}/hostmount list");
    let powerless = "setpriv --bounding-set=-all --inh-caps=-all";
    let fewer = "setpriv --bounding-set=-sys_admin --inh-caps=-all";
    // Root of a user namespace is uid 0 to the kernel as well if it was root that made it.
    for (number, way) in [powerless, fewer, "unshare --user --map-root-user"].into_iter().enumerate() {
        let done = test.node.sh(&format!("{way} {list}"));
        assert!(done.code == Some(1) && done.stderr.contains("no CAP_SYS_ADMIN"), "{way}: {done:?}");
        let mount = format!("{way} {NODE_BIN}/hostmount mount -t fuse.plain x {TARGET}");
        assert!(test.node.sh(&mount).stderr.contains("no CAP_SYS_ADMIN"), "{way}");
        mounter.wait_for(events::REFUSED, 2 * (number + 1));
    }
    assert_eq!(test.node.mount_at(TARGET), None);
    // Who could, wherever it lives: PID and mount namespaces of its own, as a kubelet in a container may have them.
    for way in
        ["", "setpriv --bounding-set=-all,+sys_admin,+sys_ptrace --inh-caps=-all", "unshare --pid --fork --mount-proc"]
    {
        test.node.sh_ok(&format!("{way} {list}"));
    }
}

fn before_linux_6_5_callers_are_seen_by_their_ids() {
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir {TARGET}"));
    let door = "HOSTMOUNT_SOCKET=/srv/door.sock /usr/local/bin/hostmount";
    let_spies_be_root(&test);
    let mounter = without(&[PEER_PIDFD], || test.start_mounter(&["--socket", "/srv/door.sock"], &[]));
    spy(&test, "fuse.spy", &format!("{door} list && echo GRANTED"));
    test.container.sh_ok(&format!("{door} mount -t fuse.spy x {TARGET}"));
    mounter.wait_for(events::REFUSED, 1);
    assert!(mounter.said().contains("no helper may ask") && !mounter.said().contains("GRANTED"), "{}", mounter.said());
    let powerless = format!("setpriv --bounding-set=-all --inh-caps=-all env {door} list");
    assert!(test.container.sh(&powerless).stderr.contains("no CAP_SYS_ADMIN"));
    // From a PID namespace of the caller's own.
    test.container.sh_ok(&format!("{door} list; unshare --pid --fork --mount-proc env {door} list"));
}

fn the_lock_is_the_mounters_alone() {
    let test = TestNode::start();
    // As an earlier version left it, and somebody has taken a lock that is shared.
    test.container.sh_ok("echo >/run/hostmount/lock && chmod 644 /run/hostmount/lock");
    let stranger = test.container.visit(|| {
        let opened = open("/run/hostmount/lock", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        fcntl_lock(&opened, FlockOperation::NonBlockingLockShared).unwrap();
        opened
    });
    let mounter = test.start_mounter(&[], &[]);
    let second = || test.container.sh("/usr/local/bin/hostmount serve").stderr;
    assert!(second().contains("another mounter is running"));
    // Nobody else can come near the new one.
    let done = test.container.sh("su -s /bin/sh nobody -c 'cat /run/hostmount/lock'");
    assert!(done.stderr.contains("Permission denied"), "{done:?}");
    drop(mounter);
    drop(stranger);
    let _next = test.start_mounter(&[], &[]);
    assert!(second().contains("another mounter is running"));
}

/// The option that kubelet gives for GlusterFS, from somebody else, for something else.
fn a_log_file_is_no_way_to_the_nodes_files() {
    let (test, mounter) = start(&[]);
    let plugins = "/var/lib/kubelet/plugins/kubernetes.io";
    let key = "/var/lib/kubelet/pki/kubelet.key";
    test.node.sh_ok(&format!(
        "mkdir -p /var/lib/kubelet/pki {plugins}/glusterfs/v {plugins}/other && echo very-secret >{key}
        ln -s {key} {plugins}/glusterfs/v/link; ln -s /var/lib/kubelet/pki {plugins}/glusterfs/pki; mkfifo {plugins}/glusterfs/v/pipe"
    ));
    // There is an empty file of that name, which nothing can be written to.
    let look = "echo \"told $*\"; cd /run/hostmount/mnt; [ ! -s .log ] || echo GRANTED; echo x >.log && echo GRANTED";
    spy(&test, "fuse.spy", look);
    spy(&test, "glusterfs", look);
    let paths = [
        format!("{plugins}/../../pki/kubelet.key"),
        format!("{plugins}/glusterfs/../../../pki/kubelet.key"),
        format!("{plugins}/glusterfs/v/../../x.log"),
        format!("{plugins}/glusterfs/v/link"),
        format!("{plugins}/glusterfs/pki/kubelet.key"),
        format!("{plugins}/glusterfs/v/pipe"),
        format!("{plugins}/other/x.log"),
        key.to_owned(),
    ];
    for path in &paths {
        for fstype in ["fuse.spy", "glusterfs"] {
            let done = test.mount(&["-t", fstype, "-o", &format!("log-file={path}"), "x", TARGET]);
            assert!(!mounter.said().contains("GRANTED"), "{fstype} {path}: {}", mounter.said());
            // Refused, or nothing but a word of the helper's own.
            if done.code == Some(0) {
                test.umount(&[TARGET]).ok("umount");
            } else {
                assert!(done.stderr.contains("names a file on the node") && fstype == "glusterfs", "{path}: {done:?}");
            }
        }
    }
    assert_eq!(test.node.sh_ok(&format!("cat {key}; cd {plugins}; find . -name '*.log'")), "very-secret\n");
    // As kubelet does it, it works as before.
    let log = format!("{plugins}/glusterfs/v/p-glusterfs.log");
    test.mount(&["-t", "glusterfs", "-o", &format!("log-file={log}"), "x", TARGET]).ok("mount");
    assert_eq!(test.node.sh_ok(&format!("cat {log}")), "x\n");
}

fn a_type_names_a_filesystem_and_no_other_program() {
    let (test, mounter) = start(&[]);
    test.container.program("/usr/bin/evil", "#!/bin/sh\necho \"evil runs\" >&2\nexec mount.memfs \"$1\" \"$2\"\n");
    for (fstype, source) in
        [("fuse.evil", "x"), ("fuse.env", "evil"), ("fuse.rm", "/etc"), ("fuse", "evil#x"), ("fuse", "evil")]
    {
        let done = test.mount(&["-t", fstype, source, TARGET]);
        assert_eq!(test.node.mount_at(TARGET), None, "{fstype}");
        assert!(!mounter.said().contains("evil runs"), "{fstype}");
        assert!(
            done.code == Some(32) && done.stderr.contains("] command` in config.toml"),
            "{fstype}: {}",
            done.stderr
        );
    }
    // By the flexible way just as little.
    let driver = format!("{NODE_BIN}/hostmount flexvolume mount {TARGET}");
    let asked = test.node.sh(&format!("{driver} '{{\"fstype\":\"evil\",\"source\":\"x\"}}'"));
    assert!(asked.stdout.contains("Failure") && asked.stdout.contains("refused by the default policy"), "{asked:?}");
    drop(mounter);
    // An administrator may have it otherwise.
    test.container.sh_ok(
        "mkdir -p /etc/hostmount && echo '[filesystem.evil]
        command = [\"evil\", \"{source}\", \"{target}\", \"-o\", \"{options}\"]' >/etc/hostmount/config.toml",
    );
    let mounter = test.start_mounter(&[], &[]);
    test.mount(&["-t", "fuse.evil", "x", TARGET]).ok("mount");
    assert!(mounter.said().contains("evil runs"));
}

fn a_source_is_not_an_option_and_a_target_not_the_kernels() {
    let (test, _mounter) = start(&[]);
    test.container.sh_ok("mkdir /tmp/source");
    let refused = |arguments: &[&str], words: &str| {
        let done = test.mount(arguments);
        assert!(done.code == Some(1) && done.stderr.contains(words), "{arguments:?}: {done:?}");
    };
    for source in ["-ofsname=x", "--help", "-"] {
        refused(&["-t", "fuse.plain", "--", source, TARGET], "begins with '-'");
    }
    test.node.sh_ok("ln -s /dev /mnt/link; ln -s /run /mnt/run; mkdir /dev/below");
    let targets = [
        "/proc",
        "/sys",
        "/sys/fs",
        "/dev",
        "/dev/below",
        "/mnt/link",
        "/mnt/link/below",
        "/mnt/run/hostmount",
        "/run/hostmount",
        "/run",
    ];
    let before = test.node.mountinfo();
    for target in targets {
        refused(&["-t", "fuse.plain", "x", target], "is not for volumes");
    }
    assert_eq!(test.node.mountinfo(), before);
    test.mount(&["-t", "fuse.plain", "x", TARGET]).ok("mount");
}
