//! With a mounter: the call goes to its broker, which mounts within the helper's grant.
//!
//! Runs in a helper that has no capability. The mounter listens on a socket in the helper's own mount namespace, always
//! at the same path: a helper may close any descriptor, and start other programs with an empty environment.

use crate::message::{LONGEST, Operation, SOCKET, header};
use crate::sys::{self, Errno, Fd};
use core::ffi::{CStr, c_int};

/// Whether this process is a helper of a mounter.
pub(crate) fn is_there() -> bool {
    sys::open(SOCKET, libc::O_PATH).is_ok()
}

pub(crate) fn mount([source, target, fstype, data]: [&CStr; 4], flags: u64) -> Result<(), Errno> {
    if [source, fstype, data].iter().any(|string| string.count_bytes() >= LONGEST) {
        return Err(Errno::INVALID);
    }
    let target = sys::open(target, libc::O_PATH)?;
    let header = header(Operation::Mount, flags);
    let strings = [source, fstype, data].map(CStr::to_bytes_with_nul);
    let [source, fstype, data_bytes] = strings;
    let device = fuse_device(data);
    ask([&header, source, fstype, data_bytes], &target, device)
}

pub(crate) fn unmount(target: &CStr, flags: c_int) -> Result<(), Errno> {
    let nofollow = if flags & libc::UMOUNT_NOFOLLOW == 0 { 0 } else { libc::O_NOFOLLOW };
    let target = sys::open(target, libc::O_PATH | nofollow)?;
    ask([&header(Operation::Unmount, 0), b"\0", b"\0", b"\0"], &target, None)
}

fn ask(parts: [&[u8]; 4], target: &Fd, device: Option<c_int>) -> Result<(), Errno> {
    let (ours, theirs) = sys::socket_pair()?;
    let descriptors = [theirs.number(), target.number(), device.unwrap_or(-1)];
    let count = if device.is_some() { 3 } else { 2 };
    sys::send(SOCKET, parts, descriptors.get(..count).unwrap_or_default())?;
    // Only our end is left: if the mounter exits without an answer, the read returns the end of the connection.
    drop(theirs);
    let mut answer = [0; 4];
    loop {
        match sys::read(&ours, &mut answer) {
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
            Ok(4) => break,
            Ok(_) => return Err(Errno::IO),
        }
    }
    match c_int::from_ne_bytes(answer) {
        0 => Ok(()),
        errno => Err(Errno(errno)),
    }
}

/// The number that `fd=` in FUSE's mount data names. The mounter looks at what the descriptor really is.
fn fuse_device(data: &CStr) -> Option<c_int> {
    let mut options = data.to_bytes().split(|byte| *byte == b',');
    let digits = options.find_map(|option| option.strip_prefix(b"fd="))?;
    core::str::from_utf8(digits).ok()?.parse().ok()
}
