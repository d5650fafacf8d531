//! Whether a filesystem answers, asked by a process that can be given up.
//!
//! Runs in any process, with any number of threads. A process that asks a filesystem which hangs cannot even be killed
//! before that filesystem goes, so a process of its own asks.

use super::fork::fork_held;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsFd;
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

/// All of the asking process's life: system calls only, no allocation, no panic.
fn ask_and_end(path: &CStr) -> ! {
    // A process that reads our caller's output to its end must not wait for this one.
    // SAFETY: closes this process's own table only; nothing here owns a descriptor any more.
    unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
    // SAFETY: all-zero bytes are a valid value of this plain C structure.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let (flags, mask) = (libc::AT_STATX_FORCE_SYNC, libc::STATX_BASIC_STATS);
    // SAFETY: the path is a C string, and `stat` lives in this frame.
    let asked = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, mask, &raw mut stat) };
    let not_served = asked != 0 && [libc::ENOTCONN, libc::ECONNABORTED].contains(&nix::errno::Errno::last_raw());
    // SAFETY: ends the process without running anything of the creator's.
    unsafe { libc::_exit(not_served.into()) }
}
