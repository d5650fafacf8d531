//! The types that hostmount knows well enough to let others than the operator mount them: what their sources look like, and
//! which options do nothing but shape the volume.
//!
//! Pure. One table; docs/policy.md shows it. An option that is not in it is refused by default: of those that the programs have, the ones that
//! run a program, name a file or give them an identity of the node's are here with the reason.

use super::sources::{is_bucket, is_ceph, is_export, is_gluster, is_moose, is_remote, is_share, is_ssh, is_url};

/// How a type is used harmlessly.
#[derive(Debug)]
pub struct KnownType {
    /// Its names, without `fuse.`.
    pub names: &'static [&'static str],
    /// Where its data is.
    pub source: Source,
    /// Options, by their names with spaces between, whose value is [a word](super::sources::is_word), if they have any.
    pub words: &'static str,
    /// Options whose value is any text: a password.
    pub texts: &'static str,
    /// Options with just this value.
    pub exactly: &'static [(&'static str, &'static str)],
    /// What it has, and is refused: names, and why.
    pub refused: &'static [(&'static str, &'static str)],
}

/// What a type's source names.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// Something elsewhere: what it looks like, in words, and whether a text is such a source.
    Elsewhere(&'static str, fn(&str) -> bool),
    /// A file or directory of the container's: for a reason, no source is allowed unless a rule says so.
    Container,
}

/// Options of the FUSE library's, which most FUSE programs know, and of the kernel's FUSE.
pub const FUSE_OPTIONS: &str = "allow_other allow_root async_read atomic_o_trunc ac_attr_timeout attr_timeout auto_cache auto_unmount \
    big_writes congestion_threshold default_permissions direct_io entry_timeout fsname gid hard_remove \
    kernel_cache large_read max_background max_read max_readahead max_write negative_timeout no_remote_lock \
    noallow_other noauto_cache noforget nonempty readdir_ino remember sync_read uid umask use_ino";

/// What such programs have besides, of every type.
pub const FUSE_REFUSED: &[(&str, &str)] = &[
    ("modules", "it loads a library by its name"),
    ("subdir", "it is for a module"),
    ("setuid", "it runs the program as another user"),
    ("subtype", "it changes the type that is shown"),
];

/// The table.
pub const KNOWN_TYPES: &[KnownType] = &[
    KnownType {
        names: &["glusterfs"],
        source: Source::Elsewhere("HOST[,HOST…]:[/]VOLUME[/DIRECTORY]", is_gluster),
        words: "acl attr-times-granularity attribute-timeout auto-invalidation aux-gfid-mount background-qlen \
                backup-volfile-servers backupvolfile-server congestion-threshold direct-io-mode enable-ino32 \
                entry-timeout event-history fetch-attempts fopen-keep-cache fuse-flush-handle-interrupt gid-timeout \
                global-threading halo-max-latency halo-max-replicas halo-min-replicas invalidate-limit \
                kernel-writeback-cache localtime-logging log-level lru-limit negative-timeout no-root-squash \
                reader-thread-count resolve-gids root-squash selinux server-port thin-client transport use-readdirp \
                volfile-check worm",
        texts: "",
        exactly: &[],
        refused: &[
            ("log-file", "it names a file; kubelet's own, below plugins/kubernetes.io/glusterfs, is allowed"),
            ("dump-fuse", "it names a file"),
            ("xlator-option", "it may name files"),
            ("fuse-mountopts", "it hands options on"),
            ("process-name", "it changes the name that is shown"),
            ("oom-score-adj", "it is about the node's memory"),
            ("io-engine", "io_uring(7) is refused anyway"),
        ],
    },
    KnownType {
        names: &["nfs", "nfs4"],
        source: Source::Elsewhere("HOST:/PATH", is_export),
        words: "ac acdirmax acdirmin acl acregmax acregmin actimeo bg cto fg fsc hard intr local_lock lock \
                lookupcache max_connect minorversion mountport mountproto mountvers namlen nconnect nfsvers noac \
                noacl nocto nointr nolock nordirplus noresvport nosharecache port proto rdirplus rdma resvport \
                retrans retry rsize sec sharecache soft softerr softreval tcp timeo trunkdiscovery udp v3 v4 v4.0 \
                v4.1 v4.2 vers wsize xprtsec",
        texts: "",
        exactly: &[],
        refused: &[("addr mounthost", "it contradicts the source"), ("clientaddr", "it is the node's address")],
    },
    KnownType {
        names: &["cifs", "smb3"],
        source: Source::Elsewhere("//HOST/SHARE[/DIRECTORY]", is_share),
        words: "acdirmax acregmax actimeo cache cifsacl closetimeo dir_mode echo_interval file_mode forcegid \
                forceuid gid guest handletimeout hard idsfromsid iocharset mapchars mapposix max_channels mfsymlinks \
                modefromsid multichannel nobrl nocase nodfs nohandlecache nolease nomapposix noperm \
                nopersistenthandles noposix noposixpaths noserverino nosharesock nosparse nostrictsync nounix \
                persistenthandles port posix posixpaths resilienthandles rsize seal sec serverino setuids sfu sign \
                snapshot soft strictsync uid vers wsize",
        texts: "dom domain pass password password2 prefixpath username workgroup",
        exactly: &[],
        refused: &[
            ("credentials cred", "it names a file"),
            ("cruid", "it takes another user's Kerberos identity"),
            ("multiuser", "it takes other users' identities"),
            ("backupuid", "it goes past permissions"),
            ("ip target unc", "it contradicts the source"),
        ],
    },
    KnownType {
        names: &["ceph"],
        source: Source::Elsewhere("[USER@…=]HOST[:PORT][,HOST…]:[/PATH]", is_ceph),
        words: "acl caps_max caps_wanted_delay_max caps_wanted_delay_min crc dcache dirstat fs fsid mds_namespace \
                mon_addr mount_timeout ms_mode name noacl noasyncreaddir nocopyfrom nocrc nodcache nodirstat \
                noquotadf norbytes noshare nowsync rasize rbytes readdir_max_bytes readdir_max_entries \
                recover_session rsize share snapdirname wsize wsync",
        texts: "secret",
        exactly: &[],
        refused: &[("secretfile conf keyring", "it names a file"), ("ip", "it is the node's address")],
    },
    KnownType {
        names: &["sshfs"],
        source: Source::Elsewhere("[USER@]HOST:[PATH]", is_ssh),
        words: "AddressFamily BatchMode Ciphers Compression ConnectTimeout ConnectionAttempts HostKeyAlgorithms \
                KexAlgorithms MACs NumberOfPasswordPrompts Port PreferredAuthentications PubkeyAcceptedAlgorithms \
                ServerAliveCountMax ServerAliveInterval StrictHostKeyChecking TCPKeepAlive User cache cache_timeout \
                compression contain_symlinks dcache_clean_interval dcache_dir_timeout dcache_link_timeout \
                dcache_max_size dcache_min_clean_interval dcache_stat_timeout dcache_timeout delay_connect dir_cache \
                disable_hardlink follow_symlinks max_conns no_check_root no_contain_symlinks no_readahead \
                no_rofd_flush nomap password_stdin port reconnect sshfs_sync sync_readdir transform_symlinks \
                workaround",
        texts: "",
        exactly: &[("idmap", "none"), ("idmap", "user"), ("UserKnownHostsFile", "/dev/null")],
        refused: &[
            ("ssh_command ProxyCommand ProxyJump LocalCommand KnownHostsCommand", "it runs a program"),
            ("PKCS11Provider SecurityKeyProvider", "it loads a library"),
            ("sftp_server", "it runs a program on the server"),
            ("IdentityFile CertificateFile GlobalKnownHostsFile Include uidfile gidfile", "it names a file"),
            ("IdentityAgent ControlPath", "it names a socket"),
            ("UserKnownHostsFile", "it names a file; /dev/null is allowed"),
            ("directport passive", "it goes past ssh"),
        ],
    },
    KnownType {
        names: &["s3fs"],
        source: Source::Elsewhere("BUCKET[:/PATH]", is_bucket),
        words: "complement_stat connect_timeout default_acl enable_content_md5 enable_noobj_cache endpoint host \
                instance_name list_object_max_keys listobjectsv2 max_dirty_data max_stat_cache_size mp_umask \
                multipart_copy_size multipart_size multipart_threshold multireq_max nocopyapi nodnscache nomixupload \
                nomultipart norenameapi nosscache notsup_compat_dir noua noxmlns parallel_count public_bucket \
                readwrite_timeout requester_pays retries servicepath sigv2 sigv4 singlepart_copy_limit \
                ssl_verify_hostname stat_cache_expire stat_cache_interval_expire storage_class url \
                use_path_request_style use_rrs use_wtf8 use_xattr",
        texts: "",
        exactly: &[],
        refused: &[
            ("passwd_file logfile mime ahbe_conf load_sse_c", "it names a file"),
            ("credlib", "it loads a library"),
            ("credlib_opts", "it is for a library"),
            ("use_cache tmpdir", "it names a directory"),
            ("ssl_client_cert", "it names files"),
            ("use_sse", "it may name a file"),
            ("profile", "it takes an identity from a file of the container's"),
            ("iam_role ecs", "it takes the node's own identity"),
            ("ibm_iam_auth", "it takes an identity of the container's"),
            ("proxy", "it leads requests elsewhere"),
            ("no_check_certificate", "whoever is on the way could read the volume"),
        ],
    },
    KnownType {
        names: &["rclone"],
        source: Source::Elsewhere("REMOTE:[PATH], a remote of the configuration's", is_remote),
        words: "attr-timeout attr_timeout buffer-size buffer_size dir-cache-time dir_cache_time dir-perms dir_perms \
                file-perms file_perms no-checksum no_checksum no-modtime no_modtime no-seek no_seek poll-interval \
                poll_interval read-only read_only vfs-cache-max-age vfs_cache_max_age vfs-cache-max-size \
                vfs_cache_max_size vfs-cache-mode vfs_cache_mode vfs-read-ahead vfs_read_ahead vfs-read-chunk-size \
                vfs_read_chunk_size vfs-write-back vfs_write_back write-back-cache write_back_cache",
        texts: "",
        exactly: &[],
        refused: &[
            ("config log-file", "it names a file"),
            ("cache-dir", "it names a directory"),
            ("password-command", "it runs a program"),
            ("args2env", "it changes how it is called"),
            ("command", "it changes what it does"),
            ("env.NAME", "it changes its environment"),
        ],
    },
    KnownType {
        names: &["davfs"],
        source: Source::Elsewhere("http[s]://HOST[:PORT][/PATH]", is_url),
        words: "dir_mode file_mode gid uid",
        texts: "",
        exactly: &[],
        refused: &[
            ("conf", "it names a file"),
            ("username", "it is for a terminal"),
            ("grpid", "it is for the kernel"),
        ],
    },
    KnownType {
        names: &["moosefs"],
        source: Source::Elsewhere("HOST[:PORT][:/PATH]", is_moose),
        words: "mfsattrcacheto mfscachemode mfsdelayedinit mfsdirentrycacheto mfsentrycacheto mfsfsyncmintime \
                mfsgroupscacheto mfsioretries mfsmd5pass mfsnegentrycacheto mfsnobsdlocks mfsnoposixlocks \
                mfsnoxattrs mfsreadaheadleng mfsreadaheadsize mfsreadaheadtrigger mfssymlinkcacheto mfstimeout \
                mfswritecachesize mfsxattrcacheto",
        texts: "mfspassword",
        exactly: &[],
        refused: &[
            ("mfscfgfile mfspassfile", "it names a file"),
            ("mfsmaster", "it contradicts the source"),
            ("mfsnice", "it is about the node's processors"),
            ("mfsmemlock mfsallowoomkiller", "it is about the node's memory"),
        ],
    },
    KnownType {
        names: &["bindfs"],
        source: Source::Container,
        words: "force-group force-user group owner mirror mirror-only perms",
        texts: "",
        exactly: &[],
        refused: &[("map-passwd", "it names a file"), ("resolve-symlinks", "it leads out of the source")],
    },
    container(&["mergerfs"], "category.create category.action category.search minfreespace", &[]),
    container(
        &["unionfs", "unionfs-fuse"],
        "cow",
        &[("chroot", "it names a directory"), ("dirs", "it names directories")],
    ),
    container(&["squashfuse", "squashfuse_ll"], "offset", &[]),
    container(&["archivemount"], "nobackup nosave readonly", &[("subtree", "it is another source")]),
    container(&["fuse-zip"], "", &[]),
    container(&["fuseiso"], "", &[]),
    container(&["fuse2fs"], "fakeroot", &[]),
    container(
        &["gocryptfs"],
        "",
        &[("passfile", "it names a file"), ("extpass", "it runs a program"), ("masterkey", "it shows a secret")],
    ),
    container(&["encfs"], "", &[("extpass", "it runs a program")]),
    container(&["cryfs"], "", &[]),
    container(
        &["fuse-overlayfs"],
        "",
        &[
            ("lowerdir", "it names directories"),
            ("upperdir", "it names a directory"),
            ("workdir", "it names a directory"),
        ],
    ),
];

/// A type whose source is in the container.
const fn container(
    names: &'static [&'static str],
    words: &'static str,
    refused: &'static [(&'static str, &'static str)],
) -> KnownType {
    KnownType { names, source: Source::Container, words, texts: "", exactly: &[], refused }
}

impl KnownType {
    /// The type of this name, without `fuse.`.
    pub fn named(name: &str) -> Option<&'static Self> {
        KNOWN_TYPES.iter().find(|known| known.names.contains(&name))
    }

    /// Whether the kernel's own filesystem reads the options, with rules of its own for quotes.
    pub fn is_the_kernels(&self) -> bool {
        ["nfs", "cifs", "ceph"].contains(&self.names[0])
    }
}

/// Whether an option is in a list of names.
pub fn lists(names: &str, option: &str) -> bool {
    names.split_ascii_whitespace().any(|name| name == option)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::find::FUSE_PROGRAMS;
    use std::collections::BTreeSet;

    #[test]
    fn nothing_is_there_twice_and_nothing_both_allowed_and_refused() {
        let mut names = BTreeSet::new();
        for known in KNOWN_TYPES {
            assert!(known.names.iter().all(|name| names.insert(*name)), "{known:?}");
            let mut options = BTreeSet::new();
            let allowed = known.words.split_ascii_whitespace().chain(known.texts.split_ascii_whitespace());
            assert!(allowed.into_iter().all(|option| options.insert(option)), "{known:?}");
            let refused = known.refused.iter().flat_map(|(names, _)| names.split_ascii_whitespace());
            assert!(refused.into_iter().all(|option| options.insert(option)), "{known:?}");
        }
    }

    /// Whoever adds a program decides this, too.
    #[test]
    fn each_program_that_is_run_is_known_or_left_to_rules() {
        let left = ["ceph-fuse", "gcsfuse", "goofys", "juicefs"];
        for program in FUSE_PROGRAMS {
            assert!(KnownType::named(program).is_some() != left.contains(&program), "{program}");
        }
        let text = include_str!("../../docs/policy.md");
        assert!(left.iter().all(|program| text.contains(&format!("`{program}`"))));
    }
}
