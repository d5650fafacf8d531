//! A connection of a caller that may ask.
//!
//! Runs in the mounter, on the request's own thread.

use crate::policy::Origin;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::process::Pid;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// A connection whose other end may ask. There is no way to one but [`Connection::check`].
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    origin: Origin,
    /// As the kernel saw it when it connected; 0 in a PID namespace that we do not see.
    process: Option<Pid>,
}

/// The other end may not ask.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Mounting is root's business, as with mount(8).
    #[error("only root may ask the mounter; you are uid {uid}")]
    NotRoot {
        /// The peer's uid.
        uid: u32,
    },
    /// The kernel does not tell.
    #[error("cannot see who is calling")]
    Unknown(#[source] io::Error),
}

impl Connection {
    /// Checks the peer's credentials, which the kernel took when it connected (unix(7), SO_PEERCRED). A stream whose peer
    /// may not ask is given back, to say so on it.
    pub fn check(stream: UnixStream) -> Result<Self, (UnixStream, PeerError)> {
        match credentials(&stream) {
            // Only the uid: the process may be in a PID namespace that we do not see.
            Ok((0, process)) => Ok(Self { stream, origin: Origin::RootSocket, process }),
            Ok((uid, _)) => Err((stream, PeerError::NotRoot { uid })),
            Err(error) => Err((stream, PeerError::Unknown(error))),
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

fn credentials(stream: &UnixStream) -> io::Result<(u32, Option<Pid>)> {
    let peer = getsockopt(stream, PeerCredentials)?;
    Ok((peer.uid(), Pid::from_raw(peer.pid())))
}

/// Readable (or hung up) means: the caller has gone away, as it has nothing more to say.
impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
