//! A tree: a mounted filesystem held by a descriptor, visible nowhere; and grafting it.
//!
//! Runs in the mounter, on threads that stand in the mount namespace of the path or target they are given. Kernel:
//! open_tree(2) and move_mount(2), 5.2 and later.

use super::target::Target;
use api::mount_words::MOUNT_WORDS;
use linux::mount_table::{Device, Mount};
use linux::statx::{identity, is_directory};
use linux::sys::mount_attr::{IDMAP, MountAttr, mount_setattr};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::mount::{mount_change, mount_remount, move_mount, open_tree, unmount};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use tracing::warn;

/// A detached mount. Dropped without having been grafted it ends, and with it (if it was the last copy) its helper.
#[derive(Debug)]
pub struct Tree(OwnedFd);

/// MOVE_MOUNT_BENEATH, 6.5 and later; not in rustix yet.
const BENEATH: MoveMountFlags = MoveMountFlags::from_bits_retain(0x200);

const BY_DESCRIPTORS: MoveMountFlags =
    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH.union(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH);

impl Tree {
    /// A copy of what is mounted at `path`, or of a directory below it, without what is mounted on it.
    pub fn copy_of(path: &Path) -> io::Result<Self> {
        Ok(Self(open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?))
    }

    /// A copy of the mount of an open file, showing that file alone.
    pub fn copy_at(file: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        Ok(Self(open_tree(file, c"", flags)?))
    }

    /// The same with everything that is mounted on it.
    pub fn whole_copy_of(path: &Path) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        Ok(Self(open_tree(CWD, path, flags)?))
    }

    /// Makes it show owners as the user namespace maps them: 5.12 and later, and EINVAL where the filesystem does not allow
    /// it.
    pub fn map_ids(&self, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
        let user_namespace = user_namespace.as_raw_fd() as u64;
        mount_setattr(self.0.as_fd(), &MountAttr { set: IDMAP, user_namespace, ..MountAttr::default() })
    }

    /// Whether a directory is its root. Asks no filesystem.
    pub fn is_directory(&self) -> io::Result<bool> {
        is_directory(self.0.as_fd())
    }

    /// Which filesystem's it is.
    pub fn device(&self) -> io::Result<Device> {
        Ok(identity(self.0.as_fd())?.0)
    }

    /// Gives it the options and the kind of propagation that another mount has. It is a copy of `directory`, in a mount
    /// namespace that only a helper and the calling thread live in.
    pub fn resemble(self, other: &Mount, directory: &Path) -> io::Result<Self> {
        let propagation = match (other.shared, other.master) {
            // Attached below a shared mount it is shared anyway; elsewhere it must be said.
            (Some(_), None) => 0,
            (_, Some(_)) => libc::MS_SLAVE,
            (None, None) => libc::MS_PRIVATE,
        };
        let set = attributes(&other.options);
        let attr = MountAttr { set, clear: all_attributes(), propagation, user_namespace: 0 };
        match mount_setattr(self.0.as_fd(), &attr) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => self.resemble_attached(attr, directory),
            done => done.map(|()| self),
        }
    }

    /// The same before 5.12, when only an attached mount could be changed: it is attached at `directory` and changed,
    /// and a copy of it goes to its target. So no process meets it before it has its options.
    fn resemble_attached(self, attr: MountAttr, directory: &Path) -> io::Result<Self> {
        self.graft_at(directory)?;
        let changed = mount_remount(directory, MountFlags::BIND | old_flags(attr.set), c"")
            .and_then(|()| match MountPropagationFlags::from_bits_retain(attr.propagation as u32) {
                none if none.is_empty() => Ok(()),
                propagation => mount_change(directory, propagation),
            })
            .map_err(io::Error::from)
            .and_then(|()| Self::copy_of(directory));
        if let Err(errno) = unmount(directory, UnmountFlags::DETACH) {
            warn!(
                "cannot detach a copy in the helper's mount namespace; `umount` on the node will not end it: {errno}"
            );
        }
        changed
    }

    /// Attaches it at `target`, on top of what may be mounted there.
    ///
    /// The descriptor is given up: held any longer, it would make the mount busy for umount(2).
    pub fn graft(self, target: &Target) -> io::Result<()> {
        Ok(move_mount(&self.0, c"", target, c"", BY_DESCRIPTORS)?)
    }

    /// Attaches it at `path`, for paths that no other process can exchange.
    pub fn graft_at(self, path: &Path) -> io::Result<()> {
        Ok(move_mount(&self.0, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }

    /// Takes the place of the mount whose root is `old`, and detaches that one: files that are open there stay open.
    ///
    /// With MOVE_MOUNT_BENEATH there is no moment without a mount. Where the kernel has it not, or not for this mount,
    /// the old one is detached first, and `path` is looked up again. One that is locked to its namespace, as it came there
    /// when a user namespace inside a pod was made, cannot be detached at all: it is covered. The thread must be on a
    /// visit.
    pub fn replace(self, old: Target, path: &Path) -> io::Result<()> {
        match move_mount(&self.0, c"", &old, c"", BY_DESCRIPTORS | BENEATH) {
            Ok(()) => detach(&old),
            Err(Errno::INVAL) => match detach(&old) {
                Ok(()) => {
                    drop(old);
                    self.graft_at(path)
                }
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.graft(&old),
                Err(error) => Err(error),
            },
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Detaches the mount whose root `mount` is, and no other. On a visit a thread stands in a directory of /proc where
/// descriptors have names.
fn detach(mount: &Target) -> io::Result<()> {
    let name = format!("self/fd/{}", mount.as_fd().as_raw_fd());
    Ok(unmount(name, UnmountFlags::DETACH)?)
}

/// MOUNT_ATTR_* that a mount is given anew.
fn all_attributes() -> u64 {
    MOUNT_WORDS.iter().fold(libc::MOUNT_ATTR__ATIME, |all, known| all | known.attribute)
}

/// MOUNT_ATTR_* for a mount's options as the mount table prints them.
fn attributes(options: &str) -> u64 {
    let words: Vec<&str> = options.split(',').collect();
    let spelt = MOUNT_WORDS.iter().filter(|known| words.contains(&known.word));
    let attributes = spelt.fold(0, |attributes, known| attributes | known.attribute);
    // The table prints nothing for strictatime.
    let strict = !words.contains(&"noatime") && !words.contains(&"relatime");
    attributes | if strict { libc::MOUNT_ATTR_STRICTATIME } else { libc::MOUNT_ATTR_RELATIME }
}

/// The same as mount(2) has them.
fn old_flags(attributes: u64) -> MountFlags {
    let given = MOUNT_WORDS.iter().filter(|known| attributes & known.attribute != 0);
    let flags: MountFlags = given.map(|known| MountFlags::from_bits_retain(known.flag)).collect();
    // It has no bit among the attributes.
    let relatime = attributes & libc::MOUNT_ATTR__ATIME == libc::MOUNT_ATTR_RELATIME;
    if relatime { flags | MountFlags::RELATIME } else { flags }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libc::{MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID};
    use libc::{MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME};

    #[test]
    fn options_become_attributes() {
        assert_eq!(attributes("rw,relatime"), 0);
        assert_eq!(
            attributes("ro,nosuid,nodev,noexec,noatime"),
            MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_NOATIME
        );
        assert_eq!(
            attributes("rw,nodiratime,nosymfollow"),
            MOUNT_ATTR_STRICTATIME | MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_NOSYMFOLLOW
        );
        let nosymfollow = MountFlags::from_bits_retain(0x100);
        assert_eq!(old_flags(attributes("rw,nosymfollow")), MountFlags::STRICTATIME | nosymfollow);
        assert_eq!(all_attributes(), 0x20_00ff);
        assert_eq!(old_flags(attributes("rw,relatime")), MountFlags::RELATIME);
        let restricted = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        assert_eq!(old_flags(attributes("ro,nosuid,nodev,noexec,noatime")), restricted | MountFlags::NOATIME);
    }
}
