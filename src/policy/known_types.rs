//! The types that hostmount knows well enough to let others than the operator mount them: what their sources look like, and
//! which options do nothing but shape the volume.
//!
//! Pure. One table; docs/policy.md shows it. An option that is not in it is refused by default: of those that the programs have, the ones that
//! run a program, name a file or give them an identity of the node's are here with the reason.

/// How a type is used harmlessly.
#[derive(Debug)]
pub struct KnownType {
    /// Its names, without `fuse.`.
    pub names: &'static [&'static str],
    /// Where its data is.
    pub source: Source,
    /// Options, by their names, whose value is [a word](is_word), if they have any.
    pub words: &'static [&'static str],
    /// Options whose value is any text: a password.
    pub texts: &'static [&'static str],
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
pub const FUSE_OPTIONS: &[&str] = &[
    "allow_other",
    "allow_root",
    "async_read",
    "atomic_o_trunc",
    "ac_attr_timeout",
    "attr_timeout",
    "auto_cache",
    "auto_unmount",
    "big_writes",
    "congestion_threshold",
    "default_permissions",
    "direct_io",
    "entry_timeout",
    "fsname",
    "gid",
    "hard_remove",
    "kernel_cache",
    "large_read",
    "max_background",
    "max_read",
    "max_readahead",
    "max_write",
    "negative_timeout",
    "no_remote_lock",
    "noallow_other",
    "noauto_cache",
    "noforget",
    "nonempty",
    "readdir_ino",
    "remember",
    "sync_read",
    "uid",
    "umask",
    "use_ino",
];

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
        words: &[
            "acl",
            "attr-times-granularity",
            "attribute-timeout",
            "auto-invalidation",
            "aux-gfid-mount",
            "background-qlen",
            "backup-volfile-servers",
            "backupvolfile-server",
            "congestion-threshold",
            "direct-io-mode",
            "enable-ino32",
            "entry-timeout",
            "event-history",
            "fetch-attempts",
            "fopen-keep-cache",
            "fuse-flush-handle-interrupt",
            "gid-timeout",
            "global-threading",
            "halo-max-latency",
            "halo-max-replicas",
            "halo-min-replicas",
            "invalidate-limit",
            "kernel-writeback-cache",
            "localtime-logging",
            "log-level",
            "lru-limit",
            "negative-timeout",
            "no-root-squash",
            "reader-thread-count",
            "resolve-gids",
            "root-squash",
            "selinux",
            "server-port",
            "thin-client",
            "transport",
            "use-readdirp",
            "volfile-check",
            "worm",
        ],
        texts: &[],
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
        words: &[
            "ac",
            "acdirmax",
            "acdirmin",
            "acl",
            "acregmax",
            "acregmin",
            "actimeo",
            "bg",
            "cto",
            "fg",
            "fsc",
            "hard",
            "intr",
            "local_lock",
            "lock",
            "lookupcache",
            "max_connect",
            "minorversion",
            "mountport",
            "mountproto",
            "mountvers",
            "namlen",
            "nconnect",
            "nfsvers",
            "noac",
            "noacl",
            "nocto",
            "nointr",
            "nolock",
            "nordirplus",
            "noresvport",
            "nosharecache",
            "port",
            "proto",
            "rdirplus",
            "rdma",
            "resvport",
            "retrans",
            "retry",
            "rsize",
            "sec",
            "sharecache",
            "soft",
            "softerr",
            "softreval",
            "tcp",
            "timeo",
            "trunkdiscovery",
            "udp",
            "v3",
            "v4",
            "v4.0",
            "v4.1",
            "v4.2",
            "vers",
            "wsize",
            "xprtsec",
        ],
        texts: &[],
        exactly: &[],
        refused: &[
            ("addr", "it contradicts the source"),
            ("clientaddr", "it is the node's address"),
            ("mounthost", "it contradicts the source"),
        ],
    },
    KnownType {
        names: &["cifs", "smb3"],
        source: Source::Elsewhere("//HOST/SHARE[/DIRECTORY]", is_share),
        words: &[
            "acdirmax",
            "acregmax",
            "actimeo",
            "cache",
            "cifsacl",
            "closetimeo",
            "dir_mode",
            "echo_interval",
            "file_mode",
            "forcegid",
            "forceuid",
            "gid",
            "guest",
            "handletimeout",
            "hard",
            "idsfromsid",
            "iocharset",
            "mapchars",
            "mapposix",
            "max_channels",
            "mfsymlinks",
            "modefromsid",
            "multichannel",
            "nobrl",
            "nocase",
            "nodfs",
            "nohandlecache",
            "nolease",
            "nomapposix",
            "noperm",
            "nopersistenthandles",
            "noposix",
            "noposixpaths",
            "noserverino",
            "nosharesock",
            "nosparse",
            "nostrictsync",
            "nounix",
            "persistenthandles",
            "port",
            "posix",
            "posixpaths",
            "resilienthandles",
            "rsize",
            "seal",
            "sec",
            "serverino",
            "setuids",
            "sfu",
            "sign",
            "snapshot",
            "soft",
            "strictsync",
            "uid",
            "vers",
            "wsize",
        ],
        texts: &["dom", "domain", "pass", "password", "password2", "prefixpath", "username", "workgroup"],
        exactly: &[],
        refused: &[
            ("credentials", "it names a file"),
            ("cred", "it names a file"),
            ("cruid", "it takes another user's Kerberos identity"),
            ("multiuser", "it takes other users' identities"),
            ("backupuid", "it goes past permissions"),
            ("ip", "it contradicts the source"),
            ("target", "it contradicts the source"),
            ("unc", "it contradicts the source"),
        ],
    },
    KnownType {
        names: &["ceph"],
        source: Source::Elsewhere("[USER@…=]HOST[:PORT][,HOST…]:[/PATH]", is_ceph),
        words: &[
            "acl",
            "caps_max",
            "caps_wanted_delay_max",
            "caps_wanted_delay_min",
            "crc",
            "dcache",
            "dirstat",
            "fs",
            "fsid",
            "mds_namespace",
            "mon_addr",
            "mount_timeout",
            "ms_mode",
            "name",
            "noacl",
            "noasyncreaddir",
            "nocopyfrom",
            "nocrc",
            "nodcache",
            "nodirstat",
            "noquotadf",
            "norbytes",
            "noshare",
            "nowsync",
            "rasize",
            "rbytes",
            "readdir_max_bytes",
            "readdir_max_entries",
            "recover_session",
            "rsize",
            "share",
            "snapdirname",
            "wsize",
            "wsync",
        ],
        texts: &["secret"],
        exactly: &[],
        refused: &[
            ("secretfile", "it names a file"),
            ("conf", "it names a file"),
            ("keyring", "it names a file"),
            ("ip", "it is the node's address"),
        ],
    },
    KnownType {
        names: &["sshfs"],
        source: Source::Elsewhere("[USER@]HOST:[PATH]", is_ssh),
        words: &[
            "AddressFamily",
            "BatchMode",
            "Ciphers",
            "Compression",
            "ConnectTimeout",
            "ConnectionAttempts",
            "HostKeyAlgorithms",
            "KexAlgorithms",
            "MACs",
            "NumberOfPasswordPrompts",
            "Port",
            "PreferredAuthentications",
            "PubkeyAcceptedAlgorithms",
            "ServerAliveCountMax",
            "ServerAliveInterval",
            "StrictHostKeyChecking",
            "TCPKeepAlive",
            "User",
            "cache",
            "cache_timeout",
            "compression",
            "contain_symlinks",
            "dcache_clean_interval",
            "dcache_dir_timeout",
            "dcache_link_timeout",
            "dcache_max_size",
            "dcache_min_clean_interval",
            "dcache_stat_timeout",
            "dcache_timeout",
            "delay_connect",
            "dir_cache",
            "disable_hardlink",
            "follow_symlinks",
            "max_conns",
            "no_check_root",
            "no_contain_symlinks",
            "no_readahead",
            "no_rofd_flush",
            "nomap",
            "password_stdin",
            "port",
            "reconnect",
            "sshfs_sync",
            "sync_readdir",
            "transform_symlinks",
            "workaround",
        ],
        texts: &[],
        exactly: &[("idmap", "none"), ("idmap", "user"), ("UserKnownHostsFile", "/dev/null")],
        refused: &[
            ("ssh_command", "it runs a program"),
            ("ProxyCommand", "it runs a program"),
            ("ProxyJump", "it runs a program"),
            ("LocalCommand", "it runs a program"),
            ("KnownHostsCommand", "it runs a program"),
            ("PKCS11Provider", "it loads a library"),
            ("SecurityKeyProvider", "it loads a library"),
            ("sftp_server", "it runs a program on the server"),
            ("IdentityFile", "it names a file"),
            ("CertificateFile", "it names a file"),
            ("IdentityAgent", "it names a socket"),
            ("ControlPath", "it names a socket"),
            ("GlobalKnownHostsFile", "it names a file"),
            ("UserKnownHostsFile", "it names a file; /dev/null is allowed"),
            ("Include", "it names a file"),
            ("uidfile", "it names a file"),
            ("gidfile", "it names a file"),
            ("directport", "it goes past ssh"),
            ("passive", "it goes past ssh"),
        ],
    },
    KnownType {
        names: &["s3fs"],
        source: Source::Elsewhere("BUCKET[:/PATH]", is_bucket),
        words: &[
            "complement_stat",
            "connect_timeout",
            "default_acl",
            "enable_content_md5",
            "enable_noobj_cache",
            "endpoint",
            "host",
            "instance_name",
            "list_object_max_keys",
            "listobjectsv2",
            "max_dirty_data",
            "max_stat_cache_size",
            "mp_umask",
            "multipart_copy_size",
            "multipart_size",
            "multipart_threshold",
            "multireq_max",
            "nocopyapi",
            "nodnscache",
            "nomixupload",
            "nomultipart",
            "norenameapi",
            "nosscache",
            "notsup_compat_dir",
            "noua",
            "noxmlns",
            "parallel_count",
            "public_bucket",
            "readwrite_timeout",
            "requester_pays",
            "retries",
            "servicepath",
            "sigv2",
            "sigv4",
            "singlepart_copy_limit",
            "ssl_verify_hostname",
            "stat_cache_expire",
            "stat_cache_interval_expire",
            "storage_class",
            "url",
            "use_path_request_style",
            "use_rrs",
            "use_wtf8",
            "use_xattr",
        ],
        texts: &[],
        exactly: &[],
        refused: &[
            ("passwd_file", "it names a file"),
            ("credlib", "it loads a library"),
            ("credlib_opts", "it is for a library"),
            ("use_cache", "it names a directory"),
            ("tmpdir", "it names a directory"),
            ("logfile", "it names a file"),
            ("mime", "it names a file"),
            ("ahbe_conf", "it names a file"),
            ("ssl_client_cert", "it names files"),
            ("load_sse_c", "it names a file"),
            ("use_sse", "it may name a file"),
            ("profile", "it takes an identity from a file of the container's"),
            ("iam_role", "it takes the node's own identity"),
            ("ecs", "it takes the node's own identity"),
            ("ibm_iam_auth", "it takes an identity of the container's"),
            ("proxy", "it leads requests elsewhere"),
            ("no_check_certificate", "whoever is on the way could read the volume"),
        ],
    },
    KnownType {
        names: &["rclone"],
        source: Source::Elsewhere("REMOTE:[PATH], a remote of the configuration's", is_remote),
        words: &[
            "attr-timeout",
            "attr_timeout",
            "buffer-size",
            "buffer_size",
            "dir-cache-time",
            "dir_cache_time",
            "dir-perms",
            "dir_perms",
            "file-perms",
            "file_perms",
            "no-checksum",
            "no_checksum",
            "no-modtime",
            "no_modtime",
            "no-seek",
            "no_seek",
            "poll-interval",
            "poll_interval",
            "read-only",
            "read_only",
            "vfs-cache-max-age",
            "vfs_cache_max_age",
            "vfs-cache-max-size",
            "vfs_cache_max_size",
            "vfs-cache-mode",
            "vfs_cache_mode",
            "vfs-read-ahead",
            "vfs_read_ahead",
            "vfs-read-chunk-size",
            "vfs_read_chunk_size",
            "vfs-write-back",
            "vfs_write_back",
            "write-back-cache",
            "write_back_cache",
        ],
        texts: &[],
        exactly: &[],
        refused: &[
            ("config", "it names a file"),
            ("cache-dir", "it names a directory"),
            ("log-file", "it names a file"),
            ("password-command", "it runs a program"),
            ("args2env", "it changes how it is called"),
            ("command", "it changes what it does"),
            ("env.NAME", "it changes its environment"),
        ],
    },
    KnownType {
        names: &["davfs"],
        source: Source::Elsewhere("http[s]://HOST[:PORT][/PATH]", is_url),
        words: &["dir_mode", "file_mode", "gid", "uid"],
        texts: &[],
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
        words: &[
            "mfsattrcacheto",
            "mfscachemode",
            "mfsdelayedinit",
            "mfsdirentrycacheto",
            "mfsentrycacheto",
            "mfsfsyncmintime",
            "mfsgroupscacheto",
            "mfsioretries",
            "mfsmd5pass",
            "mfsnegentrycacheto",
            "mfsnobsdlocks",
            "mfsnoposixlocks",
            "mfsnoxattrs",
            "mfsreadaheadleng",
            "mfsreadaheadsize",
            "mfsreadaheadtrigger",
            "mfssymlinkcacheto",
            "mfstimeout",
            "mfswritecachesize",
            "mfsxattrcacheto",
        ],
        texts: &["mfspassword"],
        exactly: &[],
        refused: &[
            ("mfscfgfile", "it names a file"),
            ("mfspassfile", "it names a file"),
            ("mfsmaster", "it contradicts the source"),
            ("mfsnice", "it is about the node's processors"),
            ("mfsmemlock", "it is about the node's memory"),
            ("mfsallowoomkiller", "it is about the node's memory"),
        ],
    },
    KnownType {
        names: &["bindfs"],
        source: Source::Container,
        words: &["force-group", "force-user", "group", "owner", "mirror", "mirror-only", "perms"],
        texts: &[],
        exactly: &[],
        refused: &[("map-passwd", "it names a file"), ("resolve-symlinks", "it leads out of the source")],
    },
    container(&["mergerfs"], &["category.create", "category.action", "category.search", "minfreespace"], &[]),
    container(
        &["unionfs", "unionfs-fuse"],
        &["cow"],
        &[("chroot", "it names a directory"), ("dirs", "it names directories")],
    ),
    container(&["squashfuse", "squashfuse_ll"], &["offset"], &[]),
    container(&["archivemount"], &["nobackup", "nosave", "readonly"], &[("subtree", "it is another source")]),
    container(&["fuse-zip"], &[], &[]),
    container(&["fuseiso"], &[], &[]),
    container(&["fuse2fs"], &["fakeroot"], &[]),
    container(
        &["gocryptfs"],
        &[],
        &[("passfile", "it names a file"), ("extpass", "it runs a program"), ("masterkey", "it shows a secret")],
    ),
    container(&["encfs"], &[], &[("extpass", "it runs a program")]),
    container(&["cryfs"], &[], &[]),
    container(
        &["fuse-overlayfs"],
        &[],
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
    words: &'static [&'static str],
    refused: &'static [(&'static str, &'static str)],
) -> KnownType {
    KnownType { names, source: Source::Container, words, texts: &[], exactly: &[], refused }
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

/// Whether a value is one word to whatever reads it: a shell script, the FUSE library, a helper. It names no file of the
/// container's either.
pub fn is_word(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:@%+=/-".contains(c);
    value.chars().all(plain) && !value.starts_with(['/', '-']) && !value.contains("..")
}

/// Whether a value is one value to whatever reads it, and nothing but text.
pub fn is_text(value: &str) -> bool {
    !value.chars().any(|c| c.is_control() || c == ',' || c == '"')
}

/// Letters, digits and these, and no sign at the beginning that could make it an option.
fn is_name(text: &str, and: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || and.contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && text.chars().all(plain)
}

/// A name or an address; one with colons in brackets.
fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(address) => {
            address.starts_with(|c: char| c.is_ascii_hexdigit() || c == ':')
                && address.chars().all(|c| c.is_ascii_alphanumeric() || ".:%".contains(c))
        }
        None => is_name(text, ".-_"),
    }
}

/// What FUSE programs and their scripts take for one path.
fn is_path(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || ",\"\\".contains(c))
}

/// A host and what is behind the colon after it.
fn host_and(text: &str) -> Option<(&str, &str)> {
    let end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':')? };
    let (host, rest) = text.split_at(end);
    let rest = rest.strip_prefix(':')?;
    is_host(host).then_some((host, rest))
}

fn is_gluster(source: &str) -> bool {
    let Some((last, volume)) = source.rsplit_once(',').map_or_else(
        || host_and(source),
        |(others, last)| others.split(',').all(is_host).then(|| host_and(last)).flatten(),
    ) else {
        return false;
    };
    let volume = volume.strip_prefix('/').unwrap_or(volume);
    !last.is_empty() && is_name(volume, "._-/") && !volume.contains("..")
}

fn is_export(source: &str) -> bool {
    host_and(source).is_some_and(|(_, path)| path.starts_with('/') && is_text(path))
}

fn is_share(source: &str) -> bool {
    let Some((host, share)) = source.strip_prefix("//").and_then(|rest| rest.split_once('/')) else { return false };
    is_host(host) && !share.is_empty() && is_text(share)
}

fn is_ceph(source: &str) -> bool {
    let Some((before, path)) = source.rsplit_once(":/").or_else(|| source.strip_suffix(':').map(|hosts| (hosts, "")))
    else {
        // The newer form: USER@FSID.FS=/PATH.
        return source.split_once("=/").is_some_and(|(before, path)| is_name(before, "@.-_") && is_text(path));
    };
    let is_monitor = |text: &str| {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !text.ends_with(']') => (host, port),
            _ => (text, "0"),
        };
        is_host(host) && port.parse::<u16>().is_ok()
    };
    is_text(path) && before.split(',').all(is_monitor)
}

fn is_ssh(source: &str) -> bool {
    let (user, rest) = match source.split_once(':').and_then(|(before, _)| before.split_once('@')) {
        Some((user, _)) => (user, &source[user.len() + 1..]),
        None => ("_", source),
    };
    is_name(user, "._-") && host_and(rest).is_some_and(|(_, path)| is_path(path))
}

fn is_bucket(source: &str) -> bool {
    let (bucket, path) = source.split_once(":/").unwrap_or((source, ""));
    is_name(bucket, ".-_") && is_path(path) && !path.contains(char::is_whitespace)
}

fn is_remote(source: &str) -> bool {
    source.split_once(':').is_some_and(|(remote, path)| is_name(remote, "_-") && is_path(path))
}

fn is_url(source: &str) -> bool {
    let rest = source.strip_prefix("https://").or_else(|| source.strip_prefix("http://"));
    rest.is_some_and(|rest| {
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match host.rsplit_once(':') {
            Some((host, port)) if !rest.ends_with(']') => (host, port),
            _ => (host, "0"),
        };
        is_host(host) && port.parse::<u16>().is_ok() && is_path(path) && !path.contains(char::is_whitespace)
    })
}

fn is_moose(source: &str) -> bool {
    let (place, path) = source.split_once(":/").unwrap_or((source, ""));
    let (host, port) = place.split_once(':').unwrap_or((place, "0"));
    is_name(host, ".-_") && port.parse::<u16>().is_ok() && is_path(path) && !path.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn is_source(fstype: &str, source: &str) -> bool {
        match KnownType::named(fstype).unwrap().source {
            Source::Elsewhere(_, is_source) => is_source(source),
            Source::Container => panic!("{fstype}"),
        }
    }

    #[test]
    fn sources_of_servers() {
        for (fstype, source) in [
            ("glusterfs", "10.0.0.1:vol"),
            ("glusterfs", "a.example.org,b:/vol/sub/dir"),
            ("glusterfs", "[fd00::1]:/vol"),
            ("nfs", "127.0.0.1:/export/a"),
            ("nfs", "[fd00::1]:/export/with space"),
            ("nfs4", "host:/"),
            ("cifs", "//account.file.core.windows.net/share"),
            ("cifs", "//10.0.0.1/with space/below"),
            ("ceph", "192.0.2.30:6789,192.0.2.31:6789:/"),
            ("ceph", "[fd00::1]:6789,b:/some/path"),
            ("ceph", "me@abc-def.fs=/path"),
            ("sshfs", "me@files.example.org:/srv/with space"),
            ("sshfs", "files:"),
            ("sshfs", "[fd00::1]:/x"),
            ("s3fs", "bucket"),
            ("s3fs", "my.bucket-1:/a/b"),
            ("rclone", "s3:bucket/x"),
            ("davfs", "https://dav.example.org:8080/x"),
            ("davfs", "http://10.77.0.1:8080"),
            ("moosefs", "10.77.0.1:/"),
            ("moosefs", "master:9421:/sub"),
        ] {
            assert!(is_source(fstype, source), "{fstype} {source}");
        }
    }

    #[test]
    fn sources_that_are_more_than_that() {
        for (fstype, source) in [
            ("glusterfs", "/etc/x.vol"),
            ("glusterfs", "h:v --dump-fuse=/x"),
            ("glusterfs", "-x:v"),
            ("glusterfs", "h:../x"),
            ("nfs", "/etc"),
            ("nfs", "host:rel"),
            ("nfs", "-o:/x"),
            ("cifs", "/etc"),
            ("cifs", "//h"),
            ("cifs", "//h/x,credentials=/etc/x"),
            ("ceph", "/etc"),
            ("ceph", "x:y:/"),
            ("sshfs", "[-oProxyCommand=touch x]:/x"),
            ("sshfs", "-oProxyCommand=x:/x"),
            ("sshfs", "a@-oProxyCommand=x:/x"),
            ("sshfs", "-a@b:/x"),
            ("sshfs", "/etc"),
            ("sshfs", "h:/x,ssh_command=y"),
            ("sshfs", "h:/x\\,y"),
            ("s3fs", "/etc"),
            ("s3fs", "b,credlib=x"),
            ("s3fs", "b:/x y"),
            ("rclone", "/etc"),
            ("rclone", ":local:/etc"),
            ("rclone", ":sftp,ssh=x:/"),
            ("rclone", "s3,endpoint=x:/"),
            ("rclone", "etc"),
            ("davfs", "file:///etc"),
            ("davfs", "http://-x/"),
            ("moosefs", "/etc"),
            ("moosefs", "-H:/"),
        ] {
            assert!(!is_source(fstype, source), "{fstype} {source}");
        }
    }

    #[test]
    fn values_are_words() {
        for value in ["", "5", "0777", "https://s3.example.org:80/x", "4.1", "a:b", "me@x", "aes128-ctr+x"] {
            assert!(is_word(value), "{value}");
        }
        for value in
            ["/etc/x", "a b", "a,b", "\"a\"", "a\\,b", "$(x)", "`x`", "-x", "a/../b", "~/x", "a;b", "a*", "a\n"]
        {
            assert!(!is_word(value), "{value}");
        }
        assert!(is_text("p$w`d \\x") && !is_text("a,b") && !is_text("\"") && !is_text("a\nb"));
    }

    #[test]
    fn nothing_is_there_twice_and_nothing_both_allowed_and_refused() {
        let mut names = BTreeSet::new();
        for known in KNOWN_TYPES {
            assert!(known.names.iter().all(|name| names.insert(*name)), "{known:?}");
            let mut options = BTreeSet::new();
            assert!(known.words.iter().chain(known.texts).all(|option| options.insert(*option)), "{known:?}");
            assert!(known.refused.iter().all(|(option, _)| !options.contains(option)), "{known:?}");
        }
    }
}
