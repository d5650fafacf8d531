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
use std::thread::{self, JoinHandle};

/// Whether to close a descriptor may wait for a filesystem. Asks none.
pub fn waits_when_closed(descriptor: BorrowedFd<'_>) -> bool {
    let names_only = fcntl_getfl(descriptor).is_ok_and(|flags| flags.contains(OFlags::PATH));
    let is_file = |mode: u16| FileType::from_raw_mode(mode.into()).is_file();
    !names_only && statx::cached(descriptor).map_or(true, |stat| is_file(stat.stx_mode))
}

/// Closes descriptors; those that may have to be waited for on a thread, which ends when their filesystems answer, or are no more.
pub fn let_go(descriptors: impl IntoIterator<Item = OwnedFd>) -> Option<JoinHandle<()>> {
    let waiting: Vec<_> = descriptors.into_iter().filter(|one| waits_when_closed(one.as_fd())).collect();
    if waiting.is_empty() {
        return None;
    }
    // What a thread was to have that could not be started would be closed with the error.
    let (gives, takes) = mpsc::channel();
    let started = thread::Builder::new().name("lets-go".into()).spawn(move || drop(takes.recv())).ok();
    let not_given = match started {
        Some(_) => gives.send(waiting).err().map(|mpsc::SendError(waiting)| waiting),
        None => Some(waiting),
    };
    // They stay open: better than to wait.
    not_given.into_iter().flatten().for_each(std::mem::forget);
    started
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

    #[test]
    fn only_a_file_that_is_open_may_have_to_be_waited_for() {
        let program = std::env::current_exe().unwrap();
        let waits = |descriptor: &dyn AsFd| waits_when_closed(descriptor.as_fd());
        assert!(waits(&File::open(&program).unwrap()));
        assert!(!waits(&open(&program, OFlags::PATH, Mode::empty()).unwrap()));
        assert!(!waits(&File::open("/dev/null").unwrap()) && !waits(&File::open("/").unwrap()));
        assert!(!waits(&UnixStream::pair().unwrap().0) && !waits(&io::pipe().unwrap().0));
        let_go([File::open(program).unwrap().into()]).unwrap().join().unwrap();
        assert!(let_go([File::open("/dev/null").unwrap().into()]).is_none());
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
        let over = std::sync::atomic::AtomicBool::new(false);
        let exchanged = OwnedFd::from(file.try_clone().unwrap());
        thread::scope(|scope| {
            let link = format!("/proc/self/fd/{}", exchanged.as_raw_fd());
            let over = &over;
            let (file, pipe) = (&file, &pipe);
            scope.spawn(move || {
                let mut exchanged = exchanged;
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    rustix::io::dup2(pipe, &mut exchanged).unwrap();
                    rustix::io::dup2(file, &mut exchanged).unwrap();
                }
            });
            let mut opened = (0..20_000).filter_map(|_| open_if(Path::new(&link), OFlags::RDONLY, is_pipe).ok());
            assert!(opened.all(|opened| statx::identity(opened.as_fd()).unwrap().0 == device));
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
