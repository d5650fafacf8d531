//! Installing on the node: it breaks no program that a node has or runs; and no hostmount executes another one.

use crate::harness::{Test, tests};
use crate::node::notes::note;
use crate::node::programs::{HOSTMOUNT, SHIM};
use crate::node::{self, NODE_BIN, Place, TestNode};
use hostmount::observe::events;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};
use testbed::machine::Room;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        the_mounter_sets_up_a_node_by_itself.needs(&["bindfs"]).quick(),
        a_version_that_runs_is_not_disturbed_by_the_next.needs(&["bindfs"]),
        an_install_that_is_killed_at_any_moment.needs(&["strip"]),
        directories_that_would_break_a_node_are_refused,
        uninstalling_takes_away_what_was_put_there_and_nothing_else.quick(),
        no_hostmount_becomes_another_one.needs(&["strace"]),
    ]
}

const BIN: &str = "/var/lib/kubelet/plugins/hostmount/bin";
const PLUGINS: &str = "/var/lib/kubelet/plugins/volume/exec";
const DRIVER: &str = "/var/lib/kubelet/plugins/volume/exec/hostmount~fuse/fuse";

/// The programs of another version than the one under test: what follows an ELF file's sections does not matter.
fn other_version(place: &Place, directory: &str) {
    for (name, program) in [("hostmount", Path::new(HOSTMOUNT)), ("hostmount-shim", &SHIM)] {
        let mut bytes = fs::read(program).unwrap();
        bytes.extend(b"another version");
        place.program(&format!("{directory}/{name}"), bytes);
    }
}

fn install(test: &TestNode, arguments: &str) -> node::Done {
    test.container.sh(&format!("/usr/local/bin/hostmount install {arguments}"))
}

fn the_mounter_sets_up_a_node_by_itself() {
    let test = TestNode::start();
    let places = ["--install", BIN, "--install-flexvolume", PLUGINS];
    let mounter = test.start_mounter(&places, &[]);
    assert_eq!(mounter.count(events::INSTALLED), 3, "{}", mounter.said());
    assert_eq!(test.node.sh_ok(&format!("ls -A {BIN}")), "hostmount\nhostmount-shim\nmount\nserved-types\numount\n");
    assert!(test.node.sh_ok(&format!("{DRIVER} init")).contains("Success"));
    // The container shares no such directory, and has none now.
    assert_ne!(test.container.sh(&format!("test -e {BIN}")).code, Some(0));
    // `bindfs`, without `fuse.`: known from the list that was written for this container.
    test.container.sh_ok("mkdir /tmp/source");
    test.node.sh_ok(&format!("{BIN}/hostmount mount -t bindfs /tmp/source /mnt && {BIN}/umount /mnt"));
    mounter.wait_for(events::UNMOUNTED, 1);
    drop(mounter);
    // The same version again: nothing is written, so that a full or read-only disk does not matter.
    let inodes = format!("stat -c '%i %z' {BIN}/* {DRIVER} {PLUGINS}");
    let before = test.node.sh_ok(&inodes);
    test.node.sh_ok(&format!("mount --bind {BIN} {BIN} && mount -o remount,bind,ro {BIN}"));
    let mounter = test.start_mounter(&places, &[]);
    assert_eq!(mounter.count(events::INSTALLED), 0, "{}", mounter.said());
    assert_eq!(test.node.sh_ok(&inodes), before);
    drop(mounter);
    // Another version cannot be installed there: the node keeps the one it has.
    test.node.sh_ok(&format!("umount {BIN} && echo other >{BIN}/served-types"));
    test.node.sh_ok(&format!("mount --bind {BIN} {BIN} && mount -o remount,bind,ro {BIN}"));
    let mounter = test.start_mounter(&places, &[]);
    let said = mounter.said();
    assert!(mounter.count(events::NOT_INSTALLED) == 1 && said.contains("mounted read-only"), "{said}");
    drop(mounter);
    // On a node without one, kubelet would have no program to call: the mounter exits with an error.
    let done = test.container.sh("exec /usr/local/bin/hostmount serve --install /usr/local/nothing");
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains("nothing can be put into /usr/local/nothing"), "{}", done.stderr);
}

fn a_version_that_runs_is_not_disturbed_by_the_next() {
    let test = TestNode::start();
    test.container.sh_ok("mkdir /tmp/old");
    other_version(&test.container, "/tmp/old");
    test.container.sh_ok(&format!("/tmp/old/hostmount install --to {BIN} --flexvolume {PLUGINS}"));
    // A helper that waits until the test releases it, so that the mount runs meanwhile.
    test.container.helper("fuse.slow", "read x </srv/go-$(basename $2)\nexec bindfs \"$1\" \"$2\"");
    test.container.sh_ok("mkfifo /srv/go-a /srv/go-b; mkdir /tmp/source");
    test.node.sh_ok("mkdir /var/lib/kubelet/a /var/lib/kubelet/b");
    test.configure(&node::opened("kubelet", &["slow"]));
    let _mounter = test.start_mounter(&[], &[]);
    let old = |target: &str| {
        let mut command = Room::command(format!("{BIN}/mount"));
        command.args(["-t", "fuse.slow", "/tmp/source", target]).stdin(Stdio::null());
        test.node.spawn(command)
    };
    let mut first = old("/var/lib/kubelet/a");
    test.wait_for_processes("/usr/sbin/mount.fuse.slow", 1);
    // Left by a mounter that was killed while it installed.
    test.node.sh_ok(&format!("echo half >{BIN}/.hostmount-shim.new; echo half >{BIN}/.mount.new"));
    install(&test, &format!("--to {BIN} --flexvolume {PLUGINS}")).ok("install");
    assert_eq!(test.node.sh_ok(&format!("ls -A {BIN}")), "hostmount\nhostmount-shim\nmount\nserved-types\numount\n");
    assert_eq!(test.node.sh_ok(&format!("ls -A {PLUGINS} {PLUGINS}/*")).matches("new").count(), 0);
    let shim = || fs::read(&*SHIM).unwrap();
    let programs = [("hostmount", fs::read(HOSTMOUNT).unwrap()), ("hostmount-shim", shim())];
    let programs = programs.map(|(name, new)| (format!("{BIN}/{name}"), new));
    for (program, new) in programs.into_iter().chain([(DRIVER.to_owned(), shim())]) {
        assert!(test.node.visit(|| fs::read(&program).unwrap()) == new, "{program} is not the new version");
    }
    // The old one still runs, and its file is kept for it.
    assert!(fs::read_link(format!("/proc/{}/exe", first.id())).unwrap().to_string_lossy().ends_with(" (deleted)"));
    let mut second = old("/var/lib/kubelet/b");
    test.wait_for_processes("/usr/sbin/mount.fuse.slow", 2);
    test.container.sh_ok("echo >/srv/go-a; echo >/srv/go-b");
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    assert_eq!(test.node.fuse_mounts().len(), 2);
}

fn an_install_that_is_killed_at_any_moment() {
    let test = TestNode::start();
    // Without what only debuggers read, which is most of a test's binary.
    test.container.sh_ok(
        "cd /tmp && mkdir one other && for program in hostmount hostmount-shim; do
         strip -o one/$program /usr/local/bin/$program && cp one/$program other && echo other >>other/$program; done",
    );
    let versions = ["/tmp/one", "/tmp/other"].map(|directory| {
        let read = |name: &str| test.container.visit(|| fs::read(format!("{directory}/{name}")).unwrap());
        (format!("{directory}/hostmount"), read("hostmount-shim"))
    });
    let arguments = ["install", "--to", BIN, "--flexvolume", PLUGINS];
    let begin = Instant::now();
    test.container.run(&versions[0].0, &arguments).ok("install");
    let takes = begin.elapsed().as_micros() as u64;
    // Kubelet, which calls all the time.
    let mut kubelet = Room::command("/bin/sh");
    let calls = format!(
        "while [ ! -e /tmp/stop ]; do {BIN}/mount --version && {BIN}/umount --version && {DRIVER} init || echo FAILED >&2; done"
    );
    kubelet.args(["-c", &calls]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut kubelet = test.node.spawn(kubelet);
    let mut chance = node::chance();
    let mut seen = BTreeSet::new();
    for round in 0..30 {
        let mut installer = Room::command(&versions[(round + 1) % 2].0);
        installer.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut installer = test.container.spawn(installer);
        // The moment itself.
        thread::sleep(Duration::from_micros(chance.u64(0..takes * 2)));
        installer.kill().unwrap();
        installer.wait().unwrap();
        let which = |path: &str| {
            let there = test.node.visit(|| fs::read(path).unwrap());
            versions.iter().position(|(_, bytes)| *bytes == there).expect("a whole version")
        };
        seen.insert((which(&format!("{BIN}/hostmount-shim")), which(DRIVER)));
    }
    note(format!("seen: {seen:?}"));
    test.node.sh_ok("touch /tmp/stop");
    let mut said = String::new();
    kubelet.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((kubelet.wait().unwrap().success(), said.as_str()), (true, ""));
    // Leftovers do not hinder the next installation, which removes them.
    test.container.run(&versions[0].0, &arguments).ok("install");
    test.container.run(&versions[1].0, &arguments).ok("install");
    assert_eq!(test.node.sh_ok(&format!("find {BIN} {PLUGINS} -name '.*'")), "");
}

fn directories_that_would_break_a_node_are_refused() {
    let test = TestNode::start();
    test.node.sh_ok(
        "mkdir /mnt/noexec /mnt/ro /mnt/own && mount -t tmpfs -o noexec x /mnt/noexec && mount -t tmpfs -o ro x /mnt/ro
         mkdir -m 777 /mnt/everybodys && install -d -o nobody /mnt/nobodys && ln -s everybodys /mnt/link
         cp /bin/mount /mnt/own/mount; ln -s mount /mnt/own/umount",
    );
    let files = || test.node.sh_ok("find /mnt /opt/hostmount /var/lib/kubelet -printf '%p %y %m %s %T@ %l\\n'");
    let before = files();
    for (directory, words) in [
        ("/mnt/noexec/bin", "nothing can be run from /mnt/noexec/bin: its filesystem is mounted noexec"),
        ("/mnt/ro/a/b", "nothing can be put into /mnt/ro/a/b: its filesystem is mounted read-only"),
        ("/usr/libexec/kubernetes", "its filesystem is mounted read-only"),
        ("/mnt/everybodys/bin", "others than root may change /mnt/everybodys, and kubelet"),
        ("/mnt/link/bin", "others than root may change /mnt/everybodys, and kubelet"),
        ("/mnt/nobodys", "others than root may change /mnt/nobodys"),
        ("/tmp", "others than root may change /tmp"),
        ("relative/bin", "relative/bin is not an absolute path"),
    ] {
        for what in ["--to", "--flexvolume"] {
            let done = install(&test, &format!("{what} {directory}"));
            assert_eq!(done.code, Some(2), "{directory}: {}", done.stdout);
            assert!(done.stderr.contains(words) && done.stderr.lines().count() == 1, "{}", done.stderr);
        }
    }
    // `mount` must be able to execute the node's own programs.
    let done = install(&test, "--to /mnt/own");
    assert!(done.code == Some(2) && done.stderr.contains("/mnt/own/mount is not hostmount's"), "{}", done.stderr);
    assert_eq!(install(&test, "").code, Some(2));
    assert_eq!(files(), before);
}

fn uninstalling_takes_away_what_was_put_there_and_nothing_else() {
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {BIN} {PLUGINS}/other~driver; echo mine >{BIN}/mine"));
    let files = || test.node.sh_ok("find /var/lib/kubelet | sort");
    let before = files();
    let places = format!("--to {BIN} --flexvolume {PLUGINS}");
    install(&test, &places).ok("install");
    // By the installed program itself: the container may be gone.
    let done = test.node.sh_ok(&format!("{BIN}/hostmount install --uninstall {places}"));
    assert_eq!(done.lines().filter(|line| line.starts_with("removed ")).count(), 7, "{done}");
    assert_eq!(files(), before);
    assert_eq!(install(&test, &format!("--uninstall {places}")).ok("again"), "");
    // Directories that it has made are removed, too.
    install(&test, "--to /mnt/bin").ok("install");
    install(&test, "--uninstall --to /mnt/bin").ok("uninstall");
    assert_ne!(test.node.sh("test -e /mnt/bin").code, Some(0));
    // Foreign programs of these names stay.
    test.node.sh_ok(&format!("cp /bin/true {BIN}/hostmount; cp /bin/true {BIN}/mount; ln -s hostmount {BIN}/umount"));
    let before = files();
    let done = install(&test, &format!("--uninstall {places}"));
    assert!(done.code == Some(2) && done.stderr.contains("bin/hostmount is not hostmount's"), "{}", done.stderr);
    assert_eq!(files(), before);
}

fn no_hostmount_becomes_another_one() {
    let test = TestNode::start();
    // Two versions, each with its names; a copy that is called mount; and one that leads to the other version.
    test.node.sh_ok("mkdir /mnt/other /mnt/bare /mnt/link /mnt/target");
    other_version(&test.node, "/mnt/other");
    test.node.sh_ok(&format!(
        "cd /mnt/other && ln -s hostmount mount && ln -s hostmount-shim umount
         for name in mount umount; do cp {NODE_BIN}/hostmount-shim /mnt/bare/$name; ln -s /mnt/other/$name /mnt/link/$name; done"
    ));
    let directories = [NODE_BIN, "/mnt/other", "/mnt/bare", "/mnt/link"];
    for first in 0..directories.len() {
        let mut path = directories;
        path.rotate_left(first);
        let path = path.join(":");
        for (program, arguments) in [("mount", "-t tmpfs x /mnt/target"), ("umount", "/mnt/target")] {
            let trace = test.node.sh_ok(&format!(
                "PATH={path}:$PATH; strace -f -qq -e trace=execve -e signal=none -o /tmp/trace {} {arguments} && cat /tmp/trace",
                format_args!("{}/{program}", directories[first])
            ));
            let execs: Vec<&str> =
                trace.lines().filter(|line| line.contains("execve(") && line.ends_with(" = 0")).collect();
            assert_eq!(execs.len(), 2, "one for us, one for the node's own: {trace}");
            assert!(execs[1].contains(&format!("bin/{program}\", [\"{program}\", ")), "{trace}");
        }
    }
    // A node without a mount program of its own: an error, not a loop.
    let recipe = testbed::machine::Recipe::userland().without(["/usr/bin/mount", "/usr/bin/umount"]);
    let bare = test.room(recipe.bind("/", "/mnt").bind(&*SHIM, "/opt/a/mount").bind(HOSTMOUNT, "/opt/b/mount"));
    let done = bare.sh("PATH=/opt/a:/opt/b:/usr/bin; exec timeout 60 /opt/a/mount -t tmpfs x /mnt");
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("this node has no mount program of its own"), "{}", done.stderr);
}
