//! The preload engine: the shared object itself, and helpers with it under a mounter.

use crate::harness::{Test, tests};
use crate::node::job::{TARGET, TRY, assert_confined, assert_refused, unmount_and_see_it_end, use_it};
use crate::node::mounter::Mounter;
use crate::node::preloaded::{OBJECT, install};
use crate::node::programs::show_programs;
use crate::node::sshd::{self, Sshd};
use crate::node::{self, NODE_BIN, TestNode};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hostmount::engine::preload::DEFAULT_OBJECT;
use hostmount::observe::events;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use testbed::machine::{Network, Recipe};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        the_object_exports_what_it_replaces_and_nothing_else.needs(&["make", "readelf"]).quick(),
        the_object_loads_with_old_libraries.needs(&["make", "readelf"]),
        what_is_not_granted_is_refused.needs(&["make", "bindfs"]).quick(),
        a_helper_that_fails_leaves_nothing.needs(&["make", "bindfs"]).quick(),
        a_daemon_that_closes_everything_is_still_watched.needs(&["make", "bindfs"]),
        a_container_with_a_read_only_root.needs(&["make", "bindfs"]),
        a_static_helper_fails_and_the_error_names_the_other_engine.needs(&["make"]),
        the_engine_is_chosen_by_trying,
        a_volumes_secret_reaches_its_helper.needs(&["make", "sshfs"]).needs(sshd::PROGRAMS),
    ]
}

/// A node whose mounter uses the preload engine.
fn start(network: &Network) -> (TestNode, Mounter) {
    let test = TestNode::start_in(network);
    install(&test.container);
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.sh_ok("mkdir /tmp/source /tmp/elsewhere");
    let mounter = test.start_mounter(&["--engine", "preload"], &[]);
    (test, mounter)
}

fn readelf(what: &str) -> String {
    let output = Command::new("readelf").args(["--wide", what]).arg(&*OBJECT).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn the_object_exports_what_it_replaces_and_nothing_else() {
    let symbols = readelf("--dyn-syms");
    let defined = symbols.lines().filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, _, _, _, "GLOBAL" | "WEAK", _, section, name] if section != "UND" => name.split('@').next(),
        _ => None,
    });
    let expected = [
        "mount",
        "umount",
        "umount2",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "open_tree",
        "open_tree_attr",
        "move_mount",
        "mount_setattr",
        "capset",
        "ioctl",
    ];
    assert_eq!(defined.collect::<BTreeSet<_>>(), BTreeSet::from(expected), "{symbols}");
}

fn the_object_loads_with_old_libraries() {
    let dynamic = readelf("--dynamic");
    let needed: Vec<_> = dynamic.lines().filter(|line| line.contains("(NEEDED)")).collect();
    assert!(matches!(needed[..], [one] if one.contains("[libc.so.6]")), "{needed:?}");
    let versions = readelf("--version-info");
    let versions = versions.split_whitespace().filter_map(|word| word.strip_prefix("GLIBC_"));
    let numbers = versions.map(|version| version.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>());
    // Debian 11's.
    let newest = numbers.max().unwrap();
    assert!(newest <= vec![2, 31], "{newest:?}");
    // A panic would need this: none is left in there.
    assert!(!readelf("--dyn-syms").contains("abort"));
}

fn what_is_not_granted_is_refused() {
    let (test, mounter) = start(&Network::new().unwrap());
    let before = test.processes();
    let lines = format!(
        "{TRY}
        try mount -i -t tmpfs x \"$2\"
        try mount --bind / \"$2\"
        try mount -i -t fuse.fault -o fd=0,rootmode=40000,user_id=0,group_id=0 x \"$2\"
        try bindfs /tmp/source /tmp/elsewhere
        try umount -l /proc
        try perl -e 'exit(syscall(165, \"x\", $ARGV[0], \"tmpfs\", 0, 0) != 0)' \"$2\" # mount(2), without libc's
        bindfs \"$1\" \"$2\" || exit 7
        try bindfs \"$1\" \"$2\""
    );
    test.container.helper("fuse.fault", &lines);
    test.mount(&["-t", "fuse.fault", "/tmp/source", TARGET]).ok("mount");
    mounter.wait_for(events::MOUNTED, 1);
    assert_refused(&test, &mounter, 7);
    unmount_and_see_it_end(&test, &mounter, &before, 1);
}

fn a_helper_that_fails_leaves_nothing() {
    let (test, mounter) = start(&Network::new().unwrap());
    let before = test.node.mountinfo();
    // Its daemons leave the session and close all descriptors.
    test.container.helper("fuse.fault", "bindfs \"$1\" \"$2\"; setsid sleep 1000 </dev/null >/dev/null 2>&1 & exit 7");
    let done = test.mount(&["-t", "fuse.fault", "/tmp/source", TARGET]);
    assert_eq!(done.code, Some(32), "{}", done.stderr);
    assert_eq!(test.node.mountinfo(), before);
    assert_eq!(test.pids_of("sleep 1000"), [0; 0]);
    assert_eq!(test.pids_of("bindfs"), [0; 0]);
    assert_eq!(mounter.count(events::HELPER_STAYS), 0, "{}", mounter.said());
    // It exits without an error and without a mount; no process is left to wait for.
    test.container.helper("fuse.fault", "exit 0");
    let done = test.mount(&["-t", "fuse.fault", "/tmp/source", TARGET]);
    assert!(done.stderr.contains("it ended without having mounted anything"), "{}", done.stderr);
}

fn a_daemon_that_closes_everything_is_still_watched() {
    let (test, mounter) = start(&Network::new().unwrap());
    // Two daemons one after the other, without any descriptor in common with us.
    let close = "exec </dev/null >/dev/null 2>&1; for n in 3 4 5 6 7 8 9; do eval \"exec $n<&-\"; done";
    test.container
        .helper("fuse.fault", &format!("bindfs \"$1\" \"$2\"; ({close}; setsid sh -c 'sleep 1000; :' &) ; exit 0"));
    test.mount(&["-t", "fuse.fault", "/tmp/source", TARGET]).ok("mount");
    test.node.sh_ok(&format!("umount {TARGET}"));
    // bindfs has exited with its mount, the sleepers have not, nor are they still to come: the volume is still listed.
    test.wait_for_processes("sleep 1000", 2);
    let sleeper = test.pids_of("sleep 1000");
    assert!(!sleeper.is_empty() && mounter.count(events::UNMOUNTED) == 0, "{}", mounter.said());
    for pid in sleeper {
        test.node.sh_ok(&format!("kill {pid}"));
    }
    mounter.wait_for(events::UNMOUNTED, 1);
}

fn a_container_with_a_read_only_root() {
    let container = |test: &TestNode, list: bool| {
        let recipe = Recipe::userland().fuse().writable(["/run", "/tmp"]).share("socket", "/run/hostmount");
        let recipe = show_programs(recipe, "/usr/local/bin").bind(&*OBJECT, DEFAULT_OBJECT).read_only();
        test.room(recipe.setup(move || if list { fs::write("/etc/ld.so.preload", "") } else { Ok(()) }))
    };
    let test = TestNode::start();
    let done = container(&test, false).sh("hostmount serve --engine preload");
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    assert!(done.stderr.contains("an empty file in the image will do"), "{}", done.stderr);
    let container = container(&test, true);
    let mounter = Mounter::start(&container, &["--engine", "preload"], &[]);
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    container.sh_ok("mkdir /tmp/source");
    let before = test.processes();
    test.mount(&["-t", "fuse.bindfs", "/tmp/source", TARGET]).ok("mount");
    use_it(&test);
    unmount_and_see_it_end(&test, &mounter, &before, 1);
    assert_eq!(container.sh_ok("cat /etc/ld.so.preload"), "");
}

fn a_static_helper_fails_and_the_error_names_the_other_engine() {
    let (test, _mounter) = start(&Network::new().unwrap());
    test.node.sh_ok(&format!("echo memfs >{NODE_BIN}/served-types"));
    let done = test.mount(&["-t", "memfs", "memory", TARGET]);
    assert_eq!(done.code, Some(32), "{}", done.stderr);
    assert!(done.stderr.contains("statically linked") && done.stderr.contains("--engine seccomp"), "{}", done.stderr);
}

fn the_engine_is_chosen_by_trying() {
    let test = TestNode::start();
    let mounter = test.start_mounter(&[], &[]);
    assert!(mounter.said().contains("\"seccomp\"") && mounter.said().contains("it works here"), "{}", mounter.said());
    let done = test.container.sh("hostmount serve --state /tmp/other --socket /tmp/s --engine preload");
    assert_eq!(done.code, Some(2));
    assert!(done.stderr.contains(DEFAULT_OBJECT) && done.stderr.contains("--preload"), "{}", done.stderr);
}

fn a_volumes_secret_reaches_its_helper() {
    let (server, test) = Sshd::with_node();
    install(&test.container);
    let config = "[filesystem.sshfs.files.key]\ncontent = '{secret:key}'\noption = 'IdentityFile'";
    test.container.visit(|| fs::write("/tmp/config.toml", config).unwrap());
    let plugins = "/run/hostmount/plugins";
    let driver = format!("/usr/local/bin/hostmount install --to /run/hostmount/bin --flexvolume {plugins}");
    test.container.sh_ok(&format!("rm /root/.ssh/id_ed25519 && {driver}"));
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    let mounter = test.start_mounter(&["--engine", "preload", "--config", "/tmp/config.toml"], &[]);
    let options = serde_json::json!({
        "fstype": "fuse.sshfs",
        "source": format!("root@{}:/srv/export", node::SERVER_ADDRESS),
        "options": format!("port={}", sshd::PORT),
        "kubernetes.io/secret/key": BASE64_STANDARD.encode(server.client_key()),
    });
    let call = ["mount", TARGET, &options.to_string()];
    let before = test.processes();
    test.node.run(format!("{plugins}/hostmount~fuse/fuse"), &call).ok("mount");
    assert_confined(&test, "preload", "sshfs root@", &before);
    use_it(&test);
    unmount_and_see_it_end(&test, &mounter, &before, 1);
}
