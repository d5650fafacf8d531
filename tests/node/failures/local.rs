//! Helpers without a server: what they serve is in the container.
//!
//! Runs in the tests' process, as root.

use super::Cause::{Credentials, Name};
use super::{Failing, fails, with};
use crate::node::TestNode;
use std::any::Any;

pub(super) const LIST: &[Failing] = &[
    Failing {
        name: "gocryptfs",
        programs: &["gocryptfs", "ip"],
        fstype: "fuse.gocryptfs",
        config: "",
        prepare: |test| prepared(test, "mkdir cipher other; gocryptfs -q -init -passfile right cipher"),
        cells: &[
            fails(Name, "/tmp/nosuch", "passfile=/tmp/right", "stat /tmp/nosuch: no such file or directory"),
            fails(
                Name,
                "/tmp/other",
                "passfile=/tmp/right",
                "Cannot open config file: open /tmp/other/gocryptfs.conf: no such file or directory",
            ),
            fails(Credentials, "/tmp/cipher", "passfile=/tmp/wrong", "Password incorrect."),
            fails(Credentials, "/tmp/cipher", "", "Got empty Password from stdin"),
        ],
        remark: "It has no server.",
    },
    Failing {
        name: "cryfs",
        programs: &["cryfs", "ip"],
        fstype: "fuse.cryfs",
        // Deriving a key takes it a quarter of a minute of processor time.
        config: "[filesystem.cryfs]\n\
                 ready_timeout_seconds = 600\n\
                 command = ['/bin/sh', '-c', 'exec cryfs \"$@\" </tmp/wrong', 'cryfs', '{source}', '{target}', '-o', '{options}']\n\
                 environment = { CRYFS_FRONTEND = 'noninteractive', CRYFS_NO_UPDATE_CHECK = 'true', HOME = '/tmp/home' }\n\
                 writable = ['/tmp/home']",
        prepare: |test| {
            prepared(
                test,
                "mkdir cipher home plain
                export HOME=/tmp/home CRYFS_FRONTEND=noninteractive CRYFS_NO_UPDATE_CHECK=true
                cryfs cipher plain <right; fusermount -u plain",
            )
        },
        cells: &[
            fails(Name, "/tmp/nosuch", "", "Error 16: base directory not found."),
            fails(
                Credentials,
                "/tmp/cipher",
                "",
                "Error 11: Failed to decrypt the config file. Did you enter the correct password?",
            ),
        ],
        remark: "It has no server.",
    },
    Failing {
        name: "encfs",
        programs: &["encfs", "ip"],
        fstype: "fuse.encfs",
        config: "[filesystem.encfs]\n\
                 command = ['encfs', '--extpass=cat /tmp/wrong', '{source}', '{target}', '-o', '{options}']",
        prepare: |test| {
            prepared(
                test,
                "mkdir cipher plain
                encfs --standard --extpass='cat /tmp/right' /tmp/cipher /tmp/plain; fusermount -u plain",
            )
        },
        cells: &[
            fails(Name, "/tmp/nosuch", "", "The directory \"/tmp/nosuch/\" does not exist."),
            fails(Credentials, "/tmp/cipher", "", "Error decoding volume key, password incorrect"),
        ],
        remark: "It has no server.",
    },
    Failing {
        name: "squashfuse",
        programs: &["squashfuse", "ip"],
        fstype: "fuse.squashfuse",
        config: "",
        prepare: |test| prepared(test, "echo text >/tmp/other; chmod 600 right"),
        cells: &[
            fails(Name, "/tmp/nosuch", "", "Can't open squashfs image: No such file or directory"),
            fails(Name, "/tmp/other", "", "This doesn't look like a squashfs image."),
            fails(Credentials, "/tmp/right", "", "Can't open squashfs image: Permission denied"),
        ],
        remark: "It has no server.",
    },
];

/// Passwords, and what these lines of shell make in /tmp.
fn prepared(test: &TestNode, lines: &str) -> Box<dyn Any> {
    test.container.sh_ok(&format!("cd /tmp; echo word >right; echo k3y-of-nobody >wrong; {lines}"));
    with(())
}
