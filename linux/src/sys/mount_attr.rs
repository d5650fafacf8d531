//! mount_setattr(2), which neither nix nor rustix has.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct mount_attr`: what to set, what to clear, and the propagation to change to (0: none).
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct MountAttr {
    /// MOUNT_ATTR_* to set.
    pub set: u64,
    /// MOUNT_ATTR_* to clear first.
    pub clear: u64,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE or 0.
    pub propagation: u64,
    /// The descriptor of one, for [`IDMAP`].
    pub user_namespace: u64,
}

/// MOUNT_ATTR_IDMAP: owners are shown as the user namespace maps them. EINVAL where the filesystem does not allow it.
pub const IDMAP: u64 = 0x10_0000;

/// Changes the mount behind `fd`. ENOSYS before Linux 5.12.
pub fn mount_setattr(fd: BorrowedFd<'_>, attr: &MountAttr) -> io::Result<()> {
    let size = size_of::<MountAttr>();
    let flags = libc::AT_EMPTY_PATH;
    // SAFETY: the path is a C string, and `attr` points to a `struct mount_attr` of the size that is stated; the
    // kernel only reads both.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd.as_raw_fd(), c"".as_ptr(), flags, std::ptr::from_ref(attr), size)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
