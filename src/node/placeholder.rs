//! The placeholder of a volume (`crate::placeholder`), as a mount: making one, and knowing it in mount tables.
//!
//! Runs in the mounter. What a mount table shows is all that is ever known of one: there is no record of it to be lost.

use super::tree::Tree;
use api::request::PLACEHOLDER;
use linux::mount_table::Mount;
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag};
use rustix::mount::{fsconfig_set_string, fsmount, fsopen};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Mounts one, visible nowhere, for the volume at `volume`. Returns the descriptor to serve it by, and the mount.
///
/// The kernel maps ids of a FUSE filesystem only with `default_permissions` (Linux 6.12).
pub fn mount(volume: &Path, read_only: bool) -> io::Result<(OwnedFd, Tree)> {
    let device = open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", volume)?;
    fsconfig_set_string(&context, "subtype", PLACEHOLDER.trim_start_matches("fuse."))?;
    fsconfig_set_string(&context, "fd", device.as_raw_fd().to_string())?;
    for (name, value) in [("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")] {
        fsconfig_set_string(&context, name, value)?;
    }
    for name in ["allow_other", "default_permissions"] {
        fsconfig_set_flag(&context, name)?;
    }
    fsconfig_create(&context)?;
    let always = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let flags = if read_only { always | MountAttrFlags::MOUNT_ATTR_RDONLY } else { always };
    let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    Ok((device, Tree::of_mount(mounted)))
}

/// Whether a mount of one shows it as on the node, by a path with the end `view`: to kubelet, to agents that see the node's mounts, to a
/// container runtime at work. No pod can have one without a mapping of ids unless it was given one.
pub fn is_as_on_node(mount: &Mount, view: &Path) -> bool {
    !mount.maps_ids() && mount.target.ends_with(view)
}

/// The target of the volume that a mount is a placeholder of, if it is one. A user mounts with a name and a type of his choice as well
/// (fusermount3), but as himself.
pub fn volume_of(mount: &Mount) -> Option<&Path> {
    let is_roots = mount.super_options.split(',').any(|word| word == "user_id=0");
    (mount.fstype == PLACEHOLDER && is_roots).then(|| Path::new(&mount.source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux::mount_table::parse;

    #[test]
    fn a_users_own_mount_is_no_placeholder() {
        let of = |user: u32| {
            let line = format!(
                "40 30 0:61 / /home/u/m rw,nosuid,nodev - fuse.placeholder /var/lib/kubelet/v rw,user_id={user},group_id=0"
            );
            parse(line.as_bytes()).first().and_then(volume_of).map(Path::to_owned)
        };
        assert_eq!(of(0), Some("/var/lib/kubelet/v".into()));
        assert_eq!((of(1000), of(10)), (None, None));
    }
}
