//! Whether a process has a certain file open, told by the kernel and not by a name (kcmp(2)).

use rustix::process::{Pid, getpid};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// KCMP_FILE of linux/kcmp.h.
const KCMP_FILE: libc::c_int = 0;

/// Whether descriptor `number` of `process` (by its id in our PID namespace) is the very open file that `ours` is: a copy, as dup(2),
/// fork(2) and SCM_RIGHTS make them, and not the same file opened anew. ESRCH, EBADF: there is no such process, or descriptor;
/// ENOSYS: a kernel without CONFIG_KCMP.
pub fn has_open(process: Pid, number: RawFd, ours: BorrowedFd<'_>) -> io::Result<bool> {
    let (own, other) = (getpid().as_raw_nonzero().get(), process.as_raw_nonzero().get());
    let (one, two) = (libc::c_long::from(ours.as_raw_fd()), libc::c_long::from(number));
    // SAFETY: the call takes numbers only, and changes nothing.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, own, other, KCMP_FILE, one, two) };
    if order < 0 { Err(io::Error::last_os_error()) } else { Ok(order == 0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn a_copy_is_the_same_file_and_the_file_opened_anew_is_not() {
        let [file, again] = [(); 2].map(|()| File::open("/dev/null").unwrap());
        let copy = file.try_clone().unwrap();
        let is = |other: &File| has_open(getpid(), other.as_raw_fd(), file.as_fd());
        match is(&copy) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {}
            same => assert!(same.unwrap() && !is(&again).unwrap()),
        }
        let nobodys = has_open(getpid(), RawFd::MAX, file.as_fd()).unwrap_err();
        assert!([libc::EBADF, libc::ENOSYS].map(Some).contains(&nobodys.raw_os_error()), "{nobodys}");
    }
}
