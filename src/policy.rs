//! May this request be served, and under what grant?
//!
//! Pure: it looks at the request's words only. What the node and the container have to say (does the target
//! exist, is there a helper) comes later, where it is asked.

use crate::idmap::{self, IdMap};
use api::options::MountOptions;
use api::request::Request;
use rustix::mount::MountFlags;
use std::path::{Component, Path, PathBuf};

/// Why a request is not served, whatever the node looks like.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Kubelet always gives absolute targets; the mounter could not know what another one is relative to.
    #[error("the target must be an absolute path")]
    NotAbsolute,
    /// `..` in a target is never needed, and paths of pods are not to be trusted with it.
    #[error("the target must not contain '..'")]
    ParentComponent,
    /// Nothing is mounted over the node's root.
    #[error("the target must not be the node's root directory")]
    Root,
    /// A NUL byte ends a path for the kernel.
    #[error("the {0} holds a NUL byte")]
    Nul(&'static str),
    /// An empty or impossible type.
    #[error("'{0}' is not the name of a filesystem type")]
    BadType(String),
    /// An option that contradicts the grant every volume gets.
    #[error("option '{0}' cannot be granted: volumes are always mounted nosuid,nodev")]
    NeverGranted(String),
    /// An operation on existing mounts, which is the node's own mount program's business.
    #[error("option '{0}' changes existing mounts and is not served; use the node's own mount")]
    NotAMount(String),
    /// A mapping of ids that is none.
    #[error(
        "option 'X-mount.idmap' takes ranges as u:0:1000:1 or b:0:1000:65536 (users, groups or both; the first id stored, the \
         first id shown, how many), separated by spaces; the path of a user namespace is not served"
    )]
    IdMap,
    /// An option that mount(8) carries out itself, around the mount: dropped, it would be missed much later.
    #[error("option '{0}' is not served: {1}")]
    Mount8s(String, &'static str),
}

/// A request that may be served, with what follows from its words.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// The request.
    pub request: Request,
    /// Its target without `.` and doubled slashes.
    pub target: PathBuf,
    /// Which types the helper may hand to mount(2).
    pub family: Family,
    /// Mount flags that the volume gets whatever the helper asks for.
    pub flags: MountFlags,
    /// Whether everybody may enter, not just the helper's user.
    pub allow_other: bool,
    /// Which owners it shows for those that are stored, if not the same.
    pub idmap: Option<IdMap>,
}

/// The filesystem types that a helper may name in mount(2): those of FUSE, and these of the kernel's, whose helper prepares
/// their options. A FUSE program may serve them, too, where the kernel has them not.
#[derive(Debug, Clone, Copy)]
pub struct Family(&'static [&'static str]);

impl Family {
    /// The family that a helper for `fstype` mounts.
    fn of(fstype: &str) -> Self {
        Self(match fstype {
            "nfs" | "nfs4" => &["nfs", "nfs4"],
            "cifs" | "smb3" => &["cifs", "smb3"],
            "ceph" => &["ceph"],
            _ => &[],
        })
    }

    /// Whether `fstype`, as handed to mount(2), belongs to it.
    pub fn contains(self, fstype: &str) -> bool {
        is_fuse(fstype) || self.0.contains(&fstype)
    }
}

/// Whether `fstype` is `fuse` or `fuse.anything`.
pub fn is_fuse(fstype: &str) -> bool {
    fstype == "fuse" || fstype.starts_with("fuse.")
}

/// Looks at a request's words and says what may be granted.
pub fn admit(request: Request) -> Result<Admitted, Refusal> {
    let target = admitted_target(&request.target)?;
    if request.source.contains('\0') {
        return Err(Refusal::Nul("source"));
    }
    // The type becomes part of a program's name: `mount.TYPE`.
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+');
    if request.fstype.is_empty() || !request.fstype.chars().all(good) || request.fstype.starts_with(['.', '-']) {
        return Err(Refusal::BadType(request.fstype));
    }
    let flags = granted_flags(&request.options)?;
    let allow_other = !request.options.has_flag("noallow_other");
    let idmap = request.options.iter().rfind(|option| option.name == idmap::OPTION);
    let idmap = idmap.map(|option| option.value.as_deref().and_then(IdMap::parse).ok_or(Refusal::IdMap)).transpose()?;
    Ok(Admitted { target, family: Family::of(&request.fstype), flags, allow_other, idmap, request })
}

fn admitted_target(target: &str) -> Result<PathBuf, Refusal> {
    if target.contains('\0') {
        return Err(Refusal::Nul("target"));
    }
    let path = Path::new(target);
    if !path.is_absolute() {
        return Err(Refusal::NotAbsolute);
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(Refusal::ParentComponent);
    }
    let target: PathBuf = path.components().collect();
    if target == Path::new("/") {
        return Err(Refusal::Root);
    }
    Ok(target)
}

/// The mount flags that the options spell out: these are forced onto the volume, as a helper is free to forget them.
/// The last of two that contradict each other counts, as in mount(8).
fn granted_flags(options: &MountOptions) -> Result<MountFlags, Refusal> {
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    for option in options.iter() {
        if let Some(instead) = instead_of_mount8(&option.name) {
            return Err(Refusal::Mount8s(option.name.clone(), instead));
        }
        let (flag, set) = match option.name.as_str() {
            // mount(8) knows `ro=recursive` and the like: no less read-only.
            "ro" => (MountFlags::RDONLY, true),
            "rw" => (MountFlags::RDONLY, false),
            _ if option.value.is_some() => continue,
            // So that whom an administrator lets mount cannot run programs of their own from it.
            "user" | "users" => (MountFlags::NOEXEC, true),
            "noexec" => (MountFlags::NOEXEC, true),
            "exec" => (MountFlags::NOEXEC, false),
            "sync" => (MountFlags::SYNCHRONOUS, true),
            "async" => (MountFlags::SYNCHRONOUS, false),
            "dirsync" => (MountFlags::DIRSYNC, true),
            "noatime" => (MountFlags::NOATIME, true),
            "atime" => (MountFlags::NOATIME, false),
            "nodiratime" => (MountFlags::NODIRATIME, true),
            "diratime" => (MountFlags::NODIRATIME, false),
            "strictatime" => (MountFlags::STRICTATIME, true),
            "nostrictatime" => (MountFlags::STRICTATIME, false),
            "suid" | "dev" => return Err(Refusal::NeverGranted(option.name.clone())),
            "remount" | "bind" | "rbind" | "move" | "shared" | "rshared" | "private" | "rprivate" | "slave"
            | "rslave" | "unbindable" | "runbindable" => return Err(Refusal::NotAMount(option.name.clone())),
            _ => continue,
        };
        flags.set(flag, set);
    }
    Ok(flags)
}

/// What to do instead of an option that mount(8) carries out itself, if it is one. Its other `x-` and `X-` words are
/// comments, and mean nothing to a mount.
fn instead_of_mount8(name: &str) -> Option<&'static str> {
    // Of old `x-mount.mkdir`, which mount(8) still knows.
    let word = name.strip_prefix("X-mount.").or_else(|| name.strip_prefix("x-mount."))?;
    if name == idmap::OPTION {
        return None;
    }
    Some(match word {
        "owner" | "group" | "mode" => {
            "use the helper's own options for owners, like uid=, gid= and umask=, or chown(1) and chmod(1) afterwards"
        }
        "mkdir" => "make the target before it is mounted",
        "subdir" => "name the directory in the source, or bind-mount it from the mounted volume",
        _ => "it is for mount(8) itself, which does not mount this volume",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::request::Switches;

    fn request(fstype: &str, target: &str, options: &str) -> Request {
        Request {
            fstype: fstype.into(),
            source: "source".into(),
            target: target.into(),
            options: MountOptions::parse(options).unwrap(),
            switches: Switches::default(),
            secrets: Default::default(),
        }
    }

    #[test]
    fn targets_are_absolute_and_normal() {
        assert_eq!(admit(request("glusterfs", "/a//b/./c/", "")).unwrap().target, Path::new("/a/b/c"));
        for bad in ["a/b", "", "/a/../b", "/", "//", "/a\0b"] {
            assert!(admit(request("glusterfs", bad, "")).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn types_name_programs_and_nothing_else() {
        assert!(admit(request("fuse.s3fs", "/a", "")).is_ok());
        for bad in ["", "../x", "a/b", "-o", ".x", "a b"] {
            assert!(admit(request(bad, "/a", "")).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn nosuid_and_nodev_are_always_there_and_the_last_flag_counts() {
        let flags = admit(request("x", "/a", "ro,noexec,rw")).unwrap().flags;
        assert_eq!(flags, MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC);
        assert!(admit(request("x", "/a", "suid")).is_err());
        assert!(admit(request("x", "/a", "remount,ro")).is_err());
    }

    #[test]
    fn what_mount8_carries_out_itself_is_not_dropped() {
        for word in ["ro,X-mount.owner=5", "X-mount.mkdir", "x-mount.mkdir=0700", "X-mount.new"] {
            assert!(matches!(admit(request("x", "/a", word)), Err(Refusal::Mount8s(..))), "{word}");
        }
        for comment in ["x-systemd.automount", "X-other", "x-mount", "X-mounted.by=me"] {
            assert!(admit(request("x", "/a", comment)).is_ok(), "{comment}");
        }
    }

    #[test]
    fn a_mapping_of_ids_is_one_or_an_error() {
        assert_eq!(admit(request("x", "/a", "X-mount.idmap=u:0:5:1")).unwrap().idmap.unwrap().users, "0 5 1\n");
        assert_eq!(admit(request("x", "/a", "")).unwrap().idmap, None);
        for bad in ["X-mount.idmap", "X-mount.idmap=", "X-mount.idmap=u:5", "X-mount.idmap=/proc/1/ns/user"] {
            assert!(admit(request("x", "/a", bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn everybody_may_enter_unless_told_otherwise() {
        assert!(admit(request("x", "/a", "")).unwrap().allow_other);
        assert!(!admit(request("x", "/a", "noallow_other")).unwrap().allow_other);
    }

    #[test]
    fn families() {
        assert!(Family::of("glusterfs").contains("fuse.glusterfs"));
        assert!(!Family::of("glusterfs").contains("ext4"));
        assert!(!Family::of("glusterfs").contains("fuseblk"));
        assert!(Family::of("nfs").contains("nfs4"));
        assert!(Family::of("ceph").contains("fuse.ceph-fuse"));
    }
}
