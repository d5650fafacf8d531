//! A socket that kubelet connects to. If its name is removed, it is made again: kubelet, and people who tidy up, remove such files.
//!
//! Nothing is polled: inotify(7) says when something goes.

use crate::authority::Caller;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};

/// A listening socket with a name.
#[derive(Debug)]
pub struct NamedSocket {
    path: PathBuf,
    listener: UnixListener,
    /// Which file the name was when it was made.
    file: (u64, u64),
    watch: AsyncFd<OwnedFd>,
}

/// A socket that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {path}; its directory must belong to the driver's user", path = path.display())]
pub struct SocketError {
    path: PathBuf,
    source: io::Error,
}

impl NamedSocket {
    /// Makes it, in the place of one that an earlier process has left.
    pub fn make(path: PathBuf) -> Result<Self, SocketError> {
        Self::try_make(&path).map_err(|source| SocketError { path, source })
    }

    fn try_make(path: &Path) -> io::Result<Self> {
        let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(directory)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Before the name is there, so that no end of it is missed.
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let goes = WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF;
        inotify::add_watch(&events, directory, goes)?;
        #[expect(deprecated, reason = "its descriptor stays the same for as long as it is owned")]
        let watch = AsyncFd::new(events)?;
        let listener = UnixListener::bind(path)?;
        let file = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), listener, file: (file.dev(), file.ino()), watch })
    }

    /// The connections, until there is an error that a new process may be without.
    pub fn connections(mut self) -> ReceiverStream<io::Result<Caller>> {
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            while !sender.is_closed() {
                let next = self.next().await.map(Caller::new);
                let ends = next.is_err();
                if sender.send(next).await.is_err() || ends {
                    return;
                }
            }
        });
        ReceiverStream::new(receiver)
    }

    async fn next(&mut self) -> io::Result<UnixStream> {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) if may_ask(&stream) => return Ok(stream),
                    Ok(_) => warn!(event = "csi.caller-refused", "a process that is not root's tried to connect"),
                    // No descriptor, most likely.
                    Err(error) => {
                        warn!("cannot accept a connection at {}: {error}", self.path.display());
                        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                    }
                },
                gone = self.gone() => {
                    gone?;
                    *self = Self::try_make(&self.path)?;
                    info!(event = "csi.listens-again", "{} was removed, and is made again", self.path.display());
                }
            }
        }
    }

    /// Returns when the name is gone, or leads elsewhere.
    async fn gone(&self) -> io::Result<()> {
        loop {
            let mut ready = self.watch.readable().await?;
            let mut buffer = [0; 4096];
            while rustix::io::read(ready.get_inner(), &mut buffer).is_ok_and(|length| length > 0) {}
            ready.clear_ready();
            match fs::symlink_metadata(&self.path) {
                Ok(file) if (file.dev(), file.ino()) == self.file => {}
                _ => return Ok(()),
            }
        }
    }
}

/// Kubelet is root; and who is this program's own user could do all that it can.
fn may_ask(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| [0, own].contains(&peer.uid()))
}
