//! Descriptors that a process of others has given, or that were taken from it: to close a file may wait for its filesystem, which hears of it
//! (FLUSH of FUSE, writes of NFS), and that is theirs.
//!
//! Runs in the mounter, on any of its threads. A descriptor that was opened for naming only (O_PATH) never waits.

use crate::statx;
use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, open};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

/// Whether to close a descriptor may wait for a filesystem. Asks none.
pub fn waits_when_closed(descriptor: BorrowedFd<'_>) -> bool {
    let is_file = |mode: u16| FileType::from_raw_mode(mode.into()).is_file();
    let names_only = || fcntl_getfl(descriptor).is_ok_and(|flags| flags.contains(OFlags::PATH));
    statx::cached(descriptor).map_or(true, |stat| is_file(stat.stx_mode)) && !names_only()
}

/// Closes a descriptor; one that may have to be waited for on a thread, which ends when its filesystem answers, or is no more.
pub fn let_go(descriptor: OwnedFd) {
    if !waits_when_closed(descriptor.as_fd()) {
        return;
    }
    // What a thread was to have that could not be started would be closed with the error.
    let (gives, takes) = mpsc::channel();
    let started = thread::Builder::new().name("lets-go".into()).spawn(move || drop(takes.recv()));
    let not_given = match started {
        Ok(_) => gives.send(descriptor).err().map(|mpsc::SendError(descriptor)| descriptor),
        Err(_) => Some(descriptor),
    };
    // It stays open: better than to wait.
    not_given.into_iter().for_each(std::mem::forget);
}

/// Opens what is behind a link in /proc to a process's descriptor, if it `is` what is looked for. The process may exchange it at any
/// time: what is opened is what was looked at.
pub fn open_if(link: &Path, flags: OFlags, is: impl FnOnce(BorrowedFd<'_>) -> io::Result<bool>) -> io::Result<OwnedFd> {
    let held = open(link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    if !is(held.as_fd())? {
        return Err(Errno::NOENT.into());
    }
    Ok(open(crate::processes::name_of(held.as_fd()), flags | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn only_a_file_that_is_open_may_have_to_be_waited_for() {
        let program = std::env::current_exe().unwrap();
        let waits = |descriptor: &dyn AsFd| waits_when_closed(descriptor.as_fd());
        assert!(waits(&File::open(&program).unwrap()));
        assert!(!waits(&open(&program, OFlags::PATH, Mode::empty()).unwrap()));
        assert!(!waits(&File::open("/dev/null").unwrap()) && !waits(&File::open("/").unwrap()));
        assert!(!waits(&UnixStream::pair().unwrap().0) && !waits(&io::pipe().unwrap().0));
        let (file, null) = (File::open(program).unwrap(), File::open("/dev/null").unwrap());
        let links = [file.as_raw_fd(), null.as_raw_fd()].map(|number| format!("/proc/self/fd/{number}"));
        let before = links.clone().map(|link| std::fs::read_link(link).unwrap());
        let_go(file.into());
        let_go(null.into());
        // Another test may have got the number since.
        for (link, before) in links.iter().zip(before) {
            while std::fs::read_link(link).is_ok_and(|now| now == before) {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn what_is_something_else_is_not_opened() {
        let (pipe, _end) = io::pipe().unwrap();
        let link = format!("/proc/self/fd/{}", pipe.as_raw_fd());
        let device = statx::identity(pipe.as_fd()).unwrap().0;
        let is_pipe = |held: BorrowedFd<'_>| Ok(statx::identity(held)?.0 == device);
        assert_eq!(
            statx::identity(open_if(Path::new(&link), OFlags::RDONLY, is_pipe).unwrap().as_fd()).unwrap().0,
            device
        );
        let file = File::open("/proc/self/exe").unwrap();
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert!(open_if(Path::new(&link), OFlags::RDONLY, is_pipe).is_err());
        // Exchanged all the time for what is, and back.
        let over = AtomicBool::new(false);
        let exchanged = OwnedFd::from(file.try_clone().unwrap());
        thread::scope(|scope| {
            let link = format!("/proc/self/fd/{}", exchanged.as_raw_fd());
            let over = &over;
            let (file, pipe) = (&file, &pipe);
            scope.spawn(move || {
                let mut exchanged = exchanged;
                while !over.load(Ordering::Relaxed) {
                    rustix::io::dup2(pipe, &mut exchanged).unwrap();
                    rustix::io::dup2(file, &mut exchanged).unwrap();
                }
            });
            let mut opened = (0..20_000).filter_map(|_| open_if(Path::new(&link), OFlags::RDONLY, is_pipe).ok());
            assert!(opened.all(|opened| statx::identity(opened.as_fd()).unwrap().0 == device));
            over.store(true, Ordering::Relaxed);
        });
    }
}
