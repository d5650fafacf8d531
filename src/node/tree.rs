//! A tree: a mounted filesystem held by a descriptor, visible nowhere; and grafting it.
//!
//! Runs in the mounter, on threads that stand in the mount namespace of the path or target they are given. Kernel:
//! open_tree(2) and move_mount(2), 5.2 and later.

use super::connections::Dead;
use super::target::Target;
use api::mount_words::MOUNT_WORDS;
use linux::mount_table::{Device, Mount};
use linux::processes::name_of;
use linux::statx::{identity, is_directory};
use linux::sys::ask::{self, Patience};
use linux::sys::mount_attr::{IDMAP, MountAttr, mount_setattr};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::mount::{mount_change, mount_remount, move_mount, open_tree, unmount};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;
use tracing::warn;

/// A detached mount. Dropped without having been grafted it ends, and with it (if it was the last copy) its helper.
#[derive(Debug)]
pub struct Tree(OwnedFd);

/// That a mount may be covered which cannot be detached.
///
/// Where `dead` is covered, its connection is ended first: the kernel locks the directory that is covered, and a process
/// that waits for an answer there has it locked.
#[derive(Debug)]
pub struct Cover<'a> {
    /// Its filesystem, if the helper of that is gone.
    pub dead: Option<Dead<'a>>,
}

/// MOVE_MOUNT_BENEATH, 6.5 and later; not in rustix yet.
pub(super) const BENEATH: MoveMountFlags = MoveMountFlags::from_bits_retain(0x200);

const BY_DESCRIPTORS: MoveMountFlags =
    MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH.union(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH);

impl Tree {
    /// A mount that was just made, by fsmount(2).
    pub(super) fn of_mount(mount: OwnedFd) -> Self {
        Self(mount)
    }

    /// A copy of the mount of an open file, showing that file or directory, without what is mounted on it.
    pub fn copy_at(file: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        Ok(Self(open_tree(file, c"", flags)?))
    }

    /// A copy of what is mounted at `path`, with everything that is mounted on it.
    pub fn whole_copy_of(path: &Path) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        Ok(Self(open_tree(CWD, path, flags)?))
    }

    /// The same for a mount's root behind a descriptor.
    pub fn whole_copy_at(root: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        Ok(Self(open_tree(root, c"", flags | OpenTreeFlags::AT_EMPTY_PATH)?))
    }

    /// Makes it show owners as the user namespace maps them: 5.12 and later, and EINVAL where the filesystem does not allow
    /// it.
    pub fn map_ids(&self, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
        let user_namespace = user_namespace.as_raw_fd() as u64;
        mount_setattr(self.0.as_fd(), &MountAttr { set: IDMAP, user_namespace, ..MountAttr::default() })
    }

    /// The tree as it is, and whether its filesystem allows that: an error if not.
    pub fn may_map_ids(self, user_namespace: BorrowedFd<'_>) -> io::Result<(Self, io::Result<()>)> {
        let (tree, copy) = self.and_a_copy()?;
        Ok((tree, copy.map_ids(user_namespace)))
    }

    /// The tree, and a copy of it without what is mounted on it. Before Linux 6.15 only what is attached can be copied (EINVAL): then it is
    /// attached in a mount namespace that lasts as long.
    fn and_a_copy(self) -> io::Result<(Self, Self)> {
        match Self::copy_at(self.0.as_fd()) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            copy => return copy.map(|copy| (self, copy)),
        }
        let attached = || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            move_mount(&self.0, c"", CWD, c"/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            Ok((Self::whole_copy_at(self.0.as_fd())?, Self::copy_at(self.0.as_fd())?))
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().name("copy".into()).spawn_scoped(scope, attached)?;
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Makes it read-only: 5.12 and later, ENOSYS before.
    pub fn make_read_only(&self) -> io::Result<()> {
        mount_setattr(self.0.as_fd(), &MountAttr { set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() })
    }

    /// Makes it writable, if its filesystem is: 5.12 and later, ENOSYS before.
    pub fn make_writable(&self) -> io::Result<()> {
        mount_setattr(self.0.as_fd(), &MountAttr { clear: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() })
    }

    /// Whether a directory is its root. Asks no filesystem.
    pub fn is_directory(&self) -> io::Result<bool> {
        is_directory(self.0.as_fd())
    }

    /// Which filesystem's it is.
    pub fn device(&self) -> io::Result<Device> {
        Ok(identity(self.0.as_fd())?.0)
    }

    /// Gives it the options and the kind of propagation that another mount has. `directory` is one in a mount namespace that
    /// only a helper and the calling thread live in.
    pub fn resemble(self, other: &Mount, directory: BorrowedFd<'_>) -> io::Result<Self> {
        let [first, then] = propagation_of(other);
        let set = attributes(&other.options);
        let attr = MountAttr { set, clear: all_attributes(), propagation: first.bits().into(), user_namespace: 0 };
        match mount_setattr(self.0.as_fd(), &attr) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => self.resemble_attached(other, directory),
            done => {
                done?;
                // The call takes one kind at a time.
                let attr = MountAttr { propagation: then.bits().into(), ..MountAttr::default() };
                mount_setattr(self.0.as_fd(), &attr).map(|()| self)
            }
        }
    }

    /// The same before 5.12, when only an attached mount could be changed: it is attached at `directory` and changed,
    /// and a copy of it goes to its target. So no process meets it before it has its options.
    fn resemble_attached(self, other: &Mount, directory: BorrowedFd<'_>) -> io::Result<Self> {
        move_mount(&self.0, c"", directory, c"", BY_DESCRIPTORS)?;
        // The descriptor names the mount wherever it is.
        let name = name_of(self.0.as_fd());
        let flags = MountFlags::BIND | old_flags(attributes(&other.options));
        let changed = mount_remount(&*name, flags, c"")
            .and_then(|()| propagation_of(other).into_iter().try_for_each(|kind| mount_change(&*name, kind)))
            .map_err(io::Error::from)
            .and_then(|()| Self::copy_at(self.0.as_fd()));
        if let Err(errno) = unmount(&*name, UnmountFlags::DETACH) {
            warn!(
                "cannot detach a copy in the helper's mount namespace; `umount` on the node will not end it: {errno}"
            );
        }
        changed
    }

    /// Attaches it at `target`, on top of what may be mounted there.
    ///
    /// The descriptor is given up: held any longer, it would make the mount busy for umount(2).
    pub fn graft(self, target: impl AsFd) -> io::Result<()> {
        Ok(move_mount(&self.0, c"", target, c"", BY_DESCRIPTORS)?)
    }

    /// Attaches it at `path`, for paths that no other process can exchange.
    pub fn graft_at(self, path: &Path) -> io::Result<()> {
        Ok(move_mount(&self.0, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }

    /// Takes the place of `mount`, whose root is `old`, and detaches that one: files that are open there stay open.
    ///
    /// With MOVE_MOUNT_BENEATH there is no moment without a mount. Where the kernel has it not, or not for this mount,
    /// the old one is detached first, and its path is looked up again. One that is locked to its namespace, as it came there
    /// when a user namespace inside a pod was made, cannot be detached at all: it is covered. The thread must be on a
    /// visit. Returns the root of what is mounted there then, and whether the old one is detached.
    ///
    /// Without `cover` that is an error.
    pub fn replace(self, old: Target, mount: &Mount, cover: Option<Cover<'_>>) -> io::Result<(OwnedFd, bool)> {
        let mut detached = true;
        match move_mount(&self.0, c"", &old, c"", BY_DESCRIPTORS | BENEATH) {
            Ok(()) => old.detach()?,
            Err(Errno::INVAL) => match old.detach() {
                Ok(()) => {
                    drop(old);
                    let below = ask::open(CWD, &mount.target, OFlags::NOFOLLOW, None, Patience::USUAL)?;
                    move_mount(&self.0, c"", below, c"", BY_DESCRIPTORS)?;
                }
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    detached = false;
                    let Cover { dead } = cover.ok_or(error)?;
                    dead.into_iter().for_each(Dead::end);
                    move_mount(&self.0, c"", &old, c"", BY_DESCRIPTORS)?;
                }
                Err(error) => return Err(error),
            },
            Err(errno) => return Err(errno.into()),
        }
        if mount.shared.is_none() {
            // The kernel has made it shared if what it is mounted on is.
            let name = format!("self/fd/{}", self.0.as_raw_fd());
            if let Err(errno) = mount_change(name, propagation_of(mount)[0]) {
                warn!("cannot keep the propagation of the mount at {}: {errno}", mount.target.display());
            }
        }
        Ok((self.0, detached))
    }
}

impl AsFd for Tree {
    /// Its root.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Makes the mount whose root is behind a descriptor read-only; it is a copy of `like`. The thread must be on a visit.
pub fn remount_read_only(root: BorrowedFd<'_>, like: &Mount) -> io::Result<()> {
    let flags = MountFlags::BIND | MountFlags::RDONLY | old_flags(attributes(&like.options));
    Ok(mount_remount(format!("self/fd/{}", root.as_raw_fd()), flags, c"")?)
}

/// The changes that give a copy the kind of propagation that a mount has, in this order: a shared mount that is made a slave
/// is not shared any more, and a slave that is made shared stays a slave (mount_namespaces(7)).
fn propagation_of(mount: &Mount) -> [MountPropagationFlags; 2] {
    use MountPropagationFlags as P;
    match (mount.shared, mount.master) {
        (None, None) => [P::PRIVATE; 2],
        (None, Some(_)) => [P::DOWNSTREAM; 2],
        (Some(_), None) => [P::SHARED; 2],
        (Some(_), Some(_)) => [P::DOWNSTREAM, P::SHARED],
    }
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
    use crate::node::own_mounts::{in_own_mounts, mounted_at, new_tmpfs};
    use libc::{MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID};
    use libc::{MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME};
    use linux::mount_namespace::MountNamespace;
    use rustix::fs::{Mode, open};
    use rustix::mount::mount_bind;
    use std::fs;

    /// A way to give a copy the options and the propagation of another mount.
    type Resemble = fn(Tree, &Mount, BorrowedFd<'_>) -> io::Result<Tree>;

    /// Puts a copy of what is at `new` in the place of the mount at `old`, as healing does. Returns what is there then.
    fn replaced(old: &str, new: &str, resemble: Resemble) -> Mount {
        let before = mounted_at(old);
        let at = open(new, OFlags::PATH, Mode::empty()).unwrap();
        let tree = resemble(Tree::copy_at(at.as_fd()).unwrap(), &before, at.as_fd()).unwrap();
        let here = MountNamespace::of_this_thread().unwrap();
        let replace =
            || tree.replace(Target::of_mount(&before, Patience::USUAL).unwrap(), &before, Some(Cover { dead: None }));
        here.visit(replace).unwrap().unwrap();
        mounted_at(old)
    }

    #[test]
    #[ignore = "a mount namespace needs root: make test-quick"]
    fn propagation_is_what_it_was() {
        in_own_mounts(|| {
            use MountPropagationFlags as P;
            new_tmpfs("/mnt/master");
            mount_change("/mnt/master", P::SHARED).unwrap();
            let group = mounted_at("/mnt/master").shared;
            new_tmpfs("/mnt/fresh");
            let parents = [("private", P::PRIVATE), ("shared", P::SHARED)];
            let kinds: [(&str, &[P]); 4] = [
                ("private", &[P::PRIVATE]),
                ("shared", &[P::SHARED]),
                ("slave", &[P::DOWNSTREAM]),
                ("slave and shared", &[P::DOWNSTREAM, P::SHARED]),
            ];
            for (parent, parents_kind) in parents {
                let directory = format!("/mnt/{parent}");
                new_tmpfs(&directory);
                mount_change(&*directory, parents_kind).unwrap();
                for (name, changes) in kinds {
                    let what = format!("a {name} mount on a {parent} one");
                    let old = format!("{directory}/{name}");
                    let mount_old = || {
                        mount_bind("/mnt/master", &*old).unwrap();
                        changes.iter().for_each(|change| mount_change(&*old, *change).unwrap());
                        mounted_at(&old)
                    };
                    fs::create_dir(&old).unwrap();
                    // A filesystem of its own, as a fresh helper's is.
                    for resemble in [Tree::resemble as Resemble, Tree::resemble_attached] {
                        let (before, after) = (mount_old(), replaced(&old, "/mnt/fresh", resemble));
                        assert_eq!(after.shared.is_some(), before.shared.is_some(), "{what}: {before:?}, {after:?}");
                    }
                    // A copy of a member of the peer group that it was a slave of: it is a slave of that again.
                    let (before, after) = (mount_old(), replaced(&old, "/mnt/master", Tree::resemble));
                    assert_eq!(after.shared.is_some(), before.shared.is_some(), "{what}: {before:?}, {after:?}");
                    assert_eq!(after.master, before.master, "{what}: {before:?}, {after:?}");
                    assert!(after.master.is_none_or(|master| Some(master) == group), "{what}: {after:?}");
                }
            }
        });
    }

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
