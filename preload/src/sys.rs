//! System calls, made directly: libc's wrappers are replaced by this object, or may be by another one.
//!
//! Runs in a helper's process, on any of its threads, and in the child that [`fork`](crate::node) makes: no
//! allocation, no locks, nothing but the calls.

use core::ffi::{CStr, c_char, c_int, c_long, c_ulong, c_void};
use core::mem::zeroed;

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) c_int);

impl Errno {
    pub(crate) const INVALID: Self = Self(libc::EINVAL);
    pub(crate) const FAULT: Self = Self(libc::EFAULT);
    pub(crate) const TOO_LONG: Self = Self(libc::ENAMETOOLONG);
    pub(crate) const IO: Self = Self(libc::EIO);

    /// That of this thread's last call.
    fn last() -> Self {
        let place = errno_of_this_thread();
        // SAFETY: libc's pointer to this thread's errno is always valid.
        Self(unsafe { *place })
    }

    /// Sets the calling thread's errno, for the caller of a function that we replace.
    pub(crate) fn set(self) {
        let place = errno_of_this_thread();
        // SAFETY: as above, and no other thread writes this thread's errno.
        unsafe { *place = self.0 };
    }
}

fn errno_of_this_thread() -> *mut c_int {
    // SAFETY: takes no argument and has no precondition.
    unsafe { libc::__errno_location() }
}

fn check(answer: c_long) -> Result<c_long, Errno> {
    if answer < 0 { Err(Errno::last()) } else { Ok(answer) }
}

/// A descriptor of ours, closed when dropped.
#[derive(Debug)]
pub(crate) struct Fd(c_int);

impl Fd {
    /// Takes over what a system call has just made.
    fn made(answer: c_long) -> Result<Self, Errno> {
        // Descriptors are small numbers: nothing is cut off.
        check(answer).map(|number| Self(number as c_int))
    }

    pub(crate) fn number(&self) -> c_int {
        self.0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the number is ours, and no code uses it after this.
        unsafe { libc::syscall(libc::SYS_close, self.0) };
    }
}

unsafe extern "C" {
    /// Not in the libc crate.
    fn secure_getenv(name: *const c_char) -> *const c_char;
}

/// An environment variable, unless this program runs with rights that its caller does not have (secure_getenv(3)).
pub(crate) fn environment(name: &CStr) -> Option<&'static CStr> {
    // SAFETY: the name is a C string.
    let value = unsafe { secure_getenv(name.as_ptr()) };
    // SAFETY: libc returned null or a C string of the environment, which we read before this call of ours ends; a
    // program that changes its environment in another thread meanwhile has undefined behaviour without us.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) })
}

pub(crate) fn open(path: &CStr, flags: c_int) -> Result<Fd, Errno> {
    // SAFETY: the path is a C string; no mode is needed, as nothing is created.
    Fd::made(unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags | libc::O_CLOEXEC, 0) })
}

pub(crate) fn read(fd: &Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the buffer is as long as it says.
    let length = check(unsafe { libc::syscall(libc::SYS_read, fd.0, buffer.as_mut_ptr(), buffer.len()) })?;
    Ok(length as usize)
}

pub(crate) fn read_link(path: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the path is a C string, and the buffer as long as it says.
    let length = check(unsafe {
        libc::syscall(libc::SYS_readlinkat, libc::AT_FDCWD, path.as_ptr(), buffer.as_mut_ptr(), buffer.len())
    })?;
    Ok(length as usize)
}

/// Whether the calling thread has CAP_SYS_ADMIN in effect.
pub(crate) fn has_sys_admin() -> bool {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_SYS_ADMIN: u32 = 21;
    // capget(2): the version and our own thread; then twice effective, permitted, inheritable.
    let header: [u32; 2] = [VERSION_3, 0];
    let mut sets = [0_u32; 6];
    // SAFETY: the kernel reads two numbers at the first pointer and writes six to the second, which leads to as many.
    let answer = unsafe { libc::syscall(libc::SYS_capget, &raw const header, &raw mut sets) };
    answer == 0 && sets[0] & (1 << CAP_SYS_ADMIN) != 0
}

/// What is at a path, found without asking its filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) device: (u32, u32),
    inode: u64,
    /// Whether a mount begins just there (5.8 and later; before that: never).
    pub(crate) mount_root: bool,
    /// The mount's own number (5.8 and later; before that: none).
    pub(crate) mount: Option<u64>,
}

impl Identity {
    pub(crate) fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Follows symbolic links, as mount(2) does.
pub(crate) fn identity(path: &CStr) -> Result<Identity, Errno> {
    statx(libc::AT_FDCWD, path, libc::AT_STATX_DONT_SYNC)
}

pub(crate) fn identity_of(fd: &Fd) -> Result<Identity, Errno> {
    statx(fd.0, c"", libc::AT_EMPTY_PATH)
}

fn statx(at: c_int, path: &CStr, flags: c_int) -> Result<Identity, Errno> {
    let mask = libc::STATX_INO | libc::STATX_MNT_ID;
    // SAFETY: all-zero bytes are a valid value of this plain C structure.
    let mut stat: libc::statx = unsafe { zeroed() };
    // SAFETY: the path is a C string, and the kernel writes one `statx` to the pointer, which is one.
    check(unsafe { libc::syscall(libc::SYS_statx, at, path.as_ptr(), flags, mask, &raw mut stat) })?;
    Ok(Identity {
        device: (stat.stx_dev_major, stat.stx_dev_minor),
        inode: stat.stx_ino,
        mount_root: stat.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0,
        mount: (stat.stx_mask & libc::STATX_MNT_ID != 0).then_some(stat.stx_mnt_id),
    })
}

/// mount(2).
///
/// # Safety
///
/// Each pointer is null or a C string (`data`: or what the type takes). The kernel answers EFAULT to others, so what
/// a caller of libc's mount() may pass may be passed here.
pub(crate) unsafe fn mount(
    source: *const c_char,
    target: *const c_char,
    fstype: *const c_char,
    flags: u64,
    data: *const c_void,
) -> Result<(), Errno> {
    // SAFETY: the caller vouches for the pointers; the kernel checks them once more.
    check(unsafe { libc::syscall(libc::SYS_mount, source, target, fstype, flags, data) }).map(drop)
}

/// capset(2).
///
/// # Safety
///
/// As for [`mount`]: the kernel answers EFAULT to pointers that lead nowhere.
pub(crate) unsafe fn capset(header: *mut c_void, data: *const c_void) -> Result<(), Errno> {
    // SAFETY: the caller vouches for the pointers; the kernel checks them once more.
    check(unsafe { libc::syscall(libc::SYS_capset, header, data) }).map(drop)
}

/// ioctl(2), and what it returns.
///
/// # Safety
///
/// `argument` is what the request takes: the caller of libc's ioctl() vouches for it.
pub(crate) unsafe fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> Result<c_int, Errno> {
    // SAFETY: as the caller vouches.
    check(unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) }).map(|number| number as c_int)
}

/// umount2(2).
///
/// # Safety
///
/// As for [`mount`].
pub(crate) unsafe fn unmount(target: *const c_char, flags: c_int) -> Result<(), Errno> {
    // SAFETY: the caller vouches for the pointer; the kernel checks it once more.
    check(unsafe { libc::syscall(libc::SYS_umount2, target, flags) }).map(drop)
}

/// A copy of what is mounted at the path, attached nowhere yet (5.2 and later).
pub(crate) fn copy_mount(path: &CStr) -> Result<Fd, Errno> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path is a C string.
    Fd::made(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// Attaches a detached mount at the path.
pub(crate) fn attach(tree: &Fd, path: &CStr) -> Result<(), Errno> {
    let (empty, flags) = (c"".as_ptr(), libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_SYMLINKS);
    // SAFETY: both paths are C strings.
    check(unsafe { libc::syscall(libc::SYS_move_mount, tree.0, empty, libc::AT_FDCWD, path.as_ptr(), flags) }).map(drop)
}

/// Moves the calling process, which must have one thread, into a mount namespace.
pub(crate) fn enter(namespace: &Fd) -> Result<(), Errno> {
    // SAFETY: takes plain numbers and touches no memory.
    check(unsafe { libc::syscall(libc::SYS_setns, namespace.0, libc::CLONE_NEWNS) }).map(drop)
}

/// Runs `work` in a copy of this process and returns the number that it ends with, 0 to 255.
///
/// The copy exits without a signal to its parent and is waited for as a "clone child": a program's own handlers and
/// waits never see it. Signals are blocked meanwhile, so that none of the program's handlers runs in the copy.
pub(crate) fn in_a_copy(work: impl FnOnce() -> u8) -> Result<u8, Errno> {
    let everything = u64::MAX;
    let mut before = 0_u64;
    set_signal_mask(&everything, &mut before)?;
    // SAFETY: without CLONE_VM the child has a copy of our memory and this thread's stack, as after fork(2). Other
    // threads may have held locks at that moment: the child runs `work`, which makes system calls only, and ends.
    let started = check(unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) });
    if started == Ok(0) {
        exit(work());
    }
    let ended = started.and_then(|child| wait(child as libc::pid_t));
    set_signal_mask(&before, &mut 0)?;
    ended
}

fn set_signal_mask(mask: &u64, before: &mut u64) -> Result<(), Errno> {
    // SAFETY: both point to the eight bytes that the kernel's signal sets have.
    check(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const *mask, &raw mut *before, size_of::<u64>())
    })
    .map(drop)
}

fn wait(child: libc::pid_t) -> Result<u8, Errno> {
    let mut status: c_int = 0;
    loop {
        // SAFETY: the kernel writes one int to `status`; the last pointer may be null.
        let waited = check(unsafe {
            libc::syscall(libc::SYS_wait4, child, &raw mut status, libc::__WALL, core::ptr::null_mut::<c_void>())
        });
        match waited {
            Err(Errno(libc::EINTR)) => {}
            Err(errno) => return Err(errno),
            Ok(_) if libc::WIFEXITED(status) => return Ok(libc::WEXITSTATUS(status) as u8),
            Ok(_) => return Err(Errno::IO),
        }
    }
}

fn exit(code: u8) -> ! {
    loop {
        // SAFETY: ends this process without running anything of the program's.
        unsafe { libc::syscall(libc::SYS_exit_group, c_int::from(code)) };
    }
}

/// Two ends of a private connection that keeps messages apart.
pub(crate) fn socket_pair() -> Result<(Fd, Fd), Errno> {
    let mut ends: [c_int; 2] = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two ints to the pointer, which leads to two.
    check(unsafe { libc::syscall(libc::SYS_socketpair, libc::AF_UNIX, kind, 0, &raw mut ends) })?;
    Ok((Fd(ends[0]), Fd(ends[1])))
}

/// Sends one datagram of `parts` with `descriptors` to the socket at `path`. Waits while its queue is full.
pub(crate) fn send(path: &CStr, parts: [&[u8]; 4], descriptors: &[c_int]) -> Result<(), Errno> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: takes plain numbers and touches no memory.
    let socket = Fd::made(unsafe { libc::syscall(libc::SYS_socket, libc::AF_UNIX, kind, 0) })?;
    // SAFETY: all-zero bytes are a valid value of this plain C structure.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let path = path.to_bytes();
    if path.len() >= address.sun_path.len() {
        return Err(Errno::TOO_LONG);
    }
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = *from as c_char;
    }
    let mut pieces = parts.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
    let mut control = Control::of(descriptors)?;
    // SAFETY: as above.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_name = (&raw mut address).cast();
    message.msg_namelen = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = pieces.len();
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = control.length();
    loop {
        // SAFETY: all that `message` points to lives in this frame, and the kernel only reads it.
        match check(unsafe { libc::syscall(libc::SYS_sendmsg, socket.0, &raw const message, libc::MSG_NOSIGNAL) }) {
            Err(Errno(libc::EINTR)) => {}
            done => return done.map(drop),
        }
    }
}

/// `SCM_RIGHTS` with up to three descriptors, as the kernel wants it in memory (cmsg(3)).
#[repr(C, align(8))]
struct Control {
    header: libc::cmsghdr,
    descriptors: [c_int; crate::message::DESCRIPTORS],
}

impl Control {
    fn of(descriptors: &[c_int]) -> Result<Self, Errno> {
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut this: Self = unsafe { zeroed() };
        this.header.cmsg_len = size_of::<libc::cmsghdr>() + size_of_val(descriptors);
        this.header.cmsg_level = libc::SOL_SOCKET;
        this.header.cmsg_type = libc::SCM_RIGHTS;
        this.descriptors.get_mut(..descriptors.len()).ok_or(Errno::INVALID)?.copy_from_slice(descriptors);
        Ok(this)
    }

    fn length(&self) -> usize {
        self.header.cmsg_len
    }
}
