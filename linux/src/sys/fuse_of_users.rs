//! Mounting a FUSE filesystem that is a user namespace's: owners in it are those of that namespace, and nobody outside of it may enter.
//!
//! Runs in a process that the mounter forks for it: the kernel goes by the user namespaces of who mounts, and of who has opened /dev/fuse, and
//! only a process with one thread can change its own.

use super::fork::fork_held;
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType};
use rustix::net::{recvmsg, socketpair};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::ffi::{CStr, c_int};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// A call of mount(2).
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The source.
    pub source: &'a CStr,
    /// A directory in the calling thread's mount namespace: in a copy of that it is mounted there.
    pub at: &'a CStr,
    /// The type.
    pub fstype: &'a CStr,
    /// The flags.
    pub flags: libc::c_ulong,
    /// The options, with `fd=` and the number of `device`.
    pub data: &'a CStr,
    /// A descriptor in whose place the process has one of /dev/fuse of its own.
    pub device: BorrowedFd<'a>,
}

/// Has it mounted for this user namespace. Returns the descriptor to serve it by, and the mount, which is visible nowhere.
pub fn mount(users: BorrowedFd<'_>, call: Call<'_>) -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let (users, socket) = (users.as_raw_fd(), theirs.as_raw_fd());
    // SAFETY: `mount_and_end` makes system calls only.
    let (_, process) = unsafe { fork_held(0, None, || mount_and_end(users, socket, call)) }?;
    drop(theirs);
    let mut message = [0; size_of::<c_int>()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(&ours, &mut [IoSliceMut::new(&mut message)], &mut control, RecvFlags::CMSG_CLOEXEC);
    // It ends now. Whoever collects all processes of ours may have collected it already.
    let _ = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
    let whole = received?.bytes == message.len();
    let mut descriptors = control.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    match (c_int::from_ne_bytes(message), descriptors.as_mut().and_then(|all| Some((all.next()?, all.next()?)))) {
        (0, Some(both)) if whole => Ok(both),
        (errno, _) if whole && errno != 0 => Err(io::Error::from_raw_os_error(errno)),
        // It was killed.
        _ => Err(io::ErrorKind::Interrupted.into()),
    }
}

/// All of the process's life: system calls only, no allocation, no panic.
fn mount_and_end(users: RawFd, socket: RawFd, call: Call<'_>) -> ! {
    /// A control message with two descriptors (cmsg(3)).
    #[repr(C)]
    struct Control {
        header: libc::cmsghdr,
        descriptors: [RawFd; 2],
    }
    let tree = mounted(users, call);
    let mut errno: c_int = if tree < 0 { nix::errno::Errno::last_raw() } else { 0 };
    let mut part = libc::iovec { iov_base: (&raw mut errno).cast(), iov_len: size_of::<c_int>() };
    // SAFETY: all-zero bytes are a valid value of this plain C structure.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut control: Control = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if tree >= 0 {
        control.header.cmsg_level = libc::SOL_SOCKET;
        control.header.cmsg_type = libc::SCM_RIGHTS;
        control.header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<[RawFd; 2]>()) as _;
        control.descriptors = [call.device.as_raw_fd(), tree];
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Control>() as _;
    }
    // SAFETY: the message's parts live in this frame, with the lengths that are stated.
    unsafe { libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL) };
    // SAFETY: ends the process without running anything of the creator's.
    unsafe { libc::_exit(0) }
}

/// A copy of what was mounted; negative: errno says why there is none. The process has one thread.
fn mounted(users: RawFd, call: Call<'_>) -> RawFd {
    let Call { source, at, fstype, flags, data, device } = call;
    // SAFETY: changes this process's own user namespace.
    if unsafe { libc::setns(users, libc::CLONE_NEWUSER) } != 0 {
        return -1;
    }
    // As the node's root still: nobody else may open it everywhere.
    // SAFETY: the path is a C string.
    let opened = unsafe { libc::open(c"/dev/fuse".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if opened < 0 {
        return -1;
    }
    // SAFETY: in this process nothing owns the descriptor that is closed.
    if unsafe { libc::dup2(opened, device.as_raw_fd()) } < 0 {
        return -1;
    }
    // SAFETY: changes this process's own mount namespace.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return -1;
    }
    // SAFETY: five C strings that outlive the call.
    let done = unsafe { libc::mount(source.as_ptr(), at.as_ptr(), fstype.as_ptr(), flags, data.as_ptr().cast()) };
    if done != 0 {
        return -1;
    }
    let copy = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path is a C string.
    let tree = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, at.as_ptr(), copy) };
    RawFd::try_from(tree).unwrap_or(-1)
}
