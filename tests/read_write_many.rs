//! ReadWriteMany: two nodes with a mounter each share a filesystem, and writers of different uids see each other's files.

mod node;

use hostmount::demo::machine::Network;
use node::gluster::{self, Gluster};
use node::mounter::Mounter;
use node::servers;
use node::sshd::{self, Sshd};
use node::{TestNode, require};

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

    /// On each node writers of two uids write files of their own at the same time; then everybody reads all of them.
    fn write_and_read(&self, writers: [u32; 2]) {
        let as_user =
            |uid: u32, line: &str| format!("setpriv --reuid {uid} --regid {uid} --clear-groups sh -c '{line}'");
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

#[test]
fn glusterfs_keeps_each_writers_uid() {
    if !require(gluster::PROGRAMS) {
        return;
    }
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
    // What one uid keeps to itself stays its own.
    second.node.sh_ok(&format!("setpriv --reuid 1000 --clear-groups sh -c 'umask 077; echo x >{TARGET}/own'"));
    assert_ne!(first.node.sh(&format!("setpriv --reuid 33 --clear-groups cat {TARGET}/own")).code, Some(0));
}

#[test]
fn sshfs_shows_one_uid_to_all() {
    if !require(&[sshd::PROGRAMS, &["sshfs"]].concat()) {
        return;
    }
    let network = Network::new().unwrap();
    let server = Sshd::start(&network);
    let pair = Pair::start(&network, |test| server.install_client(&test.container));
    // One user on the server writes all files; idmap shows it as the mounting user. Without default_permissions the
    // server alone decides, so a file that one writer keeps to itself can be read by all the others.
    let options = format!("port={},IdentityFile=/root/.ssh/id_ed25519,idmap=user", sshd::PORT);
    pair.mount("fuse.sshfs", "root@10.77.0.1:/srv/export", &options);
    pair.write_and_read([1000, 33]);
    let (first, _mounter) = &pair.nodes[0];
    first.node.sh_ok(&format!("setpriv --reuid 1000 --clear-groups sh -c 'umask 077; echo x >{TARGET}/own'"));
    let (second, _mounter) = &pair.nodes[1];
    assert_eq!(second.node.sh_ok(&format!("setpriv --reuid 33 --clear-groups cat {TARGET}/own")), "x\n");
}

#[test]
fn s3fs_shows_the_uid_that_the_options_name() {
    if !require(&["s3fs", &servers::fetched("moto/bin/moto_server").to_string_lossy()]) {
        return;
    }
    let network = Network::new().unwrap();
    let host = TestNode::start_in(&network);
    let _server = servers::s3_of_moto(&host);
    let pair = Pair::start(&network, |test| {
        test.container.sh_ok("umask 077; echo key:secret >/run/passwd");
    });
    let options = "passwd_file=/run/passwd,url=http://10.77.0.1:8081,use_path_request_style,uid=33,gid=33,umask=0,stat_cache_expire=0";
    pair.mount("fuse.s3fs", "bucket", options);
    pair.write_and_read([1000, 33]);
    let (second, _mounter) = &pair.nodes[1];
    assert_eq!(second.node.sh_ok(&format!("stat -c '%u %a' {TARGET}/0-1000-1")), "33 777\n");
}
