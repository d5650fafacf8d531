//! What neither nix nor rustix has of /dev/fuse: another descriptor of a connection, and reading of a request no more than
//! its beginning (linux/fuse.h).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The length of `struct fuse_in_header`, which every request begins with.
pub const HEAD: usize = 40;

// _IOR(229, 0, uint32_t), Linux 4.2.
const FUSE_DEV_IOC_CLONE: libc::Ioctl = 0x8004_e500_u32 as libc::Ioctl;

/// Makes `device`, a /dev/fuse that was just opened, one more descriptor of the connection that `of` belongs to. It has flags,
/// and requests that it has read, of its own. EINVAL: `of` belongs to none.
pub fn join_connection(device: BorrowedFd<'_>, of: BorrowedFd<'_>) -> io::Result<()> {
    let of = of.as_raw_fd().cast_unsigned();
    // SAFETY: the request reads one u32 from the pointer, which is one.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), FUSE_DEV_IOC_CLONE, &raw const of) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What follows the beginning of a request, up to here, is what the request has there, however long it is.
pub const BODY: usize = 64;

/// Reads a request: its beginning into `head`, and what follows into `rest`: once, and what is longer again and again behind the first
/// [`BODY`] bytes, up to `times` in all (no more than 1023). EINVAL: that is less room than the connection's longest request needs.
/// Returns the request's length.
pub fn read_head(device: BorrowedFd<'_>, head: &mut [u8; HEAD], rest: &mut [u8], times: usize) -> io::Result<usize> {
    let part = |bytes: &mut [u8]| libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let (once, length) = (part(rest), rest.len());
    let mut parts = vec![part(&mut rest[BODY.min(length)..]); times + 1];
    (parts[0], parts[1]) = (part(head), once);
    let count = libc::c_int::try_from(parts.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: each part names memory that is borrowed mutably until the call returns; that several name the same means
    // only that the kernel writes there more than once.
    let length = unsafe { libc::readv(device.as_raw_fd(), parts.as_ptr(), count) };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}
