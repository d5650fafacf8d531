//! Filesystems with their real programs and servers, one test for each row of `node::filesystems::ALL`.
//!
//! Each row is tried with both engines, on one node and with one server. Each prints a row of docs/filesystems.md: `cargo test --test filesystems -- --nocapture | grep '^|'`.

mod node;

use hostmount::demo::machine::Network;
use node::filesystems::{ALL, Access, Filesystem, Volume};
use node::mounter::Mounter;
use node::preloaded;
use node::servers::fetched;
use node::{Done, NODE_BIN, TestNode, require};
use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

/// A test for each name, and one that no row is forgotten.
macro_rules! tests {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn every_row_has_its_test() {
            let names: Vec<&str> = ALL.iter().map(|filesystem| filesystem.name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

tests! {
    glusterfs glusterfs_subdirectory moosefs sshfs_with_a_key_file bindfs squashfuse mergerfs gocryptfs encfs cryfs
    fuse_overlayfs unionfs_fuse archivemount fuse_zip fuseiso fuse2fs rclone_webdav rclone_s3 rclone_s3_in_the_foreground
    rclone_webdav_in_the_foreground ofs s3fs davfs2
}

fn run(name: &str) {
    let filesystem = ALL.iter().find(|filesystem| filesystem.name == name).unwrap();
    let place = |program: &&str| match program.contains('/') {
        true => fetched(program).to_string_lossy().into_owned(),
        false => (*program).to_owned(),
    };
    let programs: Vec<String> = filesystem.programs.iter().chain(&["make"]).map(place).collect();
    if !require(&programs.iter().map(String::as_str).collect::<Vec<_>>()) {
        return;
    }
    let test = TestNode::start_in(&Network::new().unwrap());
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.container.visit(|| fs::write("/tmp/config.toml", filesystem.config).unwrap());
    preloaded::install(&test.container);
    let volume = (filesystem.prepare)(&test);
    // As `hostmount install` tells the node: types by their own names.
    test.node.sh_ok(&format!("echo {} >{NODE_BIN}/served-types", volume.fstype));

    let capabilities = with_seccomp(&test, filesystem, &volume);
    with_preload(&test, filesystem, &volume);
    let version = test.container.sh(filesystem.version);
    let version = version.stdout.lines().chain(version.stderr.lines()).next().unwrap_or_default().trim().to_owned();
    println!("| {name} | {version} | seccomp, preload | {capabilities} |");
}

fn start_mounter(test: &TestNode, engine: &str) -> Mounter {
    test.start_mounter(&["--config", "/tmp/config.toml", "--engine", engine], &[])
}

/// All that can be tried. Returns the capabilities of the helper's processes.
fn with_seccomp(test: &TestNode, filesystem: &Filesystem, volume: &Volume) -> String {
    let before = processes(test);
    let mounter = start_mounter(test, "seccomp");
    let capabilities = mount_and_use(test, filesystem, volume);
    unmount(test, &mounter, &before, 1);
    if filesystem.access == Access::Full {
        // What was written is there when it is mounted again.
        test.mount(&["-t", volume.fstype, "-r", "-o", &volume.options, &volume.source, TARGET]).ok("mount again");
        assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/kept")), "stays\n");
        let denied: Done = test.node.sh(&format!("touch {TARGET}/new"));
        assert!(denied.stderr.contains("Read-only file system"), "{}", denied.stderr);
        unmount(test, &mounter, &before, 2);
    }
    capabilities
}

/// The same source, server and node, with the other engine.
fn with_preload(test: &TestNode, filesystem: &Filesystem, volume: &Volume) {
    let before = processes(test);
    let mounter = start_mounter(test, "preload");
    mount_and_use(test, filesystem, volume);
    unmount(test, &mounter, &before, 1);
}

fn mount_and_use(test: &TestNode, filesystem: &Filesystem, volume: &Volume) -> String {
    test.mount(&["-t", volume.fstype, "-o", &volume.options, &volume.source, TARGET]).ok("mount");
    let line = test.node.mount_at(TARGET).unwrap();
    assert!(line.contains("nosuid,nodev") && line.contains(" fuse") && line.contains("allow_other"), "{line}");
    let capabilities = capabilities(test, filesystem);
    match filesystem.access {
        Access::Full => write_and_read(test),
        Access::ReadOnly => assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/f")), "packed\n"),
    }
    capabilities
}

/// The node's umount ends the helper; no process is there but those from `before`.
fn unmount(test: &TestNode, mounter: &Mounter, before: &BTreeSet<String>, times: usize) {
    test.node.sh_ok(&format!("umount {TARGET}"));
    mounter.wait_until_said("\"unmounted\"", times);
    assert_eq!(test.node.mount_at(TARGET), None);
    assert_eq!(test.node.sh_ok(&format!("{NODE_BIN}/hostmount list --output json")).trim(), "[]");
    // A process is there for a moment after it has ended.
    let deadline = Instant::now() + Duration::from_secs(10);
    while processes(test) != *before {
        assert!(Instant::now() < deadline, "left behind: {:?}, before: {before:?}", processes(test));
        thread::sleep(Duration::from_millis(5));
    }
}

/// All but the mounter.
fn processes(test: &TestNode) -> BTreeSet<String> {
    test.processes().into_values().filter(|line| !line.contains("hostmount serve")).collect()
}

fn write_and_read(test: &TestNode) {
    test.node.sh_ok(&format!(
        "set -e; cd {TARGET}; rm -f kept
        echo hello >a; test \"$(cat a)\" = hello
        mkdir d; mv a d/b; test \"$(ls d)\" = b; test \"$(cat d/b)\" = hello
        dd if=/dev/urandom of=/tmp/c bs=64k count=16 2>/dev/null; cp /tmp/c d/c; cmp /tmp/c d/c
        rm d/b d/c; rmdir d; test -z \"$(ls)\"; echo stays >kept"
    ));
}

/// The capabilities that processes of the helper's hold: none, so far.
fn capabilities(test: &TestNode, filesystem: &Filesystem) -> String {
    let processes = test.processes();
    let pids: Vec<_> = processes.iter().filter(|(_, line)| line.contains(filesystem.helper)).collect();
    let confined = pids.iter().filter(|(pid, _)| {
        let status = test.node.sh_ok(&format!("cat /proc/{pid}/status"));
        // A server of the test's own may have the same name; it is not confined.
        status.contains("NoNewPrivs:\t1")
    });
    let mut found = 0;
    for (pid, line) in confined {
        let status = test.node.sh_ok(&format!("cat /proc/{pid}/status"));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(status.contains(&format!("{set}:\t0000000000000000\n")), "{line}: {status}");
        }
        found += 1;
    }
    assert!(found > 0, "no process of {}: {processes:?}", filesystem.helper);
    "none".to_owned()
}
