//! Changes to a directory of a filesystem that may never answer, by a process that can be given up.
//!
//! Runs in the mounter. What is changed is named by its directory's descriptor and one name in it; no link is followed, and
//! nothing outside of that directory is looked at, whatever the filesystem makes of it meanwhile.

use super::{Asked, Patience, Words, ask, asked};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr, c_int, c_long};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

/// How a directory is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewDirectory {
    /// Its mode (chmod(2)). None: 0777, as far as the filesystem has modes.
    pub mode: Option<u32>,
    /// Its owner.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
}

/// Makes a directory, or gives the one that is there this mode and owner; whether it was made. ETIMEDOUT: there was no answer.
pub fn make_directory(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    how: NewDirectory,
    patience: Patience<'_>,
) -> io::Result<bool> {
    let name = one_name(name)?;
    let NewDirectory { mode, uid, gid } = how;
    let question = |parent: RawFd, words: &mut Words| {
        // SAFETY: changes this process's own mask.
        unsafe { libc::umask(0) };
        // SAFETY: the name is a C string.
        let made = unsafe { libc::mkdirat(parent, name.as_ptr(), mode.unwrap_or(0o777) & 0o777) };
        if made < 0 && errno() != libc::EEXIST {
            return made.into();
        }
        words[0] = (made == 0).into();
        // Not by its name any more, which may become another's.
        // SAFETY: as above.
        let directory = unsafe { libc::openat(parent, name.as_ptr(), OPEN) };
        if directory < 0 {
            return directory.into();
        }
        let unchanged = libc::uid_t::MAX;
        let owner = (uid.unwrap_or(unchanged), gid.unwrap_or(unchanged));
        // SAFETY: changes what the descriptor names, and touches no memory.
        if owner != (unchanged, unchanged) && unsafe { libc::fchown(directory, owner.0, owner.1) } < 0 {
            return -1;
        }
        // After the owner, which takes special bits away.
        if let Some(mode) = mode {
            // SAFETY: as above.
            if unsafe { libc::fchmod(directory, mode) } < 0 {
                return -1;
            }
        }
        // A helper that keeps changes for later ends soon. Many filesystems have nothing to do here, and say so.
        // SAFETY: as above.
        unsafe { libc::fsync(directory) };
        0
    };
    // SAFETY: it makes system calls only.
    match unsafe { ask(parent, question, false, patience) }? {
        Asked::Told { errno: 0, words: [made, ..], .. } => Ok(made != 0),
        Asked::Told { errno, .. } => Err(io::Error::from_raw_os_error(errno)),
        Asked::GivenUp(_) => Err(Errno::TIMEDOUT.into()),
    }
}

/// Gives a file or directory another name in its directory, which must be free: EEXIST otherwise, where the filesystem can tell.
pub fn rename(parent: BorrowedFd<'_>, from: &OsStr, to: &OsStr, patience: Patience<'_>) -> io::Result<()> {
    let (from, to) = (one_name(from)?, one_name(to)?);
    let question = |parent: RawFd, _: &mut Words| {
        let (from, to) = (from.as_ptr(), to.as_ptr());
        // SAFETY: the names are C strings.
        let done = unsafe { libc::syscall(libc::SYS_renameat2, parent, from, parent, to, libc::RENAME_NOREPLACE) };
        if done == 0 || ![libc::EINVAL, libc::ENOSYS].contains(&errno()) {
            return done;
        }
        // SAFETY: as above.
        unsafe { libc::renameat(parent, from, parent, to) }.into()
    };
    // SAFETY: it makes system calls only.
    unsafe { asked(parent, question, false, patience) }.map(drop)
}

/// Removes a directory and everything in it, or a file; nothing there is no error. ETIMEDOUT: the time is over; what was removed
/// is removed.
pub fn remove_all(parent: BorrowedFd<'_>, name: &OsStr, patience: Patience<'_>) -> io::Result<()> {
    let name = one_name(name)?;
    // SAFETY: `remove_tree` makes system calls only.
    unsafe { asked(parent, |parent, _: &mut Words| remove_tree(parent, &name), false, patience) }.map(drop)
}

/// A name in a directory, and no path.
fn one_name(name: &OsStr) -> io::Result<CString> {
    if name.is_empty() || name == "." || name == ".." || name.as_bytes().contains(&b'/') {
        return Err(Errno::INVAL.into());
    }
    Ok(CString::new(name.as_bytes())?)
}

fn errno() -> c_int {
    nix::errno::Errno::last_raw()
}

/// A directory, whatever has its name, and no link.
const OPEN: c_int = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
/// How many directories below each other are held open. Deeper ones make the way from the top longer, and nothing else.
const DEPTH: usize = 48;
/// Room for the longest name, and the NUL.
const NAME: usize = 256;

/// A directory that is being emptied, and its name in the one above.
#[derive(Clone, Copy)]
struct Level {
    fd: RawFd,
    name: [u8; NAME],
    /// Whether anything was removed since it was last read from its beginning.
    progress: bool,
}

/// What came of emptying a directory.
enum Emptied {
    /// There is nothing more that could be removed.
    Done,
    /// There is a directory in it, of the name that is found.
    Found,
    Failed,
}

/// Removes what `name` in `parent` names. System calls only: no allocation, no panic.
fn remove_tree(parent: RawFd, name: &CStr) -> c_long {
    // SAFETY: the name is a C string.
    if unsafe { libc::unlinkat(parent, name.as_ptr(), 0) } == 0 || errno() == libc::ENOENT {
        return 0;
    }
    loop {
        // SAFETY: the name is a C string.
        let top = unsafe { libc::openat(parent, name.as_ptr(), OPEN) };
        match top {
            top if top >= 0 => {}
            _ if errno() == libc::ENOENT => return 0,
            _ => return -1,
        }
        match from_top(top) {
            // The way down was longer than what is held open: what is left is less deep.
            None => continue,
            Some(done) if done < 0 => return -1,
            Some(_) => {}
        }
        // SAFETY: the name is a C string.
        match unsafe { libc::unlinkat(parent, name.as_ptr(), libc::AT_REMOVEDIR) } {
            0 => return 0,
            _ if errno() == libc::ENOENT => return 0,
            _ => return -1,
        }
    }
}

/// Empties the directory `top` and closes it. `None`: it must be done again from the top.
fn from_top(top: RawFd) -> Option<c_int> {
    let mut levels = [Level { fd: top, name: [0; NAME], progress: false }; DEPTH];
    let (mut depth, mut lost) = (0, false);
    let mut name = [0; NAME];
    loop {
        match empty(&mut levels[depth], &mut name) {
            Emptied::Failed => return Some(-1),
            Emptied::Found => {
                // SAFETY: the name ends with a NUL, as `empty` has copied it.
                let fd = unsafe { libc::openat(levels[depth].fd, name.as_ptr().cast(), OPEN) };
                if fd < 0 {
                    match errno() {
                        // Another was quicker, or it is no directory any more: it will be read again.
                        libc::ENOENT | libc::ENOTDIR | libc::ELOOP => continue,
                        _ => return Some(-1),
                    }
                }
                if depth + 1 == DEPTH {
                    for level in &levels[..DEPTH - 1] {
                        close(level.fd);
                    }
                    (levels[0], depth, lost) = (levels[DEPTH - 1], 0, true);
                }
                depth += 1;
                levels[depth] = Level { fd, name, progress: false };
            }
            Emptied::Done if depth == 0 => {
                close(levels[0].fd);
                return if lost { None } else { Some(0) };
            }
            Emptied::Done => {
                close(levels[depth].fd);
                let name = levels[depth].name;
                depth -= 1;
                // SAFETY: as above.
                let done = unsafe { libc::unlinkat(levels[depth].fd, name.as_ptr().cast(), libc::AT_REMOVEDIR) };
                if done < 0 && errno() != libc::ENOENT {
                    return Some(-1);
                }
                levels[depth].progress = true;
            }
        }
    }
}

fn close(fd: RawFd) {
    // SAFETY: a descriptor of this process's, which no value owns.
    unsafe { libc::close(fd) };
}

/// Removes all in a directory that is no directory itself, up to the first that is.
fn empty(level: &mut Level, found: &mut [u8; NAME]) -> Emptied {
    /// As the kernel aligns its entries.
    #[repr(C, align(8))]
    struct Buffer([u8; 16384]);
    /// Where an entry's length, type and name are (getdents64(2)).
    const LENGTH: usize = 16;
    const NAMED: usize = 19;

    let mut buffer = Buffer([0; 16384]);
    loop {
        let room = buffer.0.len();
        // SAFETY: the buffer lives in this frame, and has the length that is stated.
        let read = unsafe { libc::syscall(libc::SYS_getdents64, level.fd, buffer.0.as_mut_ptr(), room) };
        let Ok(read) = usize::try_from(read) else {
            // A directory that was removed meanwhile has nothing in it.
            return if errno() == libc::ENOENT { Emptied::Done } else { Emptied::Failed };
        };
        if read == 0 {
            if !level.progress {
                return Emptied::Done;
            }
            // What is removed while it is read may make others be passed over.
            level.progress = false;
            // SAFETY: moves the offset of a descriptor of this process's.
            if unsafe { libc::lseek(level.fd, 0, libc::SEEK_SET) } < 0 {
                return Emptied::Failed;
            }
            continue;
        }
        let mut entries = buffer.0.get(..read).unwrap_or_default();
        while let (Some(&[low, high]), Some(offset)) =
            (entries.get(LENGTH..LENGTH + 2).and_then(|length| length.first_chunk()), entries.first_chunk::<16>())
        {
            let length = usize::from(u16::from_ne_bytes([low, high]));
            let Some(entry) = entries.get(..length).filter(|_| length > NAMED) else { break };
            entries = entries.get(length..).unwrap_or_default();
            let named = entry.get(NAMED..).unwrap_or_default();
            let Some(end) = named.iter().position(|byte| *byte == 0).filter(|end| *end < NAME) else {
                return Emptied::Failed;
            };
            let name = named.get(..end).unwrap_or_default();
            if name == b"." || name == b".." {
                continue;
            }
            // A filesystem whose names are paths is not to be followed anywhere.
            if name.is_empty() || name.contains(&b'/') {
                return Emptied::Failed;
            }
            *found = [0; NAME];
            found.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
            // SAFETY: the copy ends with a NUL, as it is longer than the name.
            if unsafe { libc::unlinkat(level.fd, found.as_ptr().cast(), 0) } == 0 {
                level.progress = true;
                continue;
            }
            match errno() {
                libc::ENOENT => {}
                // Linux and POSIX have different errors for a directory.
                libc::EISDIR | libc::EPERM => {
                    let next = offset.last_chunk::<8>().map_or(0, |next| i64::from_ne_bytes(*next));
                    // What was read behind it is read again.
                    // SAFETY: moves the offset of a descriptor of this process's.
                    unsafe { libc::lseek(level.fd, next, libc::SEEK_SET) };
                    return Emptied::Found;
                }
                _ => return Emptied::Failed,
            }
        }
    }
}

#[cfg(test)]
mod tests;
