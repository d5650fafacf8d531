//! The number by which a FUSE filesystem knows a file, told by the kernel (name_to_handle_at(2)) without asking the filesystem.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// AT_HANDLE_FID, Linux 6.5: a handle that need not be good for opening the file.
const FID: libc::c_int = 0x200;
/// FILEID_INO64_GEN of linux/exportfs.h: what FUSE's handles are.
const NODE_AND_GENERATION: libc::c_int = 0x81;

/// `struct file_handle`, with room for FUSE's.
#[repr(C)]
struct Handle {
    length: libc::c_uint,
    kind: libc::c_int,
    words: [u32; 3],
}

/// The `nodeid` of what is behind a descriptor in a FUSE filesystem, as it stands in each request about it. Of other filesystems it
/// is something else, or `None`.
pub fn fuse_node(fd: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    let mut handle = Handle { length: size_of::<[u32; 3]>() as libc::c_uint, kind: 0, words: [0; 3] };
    let mut mount: libc::c_int = 0;
    // SAFETY: the handle has the room that its first field states, and both it and the number live in this frame; the path is a C
    // string.
    let done = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            fd.as_raw_fd(),
            c"".as_ptr(),
            &raw mut handle,
            &raw mut mount,
            libc::AT_EMPTY_PATH | FID,
        )
    };
    if done < 0 {
        let error = io::Error::last_os_error();
        // A longer handle, or none: another kind of filesystem.
        return match error.raw_os_error() {
            Some(libc::EOVERFLOW | libc::EOPNOTSUPP) => Ok(None),
            _ => Err(error),
        };
    }
    let [high, low, _generation] = handle.words;
    Ok((handle.kind == NODE_AND_GENERATION).then_some(u64::from(high) << 32 | u64::from(low)))
}
