//! statmount(2), which neither nix nor rustix has: one mount, where the whole table would have to be read otherwise.

use crate::statx::unique_mount_id;
use std::ffi::{OsStr, OsString, c_long};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Of `libc`, which has it for some architectures only; the number is everywhere the same.
pub const SYS_STATMOUNT: c_long = 457;
/// STATMOUNT_MNT_POINT and STATMOUNT_FS_TYPE.
const WANTED: u64 = 0x10 | 0x20;
/// Room for the structure and two strings, one of them a path.
const ROOM: usize = FIXED + 2 * 4096;
/// The size of `struct statmount` before its strings, and where in it is which of them: offsets from its end.
const FIXED: usize = 512;
const MASK: usize = 8;
const FSTYPE: usize = 36;
const POINT: usize = 108;

/// `struct mnt_id_req`, in its first size.
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    mount: u64,
    wanted: u64,
}

/// One mount.
#[derive(Debug)]
pub struct OneMount {
    /// Its filesystem's type, without a subtype: `fuse`, `tmpfs`.
    pub fstype: OsString,
    /// Where it is mounted.
    pub target: PathBuf,
}

/// The mount that `path` is in. Asks no filesystem. ENOSYS, or ENODATA, before Linux 6.8.
pub fn mount_of(path: &Path) -> io::Result<OneMount> {
    let mount = unique_mount_id(path)?.ok_or(io::Error::from_raw_os_error(libc::ENODATA))?;
    let request = Request { size: size_of::<Request>() as u32, spare: 0, mount, wanted: WANTED };
    let mut answer = [0_u8; ROOM];
    // SAFETY: `request` has the size that it states, and the kernel writes no more to `answer` than the size that is passed.
    let done =
        unsafe { libc::syscall(SYS_STATMOUNT, &raw const request, answer.as_mut_ptr(), size_of_val(&answer), 0) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    read(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Reads the kernel's answer.
fn read(answer: &[u8]) -> Option<OneMount> {
    let number = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let mask = u64::from_ne_bytes(answer.get(MASK..MASK + 8)?.try_into().ok()?);
    if mask & WANTED != WANTED {
        return None;
    }
    let string = |at: usize| {
        let text = answer.get(FIXED + usize::try_from(number(at)?).ok()?..)?;
        Some(OsStr::from_bytes(text.split(|byte| *byte == 0).next()?))
    };
    Some(OneMount { fstype: string(FSTYPE)?.to_owned(), target: string(POINT)?.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount_table;

    #[test]
    fn it_says_what_the_table_says() {
        let table = mount_table::parse(&std::fs::read("/proc/self/mountinfo").unwrap());
        let topmost = |path: &str| table.iter().rfind(|mount| mount.target == Path::new(path)).unwrap();
        for path in ["/", "/proc"] {
            match mount_of(Path::new(path)) {
                Ok(mount) => {
                    assert_eq!((&mount.fstype, mount.target.as_path()), (&topmost(path).fstype, Path::new(path)));
                }
                Err(error) => assert!(
                    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::ENODATA | libc::EPERM)),
                    "{path}: {error}"
                ),
            }
        }
        let inside = mount_of(Path::new("/proc/self/status"));
        assert!(inside.is_err() || inside.is_ok_and(|mount| mount.target == Path::new("/proc")));
    }

    #[test]
    fn what_is_not_there_is_not_read() {
        let mut answer = vec![0; ROOM];
        assert!(read(&answer).is_none());
        answer[MASK..MASK + 8].copy_from_slice(&WANTED.to_ne_bytes());
        answer[POINT..POINT + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(read(&answer).is_none());
    }
}
