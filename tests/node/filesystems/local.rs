//! Filesystems without a server: their data is in the container.
//!
//! Runs in the tests' process, as root.

use super::{Access, CONTAINERS_FILES, Filesystem, User, volume};
use crate::node::TestNode;
use crate::node::servers::install_fetched;

pub(super) const LIST: &[Filesystem] = &[
    Filesystem {
        name: "bindfs",
        programs: &["bindfs"],
        version: "bindfs --version",
        config: "",
        user: CONTAINERS_FILES,
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
        user: User::Own,
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
        user: CONTAINERS_FILES,
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
        user: CONTAINERS_FILES,
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
        // It takes its password from a program, and one option that does not go after `-o`.
        config: "[filesystem.encfs]\n\
                 command = ['encfs', '--standard', '--extpass=cat /tmp/password', '{source}', '{target}', '-o', '{options}']",
        user: CONTAINERS_FILES,
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
        user: CONTAINERS_FILES,
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
        user: CONTAINERS_FILES,
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
        user: CONTAINERS_FILES,
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
        user: CONTAINERS_FILES,
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
        user: CONTAINERS_FILES,
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
        user: User::Own,
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
        user: CONTAINERS_FILES,
        helper: "fuse2fs",
        access: Access::Full,
        prepare: |test| {
            test.container.sh_ok("truncate -s 64M /tmp/image && mke2fs -q -t ext4 -O ^has_journal /tmp/image");
            test.container.sh_ok("debugfs -w -R 'rmdir lost+found' /tmp/image 2>/dev/null");
            volume("fuse.fuse2fs", "/tmp/image", "fakeroot")
        },
    },
    Filesystem {
        name: "ofs",
        programs: &["ofs/bin/ofs"],
        version: "ofs --version",
        config: "[filesystem.ofs]\ncommand = ['ofs', '{target}', '{source}']\nforeground = true",
        user: User::Own,
        helper: "ofs",
        // Closing a file that was written is an I/O error, without hostmount too.
        access: Access::ReadOnly,
        prepare: |test| {
            install_fetched("ofs/bin/ofs", &test.container, "/usr/local/bin/ofs");
            test.container.sh_ok("mkdir /tmp/s && echo packed >/tmp/s/f && touch -d '1 hour ago' /tmp/s/f");
            volume("fuse.ofs", "fs://?root=/tmp/s", "")
        },
    },
];

/// Makes an image of /tmp/s with one file in it.
fn pack(test: &TestNode, command: &str) {
    test.container
        .sh_ok(&format!("mkdir /tmp/s && echo packed >/tmp/s/f && touch -d '1 hour ago' /tmp/s/f && {command}"));
}
