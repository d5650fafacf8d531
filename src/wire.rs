//! The messages on the mounter's socket.
//!
//! A message is a header of twelve bytes (magic, version, length; the numbers big-endian) and a JSON body of that
//! length. A connection carries one request and one reply. The caller keeps its side open until it has the reply:
//! when it closes earlier it has gone away, and its request is undone.

use crate::exit::Exit;
use crate::request::{MountOptions, Request};
use crate::secret::Secrets;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, Read, Write};

/// Where the mounter listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/hostmount/hostmount.sock";
/// The environment variable that names another socket.
pub const SOCKET_VARIABLE: &str = "HOSTMOUNT_SOCKET";

/// The version of the messages; it changes whenever an older peer would misread one.
pub const VERSION: u32 = 3;
/// The longest body, in bytes: room for a Kubernetes secret (1 MiB) in a request.
pub const MAX_BODY: u32 = 2 << 20;

const MAGIC: [u8; 4] = *b"HMNT";
const HEADER: usize = 12;

/// What a caller asks the mounter.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// Mount a volume.
    Mount(Request),
    /// Put a fresh helper in the place of that of the volume at `target`, if it is dead or hangs.
    Heal {
        /// The volume's target, as the list shows it.
        target: String,
    },
    /// Put a fresh helper in the place of the one that serves the volume at `target`.
    Swap {
        /// The volume's target, as the list shows it.
        target: String,
        /// What the fresh helper shall be told otherwise than the old one.
        changes: Changes,
    },
    /// Which volumes are there?
    List,
    /// What is there to know about the volume at this target?
    Look {
        /// Its target.
        target: String,
    },
    /// What has been counted?
    Metrics,
}

/// How a volume shall be served from now on, where that is not as before.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Changes {
    /// All its options, instead of those it was mounted with.
    pub options: Option<MountOptions>,
    /// Secrets, each instead of the one with its key, or beside the others.
    pub secrets: Secrets,
}

/// What the mounter answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// The volume is on the node.
    Mounted {
        /// What the helper had to say all the same.
        output: Vec<String>,
    },
    /// A fresh helper's filesystem shows at so many places; none was needed: 0.
    Replaced {
        /// How many places there are.
        places: usize,
        /// Where the old one is left, and why.
        left: Vec<String>,
    },
    /// Every volume.
    Volumes(Vec<VolumeView>),
    /// One volume, in detail.
    Volume(Box<VolumeDetail>),
    /// What has been counted, in the text format of Prometheus.
    Metrics(String),
    /// It was not done, and nothing is left of it.
    Failed {
        /// How the caller's program shall end.
        exit: Exit,
        /// What was tried, on what, what came of it, and what to do.
        message: String,
        /// The helper's own words.
        output: Vec<String>,
    },
}

/// A volume as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeView {
    /// Where it is, on the node.
    pub target: String,
    /// The type that was asked for.
    #[serde(rename = "type")]
    pub fstype: String,
    /// What is mounted.
    pub source: String,
    /// How it is.
    pub state: VolumeState,
    /// The helper's program.
    pub helper: String,
    /// The device number in the mount table, `major:minor`; a FUSE connection's number is its minor. Empty if there was
    /// never a mount.
    pub device: String,
    /// When it was mounted (or was to be), in seconds since 1970.
    pub since: u64,
    /// How many requests wait for its helper's answer; none if it is not a FUSE filesystem, or there is nobody to answer.
    pub waiting: Option<u64>,
    /// Since when it has hung, in seconds since 1970, if it does.
    pub hung_since: Option<u64>,
    /// What somebody should know, and do.
    pub note: Option<String>,
}

#[cfg(test)]
impl VolumeView {
    /// One that is mounted.
    pub(crate) fn example() -> Self {
        Self {
            target: "/mnt/a".into(),
            fstype: "fuse.bindfs".into(),
            source: "/s".into(),
            state: VolumeState::Mounted,
            helper: "bindfs".into(),
            device: "0:61".into(),
            since: 7,
            waiting: None,
            hung_since: None,
            note: None,
        }
    }
}

/// How a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    /// Mounted and served.
    Mounted,
    /// Unmounted at its target; something else (a pod, an open file) still keeps the helper running.
    Detached,
    /// Its helper runs, and does not answer.
    Hung,
    /// Its helper is gone, its mount is not: every access answers "Transport endpoint is not connected".
    Dead,
    /// It was unmounted, and its helper has ended.
    Ended,
    /// It was never mounted: its helper could not.
    Failed,
}

impl VolumeState {
    /// The state in a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mounted => "mounted",
            Self::Detached => "detached",
            Self::Hung => "hung",
            Self::Dead => "dead",
            Self::Ended => "ended",
            Self::Failed => "failed",
        }
    }
}

/// All there is to know about a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeDetail {
    /// As in a list.
    #[serde(flatten)]
    pub view: VolumeView,
    /// When it ended, in seconds since 1970, if it has.
    pub ended: Option<u64>,
    /// The last lines that its helper wrote.
    pub lines: Vec<String>,
}

/// Why a message could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
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
    /// Over [`MAX_BODY`].
    #[error("the message is {length} bytes long, at most {MAX_BODY} are taken")]
    TooLong {
        /// The length that was announced, or that our own message has.
        length: u64,
    },
    /// The other side did not send for too long.
    #[error("no whole message arrived in time")]
    TimedOut,
    /// Not the JSON we know.
    #[error("the message's body is not understood")]
    Body(#[source] serde_json::Error),
    /// What the kernel said.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

/// Sends one message.
pub fn send<T: Serialize>(stream: &mut impl Write, message: &T) -> Result<(), WireError> {
    let body = serde_json::to_vec(message).map_err(WireError::Body)?;
    let length = match u32::try_from(body.len()) {
        Ok(length) if length <= MAX_BODY => length,
        _ => return Err(WireError::TooLong { length: body.len() as u64 }),
    };
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend(body);
    stream.write_all(&bytes).map_err(WireError::Io)
}

/// Receives one message.
pub fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> Result<T, WireError> {
    let mut header = [0; HEADER];
    let mut have = 0;
    while have < HEADER {
        match stream.read(&mut header[have..]) {
            Ok(0) if have == 0 => return Err(WireError::Closed),
            Ok(0) => return Err(WireError::Truncated),
            Ok(more) => have += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read_error(error)),
        }
    }
    let [m0, m1, m2, m3, v0, v1, v2, v3, l0, l1, l2, l3] = header;
    if [m0, m1, m2, m3] != MAGIC {
        return Err(WireError::Foreign);
    }
    let theirs = u32::from_be_bytes([v0, v1, v2, v3]);
    if theirs != VERSION {
        return Err(WireError::Version { theirs });
    }
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    if length > MAX_BODY {
        return Err(WireError::TooLong { length: length.into() });
    }
    // Grows with what arrives: a header alone must not make us allocate two megabytes.
    let mut body = Vec::new();
    stream.take(length.into()).read_to_end(&mut body).map_err(read_error)?;
    if body.len() < length as usize {
        return Err(WireError::Truncated);
    }
    serde_json::from_slice(&body).map_err(WireError::Body)
}

fn read_error(error: io::Error) -> WireError {
    match error.kind() {
        // A receive timeout (SO_RCVTIMEO) shows as EAGAIN.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => WireError::TimedOut,
        // Closed with unread bytes.
        io::ErrorKind::ConnectionReset => WireError::Truncated,
        _ => WireError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> Vec<u8> {
        let mut bytes = Vec::new();
        send(&mut bytes, &Call::List).unwrap();
        bytes
    }

    #[test]
    fn a_message_comes_back() {
        assert!(matches!(receive::<Call>(&mut message().as_slice()).unwrap(), Call::List));
    }

    #[test]
    fn every_prefix_is_truncated() {
        let bytes = message();
        assert!(matches!(receive::<Call>(&mut [].as_slice()), Err(WireError::Closed)));
        for length in 1..bytes.len() {
            assert!(matches!(receive::<Call>(&mut &bytes[..length]), Err(WireError::Truncated)), "{length}");
        }
    }

    #[test]
    fn headers_that_lie() {
        let change = |at: usize, byte: u8| {
            let mut bytes = message();
            bytes[at] = byte;
            receive::<Call>(&mut bytes.as_slice())
        };
        assert!(matches!(change(0, b'X'), Err(WireError::Foreign)));
        assert!(matches!(change(7, 9), Err(WireError::Version { theirs: 9 })));
        assert!(matches!(change(8, 0xff), Err(WireError::TooLong { .. })));
        assert!(matches!(change(12, b'{'), Err(WireError::Body(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = receive::<Call>(&mut bytes.as_slice());
        }
    }
}
