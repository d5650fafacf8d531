//! A connection of a caller that may ask.
//!
//! Runs in the mounter, on the request's own thread.

use super::Mounter;
use super::door::MayAsk;
use super::peer::{self, PeerError};
use api::origin::Origin;
use rustix::process::Pid;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// A connection whose other end may ask. There is no way to one but [`Connection::check`].
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    origin: Origin,
    /// As the kernel saw it when it connected; none in a PID namespace that we do not see.
    process: Option<Pid>,
}

impl Connection {
    /// Checks [who has connected](peer) at the door for callers from `origin`. A stream whose peer may not ask is given back,
    /// to say so on it.
    pub fn check(
        mounter: &Mounter,
        stream: UnixStream,
        origin: Origin,
        may_ask: MayAsk,
    ) -> Result<Self, (UnixStream, PeerError)> {
        match peer::check(&stream, may_ask, &mounter.host_proc, &mounter.state) {
            Ok(process) => Ok(Self { stream, origin, process }),
            Err(error) => Err((stream, error)),
        }
    }

    /// Where it came from, which decides what it may have.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The caller's process, unless that is in a PID namespace that we do not see.
    pub fn process(&self) -> Option<Pid> {
        self.process
    }

    /// The stream, to read the request from and to answer on.
    pub fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }
}

/// Readable (or hung up) means: the caller has gone away, as it has nothing more to say.
impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
