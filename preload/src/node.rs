//! Without a mounter: a copy of the process enters the node's mount namespace and mounts there.
//!
//! Runs in a privileged container (CAP_SYS_ADMIN, CAP_SYS_CHROOT), below `docker exec … mount -t TYPE WHAT WHERE`. The
//! calling process never changes its namespace, so it may have threads.
//!
//! **What the container sees.** Helpers look at their mount point after mounting, so they must see the mount; but any
//! copy of a FUSE mount keeps its daemon alive, so the container's copy must be removed with the node's. The kernel
//! does that for a copy made by mount propagation. So before mounting, the container's WHERE is covered by a *slave* of
//! the node's directory WHERE: each mount and unmount on the node's propagates to it. Only the covering stays behind,
//! at most one a path. If the node's WHERE is in a mount that is not shared, nothing propagates: then the covering is
//! removed and the helper does not see its mount.
//!
//! What is mounted is `nosuid,nodev`, as with a mounter.
//!
//! Rejected: a copy that is detached when the started program exits (it is not known which of the processes around a
//! daemon looks last) or by a process that watches (one more process for each volume).

use crate::mountinfo;
use crate::sys::{self, Errno, Fd};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::null;

/// The types that are mounted on the node, separated by commas. Without it: `fuse` and every type that begins so.
const TYPES: &CStr = c"HOSTMOUNT_PRELOAD_TYPES";
/// A prefix: the node's first process is at `$HOSTPROCPATH/proc/1`.
const HOST_PROC: &CStr = c"HOSTPROCPATH";

/// Flags that act on existing mounts.
const NOT_NEW: u64 = libc::MS_REMOUNT
    | libc::MS_BIND
    | libc::MS_MOVE
    | libc::MS_SHARED
    | libc::MS_PRIVATE
    | libc::MS_SLAVE
    | libc::MS_UNBINDABLE;

/// Flags that every volume gets.
const ALWAYS: u64 = libc::MS_NOSUID | libc::MS_NODEV;

/// Longer than any path the kernel takes, with the few bytes that we put around one.
const LONG: usize = libc::PATH_MAX as usize + 32;
/// The exit code of the copy if the call is not for the node. No errno is as high.
const NOT_FOR_THE_NODE: u8 = 255;

/// Whether a call is for the node. Without CAP_SYS_ADMIN it is not, as it would fail: the process may be a helper of a
/// mounter with the other engine, which intercepts the plain call.
pub(crate) fn takes(fstype: &CStr, flags: u64) -> bool {
    let fstype = fstype.to_bytes();
    let listed = match sys::environment(TYPES) {
        Some(list) => list.to_bytes().split(|byte| *byte == b',').any(|one| one == fstype),
        None => fstype.starts_with(b"fuse"),
    };
    listed && !fstype.is_empty() && flags & NOT_NEW == 0 && sys::has_sys_admin()
}

/// mount(2) on the node; `None` if this container is in the node's mount namespace anyway.
///
/// # Safety
///
/// `data` is what mount(2) takes.
pub(crate) unsafe fn mount(
    [source, target, fstype]: [&CStr; 3],
    flags: u64,
    data: *const c_void,
) -> Option<Result<(), Errno>> {
    in_a_copy(|| {
        let Some(visit) = Visit::prepare(target)? else { return Ok(Outcome::NotForTheNode) };
        let target = visit.target.as_c_str();
        let covered = visit.cover();
        sys::enter(&visit.node)?;
        // SAFETY: three C strings; the caller vouches for `data`.
        let mounted = unsafe { sys::mount(source.as_ptr(), target.as_ptr(), fstype.as_ptr(), flags | ALWAYS, data) };
        let there = sys::identity(target);
        if covered {
            sys::enter(&visit.container)?;
            if mounted.is_err() || sys::identity(target)?.device != there?.device {
                visit.uncover(libc::MNT_DETACH)?;
            }
        }
        mounted.map(|()| Outcome::Done)
    })
}

/// umount2(2) on the node; `None` if the target is not a FUSE filesystem that the node has at the same path.
pub(crate) fn unmount(target: &CStr, flags: c_int) -> Option<Result<(), Errno>> {
    in_a_copy(|| match Visit::prepare(target) {
        Ok(Some(visit)) if visit.goes_to_the_nodes().unwrap_or(false) => {
            // SAFETY: the target is a C string.
            unsafe { sys::unmount(visit.target.as_c_str().as_ptr(), flags) }.map(|()| Outcome::Done)
        }
        // A process that cannot enter the node's namespace has mounted nothing there.
        _ => Ok(Outcome::NotForTheNode),
    })
}

enum Outcome {
    Done,
    NotForTheNode,
}

fn in_a_copy(work: impl FnOnce() -> Result<Outcome, Errno>) -> Option<Result<(), Errno>> {
    let code = sys::in_a_copy(|| match work() {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::NotForTheNode) => NOT_FOR_THE_NODE,
        Err(Errno(errno)) => u8::try_from(errno).unwrap_or(libc::EIO as u8),
    });
    match code {
        Ok(0) => Some(Ok(())),
        Ok(NOT_FOR_THE_NODE) => None,
        Ok(errno) => Some(Err(Errno(errno.into()))),
        Err(errno) => Some(Err(errno)),
    }
}

/// A copy of the process on its way between two mount namespaces.
struct Visit {
    container: Fd,
    node: Fd,
    /// The absolute path, the same in both.
    target: Path,
}

impl Visit {
    /// Opens both namespaces; `None` if they are one.
    fn prepare(target: &CStr) -> Result<Option<Self>, Errno> {
        let prefix = sys::environment(HOST_PROC).unwrap_or_default();
        let (own, node) = (c"/proc/self/ns/mnt", Path::of([prefix.to_bytes(), b"/proc/1/ns/mnt"])?);
        let (container, node) = (sys::open(own, libc::O_RDONLY)?, sys::open(node.as_c_str(), libc::O_RDONLY)?);
        if sys::identity_of(&container)?.same_file(&sys::identity_of(&node)?) {
            return Ok(None);
        }
        Ok(Some(Self { container, node, target: Path::absolute(target)? }))
    }

    /// Covers the target in the container with a slave of the node's, and returns whether that was done: a helper that
    /// does not look at its mount works all the same. Returns in either namespace.
    fn cover(&self) -> bool {
        let target = self.target.as_c_str();
        let cover = || {
            let here = sys::identity(target)?;
            sys::enter(&self.node)?;
            let there = sys::identity(target)?;
            let tree = sys::copy_mount(target)?;
            sys::enter(&self.container)?;
            if here.mount_root && here.same_file(&there) {
                // Most likely an earlier covering; in any case it shows the same directory as the new one. If it is
                // busy, the new one is mounted on top.
                let _ = self.uncover(0);
            }
            sys::attach(&tree, target)?;
            let done = self.become_slave(there.mount);
            if done != Ok(true) {
                sys::enter(&self.container)?;
                self.uncover(libc::MNT_DETACH)?;
            }
            done
        };
        cover().unwrap_or(false)
    }

    /// Keeps mounts on the covering from propagating to the node. `false`: the covering itself has propagated, as the
    /// container and the node share the mounts around it (a bidirectional volume). Then no covering is needed.
    fn become_slave(&self, mount_before: Option<u64>) -> Result<bool, Errno> {
        let target = self.target.as_c_str();
        let none: *const c_char = null();
        // SAFETY: the target is a C string; the other arguments are not used with this flag.
        unsafe { sys::mount(none, target.as_ptr(), none, libc::MS_SLAVE, null()) }?;
        sys::enter(&self.node)?;
        Ok(mount_before.is_some() && sys::identity(target)?.mount == mount_before)
    }

    fn uncover(&self, flags: c_int) -> Result<(), Errno> {
        // SAFETY: the target is a C string.
        unsafe { sys::unmount(self.target.as_c_str().as_ptr(), flags) }
    }

    /// Enters the node's namespace if the target is a FUSE filesystem there, and the same here.
    fn goes_to_the_nodes(&self) -> Result<bool, Errno> {
        let target = self.target.as_c_str();
        let here = sys::identity(target)?;
        if !here.mount_root || !mountinfo::is_fuse(here.device)? {
            return Ok(false);
        }
        sys::enter(&self.node)?;
        let there = sys::identity(target)?;
        Ok(there.mount_root && there.same_file(&here))
    }
}

/// A path in a buffer of our own.
struct Path([u8; LONG]);

impl Path {
    fn of<const N: usize>(parts: [&[u8]; N]) -> Result<Self, Errno> {
        let mut bytes = [0; LONG];
        let mut end = 0;
        for part in parts {
            bytes.get_mut(end..end + part.len()).ok_or(Errno::TOO_LONG)?.copy_from_slice(part);
            end += part.len();
        }
        // The last byte is still zero, or there was no room for it.
        if end < LONG { Ok(Self(bytes)) } else { Err(Errno::TOO_LONG) }
    }

    /// The path, made absolute.
    fn absolute(path: &CStr) -> Result<Self, Errno> {
        if path.to_bytes().starts_with(b"/") {
            return Self::of([path.to_bytes()]);
        }
        let mut directory = [0; LONG];
        let length = sys::read_link(c"/proc/self/cwd", &mut directory)?;
        Self::of([directory.get(..length).ok_or(Errno::TOO_LONG)?, b"/", path.to_bytes()])
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}
