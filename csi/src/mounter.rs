//! The connection to the mounter: one for each call, closed if kubelet gives the call up. The mounter then undoes what it was about.

use api::client::CallError;
use api::message::{self, Call, MAX_ANSWER, MessageError};
use serde::de::DeserializeOwned;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

/// How long the mounter may take for what needs no helper: its own bounds are shorter.
const USUAL: Duration = Duration::from_secs(60);

/// How much longer than a mount may take its answer is waited for.
const LONGER: Duration = Duration::from_secs(15);

/// Where the mounter listens.
#[derive(Debug, Clone)]
pub struct Mounter {
    socket: PathBuf,
    mount_timeout: Duration,
}

/// Nothing came of a call.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The mounter could not be asked, or said no.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It took too long, and is given up.
    #[error("it took longer than {} s", .0.as_secs())]
    TimedOut(Duration),
}

impl Mounter {
    /// The mounter at a socket, which may take so long for a mount.
    pub fn new(socket: PathBuf, mount_timeout: Duration) -> Self {
        Self { socket, mount_timeout }
    }

    /// How long a mount may take.
    pub fn mount_timeout(&self) -> Duration {
        self.mount_timeout
    }

    /// Asks, and waits for the answer.
    pub async fn ask<T: DeserializeOwned>(&self, call: &Call) -> Result<T, AskError> {
        let limit =
            if matches!(call, Call::Mount(_) | Call::Directory(_)) { self.mount_timeout + LONGER } else { USUAL };
        match timeout(limit, self.converse(call)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(AskError::TimedOut(limit)),
        }
    }

    async fn converse<T: DeserializeOwned>(&self, call: &Call) -> Result<T, CallError> {
        let socket = || self.socket.clone();
        let failed = |source| CallError::Connection { socket: socket(), source };
        let mut stream = UnixStream::connect(&self.socket).await.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => CallError::Forbidden { socket: socket(), source },
            _ => CallError::NotRunning { socket: socket(), source },
        })?;
        let mut bytes = Zeroizing::new(Vec::new());
        message::send(&mut *bytes, call).map_err(failed)?;
        // A mounter that refuses a caller may have replied and closed already: its reply says more than our EPIPE.
        let sent = stream.write_all(&bytes).await;
        let mut answer = Vec::new();
        // A message's header is small beside the room for the longest body.
        let received = stream.take(u64::from(MAX_ANSWER) + 1024).read_to_end(&mut answer).await;
        match message::receive_answer::<T>(&mut answer.as_slice()) {
            Ok(reply) => reply.map_err(CallError::Failed),
            Err(MessageError::Closed | MessageError::Truncated) if sent.is_ok() => {
                Err(CallError::WentAway(MessageError::Closed))
            }
            Err(source) => Err(failed(sent.and(received.map(drop)).err().map_or(source, MessageError::Io))),
        }
    }
}
