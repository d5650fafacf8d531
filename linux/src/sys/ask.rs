//! Questions to a filesystem that may never answer, asked by a process that can be given up.
//!
//! Runs in any process, with any number of threads. A process that asks a filesystem which hangs cannot even be killed
//! before that filesystem goes, so a process of its own asks. It keeps none of its creator's descriptors.

pub mod directories;

use super::descriptor::close_range;
use super::fork::fork_held;
use super::user_namespace::enter_as_root;
use crate::processes::has_ended;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, ResolveFlags, Statx, openat2};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType};
use rustix::net::{recvmsg, socketpair};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::ffi::{CStr, CString, OsStr, c_long};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Asks the filesystem at `path` for its root's attributes: whether there is an answer of any kind within `patience`.
/// `false`: it is dead ("Transport endpoint is not connected"), or hangs. Kernel: clone3(2) with a pidfd, 5.3.
pub fn answers(path: &Path, patience: Duration) -> io::Result<bool> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `ask_and_end` makes system calls only.
    let (_, process) = unsafe { fork_held(0, None, || ask_and_end(&path)) }?;
    let patience = Timespec::try_from(patience).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    if poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience))? == 0 {
        // It goes when the filesystem does.
        let _ = pidfd_send_signal(&process, Signal::KILL);
        return Ok(false);
    }
    match waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED)? {
        Some(status) => Ok(status.exit_status() == Some(0)),
        None => Err(Errno::CHILD.into()),
    }
}

/// How long an answer may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience<'a> {
    /// So long.
    pub limit: Duration,
    /// And not when this has become readable.
    pub stopping: Option<BorrowedFd<'a>>,
    /// It is asked as root of this user namespace: a FUSE filesystem of a pod's own answers nobody outside of that.
    pub users: Option<BorrowedFd<'a>>,
}

impl Patience<'_> {
    /// Longer than a filesystem that works takes for one answer.
    pub const USUAL: Self = Self { limit: Duration::from_secs(5), stopping: None, users: None };
}

/// Opens what `path` leads to from `at`, for naming it only (O_PATH), with these `flags` besides; by openat2(2) if it is to be
/// resolved in a certain way. ETIMEDOUT: there was no answer.
pub fn open(
    at: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: Option<ResolveFlags>,
    patience: Patience<'_>,
) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
    // What the kernel knows by itself it tells without asking anybody: 5.12.
    let known = resolve.unwrap_or(ResolveFlags::empty()) | ResolveFlags::CACHED;
    if patience.users.is_none() {
        match openat2(at, path, flags, Mode::empty(), known) {
            Err(Errno::AGAIN | Errno::INVAL | Errno::NOSYS) => {}
            known => return Ok(known?),
        }
    }
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = flags.bits();
    let question = |at: RawFd, _: &mut Words| {
        let Some(resolve) = resolve else {
            // SAFETY: the path is a C string.
            return unsafe { libc::openat(at, path.as_ptr(), flags.cast_signed()) }.into();
        };
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        (how.flags, how.resolve) = (flags.into(), resolve.bits());
        // SAFETY: the path is a C string, and `how` lives in this frame and has the size that is stated.
        unsafe { libc::syscall(libc::SYS_openat2, at, path.as_ptr(), &raw const how, size_of::<libc::open_how>()) }
    };
    // SAFETY: it makes system calls only.
    unsafe { asked(at, question, true, patience) }?.ok_or_else(|| Errno::INTR.into())
}

/// Asks the filesystem behind a descriptor for its attributes. An error: it is dead, or there was no answer in time
/// (ETIMEDOUT).
pub fn answers_at(fd: BorrowedFd<'_>, patience: Patience<'_>) -> io::Result<()> {
    let question = |fd: RawFd, _: &mut Words| {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut stat: libc::statx = unsafe { std::mem::zeroed() };
        let (flags, mask) = (libc::AT_STATX_FORCE_SYNC | libc::AT_EMPTY_PATH, libc::STATX_BASIC_STATS);
        // SAFETY: the path is a C string, and `stat` lives in this frame.
        unsafe { libc::statx(fd, c"".as_ptr(), flags, mask, &raw mut stat) }.into()
    };
    // SAFETY: it makes system calls only.
    match unsafe { asked(fd, question, false, patience) } {
        Err(error)
            if [libc::ENOTCONN, libc::ECONNABORTED, libc::ETIMEDOUT].map(Some).contains(&error.raw_os_error()) =>
        {
            Err(error)
        }
        // An answer of whatever kind.
        _ => Ok(()),
    }
}

/// All attributes of what is behind a descriptor, as the kernel has them or its filesystem says.
pub fn attributes(fd: BorrowedFd<'_>, patience: Patience<'_>) -> io::Result<Statx> {
    let question = |fd: RawFd, words: &mut Words| {
        let (flags, mask) = (libc::AT_STATX_SYNC_AS_STAT | libc::AT_EMPTY_PATH, libc::STATX_BASIC_STATS);
        // SAFETY: the path is a C string, and there is room for a `struct statx`, aligned as it needs.
        unsafe { libc::statx(fd, c"".as_ptr(), flags, mask, words.as_mut_ptr().cast()) }.into()
    };
    // SAFETY: it makes system calls only.
    match unsafe { ask(fd, question, false, patience) }? {
        // SAFETY: the kernel has filled a `struct statx`, which is what rustix's type is on every Linux; any bits are valid in it.
        Asked::Told { errno: 0, words, .. } => Ok(unsafe { std::mem::transmute::<Words, Statx>(words) }),
        Asked::Told { errno, .. } => Err(io::Error::from_raw_os_error(errno)),
        Asked::GivenUp(_) => Err(Errno::TIMEDOUT.into()),
    }
}

/// What a filesystem says of its space (statfs(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    /// The size of a block, in bytes.
    pub block: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Those that are free.
    pub free: u64,
    /// Those that are free for everybody.
    pub available: u64,
    /// Inodes in all.
    pub files: u64,
    /// Those that are free.
    pub files_free: u64,
}

/// A process that still waits for an answer that nobody waits for any more.
#[derive(Debug)]
pub struct GivenUp(OwnedFd);

impl GivenUp {
    /// Whether it has gone: the filesystem has answered after all, or is no more.
    pub fn has_ended(&self) -> bool {
        has_ended(&self.0).unwrap_or(true)
    }
}

/// Asks the filesystem behind a descriptor for its space. No answer in time: the process that waits for it still.
pub fn space(fd: BorrowedFd<'_>, patience: Patience<'_>) -> io::Result<Result<Space, GivenUp>> {
    let question = |fd: RawFd, words: &mut Words| {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut stat: libc::statfs64 = unsafe { std::mem::zeroed() };
        // SAFETY: `stat` lives in this frame.
        let done = unsafe { libc::fstatfs64(fd, &raw mut stat) };
        let block = if stat.f_frsize > 0 { stat.f_frsize } else { stat.f_bsize };
        let told = [block as u64, stat.f_blocks, stat.f_bfree, stat.f_bavail, stat.f_files, stat.f_ffree];
        words[..told.len()].copy_from_slice(&told);
        done.into()
    };
    // SAFETY: it makes system calls only.
    match unsafe { ask(fd, question, false, patience) }? {
        Asked::GivenUp(process) => Ok(Err(process)),
        Asked::Told { errno: 0, words: [block, blocks, free, available, files, files_free, ..], .. } => {
            Ok(Ok(Space { block, blocks, free, available, files, files_free }))
        }
        Asked::Told { errno, .. } => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Takes away what is mounted at `name` in a directory, whatever still uses it (MNT_DETACH), and follows no link. Returns when the
/// filesystem is ended, if this was the last of its mounts; ETIMEDOUT: that takes longer, and the mount is gone all the same.
pub fn unmount(directory: BorrowedFd<'_>, name: &OsStr, patience: Patience<'_>) -> io::Result<()> {
    let name = CString::new(name.as_bytes())?;
    let question = |directory: RawFd, _: &mut Words| {
        // Not by a descriptor of the mount's: that would hold it until the answer is sent.
        // SAFETY: changes this process's own working directory.
        match unsafe { libc::fchdir(directory) } {
            // SAFETY: the path is a C string.
            0 => unsafe { libc::umount2(name.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) }.into(),
            failed => failed.into(),
        }
    };
    // SAFETY: it makes system calls only.
    unsafe { asked(directory, question, false, patience) }.map(drop)
}

/// Numbers of an answer.
type Words = [u64; STATX];

/// As long as `struct statx` is.
const STATX: usize = size_of::<libc::statx>() / 8;

/// What came of a question.
#[allow(clippy::large_enum_variant, reason = "there is one at a time, on the stack of who asks")]
enum Asked {
    /// What the system call said.
    Told { errno: i32, words: Words, descriptor: Option<OwnedFd> },
    /// No answer in time.
    GivenUp(GivenUp),
}

/// Has a process ask a question about `about`, which returns what a system call does: a descriptor, if it is so `wanted`.
/// ETIMEDOUT: there was no answer.
///
/// # Safety
///
/// `question` makes system calls only: see [`fork_held`].
unsafe fn asked(
    about: BorrowedFd<'_>,
    question: impl Fn(RawFd, &mut Words) -> c_long,
    wanted: bool,
    patience: Patience<'_>,
) -> io::Result<Option<OwnedFd>> {
    // SAFETY: the caller vouches for the question.
    match unsafe { ask(about, question, wanted, patience) }? {
        Asked::Told { errno: 0, descriptor, .. } => Ok(descriptor),
        Asked::Told { errno, .. } => Err(io::Error::from_raw_os_error(errno)),
        Asked::GivenUp(_) => Err(Errno::TIMEDOUT.into()),
    }
}

/// The same, with all that came of it.
///
/// # Safety
///
/// As with [`asked`].
unsafe fn ask(
    about: BorrowedFd<'_>,
    question: impl Fn(RawFd, &mut Words) -> c_long,
    wanted: bool,
    patience: Patience<'_>,
) -> io::Result<Asked> {
    let limit = Timespec::try_from(patience.limit).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let (about, socket) = (about.as_raw_fd(), theirs.as_raw_fd());
    let users = patience.users.map(|users| users.as_raw_fd());
    let ask = || {
        let entered = users.map_or(0, enter_as_root);
        let question = |about: RawFd, words: &mut Words| if entered == 0 { question(about, words) } else { entered };
        tell_and_end(about, socket, question, wanted)
    };
    // SAFETY: it makes system calls only, and the caller vouches for the question.
    let (_, process) = unsafe { fork_held(0, None, ask) }?;
    drop(theirs);
    let mut fds = vec![PollFd::new(&ours, PollFlags::IN)];
    fds.extend(patience.stopping.as_ref().map(|stopping| PollFd::new(stopping, PollFlags::IN)));
    let polled = poll(&mut fds, Some(&limit));
    if fds[0].revents().is_empty() {
        // It goes when the filesystem does.
        let _ = pidfd_send_signal(&process, Signal::KILL);
        polled?;
        return Ok(Asked::GivenUp(GivenUp(process)));
    }
    let mut message = [0; size_of::<Answer>()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(&ours, &mut [IoSliceMut::new(&mut message)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = control.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    // It ends now. Whoever collects all processes of ours may have collected it already.
    let _ = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
    if received.bytes != message.len() {
        // It was killed.
        return Err(Errno::INTR.into());
    }
    let (numbers, _) = message.as_chunks::<8>();
    let mut numbers = numbers.iter().map(|bytes| u64::from_ne_bytes(*bytes));
    let errno = numbers.next().and_then(|errno| errno.try_into().ok()).unwrap_or(libc::EIO);
    let mut words = Words::default();
    words.iter_mut().zip(numbers).for_each(|(word, number)| *word = number);
    Ok(Asked::Told { errno, words, descriptor })
}

/// The message of the asking process: errno, and the numbers of its answer.
#[repr(C)]
struct Answer {
    errno: u64,
    words: Words,
}

/// All of the asking process's life: system calls only, no allocation, no panic.
fn tell_and_end(about: RawFd, socket: RawFd, question: impl Fn(RawFd, &mut Words) -> c_long, wanted: bool) -> ! {
    /// A control message with one descriptor (cmsg(3)), and its padding.
    #[repr(C)]
    struct Control {
        header: libc::cmsghdr,
        descriptor: [RawFd; 2],
    }
    // The two that are needed become 0 and 1; no other is kept for as long as this may wait.
    // SAFETY: copies a descriptor of this process's, and touches no memory.
    let socket = unsafe { libc::fcntl(socket, libc::F_DUPFD, 3) };
    if about != libc::AT_FDCWD {
        // SAFETY: as above.
        let about = unsafe { libc::fcntl(about, libc::F_DUPFD, 3) };
        // SAFETY: closes this process's own 0; nothing here owns a descriptor any more.
        unsafe { libc::dup2(about, 0) };
    }
    // SAFETY: the same with 1.
    unsafe { libc::dup2(socket, 1) };
    // SAFETY: the same with all others.
    unsafe { close_range(2, u32::MAX) };
    let mut told = Answer { errno: 0, words: [0; STATX] };
    let answer = question(if about == libc::AT_FDCWD { about } else { 0 }, &mut told.words);
    if answer < 0 {
        told.errno = nix::errno::Errno::last_raw().unsigned_abs().into();
    }
    let mut part = libc::iovec { iov_base: (&raw mut told).cast(), iov_len: size_of::<Answer>() };
    // SAFETY: all-zero bytes are a valid value of this plain C structure.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut control: Control = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if answer >= 0 && wanted {
        control.header.cmsg_level = libc::SOL_SOCKET;
        control.header.cmsg_type = libc::SCM_RIGHTS;
        control.header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<RawFd>()) as _;
        control.descriptor[0] = answer as RawFd;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>() as _;
    }
    // SAFETY: the message's parts live in this frame, with the lengths that are stated.
    unsafe { libc::sendmsg(1, &raw const message, libc::MSG_NOSIGNAL) };
    // SAFETY: ends the process without running anything of the creator's.
    unsafe { libc::_exit(0) }
}

/// All of the asking process's life: system calls only, no allocation, no panic.
fn ask_and_end(path: &CStr) -> ! {
    // A process that reads our caller's output to its end must not wait for this one.
    // SAFETY: closes this process's own table only; nothing here owns a descriptor any more.
    unsafe { close_range(0, u32::MAX) };
    // SAFETY: all-zero bytes are a valid value of this plain C structure.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let (flags, mask) = (libc::AT_STATX_FORCE_SYNC, libc::STATX_BASIC_STATS);
    // SAFETY: the path is a C string, and `stat` lives in this frame.
    let asked = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, mask, &raw mut stat) };
    let not_served = asked != 0 && [libc::ENOTCONN, libc::ECONNABORTED].contains(&nix::errno::Errno::last_raw());
    // SAFETY: ends the process without running anything of the creator's.
    unsafe { libc::_exit(not_served.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;

    const PATIENCE: Patience<'_> = Patience { limit: Duration::from_secs(10), stopping: None, users: None };

    #[test]
    fn what_is_opened_comes_back() {
        let identity = |fd: OwnedFd| crate::statx::identity(fd.as_fd()).unwrap();
        let here = |path| rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let opened = open(CWD, Path::new("/proc/sys"), OFlags::DIRECTORY, None, PATIENCE).unwrap();
        assert_eq!(identity(opened), identity(here("/proc/sys")));
        let below = |path| {
            open(here("/proc").as_fd(), Path::new(path), OFlags::empty(), Some(ResolveFlags::NO_SYMLINKS), PATIENCE)
        };
        assert_eq!(identity(below("sys").unwrap()), identity(here("/proc/sys")));
        assert_eq!(below("self").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert_eq!(below("none").unwrap_err().raw_os_error(), Some(libc::ENOENT));
        answers_at(here("/proc").as_fd(), PATIENCE).unwrap();
        let root = here("/");
        let (told, known) = (space(root.as_fd(), PATIENCE).unwrap().unwrap(), rustix::fs::fstatfs(&root).unwrap());
        assert_eq!((told.blocks, told.files), (known.f_blocks, known.f_files));
        let nothing = unmount(root.as_fd(), "proc/none".as_ref(), PATIENCE).unwrap_err();
        assert!([libc::ENOENT, libc::EPERM].map(Some).contains(&nothing.raw_os_error()), "{nothing}");
    }

    #[test]
    fn what_never_answers_is_given_up() {
        let never = |_, _: &mut Words| {
            // SAFETY: waits for a signal, and touches no memory.
            c_long::from(unsafe { libc::pause() })
        };
        let patience = Patience { limit: Duration::from_millis(20), ..PATIENCE };
        // SAFETY: the question makes a system call only.
        let given_up = unsafe { asked(CWD, never, false, patience) };
        assert_eq!(given_up.unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        let stopping = Patience { stopping: Some(reader.as_fd()), ..PATIENCE };
        // SAFETY: as above.
        let given_up = unsafe { asked(CWD, never, false, stopping) };
        assert_eq!(given_up.unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
    }
}
