//! A pod's `fsGroup` for a filesystem that has no owners of its own: each type's own option for the group.
//!
//! Pure. Kubelet leaves it to the driver (VOLUME_MOUNT_GROUP), instead of changing the group of every file.

/// Types whose option is `gid=`.
const GID: [&str; 16] = [
    "archivemount",
    "cifs",
    "curlftpfs",
    "davfs",
    "davfs2",
    "fuse-zip",
    "fuseiso",
    "gcsfuse",
    "geesefs",
    "goofys",
    "rclone",
    "s3fs",
    "smb3",
    "squashfuse",
    "sshfs",
    "unionfs",
];

/// The option of a type, if it has one.
pub fn option_of(fstype: &str) -> Option<&'static str> {
    match fstype.strip_prefix("fuse.").unwrap_or(fstype) {
        "bindfs" => Some("force-group"),
        name => GID.contains(&name).then_some("gid"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_its_own() {
        assert_eq!(option_of("s3fs"), Some("gid"));
        assert_eq!(option_of("fuse.sshfs"), Some("gid"));
        assert_eq!(option_of("fuse.bindfs"), Some("force-group"));
        assert_eq!(option_of("glusterfs"), None);
        assert!(GID.is_sorted());
    }
}
