//! Where the words of a helper are heard that does not write them to its output: syslog(3), and its log files. What the caller of a mount that
//! fails is answered with real helpers is in `why_mounts_fail`.

use crate::harness::{Test, tests};
use crate::node::TestNode;
use crate::node::mounter::Mounter;
use crate::node::setting::TARGET;

pub(crate) fn tests() -> Vec<Test> {
    tests![what_is_said_by_syslog_is_heard_after_a_restart.needs(&["bindfs", "logger"]), a_foreign_log_is_not_shown,]
}

fn serve(test: &TestNode, config: &str) -> Mounter {
    test.configure(config);
    test.node.sh_ok(&format!("mkdir -p {TARGET}"));
    test.start_mounter(&[], &[])
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
