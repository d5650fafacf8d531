//! Images of one family of helpers each: what `release/slim-root` unpacks for them serves volumes, with nothing else in the container.
//!
//! The servers and sources are those of `node::filesystems`, made in a container that has all programs; the mounter runs in the family's, which
//! shares some directories with that one.

use crate::harness::{Test, tests};
use crate::node::filesystems::{self, Access, Filesystem, Volume};
use crate::node::job::{TARGET, use_it};
use crate::node::mounter::Mounter;
use crate::node::programs::show_programs;
use crate::node::{NODE_BIN, Place, TestNode, fetched};
use hostmount::observe::events;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use testbed::machine::{Network, Recipe};

/// A family, a program of it as tests/fetch-releases puts it there, and what of `node::filesystems` it serves.
const FAMILIES: &[(&str, &str, &[&str])] = &[
    (
        "archives",
        "debian/archives/usr/bin/squashfuse",
        &["archivemount", "fuse2fs", "fuse_zip", "fuseiso", "squashfuse"],
    ),
    ("encrypted", "debian/encrypted/usr/bin/gocryptfs", &["gocryptfs"]),
    ("gluster", "debian/gluster/usr/sbin/mount.glusterfs", &["glusterfs"]),
    ("network", "debian/network/usr/sbin/mount.nfs", &[]),
    ("s3", "debian/s3/usr/bin/s3fs", &["rclone_s3_in_the_foreground", "s3fs"]),
    ("ssh", "debian/ssh/usr/bin/sshfs", &["sshfs_with_a_key_file"]),
    ("union", "debian/union/usr/bin/bindfs", &["bindfs", "fuse_overlayfs", "mergerfs", "unionfs_fuse"]),
    ("webdav", "debian/webdav/usr/sbin/mount.davfs", &["davfs2"]),
];

/// Where sources and keys are.
const SHARED: &[(&str, &str)] =
    &[("tmp", "/tmp"), ("keys", "/root/.ssh"), ("davfs2", "/etc/davfs2"), ("cache", "/var/cache")];

pub(crate) fn tests() -> Vec<Test> {
    let no_image = Test::new("no_image_has_what_it_does_not_need", no_image_has_what_it_does_not_need).anywhere();
    let no_image = FAMILIES.iter().fold(no_image, |test, (_, program, _)| test.needs(std::slice::from_ref(program)));
    let mut list =
        tests![the_kernels_own_filesystems_reach_the_kernel.needs(&["make", "debian/network/usr/sbin/mount.nfs"]),];
    list.push(no_image);
    for (family, program, names) in FAMILIES {
        for name in *names {
            let served = filesystems::all().find(|one| one.name == *name).unwrap();
            let test = Test::new(served.name, || mounts(family, served));
            list.push(test.needs(served.programs).needs(std::slice::from_ref(program)).needs(&["make"]));
        }
    }
    list
}

/// A node, and beside the container in which sources are made one with a family's files alone.
fn start(family: &str) -> (TestNode, Place) {
    let test = TestNode::start_sharing(&Network::new().unwrap(), SHARED);
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    // A helper's own is as this one.
    test.container.sh_ok("chmod 1777 /tmp");
    let recipe = show_programs(Recipe::files_of(fetched(&format!("debian/{family}"))), "/usr/local/bin");
    let recipe = recipe.fuse().share("socket", "/run/hostmount");
    let room = test.room(SHARED.iter().fold(recipe, |recipe, (name, path)| recipe.share(*name, *path)));
    (test, room)
}

fn mounts(family: &str, filesystem: &Filesystem) {
    let (test, room) = start(family);
    let Volume { fstype, source, options, servers } = (filesystem.prepare)(&test);
    room.visit(|| fs::write("/tmp/config.toml", filesystem.config).unwrap());
    test.node.sh_ok(&format!("echo {fstype} >{NODE_BIN}/served-types"));
    let mounter = Mounter::start(&room, &["--config", "/tmp/config.toml"], &[]);
    test.mount(&["-t", fstype, "-o", &options, &source, TARGET]).ok("mount");
    match filesystem.access {
        Access::Full => use_it(&test),
        Access::ReadOnly => assert_eq!(test.node.sh_ok(&format!("cat {TARGET}/f")), "packed\n"),
    }
    assert!(room.processes().values().any(|line| line.contains(filesystem.helper)), "{:?}", room.processes());
    test.node.sh_ok(&format!("umount {TARGET}"));
    mounter.wait_for(events::UNMOUNTED, 1);
    drop(servers);
}

/// There is no server; the error is the kernel's, or that of the connection which it tried.
fn the_kernels_own_filesystems_reach_the_kernel() {
    let (test, room) = start("network");
    let _mounter = Mounter::start(&room, &[], &[]);
    for (fstype, options, source) in [
        ("nfs", "vers=4,retry=0,soft", "127.0.0.1:/export"),
        ("cifs", "username=me,password=k3y,vers=3.0", "//127.0.0.1/share"),
    ] {
        let done = test.mount(&["-t", fstype, "-o", options, source, TARGET]);
        assert_eq!(done.code, Some(32), "{}", done.stderr);
        assert!(done.stderr.contains(&format!("mount.{fstype} could not mount {source}")), "{}", done.stderr);
    }
}

fn no_image_has_what_it_does_not_need() {
    let listed = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/release/families")).unwrap();
    let listed = listed.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(' ').next().unwrap());
    assert!(listed.eq(FAMILIES.iter().map(|(family, ..)| *family)));
    for (family, ..) in FAMILIES {
        let root = fetched(&format!("debian/{family}"));
        let programs: BTreeSet<_> = ["usr/bin", "usr/sbin"]
            .iter()
            .flat_map(|directory| fs::read_dir(root.join(directory)).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let found: Vec<_> = ["sh", "bash", "dash", "busybox", "perl", "python3", "apt-get", "dpkg", "openssl"]
            .into_iter()
            .filter(|name| programs.contains(*name))
            .collect();
        let shell: &[&str] = if *family == "gluster" { &["sh", "dash"] } else { &[] };
        assert_eq!(found, shell, "{family}");
        let status = fs::read_to_string(root.join("var/lib/dpkg/status")).unwrap();
        assert!(status.contains("\nStatus: install ok installed\n"), "{family}");
        assert_eq!(privileged(&root), Vec::<String>::new(), "{family}");
        let certificates = root.join("etc/ssl/certs/ca-certificates.crt");
        assert_eq!(certificates.exists(), ["s3", "webdav"].contains(family), "{family}");
    }
}

/// Files that give who runs them another user or group.
fn privileged(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            found.extend(privileged(&entry.path()));
        } else if metadata.is_file() && metadata.permissions().mode() & 0o6000 != 0 {
            found.push(entry.path().display().to_string());
        }
    }
    found
}
