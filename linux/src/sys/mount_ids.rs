//! The mounts of a mount namespace by their numbers, which no other mount is ever given, and the filesystem of each: listmount(2) and
//! statmount(2), which neither nix nor rustix has. It takes less than to have the whole table written out.
//!
//! Kernel: 6.12.

use super::statmount::SYS_STATMOUNT;
use crate::mount_table::Device;
use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// As [`SYS_STATMOUNT`].
const SYS_LISTMOUNT: c_long = 458;
/// `_IOR(0xb7, 10, struct mnt_ns_info)`: NS_MNT_GET_INFO.
const GET_INFO: libc::Ioctl = 0x8010_b70a_u32 as libc::Ioctl;
/// LSMT_ROOT: all that can be reached from the namespace's root.
const ROOT: u64 = u64::MAX;
/// STATMOUNT_SB_BASIC, and where the device number is.
const WANTED: u64 = 1;
const MASK: usize = 8;
const MAJOR: usize = 16;
const MINOR: usize = 20;
/// How many are asked for at a time.
const AT_ONCE: usize = 512;

/// `struct mnt_ns_info`.
#[repr(C)]
#[derive(Default)]
struct Info {
    size: u32,
    mounts: u32,
    namespace: u64,
}

/// `struct mnt_id_req`, in its second size.
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    mount: u64,
    parameter: u64,
    namespace: u64,
}

/// The mounts of a namespace.
#[derive(Debug, PartialEq, Eq)]
pub struct MountIds {
    /// The namespace's number, which no other is ever given.
    pub namespace: u64,
    /// Those of its mounts, from the smallest one on.
    pub mounts: Vec<u64>,
}

/// Those of the mount namespace that a descriptor holds. `None`: there are more than `most`, or the kernel does not list all that are
/// there. An error: an earlier kernel.
pub fn mounts_of(namespace: BorrowedFd<'_>, most: usize) -> io::Result<Option<MountIds>> {
    let mut info = Info { size: size_of::<Info>() as u32, ..Info::default() };
    // SAFETY: the request writes no more than the size in it, which is that of `info`.
    let done = unsafe { libc::ioctl(namespace.as_raw_fd(), GET_INFO, &raw mut info) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut mounts: Vec<u64> = Vec::new();
    loop {
        if mounts.len() > most {
            return Ok(None);
        }
        let mut more = [0_u64; AT_ONCE];
        let request = request(ROOT, mounts.last().copied().unwrap_or_default(), info.namespace);
        // SAFETY: `request` has the size that it states, and the kernel writes no more numbers than there is room for.
        let count = unsafe { libc::syscall(SYS_LISTMOUNT, &raw const request, more.as_mut_ptr(), more.len(), 0) };
        let Ok(count) = usize::try_from(count) else { return Err(io::Error::last_os_error()) };
        mounts.extend(more.iter().take(count));
        if count < AT_ONCE {
            break;
        }
    }
    // The one that is below all others is not listed; where others are not either, the kernel took another root for the namespace's.
    let all = mounts.len() + 1 >= info.mounts as usize;
    Ok(all.then_some(MountIds { namespace: info.namespace, mounts }))
}

/// The filesystem of a mount of a namespace's, both by their numbers. ENOENT: it is not there any more.
pub fn device_of(mount: u64, namespace: u64) -> io::Result<Device> {
    let request = request(mount, WANTED, namespace);
    let mut answer = [0_u8; 512];
    // SAFETY: as in `mounts_of`; the kernel writes no more to `answer` than the size that is passed.
    let done =
        unsafe { libc::syscall(SYS_STATMOUNT, &raw const request, answer.as_mut_ptr(), size_of_val(&answer), 0) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    let number = |at: usize| u32::from_ne_bytes([answer[at], answer[at + 1], answer[at + 2], answer[at + 3]]);
    if u64::from(number(MASK)) & WANTED == 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Device { major: number(MAJOR), minor: number(MINOR) })
}

fn request(mount: u64, parameter: u64, namespace: u64) -> Request {
    Request { size: size_of::<Request>() as u32, spare: 0, mount, parameter, namespace }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount_table;
    use std::collections::BTreeSet;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn it_lists_what_the_table_has() {
        let own = File::open("/proc/self/ns/mnt").unwrap();
        let listed = match mounts_of(own.as_fd(), 10_000) {
            Ok(listed) => listed,
            Err(error) => {
                let earlier = [libc::ENOTTY, libc::ENOSYS, libc::EINVAL, libc::EPERM].map(Some);
                assert!(earlier.contains(&error.raw_os_error()), "{error}");
                return;
            }
        };
        let Some(MountIds { namespace, mounts }) = listed else { return };
        let devices: BTreeSet<_> =
            mounts.iter().map(|mount| device_of(*mount, namespace).unwrap()).map(|of| (of.major, of.minor)).collect();
        let table = mount_table::parse(&std::fs::read("/proc/self/mountinfo").unwrap());
        for mount in table {
            assert!(devices.contains(&(mount.device.major, mount.device.minor)), "{mount:?}");
        }
        assert!(device_of(1, namespace).is_err());
    }
}
