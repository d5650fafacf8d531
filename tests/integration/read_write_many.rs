//! ReadWriteMany: two nodes with a mounter each share a filesystem, and writers of different uids see each other's
//! files.

use crate::harness::{Test, tests};
use crate::node::TestNode;
use crate::node::gluster::{self, Gluster};
use crate::node::mounter::Mounter;
use crate::node::servers;
use crate::node::sshd::{self, Sshd};
use testbed::machine::Network;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        glusterfs_keeps_each_writers_uid.needs(gluster::PROGRAMS),
        sshfs_shows_one_uid_to_all.needs(sshd::PROGRAMS).needs(&["sshfs"]),
        s3fs_shows_the_uid_that_the_options_name.needs(&["s3fs", "moto/bin/moto_server"]),
        rclone_shows_the_uid_that_the_options_name.needs(&["rclone", "ip"]),
        bindfs_shows_the_uid_that_the_options_name.needs(&["bindfs"]),
    ]
}

const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

struct Pair {
    nodes: Vec<(TestNode, Mounter)>,
}

impl Pair {
    /// Two nodes in one network; `prepare` is done in each one's container before its mounter starts.
    fn start(network: &Network, prepare: impl Fn(&TestNode)) -> Self {
        let start = |_| {
            let test = TestNode::start_in(network);
            test.node.sh_ok(&format!("mkdir -p {TARGET}"));
            prepare(&test);
            let mounter = test.start_mounter(&[], &[]);
            (test, mounter)
        };
        Self { nodes: (0..2).map(start).collect() }
    }

    fn mount(&self, fstype: &str, source: &str, options: &str) {
        for (test, _mounter) in &self.nodes {
            test.mount(&["-t", fstype, "-o", options, source, TARGET]).ok("mount");
        }
    }

    /// On each node writers of two uids write files of their own at the same time; then every uid reads all of them.
    fn write_and_read(&self, writers: [u32; 2]) {
        std::thread::scope(|scope| {
            for (number, (test, _mounter)) in self.nodes.iter().enumerate() {
                for uid in writers {
                    let line = format!(
                        "for n in 1 2 3 4 5; do echo {number}-{uid}-$n >{TARGET}/{number}-{uid}-$n || exit 1; done"
                    );
                    scope.spawn(move || test.node.sh_ok(&as_user(uid, &line)));
                }
            }
        });
        for (test, _mounter) in &self.nodes {
            for uid in writers {
                let names = test.node.sh_ok(&as_user(
                    uid,
                    &format!(
                        "cd {TARGET} && for f in *-*-*; do test \"$f\" = \"$(cat $f)\" || exit 1; done; ls | wc -l"
                    ),
                ));
                assert_eq!(names.trim(), "20");
            }
        }
    }
}

/// A line of shell run by a user in a group of its own number, and in no other.
fn as_user(uid: u32, line: &str) -> String {
    format!("setpriv --reuid {uid} --regid {uid} --clear-groups sh -c '{line}'")
}

/// Whether `uid` can read `file` of the volume.
fn reads(test: &TestNode, uid: u32, file: &str) -> bool {
    let done = test.node.sh(&as_user(uid, &format!("cat {TARGET}/{file}")));
    assert!(done.code == Some(0) || done.stderr.contains("Permission denied"), "{}", done.stderr);
    done.code == Some(0)
}

/// The volume's options in the mount table, after the type and the source.
fn told(test: &TestNode) -> String {
    test.node.mount_at(TARGET).unwrap().rsplit(' ').next().unwrap().to_owned()
}

fn glusterfs_keeps_each_writers_uid() {
    let network = Network::new().unwrap();
    let server = Gluster::start(&network);
    let source = server.volume("gv0");
    let pair = Pair::start(&network, |_| ());
    pair.mount("glusterfs", &source, "log-level=ERROR");
    let (first, _mounter) = &pair.nodes[0];
    first.node.sh_ok(&format!("chmod 1777 {TARGET}"));
    pair.write_and_read([1000, 33]);
    let (second, _mounter) = &pair.nodes[1];
    assert_eq!(second.node.sh_ok(&format!("stat -c %u {TARGET}/0-33-1 {TARGET}/1-1000-2")), "33\n1000\n");
    assert!(told(first).contains("default_permissions"), "{}", told(first));
    // A private file of one uid stays private.
    second.node.sh_ok(&format!("setpriv --reuid 1000 --clear-groups sh -c 'umask 077; echo x >{TARGET}/own'"));
    assert!(reads(first, 1000, "own") && !reads(first, 33, "own"));
    // A file that a directory's group may read is read by others in that group.
    first.node.sh_ok(&format!("mkdir {TARGET}/shared && chown 1000:33 {TARGET}/shared && chmod 2750 {TARGET}/shared"));
    second.node.sh_ok(&as_user(1000, &format!("umask 027; echo x >{TARGET}/shared/f")));
    assert!(reads(first, 33, "shared/f") && !reads(first, 34, "shared/f"));
}

fn sshfs_shows_one_uid_to_all() {
    let network = Network::new().unwrap();
    let server = Sshd::start(&network);
    let pair = Pair::start(&network, |test| server.install_client(&test.container));
    // One user on the server writes all files; idmap shows it as the mounting user. Without default_permissions the
    // server alone decides, so a private file of one writer can be read by all the others.
    let options = format!("port={},IdentityFile=/root/.ssh/id_ed25519,idmap=user", sshd::PORT);
    pair.mount("fuse.sshfs", "root@10.77.0.1:/srv/export", &options);
    pair.write_and_read([1000, 33]);
    let (first, _mounter) = &pair.nodes[0];
    assert!(!told(first).contains("default_permissions"), "{}", told(first));
    first.node.sh_ok(&format!("setpriv --reuid 1000 --clear-groups sh -c 'umask 077; echo x >{TARGET}/own'"));
    let (second, _mounter) = &pair.nodes[1];
    assert!(reads(second, 33, "own"));
    // With default_permissions the kernel checks the mode that the server returns, for the owner that uid= names.
    for (more, reader) in [("default_permissions", None), ("default_permissions,uid=33,gid=33", Some(33))] {
        second.node.sh_ok(&format!("umount {TARGET}"));
        let options = format!("{options},{more}");
        second.mount(&["-t", "fuse.sshfs", "-o", &options, "root@10.77.0.1:/srv/export", TARGET]).ok("mount");
        for uid in [1000, 33] {
            assert_eq!(reads(second, uid, "own"), reader == Some(uid), "{more} {uid}");
        }
    }
}

fn s3fs_shows_the_uid_that_the_options_name() {
    let network = Network::new().unwrap();
    let host = TestNode::start_in(&network);
    let _server = servers::s3_of_moto(&host);
    let pair = Pair::start(&network, |test| {
        test.container.sh_ok(
            "mkdir -p /etc/hostmount && printf \"[filesystem.s3fs]\\nreadable = ['/run/passwd']\\n\" >/etc/hostmount/config.toml
            umask 077; echo key:secret >/run/passwd",
        );
    });
    let options = "passwd_file=/run/passwd,url=http://10.77.0.1:8081,use_path_request_style,uid=33,gid=33,umask=0,stat_cache_expire=0";
    pair.mount("fuse.s3fs", "bucket", options);
    pair.write_and_read([1000, 33]);
    let (second, _mounter) = &pair.nodes[1];
    assert_eq!(second.node.sh_ok(&format!("stat -c '%u %a' {TARGET}/0-1000-1")), "33 777\n");
    // Also a writer's private file, as the mode that it was written with does not count.
    let (first, _mounter) = &pair.nodes[0];
    first.node.sh_ok(&as_user(1000, &format!("umask 077; echo x >{TARGET}/own; chmod 700 {TARGET}/own")));
    assert!(reads(second, 33, "own"));
    // With a umask of its own, only that uid.
    second.node.sh_ok(&format!("umount {TARGET}"));
    second.mount(&["-t", "fuse.s3fs", "-o", &options.replace("umask=0", "umask=077"), "bucket", TARGET]).ok("mount");
    assert!(reads(second, 33, "own") && !reads(second, 1000, "own"));
    // Without them each file has the owner and the mode that it was given. For others to enter, s3fs must get
    // allow_other itself: the kernel's option is not enough, as its root directory is 0700 otherwise.
    for (more, reader) in [("", None), (",allow_other", Some(1000))] {
        second.node.sh_ok(&format!("umount {TARGET}"));
        let options = options.replace(",uid=33,gid=33,umask=0", more);
        second.mount(&["-t", "fuse.s3fs", "-o", &options, "bucket", TARGET]).ok("mount");
        let line = told(second);
        assert!(line.contains("allow_other") && !line.contains("default_permissions"), "{line}");
        second.node.sh_ok(&format!("cd {TARGET}; echo x >theirs; chown 1000:1000 theirs; chmod 700 theirs"));
        for uid in [1000, 33] {
            assert_eq!(reads(second, uid, "theirs"), reader == Some(uid), "{more} {uid}");
        }
    }
}

fn rclone_shows_the_uid_that_the_options_name() {
    let test = TestNode::start();
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    let _server = servers::webdav(&test);
    let config = "[filesystem.rclone]\nenvironment = { RCLONE_CONFIG_DAV_TYPE = 'webdav', \
                  RCLONE_CONFIG_DAV_URL = 'http://10.77.0.1:8080', HOME = '/tmp' }";
    test.container.visit(|| std::fs::write("/tmp/config.toml", config).unwrap());
    let _mounter = test.start_mounter(&["--config", "/tmp/config.toml"], &[]);
    // The mode is not checked: every uid reads everything, whatever uid= and umask= show.
    let options = "uid=33,gid=33,umask=077";
    test.mount(&["-t", "fuse.rclone", "-o", options, "dav:", TARGET]).ok("mount");
    assert!(!told(&test).contains("default_permissions"), "{}", told(&test));
    test.node.sh_ok(&as_user(1000, &format!("umask 077; echo x >{TARGET}/own")));
    assert_eq!(test.node.sh_ok(&format!("stat -c '%u %g %a' {TARGET}/own")), "33 33 600\n");
    assert!(reads(&test, 33, "own") && reads(&test, 1000, "own"));
    // With default_permissions the kernel does.
    test.node.sh_ok(&format!("umount {TARGET}"));
    test.mount(&["-t", "fuse.rclone", "-o", &format!("{options},default_permissions"), "dav:", TARGET]).ok("mount");
    assert!(reads(&test, 33, "own") && !reads(&test, 1000, "own"));
}

/// Options of bindfs, and which uids then read a private file of uid 1000: by the options, and if the helper, which has
/// no capability, could only make it a file of root's.
const BINDFS: [(&str, &[u32], &[u32]); 5] = [
    ("rw", &[1000], &[]),
    ("force-user=33", &[33], &[33]),
    ("map=1000/33", &[33], &[]),
    ("mirror=33", &[1000, 33], &[33]),
    ("perms=a+rX", &[1000, 33, 34], &[1000, 33, 34]),
];

fn bindfs_shows_the_uid_that_the_options_name() {
    // Without CAP_DAC_READ_SEARCH root cannot read another uid's private file, nor give a file away without CAP_CHOWN.
    for (capabilities, reads_all, gives_away) in
        [("", false, false), ("'CAP_DAC_READ_SEARCH'", true, false), ("'CAP_DAC_OVERRIDE', 'CAP_CHOWN'", true, true)]
    {
        let test = TestNode::start();
        test.node.sh_ok(&format!("mkdir -p {TARGET}"));
        test.container
            .sh_ok("mkdir -m 777 /tmp/source && cd /tmp/source && echo x >old && chmod 700 old && chown 1000:1000 old");
        let config = format!("[filesystem.bindfs]\ncapabilities = [{capabilities}]");
        test.container.visit(|| std::fs::write("/tmp/config.toml", config).unwrap());
        let _mounter = test.start_mounter(&["--config", "/tmp/config.toml"], &[]);
        for (options, by_options, of_roots) in BINDFS {
            test.mount(&["-t", "fuse.bindfs", "-o", options, "/tmp/source", TARGET]).ok("mount");
            assert!(told(&test).contains("default_permissions"), "{}", told(&test));
            test.node.sh_ok(&as_user(1000, &format!("umask 077; echo x >{TARGET}/new")));
            for uid in [1000, 33, 34] {
                let case = format!("{options} [{capabilities}] {uid}");
                assert_eq!(reads(&test, uid, "old"), reads_all && by_options.contains(&uid), "{case}");
                let readers = if gives_away { by_options } else { of_roots };
                assert_eq!(reads(&test, uid, "new"), readers.contains(&uid), "{case}");
            }
            test.node.sh_ok(&format!("umount {TARGET}"));
            let owner = test.container.sh_ok("cd /tmp/source; stat -c %u new; rm new");
            assert_eq!(owner.trim(), if gives_away { "1000" } else { "0" });
        }
    }
}
