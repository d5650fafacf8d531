//! Volumes outlive the mounter's container: a real one, of a real image, with podman and runc, on a test node.

use crate::harness::{Test, tests};
use crate::node::preloaded::install;
use crate::node::programs::show_programs;
use crate::node::sshd::{self, Sshd};
use crate::node::{self, NODE_BIN, PODMAN, Place, SERVER_ADDRESS, cgroups};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hostmount::engine::preload::DEFAULT_OBJECT;
use hostmount::observe::events;
use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};
use testbed::machine::{Machine, Network, Process, Recipe, Room};

pub(crate) fn tests() -> Vec<Test> {
    tests![
        bindfs_with_the_seccomp_engine.needs(IMAGE).needs_cgroups(),
        sshfs_with_the_preload_engine.needs(IMAGE).needs(sshd::PROGRAMS).needs_cgroups(),
        an_update_while_the_server_is_frozen_leaves_the_volume_as_it_is
            .needs(IMAGE)
            .needs(sshd::PROGRAMS)
            .needs_cgroups(),
        an_image_that_is_collected_takes_nothing_from_its_volumes.needs(IMAGE).needs(sshd::PROGRAMS).needs_cgroups(),
    ]
}

/// Programs that are needed to make the image and run it.
const IMAGE: &[&str] = &["make", "bindfs", "sshfs", "podman", "runc", "ldd", "tar"];
const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";
/// Packages of the image, beside hostmount.
const PROGRAMS: [&str; 9] = [
    "/bin/sh",
    "/bin/cat",
    "/bin/sleep",
    "/bin/touch",
    "/bin/rm",
    "/bin/bindfs",
    "/bin/sshfs",
    "/bin/ssh",
    "/bin/fusermount3",
];
/// A fake helper: beside its daemon a process keeps writing to the usual directories, and prints an error when it
/// cannot.
const WRITER: &str = "#!/bin/sh
bindfs \"$@\" || exit 1
(while sleep 0.02; do for d in /tmp /run /var/tmp /var/log/writer; do touch $d/file && rm $d/file || echo cannot write to $d; done; done) &
";

/// Two ways to call sshfs, beside its own type; and the fake helper's processes never end, as some of them serve nothing.
const CONFIG: &str = "
[filesystem.sshfs]
readable = ['/run/key']
[filesystem.left]
command = ['sshfs', '{source}', '{target}', '-o', '{options}']
readable = ['/run/key']
upgrade = 'leave'
[filesystem.brief]
command = ['sshfs', '{source}', '{target}', '-o', '{options}']
readable = ['/run/key']
ready_timeout_seconds = 4
[filesystem.keyed]
command = ['sshfs', '{source}', '{target}', '-o', '{options}']
readable = ['/run/key']
files.key = { content = '{secret:key}', option = 'IdentityFile' }
[policy.flexvolume.filesystem.keyed]
sources = ['**']
options = ['*']
[filesystem.writer]
upgrade = 'leave'
";

struct Runtime {
    node: Place,
    engine: &'static str,
    _machine: Machine,
}

impl Runtime {
    /// A node with podman, and an image of its own for the mounter.
    fn start(network: &Network, engine: &'static str) -> Self {
        let places = ["/var/lib/containers", "/var/lib/kubelet", "/run", "/tmp", "/dev/shm", "/srv", "/opt/image"];
        let recipe = Recipe::userland().fuse().shared().writable(places);
        let machine = Machine::start(network, show_programs(recipe, NODE_BIN)).unwrap();
        let node = Place(machine.node().clone());
        node.hide_selinux();
        install(&node);
        node.visit(|| {
            fs::write("/opt/image/writer", WRITER).unwrap();
            fs::write("/opt/image/config.toml", CONFIG).unwrap();
        });
        node.sh_ok(&format!(
            "set -e
            ln -s hostmount-shim {NODE_BIN}/mount; mkdir -p {TARGET} /run/hostmount /srv/data /run/key /mnt/writer
            r=/opt/image/root; mkdir -p $r && cd $r
            mkdir -p usr/bin usr/sbin usr/local/bin usr/lib usr/lib64 proc sys dev tmp run var/tmp var/log/writer etc root srv
            for d in bin sbin lib lib64; do ln -s usr/$d $d; done
            for p in {programs} {DEFAULT_OBJECT}; do
                mkdir -p ./$(dirname $p); cp -L $p .$p
                ldd $p | grep -o '/[^ ]*' | while read -r l; do mkdir -p .$(dirname $l); cp -L $l .$l; done
            done
            cp {NODE_BIN}/hostmount {NODE_BIN}/hostmount-shim usr/local/bin/; cp /etc/passwd etc/; mkdir etc/hostmount; cp /opt/image/config.toml etc/hostmount/
            install -m 755 /opt/image/writer usr/sbin/mount.fuse.writer",
            programs = PROGRAMS.join(" "),
        ));
        Self { node, engine, _machine: machine }
    }

    /// A container of a fresh image; returns when its mounter answers.
    fn run(&self, image: u32) {
        self.node.sh_ok(&format!(
            "echo {image} >/opt/image/root/etc/image
            tar -C /opt/image/root -c . | {PODMAN} import - localhost/mounter:{image} &&
            {PODMAN} run --detach --name mounter --privileged --pid host --network host --ulimit nofile=1024:1024 \
             --ulimit nproc=1000:1000 --volume /run/hostmount:/run/hostmount --volume /srv/data:/srv/data \
             --volume /run/key:/run/key localhost/mounter:{image} /usr/local/bin/hostmount serve --engine {}",
            self.engine
        ));
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.node.sh(&format!("{NODE_BIN}/hostmount doctor --probe")).code != Some(0) {
            assert!(Instant::now() < deadline, "the mounter does not answer: {}", self.logs());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The container, and the image.
    fn remove(&self, image: u32) {
        self.node.sh_ok(&format!("{PODMAN} rm --force --time 0 mounter && {PODMAN} rmi localhost/mounter:{image}"));
    }

    fn logs(&self) -> String {
        let done = self.node.sh(&format!("{PODMAN} logs mounter"));
        done.stdout + &done.stderr
    }

    #[track_caller]
    fn wait_for(&self, event: &str, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.logs().matches(&format!("\"event\":\"{event}\"")).count() < times {
            assert!(Instant::now() < deadline, "{event} is not in {}", self.logs());
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn list(&self) -> String {
        self.node.sh_ok(&format!("{NODE_BIN}/hostmount list --output json"))
    }

    /// Writes and reads, over and over; ends with an error at the first step that fails.
    fn user(&self) -> Process {
        let mut command = Room::command("/bin/sh");
        let steps = format!(
            "i=0; while [ ! -e /tmp/enough ]; do i=$((i+1)); echo $i >{TARGET}/new || exit 1
            mv {TARGET}/new {TARGET}/f || exit 2; read j <{TARGET}/f || exit 3; [ $i = $j ] || exit 4; done"
        );
        command.args(["-c", &steps]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.node.spawn(command)
    }
}

/// Through the removal of three containers and their images.
fn outlives(runtime: &Runtime, mount: &str, helper: &str) {
    let node = &runtime.node;
    let mut chance = node::chance();
    runtime.run(1);
    let before = cgroups::all(node);
    node.sh_ok(mount);
    node.sh_ok(&format!("{NODE_BIN}/hostmount mount -t fuse.writer /srv/data /mnt/writer"));
    let mut user = runtime.user();
    for image in 1..=3 {
        // The moment itself: a round of the user's takes a millisecond or so.
        thread::sleep(Duration::from_micros(chance.u64(0..50_000)));
        runtime.remove(image);
        assert_eq!(node.sh("pidof -x hostmount").code, Some(1), "the mounter is gone");
        runtime.run(image + 1);
        let list = runtime.list();
        assert_eq!(list.matches("\"mounted\"").count(), 2, "{list}{}", runtime.logs());
        runtime.wait_for(events::UPGRADED, 1);
        // The replaced helper exits: neither container nor helper has a copy of its mount.
        let deadline = Instant::now() + Duration::from_secs(30);
        while node.sh(&format!("pgrep -fc '^[^ ]*{helper} .*{TARGET}'")).stdout != "1\n" {
            assert!(Instant::now() < deadline, "{}", node.sh("ps ax").stdout);
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(user.try_wait().unwrap(), None, "the user has ended");
    }
    node.sh_ok("touch /tmp/enough");
    assert_eq!(user.wait().unwrap().code(), Some(0), "a step failed: {}", runtime.logs());
    // What helpers write elsewhere is not on the container's root, which is gone.
    let said = node.sh_ok(&format!("{NODE_BIN}/hostmount logs /mnt/writer"));
    assert!(!said.contains("cannot write") && !runtime.logs().contains("cannot write"), "{said}");
    // Healing uses this image's programs.
    node.sh_ok(&format!("kill -9 $(pgrep -f '^[^ ]*{helper} .*{TARGET}')"));
    runtime.wait_for(events::HEALED, 1);
    node.sh_ok(&format!(
        "cat {TARGET}/f; umount {TARGET}; kill $(pgrep -f '^/bin/sh [^ ]*mount.fuse.writer'); umount /mnt/writer"
    ));
    let deadline = Instant::now() + Duration::from_secs(30);
    while runtime.list() != "[]\n" || cgroups::all(node).lines().any(|line| line.contains("/hostmount/")) {
        assert!(Instant::now() < deadline, "{}{}", runtime.list(), cgroups::all(node));
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(before.contains("/hostmount"), cgroups::all(node).contains("/hostmount"));
    runtime.remove(4);
}

fn bindfs_with_the_seccomp_engine() {
    let runtime = Runtime::start(&Network::new().unwrap(), "seccomp");
    outlives(&runtime, &format!("{NODE_BIN}/hostmount mount -t fuse.bindfs /srv/data {TARGET}"), "bindfs");
}

/// With a server for sshfs, and its key.
fn with_sshd(engine: &'static str) -> (Runtime, Sshd) {
    let network = Network::new().unwrap();
    let server = Sshd::start(&network);
    let runtime = Runtime::start(&network, engine);
    // A mount of its own below /run: what is mounted there stays visible to helpers.
    runtime.node.visit(|| {
        fs::write("/run/key/id", server.client_key()).unwrap();
        fs::write("/run/key/hosts", server.known_hosts()).unwrap();
    });
    runtime.node.sh_ok("chmod 600 /run/key/id");
    (runtime, server)
}

const KEY: &str = "IdentityFile=/run/key/id";

fn sshfs_options() -> String {
    format!("port={},UserKnownHostsFile=/run/key/hosts,reconnect", sshd::PORT)
}

fn sshfs_with_the_preload_engine() {
    let (runtime, _server) = with_sshd("preload");
    let (options, source) = (sshfs_options(), format!("root@{SERVER_ADDRESS}:/srv/export"));
    outlives(
        &runtime,
        &format!("{NODE_BIN}/hostmount mount -t fuse.sshfs -o {options},{KEY} {source} {TARGET}"),
        "sshfs",
    );
}

fn an_update_while_the_server_is_frozen_leaves_the_volume_as_it_is() {
    let (runtime, server) = with_sshd("seccomp");
    let (node, options) = (&runtime.node, sshfs_options());
    runtime.run(1);
    let mount = format!("{NODE_BIN}/hostmount mount -o {options},{KEY} -t fuse.brief");
    node.sh_ok(&format!("{mount} root@{SERVER_ADDRESS}:/srv/export {TARGET} && echo served >{TARGET}/f"));
    server.place.sh_ok("kill -STOP $(pidof sshd)");
    runtime.remove(1);
    runtime.run(2);
    runtime.wait_for(events::NOT_UPGRADED, 1);
    server.place.sh_ok("kill -CONT $(pidof sshd)");
    assert_eq!(node.sh_ok(&format!("cat {TARGET}/f")), "served\n");
    let list = runtime.list();
    assert!(list.contains("\"mounted\"") && list.contains("runs from the image of an earlier container"), "{list}");
    // It would be tried again in a minute.
    node.sh_ok(&format!("{NODE_BIN}/hostmount swap {TARGET}"));
    assert!(!runtime.list().contains("earlier container") && reads(node, TARGET));
    node.sh_ok(&format!("umount {TARGET}"));
    runtime.remove(2);
}

/// Reads a volume until that works; sshfs starts a new ssh at an access, which may fail itself.
fn reads(node: &Place, target: &str) -> bool {
    (0..50).any(|_try| node.sh(&format!("cat {target}/f")).stdout == "served\n")
}

/// sshfs starts ssh again when its connection is lost: a program of an image that is no more.
fn an_image_that_is_collected_takes_nothing_from_its_volumes() {
    let (runtime, server) = with_sshd("seccomp");
    let node = &runtime.node;
    let (options, source) = (sshfs_options(), format!("root@{SERVER_ADDRESS}:/srv/export"));
    let (keyed, driver) = ("/var/lib/kubelet/pods/p/volumes/hostmount~fuse/keyed", "/run/plugins/hostmount~fuse/fuse");
    node.sh_ok(&format!("mkdir -p /mnt/left {keyed}; {NODE_BIN}/hostmount install --flexvolume /run/plugins"));
    runtime.run(1);
    let mount = format!("{NODE_BIN}/hostmount mount -o {options},{KEY}");
    node.sh_ok(&format!("{mount} -t fuse.sshfs {source} {TARGET} && {mount} -t fuse.left {source} /mnt/left"));
    let asked = serde_json::json!({
        "fstype": "keyed",
        "source": source,
        "options": options,
        "kubernetes.io/secret/key": BASE64_STANDARD.encode(server.client_key()),
    });
    node.run(driver, &["mount", keyed, &asked.to_string()]).ok("mount");
    node.sh_ok(&format!("echo served >{TARGET}/f"));
    let all = [TARGET, keyed, "/mnt/left"];
    assert!(all.iter().all(|target| reads(node, target)));
    let open = "exec 3<$1/f; touch /tmp/open; while [ ! -e /tmp/enough ]; do sleep 0.01; done; cat <&3";
    let mut holder = Room::command("/bin/sh");
    holder.args(["-c", open, "sh", TARGET]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut holder = node.spawn(holder);
    node.sh_ok("until [ -e /tmp/open ]; do sleep 0.01; done");
    runtime.remove(1);
    node.sh_ok("sync; echo 3 >/proc/sys/vm/drop_caches");
    runtime.run(2);
    runtime.wait_for(events::UPGRADED, 2);
    let notes = |list: &str| list.matches("runs from the image of an earlier container").count();
    assert_eq!(notes(&runtime.list()), 1, "{}", runtime.list());
    // What was open drains.
    node.sh_ok("touch /tmp/enough");
    let mut read = String::new();
    holder.stdout.take().unwrap().read_to_string(&mut read).unwrap();
    assert_eq!(read, "served\n");
    // Each loses its connection.
    node.sh_ok("pkill -9 -x ssh");
    assert!(reads(node, TARGET) && reads(node, keyed), "{}", runtime.logs());
    let left = node.sh("cat /mnt/left/f");
    assert!(!reads(node, "/mnt/left") && left.stderr.contains("Input/output error"), "as before: {left:?}");
    // Asked for, it is moved as well.
    node.sh_ok(&format!("{NODE_BIN}/hostmount swap /mnt/left"));
    assert!(reads(node, "/mnt/left") && notes(&runtime.list()) == 0);
    node.sh_ok(&format!("umount {TARGET} {keyed} /mnt/left"));
    runtime.remove(2);
}
