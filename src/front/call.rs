//! Asking the mounter: one connection, one request, one reply.

use super::serve::host_proc;
use crate::exit::{Exit, chain};
use crate::wire::{self, Call, DEFAULT_SOCKET, Reply, SOCKET_VARIABLE, WireError};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The mounter could not be asked, or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens.
    #[error("the mounter is not running: cannot connect to {socket}; check that hostmount's pod runs on this node, \
             and that it shares the directory of this socket", socket = socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// ENOENT or ECONNREFUSED.
        source: io::Error,
    },
    /// Not root.
    #[error("only root may ask the mounter at {socket}", socket = socket.display())]
    Forbidden {
        /// The socket.
        socket: PathBuf,
        /// EACCES or EPERM.
        source: io::Error,
    },
    /// It ended in the middle.
    #[error("the mounter went away before it answered; look at the log of hostmount's pod")]
    WentAway(#[source] WireError),
    /// Something else.
    #[error("cannot talk to the mounter at {socket}", socket = socket.display())]
    Wire {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        source: WireError,
    },
}

impl CallError {
    /// How a program of mount(8)'s kind ends then.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Forbidden { .. } => Exit::Usage,
            Self::NotRunning { .. } | Self::WentAway(_) | Self::Wire { .. } => Exit::MountFailure,
        }
    }

    /// The error in a line.
    pub fn message(&self) -> String {
        chain(self)
    }
}

/// The socket to use: `HOSTMOUNT_SOCKET`, or the default.
pub fn socket_path() -> PathBuf {
    std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty()).unwrap_or_else(|| DEFAULT_SOCKET.into()).into()
}

/// A kubelet that runs in a container need not share the socket's directory: the node's first process shows it.
fn connect(socket: &Path) -> io::Result<UnixStream> {
    match (UnixStream::connect(socket), socket.strip_prefix("/")) {
        (Err(error), Ok(below)) if error.kind() == io::ErrorKind::NotFound => {
            UnixStream::connect(host_proc().join("1/root").join(below)).map_err(|_| error)
        }
        (connected, _) => connected,
    }
}

/// Asks, and waits for the reply for as long as the mounter takes: it bounds its own work.
pub fn ask(call: &Call) -> Result<Reply, CallError> {
    let socket = socket_path();
    let mut stream = match connect(&socket) {
        Ok(stream) => stream,
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            return Err(CallError::Forbidden { socket, source });
        }
        Err(source) => return Err(CallError::NotRunning { socket, source }),
    };
    // A mounter that refuses us may have replied and closed already: what it says counts more than our EPIPE.
    let sent = wire::send(&mut stream, call);
    match wire::receive(&mut stream) {
        Ok(reply) => Ok(reply),
        Err(WireError::Closed | WireError::Truncated) if sent.is_ok() => Err(CallError::WentAway(WireError::Closed)),
        Err(source) => Err(CallError::Wire { socket, source: sent.err().unwrap_or(source) }),
    }
}
