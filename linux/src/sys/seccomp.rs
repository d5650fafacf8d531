//! seccomp_unotify(2): a filter with a listener, and the three calls on it.
//!
//! Neither nix nor rustix has these. Runs in the mounter; [`install`] binds the calling thread.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// One instruction of a classic BPF program.
pub use libc::sock_filter as Instruction;

/// A trapped system call: its thread waits until it is answered.
#[derive(Debug, Clone, Copy)]
pub struct Notification {
    /// Names this very call until it is answered or its thread is gone.
    pub id: u64,
    /// The calling **thread**, in our PID namespace.
    pub tid: u32,
    /// The number of the system call.
    pub number: i64,
    /// Its six arguments, as the caller's registers held them.
    pub args: [u64; 6],
}

const SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
// _IOW('!', 2, __u64): the direction was wrong in the header's first version, and both are accepted since 5.17.
const NOTIF_ID_VALID: libc::Ioctl = 0x4008_2102;

/// Puts a filter on the calling thread, and on whatever it will start, and returns the listener (close-on-exec).
///
/// The thread must have `no_new_privs` set or hold CAP_SYS_ADMIN. Once the listener has taken a call, only a fatal
/// signal interrupts its thread, where the kernel knows how (5.19 and later).
pub fn install(program: &[Instruction]) -> io::Result<OwnedFd> {
    match install_with(program, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => install_with(program, 0),
        done => done,
    }
}

fn install_with(program: &[Instruction], flags: libc::c_ulong) -> io::Result<OwnedFd> {
    let fd = set_filter(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | flags)?;
    // SAFETY: with NEW_LISTENER the answer is a new descriptor that has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts a filter without a listener on the calling thread and on whatever it will start: what it stops is an error, as
/// on a kernel that has not got the call. Tests are old kernels this way.
pub fn restrict(program: &[Instruction]) -> io::Result<()> {
    set_filter(program, 0).map(|_| ())
}

fn set_filter(program: &[Instruction], flags: libc::c_ulong) -> io::Result<RawFd> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: `program` points to `length` instructions that live until the call returns; the kernel only reads
    // and copies them.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    match i32::try_from(done) {
        Ok(done) if done >= 0 => Ok(done),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes the next trapped call. Never waits when the listener was readable; ENOENT if the caller died meanwhile.
pub fn receive(listener: BorrowedFd<'_>) -> io::Result<Notification> {
    // SAFETY: all-zero bytes are a valid value of this plain C structure, and the kernel demands them.
    let mut raw: libc::seccomp_notif = unsafe { mem::zeroed() };
    // SAFETY: the request writes one `seccomp_notif` to the pointer, which is one.
    let done = unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut raw) };
    check(done)?;
    Ok(Notification { id: raw.id, tid: raw.pid, number: raw.data.nr.into(), args: raw.data.args })
}

/// Whether the call still waits: if not, its thread's id may belong to another by now, and what was read of it is void.
pub fn is_valid(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the request reads one u64 from the pointer, which is one.
    unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_ID_VALID, &raw const id) == 0 }
}

/// Answers a call with 0 or an errno. ENOENT if its thread is gone or was interrupted.
pub fn respond(listener: BorrowedFd<'_>, id: u64, answer: Result<(), rustix::io::Errno>) -> io::Result<()> {
    let error = answer.err().map_or(0, |errno| -errno.raw_os_error());
    let mut raw = libc::seccomp_notif_resp { id, val: 0, error, flags: 0 };
    // SAFETY: the request reads one `seccomp_notif_resp` from the pointer, which is one.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut raw) })
}

fn check(done: libc::c_int) -> io::Result<()> {
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
