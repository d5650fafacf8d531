//! A tree: a mounted filesystem held by a descriptor, visible nowhere; and grafting it.
//!
//! Runs in the mounter, on threads that stand in the mount namespace of the path or target they are given. Kernel:
//! open_tree(2) and move_mount(2), 5.2 and later.

use super::mounts::Mount;
use super::target::Target;
use crate::sys::mount_attr::{MountAttr, mount_setattr};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

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

    /// The same with everything that is mounted on it.
    pub fn whole_copy_of(path: &Path) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        Ok(Self(open_tree(CWD, path, flags)?))
    }

    /// Gives it the options and the kind of propagation that another mount has.
    pub fn resemble(&self, other: &Mount) -> io::Result<()> {
        let propagation = match (other.shared, other.master) {
            // Attached below a shared mount it is shared anyway; elsewhere it must be said.
            (Some(_), None) => 0,
            (_, Some(_)) => libc::MS_SLAVE,
            (None, None) => libc::MS_PRIVATE,
        };
        let set = attributes(&other.options);
        mount_setattr(self.0.as_fd(), &MountAttr { set, clear: ALL_ATTRIBUTES, propagation, user_namespace: 0 })
    }

    /// Attaches it at `target`, on top of what may be mounted there.
    ///
    /// The descriptor is given up: held any longer, it would make the mount busy for umount(2).
    pub fn graft(self, target: &Target) -> io::Result<()> {
        Ok(move_mount(&self.0, c"", target, c"", BY_DESCRIPTORS)?)
    }

    /// Attaches it at `path`, where nothing of ours need be protected from an exchange.
    pub fn graft_at(self, path: &Path) -> io::Result<()> {
        Ok(move_mount(&self.0, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }

    /// Takes the place of the mount whose root is `old`, and detaches that one: who has files open there keeps them.
    ///
    /// With MOVE_MOUNT_BENEATH there is no moment without a mount. Where the kernel has it not, or not for this mount,
    /// the old one is detached first, and `path` is looked up again. The thread must be on a visit.
    pub fn replace(self, old: Target, path: &Path) -> io::Result<()> {
        match move_mount(&self.0, c"", &old, c"", BY_DESCRIPTORS | BENEATH) {
            Ok(()) => detach(&old),
            Err(Errno::INVAL) => {
                detach(&old)?;
                drop(old);
                self.graft_at(path)
            }
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

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME_MASK: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;
const ALL_ATTRIBUTES: u64 = RDONLY | NOSUID | NODEV | NOEXEC | ATIME_MASK | NODIRATIME | NOSYMFOLLOW;

/// MOUNT_ATTR_* for a mount's options as the mount table prints them.
fn attributes(options: &str) -> u64 {
    let words: Vec<&str> = options.split(',').collect();
    let flag = |word: &str, flag: u64| if words.contains(&word) { flag } else { 0 };
    // The table prints nothing for strictatime.
    let atime = match (words.contains(&"noatime"), words.contains(&"relatime")) {
        (true, _) => NOATIME,
        (false, true) => 0,
        (false, false) => STRICTATIME,
    };
    atime
        | flag("ro", RDONLY)
        | flag("nosuid", NOSUID)
        | flag("nodev", NODEV)
        | flag("noexec", NOEXEC)
        | flag("nodiratime", NODIRATIME)
        | flag("nosymfollow", NOSYMFOLLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_attributes() {
        assert_eq!(attributes("rw,relatime"), 0);
        assert_eq!(attributes("ro,nosuid,nodev,noexec,noatime"), RDONLY | NOSUID | NODEV | NOEXEC | NOATIME);
        assert_eq!(attributes("rw,nodiratime,nosymfollow"), STRICTATIME | NODIRATIME | NOSYMFOLLOW);
    }
}
