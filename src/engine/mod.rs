//! How a helper's mount(2) reaches us, and the broker that performs it.
//!
//! Runs in the mounter: on the volume's own thread while it is being mounted, on the main thread for the rest of its
//! life. Both engines know two things only: the helper's calls, and when nothing of it runs any more.

pub mod broker;
pub mod judge;
pub mod preload;
pub mod seccomp;
pub mod watch;

use broker::Broker;
use preload::FurnishError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use seccomp::listener::Listener;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Which engine the administrator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// seccomp where it works, else preload
    Auto,
    /// The kernel stops the helper's calls; any helper
    Seccomp,
    /// A shared object in the helper replaces libc's mount(); dynamically linked helpers only
    Preload,
}

/// Which engine this mounter's helpers get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// A seccomp filter.
    Seccomp,
    /// This shared object.
    Preload(PathBuf),
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seccomp => f.write_str("seccomp"),
            Self::Preload(object) => write!(f, "preload, with {}", object.display()),
        }
    }
}

/// There is no engine to be had.
#[derive(Debug, thiserror::Error)]
pub enum NoEngine {
    /// It was asked for and cannot be used.
    #[error("the seccomp engine does not work here; try --engine preload")]
    Seccomp(#[source] io::Error),
    /// It was asked for and cannot be used.
    #[error("the preload engine cannot be used")]
    Preload(#[source] FurnishError),
    /// Neither of them.
    #[error("no engine works here: seccomp user notification is not to be had ({seccomp}), nor is the preload engine")]
    Neither {
        /// What the kernel said.
        seccomp: io::Error,
        /// What is wrong with the other one.
        #[source]
        preload: FurnishError,
    },
}

/// Settles for an engine, by trying what it needs.
pub fn choose(choice: Choice, object: PathBuf) -> Result<Method, NoEngine> {
    let tried = if choice == Choice::Preload { None } else { Some(seccomp::probe()) };
    let method = match tried {
        Some(Ok(())) => Method::Seccomp,
        Some(Err(error)) if choice == Choice::Seccomp => return Err(NoEngine::Seccomp(error)),
        Some(Err(seccomp)) => {
            if let Err(preload) = preload::check(&object) {
                return Err(NoEngine::Neither { seccomp, preload });
            }
            warn!("the preload engine is used: seccomp user notification does not work here ({seccomp})");
            return Ok(Method::Preload(object));
        }
        None => {
            preload::check(&object).map_err(NoEngine::Preload)?;
            Method::Preload(object)
        }
    };
    let why = if choice == Choice::Auto { "it works here" } else { "it was asked for" };
    info!(engine = %method, why, "the engine is chosen");
    Ok(method)
}

/// One helper's engine.
#[derive(Debug)]
pub enum Engine {
    /// A filter's listener.
    Seccomp(Listener),
    /// The socket that the shared object calls, and the helper's processes.
    Preload(preload::Server),
    /// The helper's processes: an earlier mounter started it, and took its engine with it. Its calls answer ENOSYS.
    Adopted(watch::Watch),
}

/// What there was to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A call, which has been answered; or nothing after all.
    Call,
    /// Nothing of the helper runs any more.
    Gone,
}

impl Engine {
    /// Takes in what made the descriptor readable. A call is answered by the broker, or, once the volume stands and
    /// there is none, with a refusal. Never waits.
    pub fn heed(&mut self, broker: Option<&mut Broker>) -> io::Result<Heard> {
        match self {
            Self::Seccomp(listener) => listener.heed(broker),
            Self::Preload(server) => server.heed(broker),
            Self::Adopted(watch) => Ok(watch.heed()?.unwrap_or(Heard::Call)),
        }
    }

    /// Waits until nothing of the helper runs any more, for so long. Whether that is so.
    pub fn wait_for_end(&mut self, allowed: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + allowed;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            if poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&left))? == 0 {
                return Ok(false);
            }
            if self.heed(None)? == Heard::Gone {
                return Ok(true);
            }
        }
    }
}

impl AsFd for Engine {
    /// Readable, or hung up, when there is something to [`heed`](Self::heed).
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Seccomp(listener) => listener.as_fd(),
            Self::Preload(server) => server.as_fd(),
            Self::Adopted(watch) => watch.as_fd(),
        }
    }
}
