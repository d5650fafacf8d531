//! The client: one connection, one call, one reply.
//!
//! Runs in the caller's process, with the caller's privilege: the mode of the mounter's socket decides whether it may
//! connect.

use crate::about::About;
use crate::directory::{Directory, Worked};
use crate::event::Events;
use crate::exit::{Exit, chain};
use crate::explained::Explained;
use crate::message::{self, Bind, Call, Changes, Failure, MessageError, Mount, Mounted, Replaced, Unmounted};
use crate::origin::Origin;
use crate::program::ProgramVolume;
use crate::request::Request;
use crate::volume::{Lines, Stats, Usage, VolumeDetail, VolumeView};
use serde::de::DeserializeOwned;
use std::env;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Where the mounter listens for operators by default; for kubelet it does beside that ([`Origin::socket`]).
pub const DEFAULT_SOCKET: &str = "/run/hostmount/hostmount.sock";
/// The environment variable that names another socket for operators.
pub const SOCKET_VARIABLE: &str = "HOSTMOUNT_SOCKET";
/// The environment variable with a prefix: in a container without hostPID the node's /proc is at `$HOSTPROCPATH/proc`.
pub const HOST_PROC_VARIABLE: &str = "HOSTPROCPATH";

/// The node's proc filesystem, as the environment names it.
pub fn host_proc() -> PathBuf {
    let mut path = env::var_os(HOST_PROC_VARIABLE).unwrap_or_default();
    path.push("/proc");
    path.into()
}

/// Connects to the mounter. Each call is a connection of its own, and waits for as long as the mounter takes: it
/// bounds its own work. If the caller closes the connection early, its mount is undone.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    host_proc: PathBuf,
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No process listens on the socket.
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
    /// The connection closed before the reply.
    #[error("the mounter closed the connection before it replied; look at the log of hostmount's pod")]
    WentAway(#[source] MessageError),
    /// Another error of the connection.
    #[error("the connection to the mounter at {socket} failed", socket = socket.display())]
    Connection {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        source: MessageError,
    },
    /// The mounter's reply: it was not done.
    #[error("{}", .0.message)]
    Failed(Failure),
}

impl CallError {
    /// The error as a caller's program reports it: the exit code, the message, and the helper's output.
    pub fn into_failure(self) -> Failure {
        let exit = match self {
            Self::Failed(failure) => return failure,
            Self::Forbidden { .. } => Exit::Usage,
            Self::NotRunning { .. } | Self::WentAway(_) | Self::Connection { .. } => Exit::MountFailure,
        };
        Failure::new(exit, chain(&self))
    }
}

impl Client {
    /// Asks at the socket for callers from `origin`: the operator's is the one that the environment names
    /// (`HOSTMOUNT_SOCKET`), or the default one, and kubelet's are beside it.
    pub fn from_environment(origin: Origin) -> Self {
        let named = env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty());
        let operators = named.map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from);
        Self::at(origin.socket(&operators).unwrap_or(operators))
    }

    /// Asks at this socket, as the CSI server does.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), host_proc: host_proc() }
    }

    /// Mounts a volume. When this returns the volume is completely mounted on the node, or nothing of it is left.
    pub fn mount(&self, mount: impl Into<Mount>) -> Result<Mounted, CallError> {
        self.call(&Call::Mount(mount.into()))
    }

    /// Gives the volume at `target` a fresh helper if it is dead or hangs.
    pub fn heal(&self, target: &str) -> Result<Replaced, CallError> {
        self.call(&Call::Heal { target: target.to_owned() })
    }

    /// Gives the volume at `target` a fresh helper in the place of the one that serves it.
    pub fn swap(&self, target: &str, changes: Changes) -> Result<Replaced, CallError> {
        self.call(&Call::Swap { target: target.to_owned(), changes })
    }

    /// All volumes that the caller may know of.
    pub fn list(&self) -> Result<Vec<VolumeView>, CallError> {
        self.call(&Call::List)
    }

    /// What the helpers of all volumes use.
    pub fn top(&self) -> Result<Vec<Usage>, CallError> {
        self.call(&Call::Top)
    }

    /// The volume at `target`, also if it was unmounted or failed.
    pub fn status(&self, target: &str) -> Result<VolumeDetail, CallError> {
        self.call(&Call::Status { target: target.to_owned() })
    }

    /// The last lines of the helpers of the volume at `target`, after the line of this number.
    pub fn logs(&self, target: &str, after: u64) -> Result<Lines, CallError> {
        self.call(&Call::Logs { target: target.to_owned(), after })
    }

    /// What happened to volumes, after the event of this number.
    pub fn events(&self, after: u64) -> Result<Events, CallError> {
        self.call(&Call::Events { after })
    }

    /// What would become of a request from `origin`.
    pub fn explain(&self, origin: Origin, request: Request) -> Result<Explained, CallError> {
        self.call(&Call::Explain { origin, request })
    }

    /// Whether a request from `origin` would be admitted; the error says by what it would be refused.
    pub fn check_policy(&self, origin: Origin, request: Request) -> Result<(), CallError> {
        self.call(&Call::CheckPolicy { origin, request })
    }

    /// The policy that is in force, in TOML.
    pub fn policy(&self) -> Result<String, CallError> {
        self.call(&Call::Policy)
    }

    /// What the mounter says of itself.
    pub fn about(&self) -> Result<About, CallError> {
        self.call(&Call::About)
    }

    /// The metrics, in the text format of Prometheus.
    pub fn metrics(&self) -> Result<String, CallError> {
        self.call(&Call::Metrics)
    }

    /// Shows a mounted volume at another place as well.
    pub fn bind(&self, bind: Bind) -> Result<Mounted, CallError> {
        self.call(&Call::Bind(bind))
    }

    /// Takes a volume away from the place `target`, and from no other where it shows, and removes the directory if that is wanted.
    /// Without a volume it succeeds.
    pub fn unmount(&self, target: &str, remove_target: bool) -> Result<Unmounted, CallError> {
        self.call(&Call::Unmount { target: target.to_owned(), remove_target })
    }

    /// Puts a volume at a place of a pod's that a program of that pod serves, as the CSI server does.
    pub fn program(&self, volume: ProgramVolume) -> Result<Mounted, CallError> {
        self.call(&Call::Program(volume))
    }

    /// How the volume that shows at `target` is, and how full.
    pub fn stats(&self, target: &str) -> Result<Stats, CallError> {
        self.call(&Call::Stats { target: target.to_owned() })
    }

    /// Does some work on a directory of a filesystem that shows nowhere.
    pub fn directory(&self, directory: Directory) -> Result<Worked, CallError> {
        self.call(&Call::Directory(directory))
    }

    fn call<T: DeserializeOwned>(&self, call: &Call) -> Result<T, CallError> {
        let socket = || self.socket.clone();
        let mut stream = self.connect().map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => CallError::Forbidden { socket: socket(), source },
            _ => CallError::NotRunning { socket: socket(), source },
        })?;
        // A mounter that refuses the caller may have replied and closed already: its reply says more than our EPIPE.
        let sent = message::send(&mut stream, call);
        match message::receive_answer::<T>(&mut stream) {
            Ok(reply) => reply.map_err(CallError::Failed),
            Err(MessageError::Closed | MessageError::Truncated) if sent.is_ok() => {
                Err(CallError::WentAway(MessageError::Closed))
            }
            Err(source) => Err(CallError::Connection { socket: socket(), source: sent.err().unwrap_or(source) }),
        }
    }

    /// A kubelet in a container need not share the socket's directory: it is below the root of the node's first
    /// process.
    fn connect(&self) -> io::Result<UnixStream> {
        match (UnixStream::connect(&self.socket), self.socket.strip_prefix(Path::new("/"))) {
            (Err(error), Ok(below)) if error.kind() == io::ErrorKind::NotFound => {
                UnixStream::connect(self.host_proc.join("1/root").join(below)).map_err(|_| error)
            }
            (connected, _) => connected,
        }
    }
}
