//! A copy of the descriptor of /dev/fuse that a helper serves its filesystem through. While it is held, the helper's end is
//! not the connection's: requests wait. Once a fresh filesystem is in the old one's places they are [answered](Answers), so
//! that the kernel looks there again.
//!
//! Runs in the mounter. **Nothing reads a descriptor here while the helper lives**: what is read, the helper does not get. (Who does
//! is [`fuse_interrupt`](super::fuse_interrupt), while the helper is held still, and it gives back.)

use super::connections::{Connections, Identity};
use super::fuse_reader::{Read, Reader, join};
use super::fuse_requests::{RESEND, answer, may_need_heir};
use linux::mount_table::Device;
use linux::namespace::NamespaceId;
use linux::processes::Process;
use linux::statx::character_device;
use linux::strangers::let_go;
use linux::sys::same_file::has_open;
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

/// How many requests are answered before something else has its turn.
pub(super) const AT_ONCE: usize = 32;

/// Whether a descriptor is one of /dev/fuse.
pub fn is_fuse_device(descriptor: BorrowedFd<'_>) -> bool {
    character_device(descriptor).ok().flatten() == Some(FUSE_DEVICE)
}

/// Whether a process has /dev/fuse open: then it may serve a filesystem.
pub fn may_serve(process: &Process) -> bool {
    descriptors(process).next().is_some()
}

/// The numbers of all its descriptors. That of /dev/fuse has no name to know it by when the container that it was opened in is gone.
fn numbers(process: &Process) -> impl Iterator<Item = i32> {
    process.open_files().filter_map(|file| file.file_name()?.to_str()?.parse().ok())
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

/// A copy of the first of a process's descriptors of these numbers that is one of /dev/fuse, and is `wanted`. `held` is the process.
fn taken(
    process: &Process,
    held: &OwnedFd,
    numbers: impl Iterator<Item = i32>,
    wanted: impl Fn(BorrowedFd<'_>) -> bool,
) -> Option<OwnedFd> {
    for number in numbers {
        // Looked at before it is taken: to let go of a file may take as long as its filesystem likes.
        let link = process.file(format!("fd/{number}"));
        let there = open(&link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        if !there.is_ok_and(|there| is_fuse_device(there.as_fd())) {
            continue;
        }
        let Ok(file) = pidfd_getfd(held, number, PidfdGetfdFlags::empty()) else { continue };
        if !is_fuse_device(file.as_fd()) {
            // It was exchanged meanwhile, as nobody does by accident.
            let_go(file);
            return None;
        }
        if wanted(file.as_fd()) {
            return Some(file);
        }
    }
    None
}

/// The device number of the filesystem whose connection a descriptor is of, by the text of /proc/PID/fdinfo/N: `fuse_connection`, from
/// Linux 6.16 on.
fn connection_in(fdinfo: &str) -> Option<Device> {
    let number: u32 = fdinfo.lines().find_map(|line| line.strip_prefix("fuse_connection:"))?.trim().parse().ok()?;
    // As the kernel has it inside.
    Some(Device { major: number >> 20, minor: number & 0xf_ffff })
}

/// Whether the connection has ended that a descriptor is of.
fn has_ended(file: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(file, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(fds[0].revents().contains(PollFlags::ERR))
}

/// The copy.
#[derive(Debug)]
pub struct FuseDevice {
    /// The same open file that the helper has, or had: what was read through it is the connection's until it is answered.
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
            let file = taken(&process, &held, numbers, |file| join(file).is_ok())?;
            Some(Self { file, filesystem, connections: Arc::clone(connections) })
        })
    }

    /// The one that `filesystem` was mounted with; a copy of it is for its program.
    pub fn new(file: OwnedFd, filesystem: Identity, connections: &Arc<Connections>) -> Self {
        Self { file, filesystem, connections: Arc::clone(connections) }
    }

    /// A copy of the one that `process`, a pod's, serves `filesystem` through. The kernel says which connection a descriptor is
    /// of from Linux 6.16 on; before that, it is any that belongs to one, which is enough if it is the pod's `only` one.
    pub fn of_pods(
        process: &Process,
        filesystem: Identity,
        only: bool,
        connections: &Arc<Connections>,
    ) -> Option<Self> {
        let held = process.pidfd().ok()?;
        let is_its = |number: &i32| {
            let told = process.read(&format!("fdinfo/{number}")).unwrap_or_default();
            connection_in(&told).map_or(only, |device| device == filesystem.device)
        };
        // One whose filesystem is no more has its number still, which may be the next one's by now.
        let is_alive = |file: BorrowedFd<'_>| has_ended(file).is_ok_and(|ended| !ended) && join(file).is_ok();
        let file = taken(process, &held, numbers(process).filter(is_its), is_alive)?;
        Some(Self::new(file, filesystem, connections))
    }

    /// Whether a process, of our PID namespace, has it open. An error: it is on its way out, perhaps.
    pub fn is_open_in(&self, process: &Process) -> io::Result<bool> {
        let mut doubt = None;
        for number in numbers(process) {
            match has_open(process.pid(), number, self.file.as_fd()) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                // The kernel cannot tell: any connection's will do.
                Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => return Ok(may_serve(process)),
                Err(error) => doubt = Some(error),
            }
        }
        doubt.map_or(Ok(false), Err)
    }

    /// Another copy.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            filesystem: self.filesystem,
            connections: Arc::clone(&self.connections),
        })
    }

    /// The descriptor itself, to be given to the filesystem's program.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// What the helper had read and not answered waits to be read again. To be called when nothing of the helper runs any
    /// more. An error: Linux before 6.9, or the connection has ended, as it does when the filesystem is mounted nowhere.
    pub fn resend(&self) -> io::Result<()> {
        if has_ended(self.file.as_fd())? {
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
        self.reader().map(|(reader, held)| Answers::new(reader, held))
    }

    /// What reads it from here on, and the copy. An error: the connection has been ended.
    pub(super) fn reader(self) -> io::Result<(Reader, Self)> {
        match Reader::of(self.file.as_fd()) {
            Ok(reader) => Ok((reader, self)),
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }
}

/// How far a connection's requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// All of them, or as many as have their turn at once.
    Some,
    /// An heir is to answer for a file that is open.
    OpenFile,
    /// The connection has ended, or cannot be read.
    Ended,
}

/// A connection whose requests are answered, all of them, so that the kernel looks again.
///
/// Readable when there are any, or when it has ended. Never waits; needs the same memory whatever comes.
#[derive(Debug)]
pub struct Answers {
    reader: Reader,
    held: FuseDevice,
}

impl Answers {
    pub(super) fn new(reader: Reader, held: FuseDevice) -> Self {
        Self { reader, held }
    }

    /// Answers what waits, or a part of it. With an `heir`, a request that may be about an open file is left to it, and is the last
    /// that is read.
    pub fn answer(&mut self, heir: bool) -> Answered {
        for _ in 0..AT_ONCE {
            let answer = match self.reader.read() {
                Read::Request { head, .. } if heir && may_need_heir(head) => return Answered::OpenFile,
                Read::Request { head, .. } => answer(head),
                Read::Nothing => break,
                Read::Again => None,
                Read::Ended => return Answered::Ended,
            };
            answer.into_iter().for_each(|answer| self.reader.write(&answer));
        }
        Answered::Some
    }

    /// The device number of the filesystem.
    pub fn device(&self) -> Device {
        self.held.filesystem.device
    }

    /// A descriptor of the connection, which does not wait. What was read by it and not answered is handed out again after a RESEND.
    pub fn connection(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// Ends the connection.
    pub fn end(self) {
        self.held.end();
    }
}

impl AsFd for Answers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::own_mounts::{in_own_mounts, mounted_at};
    use linux::sys::fuse::HEAD;
    use rustix::fs::statfs;
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    use std::ffi::CString;
    use std::fs::{self, File};
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::thread;

    const PATH: &str = "/mnt/held";

    #[test]
    fn which_connection_a_descriptor_is_of() {
        let text = "pos:\t0\nflags:\t02100002\nmnt_id:\t33\nino:\t95\nfuse_connection:\t61\n";
        assert_eq!(connection_in(text), Some(Device { major: 0, minor: 61 }));
        assert_eq!(connection_in("pos:\t0\n"), None);
    }

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
                        assert_eq!(answers.answer(false), Answered::Some);
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
