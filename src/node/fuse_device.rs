//! A copy of the descriptor of /dev/fuse that a helper serves its filesystem through. While it is held, the helper's end is
//! not the connection's: requests wait. Once a fresh filesystem is in the old one's places they are [answered](Answers), so
//! that the kernel looks there again.
//!
//! Runs in the mounter. **Nothing reads a descriptor here while the helper lives**: what is read, the helper does not get.

use super::connections::{Connections, Identity};
use super::fuse_requests::{RESEND, answer};
use linux::mount_table::Device;
use linux::namespace::NamespaceId;
use linux::processes::{Process, name_of};
use linux::statx::character_device;
use linux::sys::fuse::{HEAD, join_connection, read_head};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tracing::warn;

/// `/dev/fuse`: character device 10:229 (Documentation/admin-guide/devices.txt).
const FUSE_DEVICE: Device = Device { major: 10, minor: 229 };

/// What follows the beginning of a request is read to here, and lost.
const REST: usize = 64 << 10;
/// How often there is room for it: for requests of 1 MiB, the usual longest (256 pages), or for the longest that can be.
const TIMES: [usize; 2] = [18, 1023];
/// How many requests are answered before something else has its turn.
const AT_ONCE: usize = 32;

/// Whether a descriptor is one of /dev/fuse.
pub fn is_fuse_device(descriptor: BorrowedFd<'_>) -> bool {
    character_device(descriptor).ok().flatten() == Some(FUSE_DEVICE)
}

/// Whether a process has /dev/fuse open: then it may serve a filesystem.
pub fn may_serve(process: &Process) -> bool {
    descriptors(process).next().is_some()
}

/// The numbers of its descriptors of what is named like /dev/fuse. Nothing is opened, so nothing is asked.
fn descriptors(process: &Process) -> impl Iterator<Item = i32> {
    process.open_files().filter_map(|file| {
        let name = std::fs::read_link(&file).ok()?;
        // What was removed since has ` (deleted)` at its end.
        name.file_name()?.to_str()?.starts_with("fuse").then_some(())?;
        file.file_name()?.to_str()?.parse().ok()
    })
}

/// The copy.
#[derive(Debug)]
pub struct FuseDevice {
    /// The same open file that the helper had: what was read through it is the connection's until it is answered.
    file: OwnedFd,
    filesystem: Identity,
    connections: Arc<Connections>,
}

impl FuseDevice {
    /// A copy of the one that those of these processes that live in `home`, a helper's mount namespace that the caller holds, serve
    /// `filesystem` through; none if they have none. A helper has one connection and no more, but it may have opened /dev/fuse
    /// for nothing as well.
    pub fn of(
        processes: impl IntoIterator<Item = Process>,
        home: NamespaceId,
        filesystem: Identity,
        connections: &Arc<Connections>,
    ) -> Option<Self> {
        processes.into_iter().find_map(|process| {
            let mut numbers = descriptors(&process).peekable();
            numbers.peek()?;
            let held = process.pidfd().ok()?;
            // Asked now that it is held: so it is the very process.
            process.mount_namespace().is_ok_and(|id| id == home).then_some(())?;
            let files = numbers.filter_map(|number| pidfd_getfd(&held, number, PidfdGetfdFlags::empty()).ok());
            let file = files.filter(|file| is_fuse_device(file.as_fd())).find(|file| join(file.as_fd()).is_ok())?;
            Some(Self { file, filesystem, connections: Arc::clone(connections) })
        })
    }

    /// What the helper had read and not answered waits to be read again. To be called when nothing of the helper runs any
    /// more. An error: Linux before 6.9, or the connection has ended, as it does when the filesystem is mounted nowhere.
    pub fn resend(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(&self.file, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        if fds[0].revents().contains(PollFlags::ERR) {
            return Err(Errno::NODEV.into());
        }
        rustix::io::write(&self.file, &RESEND)?;
        Ok(())
    }

    /// Ends the connection: what waits gets an error, and so does what comes.
    pub fn end(self) {
        if let Err(error) = self.connections.abort(self.filesystem)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!("cannot end the connection of a helper that is gone: {error}");
        }
    }

    /// Answers from here on what comes.
    pub fn answers(self) -> io::Result<Answers> {
        match join(self.file.as_fd()) {
            Ok(device) => Ok(Answers { device, times: TIMES[0], held: self }),
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }
}

/// A descriptor of our own of the connection that `file` belongs to. A helper may have given `file` to anybody, and made it
/// wait; nobody else has this one.
fn join(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = open(name_of(file), flags, Mode::empty())?;
    join_connection(device.as_fd(), file)?;
    Ok(device)
}

/// A connection whose requests are answered, all of them, so that the kernel looks again.
///
/// Readable when there are any, or when it has ended. Never waits; needs the same memory whatever comes.
#[derive(Debug)]
pub struct Answers {
    device: OwnedFd,
    times: usize,
    held: FuseDevice,
}

impl Answers {
    /// Answers what waits, or a part of it. `false`: the connection has ended, or cannot be read.
    pub fn answer(&mut self) -> bool {
        let mut rest = vec![0; REST];
        let mut head = [0; HEAD];
        for _ in 0..AT_ONCE {
            match read_head(self.device.as_fd(), &mut head, &mut rest, self.times) {
                Ok(length) if length < HEAD => return false,
                // It fails if the caller was killed meanwhile.
                Ok(_) => _ = answer(&head).map(|answer| rustix::io::write(&self.device, &answer)),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => return true,
                    // A request that was taken back.
                    Some(Errno::INTR | Errno::NOENT) => {}
                    // The helper has announced longer requests.
                    Some(Errno::INVAL) if self.times < TIMES[1] => self.times = TIMES[1],
                    _ => return false,
                },
            }
        }
        true
    }

    /// Ends the connection.
    pub fn end(self) {
        self.held.end();
    }
}

impl AsFd for Answers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::own_mounts::{in_own_mounts, mounted_at};
    use rustix::fs::statfs;
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    use std::ffi::CString;
    use std::fs::{self, File};
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::thread;

    const PATH: &str = "/mnt/held";

    /// A filesystem whose helper is this thread: it has answered INIT, by which it wants writes of this length.
    fn mounted(longest_write: u32) -> File {
        fs::create_dir_all(PATH).unwrap();
        let mut device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let data = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        mount(c"own", PATH, c"fuse.own", MountFlags::empty(), CString::new(data).unwrap().as_c_str()).unwrap();
        let mut request = vec![0; 1 << 20];
        assert!(device.read(&mut request).unwrap() > HEAD);
        let mut answer = vec![0; 16 + 64];
        answer[..4].copy_from_slice(&80u32.to_ne_bytes());
        answer[8..16].copy_from_slice(&request[8..16]);
        (answer[16], answer[20]) = (7, 31);
        answer[36..40].copy_from_slice(&longest_write.to_ne_bytes());
        device.write_all(&answer).unwrap();
        device
    }

    #[test]
    #[ignore = "a mount namespace needs root: make test-quick"]
    fn what_was_read_and_what_was_not_is_answered_however_long_requests_may_be() {
        in_own_mounts(|| {
            let connections = Arc::new(Connections::open().unwrap());
            for longest_write in [4096, 1 << 20, 16 << 20] {
                let mut device = mounted(longest_write);
                let filesystem = connections.identify(mounted_at(PATH).device);
                let ask = || statfs(PATH).err();
                thread::scope(|scope| {
                    let mut askers = vec![scope.spawn(ask)];
                    assert!(device.read(&mut vec![0; longest_write as usize + 8192]).unwrap() >= HEAD);
                    askers.push(scope.spawn(ask));
                    while connections.waiting(filesystem).unwrap() < 2 {
                        thread::yield_now();
                    }
                    let held = FuseDevice { file: device.into(), filesystem, connections: Arc::clone(&connections) };
                    held.resend().unwrap();
                    let mut answers = held.answers().unwrap();
                    while !askers.iter().all(|asker| asker.is_finished()) {
                        let a_moment = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
                        poll(&mut [PollFd::new(&answers, PollFlags::IN)], Some(&a_moment)).unwrap();
                        assert!(answers.answer());
                    }
                    askers.into_iter().for_each(|asker| assert_eq!(asker.join().unwrap(), Some(Errno::STALE)));
                    answers.end();
                });
                assert_eq!(ask(), Some(Errno::NOTCONN));
                unmount(PATH, UnmountFlags::DETACH).unwrap();
            }
        });
    }
}
