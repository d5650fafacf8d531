//! The messages on the mounter's socket.
//!
//! A message is a header of twelve bytes (magic, version, length; the numbers big-endian) and a JSON body of that
//! length. A connection carries one request and one reply. The caller keeps its side open until it has the reply:
//! if it closes earlier, its request is undone.

use crate::directory::Directory;
use crate::exit::Exit;
use crate::options::MountOptions;
use crate::origin::Origin;
use crate::pod::PodName;
use crate::program::ProgramVolume;
use crate::request::Request;
use crate::secret::Secrets;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};

/// The version of the messages; it changes whenever an older peer would misread one.
pub const VERSION: u32 = 4;
/// The longest body, in bytes: room for a Kubernetes secret (1 MiB) in a request.
pub const MAX_BODY: u32 = 2 << 20;
/// The longest body of an answer: room for a list of as many volumes as a node can have.
pub const MAX_ANSWER: u32 = 16 << 20;

/// Room for most bodies.
const USUAL_BODY: usize = 4096;
const MAGIC: [u8; 4] = *b"HMNT";
const HEADER: usize = 12;

/// A call to the mounter. It answers each with a [`Reply`] of the type that is named here.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// Mount a volume: [`Mounted`].
    Mount(Mount),
    /// Put a fresh helper in the place of that of the volume at `target`, if it is dead or hangs: [`Replaced`].
    Heal {
        /// The volume's target, as the list shows it.
        target: String,
    },
    /// Put a fresh helper in the place of the one that serves the volume at `target`: [`Replaced`].
    Swap {
        /// The volume's target, as the list shows it.
        target: String,
        /// In what the fresh helper's request differs.
        changes: Changes,
    },
    /// List all volumes: [`VolumeView`](crate::volume::VolumeView)s.
    List,
    /// What the helpers of all volumes use: [`Usage`](crate::volume::Usage)s. It walks through all processes.
    Top,
    /// Show the volume at this target: [`VolumeDetail`](crate::volume::VolumeDetail).
    Status {
        /// Its target.
        target: String,
    },
    /// The last lines of the helpers of the volume at this target: [`Lines`](crate::volume::Lines).
    Logs {
        /// Its target.
        target: String,
        /// Those with a greater number; 0: all.
        after: u64,
    },
    /// What happened to volumes: [`Events`](crate::event::Events).
    Events {
        /// Those with a greater number.
        after: u64,
    },
    /// Say whether a request from `origin` would be refused, and mount nothing: nothing, or the failure that it would get.
    CheckPolicy {
        /// Where it would come from.
        origin: Origin,
        /// What would be asked for.
        request: Request,
    },
    /// Say what would become of a request from `origin`, and mount nothing: [`Explained`](crate::explained::Explained).
    Explain {
        /// Where it would come from.
        origin: Origin,
        /// What would be asked for.
        request: Request,
    },
    /// Show the policy that is in force: a text in TOML.
    Policy,
    /// Say what the mounter is: [`About`](crate::about::About).
    About,
    /// Show the metrics: a text in the format of Prometheus.
    Metrics,
    /// Show what is mounted at one place at another one as well, as `mount --bind` does: [`Mounted`].
    Bind(Bind),
    /// Take a volume away from one place, and from no other where it shows: [`Unmounted`]. Root of the node does that by itself;
    /// it is for callers that cannot.
    Unmount {
        /// The place.
        target: String,
        /// Remove its directory as well, below kubelet's directory only, also if nothing is mounted there.
        remove_target: bool,
    },
    /// How the volume at this place is, and how full: [`Stats`](crate::volume::Stats). Never waits for a filesystem that hangs.
    Stats {
        /// Its target, or any other place where it shows.
        target: String,
    },
    /// Work on a directory of a filesystem that shows nowhere: [`Worked`](crate::directory::Worked).
    Directory(Directory),
    /// Put a volume at a place of a pod's that a program of that pod serves, or will serve: until then what it is asked for waits:
    /// [`Mounted`]. Asked again it changes nothing, and fails now and then while no program serves it ([`Reason::NotServed`]).
    Program(ProgramVolume),
}

/// A mounted volume to be shown at another place.
#[derive(Debug, Serialize, Deserialize)]
pub struct Bind {
    /// Where it is mounted.
    pub source: String,
    /// Where it is to show as well. If it does already, nothing is done; another mount there is an error.
    pub target: String,
    /// Nobody may write there.
    pub read_only: bool,
    /// Not if it shows anywhere on the node but at these two places.
    pub alone: bool,
    /// As with [`Mount::make_target`].
    pub make_target: bool,
    /// As with [`Mount::pod`].
    #[serde(default)]
    pub pod: Option<PodName>,
}

/// A volume to mount, and under which conditions.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mount {
    /// The volume.
    pub request: Request,
    /// If a volume of the same type and source is at the target already, read-only or not as this one is to be,
    /// succeed and do nothing; another mount there is an error. Without this every mount makes a new filesystem, on top of
    /// what is there, as with mount(8).
    pub unless_mounted: bool,
    /// Make the target's last directory if it is missing, below kubelet's directory only; remove it again if the mount
    /// fails.
    pub make_target: bool,
    /// Give it up after so many seconds, if that is sooner than the settings have it.
    #[serde(default)]
    pub ready_within: Option<u64>,
    /// The pod that it is for, as the caller says: it is shown and logged.
    #[serde(default)]
    pub pod: Option<PodName>,
}

impl From<Request> for Mount {
    /// As mount(8) does: on top of another mount, and only on an existing directory.
    fn from(request: Request) -> Self {
        Self { request, unless_mounted: false, make_target: false, ready_within: None, pod: None }
    }
}

/// Changes to a volume's request, for its next helpers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Changes {
    /// All its options; they replace the ones that it was mounted with.
    pub options: Option<MountOptions>,
    /// Secrets, each in place of the secret with its key, or in addition to the others.
    pub secrets: Secrets,
}

/// The mounter's reply to a call.
pub type Reply<T> = Result<T, Failure>;

/// The volume is on the node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mounted {
    /// The helper's output: warnings, as the mount succeeded.
    pub output: Vec<String>,
    /// It was there before: see [`Mount::unless_mounted`].
    pub already: bool,
}

/// A fresh helper's filesystem is mounted at so many places; 0: no fresh helper was needed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// How many places there are.
    pub places: usize,
    /// Where the old one is left, and why.
    pub left: Vec<String>,
}

/// A place was left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmounted {
    /// Whether anything was mounted there.
    pub was_mounted: bool,
}

/// A call failed, and nothing of it is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The exit code for the caller's program.
    pub exit: Exit,
    /// What a caller does something about.
    #[serde(default)]
    pub reason: Reason,
    /// What was tried, on what, the error, and what to do next.
    pub message: String,
    /// The helper's output.
    pub output: Vec<String>,
}

impl Failure {
    /// A failure without output of a helper.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, reason: Reason::Other, message: message.into(), output: Vec::new() }
    }

    /// The same for a reason that callers know.
    pub fn because(self, reason: Reason) -> Self {
        Self { reason, ..self }
    }
}

/// Why a call failed, where a caller may do something about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// This caller may not have it.
    Denied,
    /// Another operation at this target is under way: try again.
    Busy,
    /// Something else is mounted there, or the same otherwise.
    Occupied,
    /// The volume shows elsewhere, and was to be alone.
    InUse,
    /// No volume is there.
    NotMounted,
    /// It is there, and no program of its pod serves it.
    NotServed,
    /// Any other, and those that later versions know.
    #[default]
    #[serde(other)]
    Other,
}

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The other side closed before a whole message.
    #[error("the connection ended in the middle of a message")]
    Truncated,
    /// No bytes at all.
    #[error("the connection was closed without a message")]
    Closed,
    /// Not our protocol.
    #[error("this is not a message of hostmount's")]
    Foreign,
    /// Another version.
    #[error(
        "the message has version {theirs}, this side speaks version {VERSION}: \
             run `hostmount install` again, so that the node and the mounter are of one version"
    )]
    Version {
        /// The version in its header.
        theirs: u32,
    },
    /// Over [`MAX_BODY`] or [`MAX_ANSWER`].
    #[error("the message is {length} bytes long, at most {limit} are taken")]
    TooLong {
        /// The length that was announced, or that our own message has.
        length: u64,
        /// How long it may be.
        limit: u32,
    },
    /// The other side took too long to send, or to read.
    #[error("no whole message got through in time")]
    TimedOut,
    /// Not the JSON we know.
    #[error("the message's body is not understood")]
    Body(#[source] serde_json::Error),
    /// What the kernel said.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

/// Sends a request.
pub fn send<T: Serialize>(stream: &mut impl Write, message: &T) -> Result<(), MessageError> {
    send_within(stream, message, MAX_BODY)
}

/// Sends an answer.
pub fn answer<T: Serialize>(stream: &mut impl Write, message: &Reply<T>) -> Result<(), MessageError> {
    send_within(stream, message, MAX_ANSWER)
}

fn send_within<T: Serialize>(stream: &mut impl Write, message: &T, limit: u32) -> Result<(), MessageError> {
    let body = serde_json::to_vec(message).map_err(MessageError::Body)?;
    let length = match u32::try_from(body.len()) {
        Ok(length) if length <= limit => length,
        _ => return Err(MessageError::TooLong { length: body.len() as u64, limit }),
    };
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    stream.write_all(&bytes).map_err(io_error)
}

/// Receives a request.
pub fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> Result<T, MessageError> {
    receive_within(stream, MAX_BODY)
}

/// Receives an answer.
pub fn receive_answer<T: DeserializeOwned>(stream: &mut impl Read) -> Result<Reply<T>, MessageError> {
    receive_within(stream, MAX_ANSWER)
}

fn receive_within<T: DeserializeOwned>(stream: &mut impl Read, limit: u32) -> Result<T, MessageError> {
    let mut header = [0; HEADER];
    let mut have = 0;
    while have < HEADER {
        match stream.read(&mut header[have..]) {
            Ok(0) if have == 0 => return Err(MessageError::Closed),
            Ok(0) => return Err(MessageError::Truncated),
            Ok(more) => have += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io_error(error)),
        }
    }
    let [m0, m1, m2, m3, v0, v1, v2, v3, l0, l1, l2, l3] = header;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(MessageError::Foreign);
    }
    let theirs = u32::from_be_bytes([v0, v1, v2, v3]);
    if theirs != VERSION {
        return Err(MessageError::Version { theirs });
    }
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    if length > limit {
        return Err(MessageError::TooLong { length: length.into(), limit });
    }
    // Grows with what arrives: a header alone must not make us allocate two megabytes. Most bodies are read at one go.
    let mut body = Vec::with_capacity((length as usize).min(USUAL_BODY));
    stream.take(length.into()).read_to_end(&mut body).map_err(io_error)?;
    if body.len() < length as usize {
        return Err(MessageError::Truncated);
    }
    serde_json::from_slice(&body).map_err(MessageError::Body)
}

fn io_error(error: io::Error) -> MessageError {
    match error.kind() {
        // A timeout of the socket's (SO_RCVTIMEO, SO_SNDTIMEO) shows as EAGAIN.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => MessageError::TimedOut,
        // Closed with unread bytes.
        io::ErrorKind::ConnectionReset => MessageError::Truncated,
        _ => MessageError::Io(error),
    }
}

#[cfg(test)]
mod tests;
