//! Reading and answering the requests of a FUSE connection that no program serves any more, or none yet.
//!
//! Runs in the mounter. It never waits, and needs the same memory whatever comes.

use linux::processes::name_of;
use linux::sys::fuse::{HEAD, join_connection, read_head};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What follows the beginning of a request is read to here.
const REST: usize = 64 << 10;
/// How often there is room for it: for requests of 1 MiB, the usual longest (256 pages), or for the longest that can be.
const TIMES: [usize; 2] = [18, 1023];

/// A descriptor of our own of the connection that `file` belongs to. Who had `file` may have given it to anybody, and made it
/// wait; nobody else has this one.
pub(super) fn join(file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = open(name_of(file), flags, Mode::empty())?;
    join_connection(device.as_fd(), file)?;
    Ok(device)
}

/// A descriptor of a connection's.
#[derive(Debug)]
pub(super) struct Reader {
    device: OwnedFd,
    times: usize,
    head: [u8; HEAD],
    rest: Vec<u8>,
}

/// What was read.
pub(super) enum Read<'a> {
    /// A request: its beginning, and what follows, which is of use for short ones only: of long ones its parts cover each other.
    Request { head: &'a [u8; HEAD], body: &'a [u8] },
    /// There are no more.
    Nothing,
    /// It was taken back, or there was no room: there may be more.
    Again,
    /// The connection has ended, or cannot be read.
    Ended,
}

impl Reader {
    /// One of the connection that `file` belongs to.
    pub(super) fn of(file: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { device: join(file)?, times: TIMES[0], head: [0; HEAD], rest: Vec::new() })
    }

    /// Reads a request.
    pub(super) fn read(&mut self) -> Read<'_> {
        self.rest.resize(REST, 0);
        match read_head(self.device.as_fd(), &mut self.head, &mut self.rest, self.times) {
            Ok(length) if length < HEAD => Read::Ended,
            Ok(length) => {
                let body = self.rest.get(..(length - HEAD).min(REST)).unwrap_or_default();
                Read::Request { head: &self.head, body }
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => {
                    // It may be long until there are more.
                    self.rest = Vec::new();
                    Read::Nothing
                }
                Some(Errno::INTR | Errno::NOENT) => Read::Again,
                // The program has announced longer requests.
                Some(Errno::INVAL) if self.times < TIMES[1] => {
                    self.times = TIMES[1];
                    Read::Again
                }
                _ => Read::Ended,
            },
        }
    }

    /// Answers a request. It fails if the caller was killed meanwhile, which is nobody's loss.
    pub(super) fn write(&self, answer: &[u8]) {
        let _ = rustix::io::write(&self.device, answer);
    }
}

impl AsFd for Reader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}
