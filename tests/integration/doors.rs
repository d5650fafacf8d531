//! A socket for each kind of caller: who may ask there, and for what.

use crate::harness::{Test, tests};
use crate::node::mounter::{Mounter, SOCKET};
use crate::node::preloaded::install;
use crate::node::{NODE_BIN, TestNode, opened};
use api::client::{CallError, Client};
use api::directory::{Directory, Work};
use api::message::{Changes, Mount};
use api::options::MountOptions;
use api::request::{Request, Switches};
use api::secret::Secrets;
use hostmount::observe::events;
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        each_kind_of_caller_has_a_socket.quick(),
        the_csi_server_needs_no_privilege.needs(&["bindfs"]).quick(),
        the_csi_server_gets_no_more_than_it_needs.needs(&["bindfs"]).quick(),
        a_volume_that_does_not_answer_is_unmounted_all_the_same.needs(&["bindfs"]),
        a_directory_is_worked_on_for_the_csi_server_alone.needs(&["bindfs"]).quick(),
        a_helper_is_not_the_csi_server.quick(),
        a_door_that_others_may_write_to_stays_closed.quick(),
    ]
}

const CSI: &str = "/run/hostmount-csi/mounter.sock";
const SERVER: u32 = 65532;
const PLACE: &str = "/var/lib/kubelet/pods/p/volumes/kubernetes.io~csi/v";
const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/kubernetes.io~csi/v/mount";

fn start() -> (TestNode, Mounter) {
    let test = TestNode::start();
    let door = format!("[doors]\ncsi = {{ socket = \"{CSI}\", uid = {SERVER} }}\n");
    test.configure(&(door + &opened("csi", &["bindfs"])));
    test.container.sh_ok("mkdir /tmp/source; mount -t tmpfs srv /srv; mkdir /srv/source; touch /srv/source/file");
    test.node.sh_ok(&format!("mkdir -p {PLACE} /mnt/operator"));
    let mounter = test.start_mounter(&[], &[]);
    (test, mounter)
}

/// Asks as the server would, which is a process of this user.
fn ask<T: Send>(test: &TestNode, uid: u32, call: impl FnOnce(&Client) -> T + Send) -> T {
    test.container.visit(|| {
        let uid = Uid::from_raw(uid);
        set_thread_res_uid(uid, uid, uid).unwrap();
        call(&Client::at(CSI))
    })
}

fn bindfs(target: &str) -> Mount {
    let (fstype, source, target) = ("bindfs".to_owned(), "/srv/source".to_owned(), target.to_owned());
    let (options, switches, secrets) = (MountOptions::default(), Switches::default(), Secrets::new());
    let request = Request { fstype, source, target, options, switches, secrets };
    Mount { unless_mounted: true, make_target: true, ..request.into() }
}

#[track_caller]
fn refused<T>(done: Result<T, CallError>, words: &str) {
    let message = done.err().expect("it is refused").into_failure().message;
    assert!(message.contains(words), "{words} is not in {message}");
}

fn each_kind_of_caller_has_a_socket() {
    let (test, mounter) = start();
    let modes = |socket: &str| test.container.sh_ok(&format!("stat -c '%a %u' {socket}"));
    for socket in [SOCKET, "/run/hostmount/kubelet.sock", "/run/hostmount/flexvolume.sock"] {
        assert_eq!(modes(socket), "600 0\n");
    }
    assert_eq!(modes(CSI), format!("600 {SERVER}\n"));
    for (socket, origin) in
        [("/run/hostmount/kubelet.sock", "kubelet"), ("/run/hostmount/flexvolume.sock", "flexvolume")]
    {
        let client = || Client::at(socket);
        let refuses = format!("{origin} may not ask for this");
        test.node.visit(|| {
            refused(client().list(), &refuses);
            refused(client().metrics(), &refuses);
            refused(client().status(TARGET), &refuses);
            refused(client().heal(TARGET), &refuses);
            refused(client().swap(TARGET, Changes::default()), &refuses);
            refused(client().unmount(TARGET, true), &refuses);
        });
    }
    drop(mounter);
    test.configure("[doors]\nkubelet = false\nflexvolume = false");
    let mounter = test.start_mounter(&[], &[]);
    test.node.sh_ok(&format!("{NODE_BIN}/hostmount list"));
    let done = test.node.sh(&format!("{NODE_BIN}/mount -t fuse.memfs x /mnt/operator"));
    assert!(done.code == Some(32) && done.stderr.contains("kubelet.sock"), "{done:?}");
    let driver =
        test.node.sh(&format!("{NODE_BIN}/hostmount flexvolume mount {PLACE} '{{\"fstype\":\"x\",\"source\":\"\"}}'"));
    assert!(driver.stdout.contains("flexvolume.sock"), "{driver:?}");
    // One that was killed left its sockets: none of a closed door is there.
    assert_eq!(test.container.sh_ok("cd /run/hostmount; ls *.sock"), "hostmount.sock\n");
    mounter.signal(nix::sys::signal::Signal::SIGTERM);
    mounter.wait_for(events::STOPPED, 1);
}

fn the_csi_server_needs_no_privilege() {
    let (test, mounter) = start();
    let by_server = |call: &(dyn Fn(&Client) + Sync)| ask(&test, SERVER, call);
    by_server(&|client| {
        assert!(!client.unmount(TARGET, true).unwrap().was_mounted, "it comes too early");
        assert!(!client.mount(bindfs(TARGET)).unwrap().already);
        assert!(client.mount(bindfs(TARGET)).unwrap().already);
        assert_eq!(client.status(TARGET).unwrap().view.source, "/srv/source");
        assert_eq!(client.list().unwrap().len(), 1);
    });
    test.node.sh_ok(&format!("ls {TARGET}/file"));
    by_server(&|client| assert!(client.unmount(TARGET, true).unwrap().was_mounted));
    mounter.wait_for(events::UNMOUNTED, 1);
    assert_eq!(test.node.sh_ok(&format!("ls {PLACE}")), "");
    by_server(&|client| {
        assert!(!client.unmount(TARGET, true).unwrap().was_mounted);
        assert!(!client.unmount(&TARGET.replace("/p/", "/none/"), true).unwrap().was_mounted);
        // Without the directory.
        client.mount(bindfs(TARGET)).unwrap();
        assert!(client.unmount(TARGET, false).unwrap().was_mounted);
        assert!(!client.unmount(TARGET, false).unwrap().was_mounted);
    });
    test.node.sh_ok(&format!("rmdir {TARGET}"));
}

fn the_csi_server_gets_no_more_than_it_needs() {
    let (test, mounter) = start();
    test.node.sh_ok(&format!("{NODE_BIN}/hostmount mount -t fuse.bindfs /srv/source /mnt/operator"));
    ask(&test, SERVER, |client| {
        client.mount(bindfs(TARGET)).unwrap();
        for target in ["/mnt/operator", "/var/lib/kubelet/pods/p/volumes/other~driver/v", "/etc"] {
            let about = "only about targets that kubelet has made for CSI volumes";
            refused(client.mount(bindfs(target)), about);
            refused(client.unmount(target, true), about);
            refused(client.status(target), about);
        }
        let listed: Vec<_> = client.list().unwrap().into_iter().map(|volume| volume.target).collect();
        assert_eq!(listed, [TARGET]);
        refused(client.heal(TARGET), "csi may not ask for this");
        refused(client.swap(TARGET, Changes::default()), "csi may not ask for this");
        refused(client.metrics(), "csi may not ask for this");
    });
    assert!(test.node.mount_at("/mnt/operator").is_some());
    // What others have mounted at such a place stays, and so does a directory that is not empty.
    let other = TARGET.replace("/v/", "/other/");
    test.node.sh_ok(&format!("mkdir -p {other} && mount -t tmpfs other {other}"));
    ask(&test, SERVER, |client| refused(client.unmount(&other, true), "no volume of hostmount's"));
    test.node.sh_ok(&format!("umount {other}; touch {other}/file"));
    ask(&test, SERVER, |client| refused(client.unmount(&other, true), "cannot be removed"));
    // Another user, root among them, and root without a capability.
    for uid in [0, 1000] {
        let done = ask(&test, uid, |client| client.list());
        refused(done, if uid == 0 { "only uid 65532 may ask" } else { "may ask" });
    }
    drop(mounter);
}

fn a_volume_that_does_not_answer_is_unmounted_all_the_same() {
    let (test, mounter) = start();
    ask(&test, SERVER, |client| client.mount(bindfs(TARGET)).unwrap());
    let [helper] = test.pids_of("bindfs")[..] else { panic!("one helper") };
    test.node.sh_ok(&format!("kill -STOP {helper}"));
    ask(&test, SERVER, |client| assert!(client.unmount(TARGET, true).unwrap().was_mounted));
    assert_eq!(test.node.sh_ok(&format!("ls {PLACE}")), "");
    test.node.sh_ok(&format!("kill -CONT {helper}"));
    mounter.wait_for(events::UNMOUNTED, 1);
}

fn a_directory_is_worked_on_for_the_csi_server_alone() {
    let (test, first) = start();
    test.container.sh_ok("cd /srv/source && chmod 777 . && mkdir -p kept/d && ln -s /etc link && ln -s kept inside");
    drop(first);
    let before = test.node.mountinfo();
    for engine in ["seccomp", "preload"] {
        if engine == "preload" {
            install(&test.container);
        }
        let _mounter = test.start_mounter(&["--engine", engine], &[]);
        let place = "/var/lib/kubelet/plugins/kubernetes.io/csi/d/work";
        let asked = |target: &str, path: &str, work: Work| {
            let Mount { request, .. } = bindfs(target);
            Directory { request, path: path.to_owned(), work, within: u64::MAX }
        };
        let make = || Work::Make { mode: Some(0o750), uid: None, gid: None };
        let done = |path: &str, work: Work| ask(&test, SERVER, |client| client.directory(asked(place, path, work)));
        let was_there = |path: &str, work: Work| done(path, work).unwrap().was_there;
        assert!(!was_there("a/b", make()) && was_there("a/b", make()) && was_there("a/b", Work::Find));
        assert_eq!(test.container.sh_ok("cd /srv/source && stat -c %a a a/b"), "755\n750\n");
        assert!(done("", Work::Find).unwrap().space.unwrap().total > 0);
        assert!(was_there("a/b", Work::Rename { name: "c".into() }) && !was_there("a/b", Work::Find));
        assert!(was_there("a", Work::Remove) && !was_there("a", Work::Remove));
        for work in [make(), Work::Remove, Work::Find, Work::Rename { name: "x".into() }] {
            for path in ["..", "/", "../x", "kept/../..", "./kept"] {
                refused(done(path, work.clone()), "is not the path of a directory below");
            }
            refused(done("link/x", work.clone()), "in the filesystem");
            refused(done("inside/d", work.clone()), "in the filesystem");
            if work != Work::Find {
                refused(done("", work), "is not the path of a directory below");
            }
        }
        for name in ["..", ".", "", "a/b", "/x", "kept/"] {
            refused(done("kept", Work::Rename { name: name.into() }), "is not the path of a directory below");
        }
        assert!(!was_there("kept/none/x", Work::Rename { name: "x".into() }));
        let about = "only about targets that kubelet has made for CSI volumes";
        ask(&test, SERVER, |client| refused(client.directory(asked("/mnt/operator", "kept", Work::Remove)), about));
        for (socket, origin) in [("kubelet", "kubelet"), ("flexvolume", "flexvolume")] {
            let client = Client::at(format!("/run/hostmount/{socket}.sock"));
            test.node.visit(|| {
                let done = client.directory(asked(place, "kept", Work::Remove));
                refused(done, &format!("{origin} may not ask for this"));
            });
        }
        assert_eq!(
            test.container.sh_ok("cd /srv/source && find . | sort"),
            ".\n./file\n./inside\n./kept\n./kept/d\n./link\n"
        );
        test.wait_for_processes("bindfs", 0);
        assert_eq!(test.node.mountinfo(), before);
    }
}

/// It sees the socket, as its directory is a mount of the container's, and is of the same user.
fn a_helper_is_not_the_csi_server() {
    let test = TestNode::start();
    test.container.sh_ok("mkdir /run/hostmount-csi && mount -t tmpfs -o mode=755 csi /run/hostmount-csi");
    let door = format!("[doors]\ncsi = {{ socket = \"{CSI}\", uid = {SERVER} }}");
    test.configure(&format!("{door}\n[filesystem.spy]\ncapabilities = [\"CAP_SETUID\"]"));
    let ask = format!("setpriv --reuid {SERVER} env HOSTMOUNT_SOCKET={CSI} hostmount list 2>&1 && echo GRANTED");
    test.container.program("/usr/sbin/mount.fuse.spy", format!("#!/bin/sh\n{ask}\nexec mount.memfs \"$1\" \"$2\"\n"));
    test.node.sh_ok("mkdir /mnt/operator");
    let mounter = test.start_mounter(&[], &[]);
    test.mount(&["-t", "fuse.spy", "x", "/mnt/operator"]).ok("mount");
    mounter.wait_for(events::REFUSED, 1);
    let said = mounter.said();
    assert!(said.contains("no helper may ask") && !said.contains("GRANTED"), "{said}");
}

fn a_door_that_others_may_write_to_stays_closed() {
    let test = TestNode::start();
    test.configure(&format!("[doors]\ncsi = {{ socket = \"{CSI}\", uid = {SERVER} }}"));
    for prepare in [
        "mkdir -m 777 /run/hostmount-csi",
        "chmod 755 /run/hostmount-csi; chown 65532 /run/hostmount-csi",
        "rmdir /run/hostmount-csi; mkdir /run/there; ln -s there /run/hostmount-csi",
    ] {
        test.container.sh_ok(prepare);
        let done = test.container.sh("/usr/local/bin/hostmount serve");
        assert!(done.code == Some(2) && done.stderr.contains("root alone may write to"), "{prepare}: {done:?}");
    }
    assert_eq!(test.container.sh_ok("ls /run/there"), "");
}
