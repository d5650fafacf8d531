//! Who is at the other end of a connection.

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::process::Pid;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long a connection may take to send its request: a caller sends all of it at once.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// A connection to somebody who may ask for anything: root.
#[derive(Debug)]
pub struct Caller {
    stream: UnixStream,
}

/// Somebody who may not.
#[derive(Debug, thiserror::Error)]
pub enum CallerError {
    /// Mounting is root's business, as with mount(8).
    #[error("only root may ask the mounter; you are uid {uid}")]
    NotRoot {
        /// Who it is.
        uid: u32,
    },
    /// The kernel does not tell.
    #[error("cannot see who is calling")]
    Unknown(#[source] io::Error),
}

impl Caller {
    /// Checks the peer's credentials, which the kernel took when it connected (unix(7), SO_PEERCRED).
    pub fn check(stream: &UnixStream) -> Result<(), CallerError> {
        stream.set_read_timeout(Some(REQUEST_TIME)).map_err(CallerError::Unknown)?;
        stream.set_write_timeout(Some(REQUEST_TIME)).map_err(CallerError::Unknown)?;
        // Only the uid: the process may be in a PID namespace that we do not see.
        let peer = getsockopt(stream, PeerCredentials).map_err(|errno| CallerError::Unknown(errno.into()))?;
        if peer.uid() == 0 { Ok(()) } else { Err(CallerError::NotRoot { uid: peer.uid() }) }
    }

    /// The peer of a checked connection.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    /// Its process, unless that is in a PID namespace that we do not see.
    pub fn process(&self) -> Option<Pid> {
        getsockopt(&self.stream, PeerCredentials).ok().and_then(|peer| Pid::from_raw(peer.pid()))
    }

    /// The connection, to answer on.
    pub fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }
}

/// Readable (or hung up) means: the caller has gone away, as it has nothing more to say.
impl AsFd for Caller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
