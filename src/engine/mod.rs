//! How a helper's mount(2) reaches the mounter, and the broker that performs it.
//!
//! Runs in the mounter: on the volume's own thread while it is being mounted, on the main thread for the rest of its
//! life. An engine reports two things only: the helper's calls, and that no process of the helper is left.

pub mod broker;
pub mod helper_processes;
pub mod judge;
pub mod mount_point;
pub mod objections;
pub mod preload;
pub mod seccomp;
pub mod standstill;
pub mod watch;

use crate::observe::events;
use broker::Broker;
use objections::Objections;
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

/// No engine can be used.
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
        /// The kernel's error.
        seccomp: io::Error,
        /// Why the other one cannot be used.
        #[source]
        preload: FurnishError,
    },
}

/// Chooses an engine, by trying what it needs.
pub fn choose(choice: Choice, object: PathBuf) -> Result<Method, NoEngine> {
    let tried = if choice == Choice::Preload { None } else { Some(seccomp::probe()) };
    let method = match tried {
        Some(Ok(())) => Method::Seccomp,
        Some(Err(error)) if choice == Choice::Seccomp => return Err(NoEngine::Seccomp(error)),
        Some(Err(seccomp)) => {
            if let Err(preload) = preload::check(&object) {
                return Err(NoEngine::Neither { seccomp, preload });
            }
            warn!(
                event = events::ENGINE,
                engine = "preload",
                "the preload engine is used: seccomp user notification does not work here ({seccomp})"
            );
            return Ok(Method::Preload(object));
        }
        None => {
            preload::check(&object).map_err(NoEngine::Preload)?;
            Method::Preload(object)
        }
    };
    let why = if choice == Choice::Auto { "it works here" } else { "it was asked for" };
    info!(event = events::ENGINE, engine = %method, why, "the engine is chosen");
    Ok(method)
}

/// One helper's engine.
#[derive(Debug)]
pub enum Engine {
    /// The listener of its seccomp filter.
    Seccomp(Listener),
    /// The socket that the shared object calls, and the helper's processes.
    Preload(preload::Server),
    /// The helper's processes. An earlier mounter started it, and its engine ended with that mounter: the kernel answers its
    /// calls with ENOSYS.
    Adopted(watch::Watch),
}

/// What has happened in a helper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineEvent {
    /// It made a call, which has been answered; or there was nothing to do after all.
    Call,
    /// A process of it has ended, and others are left. Not every engine hears of it.
    ProcessEnded,
    /// No process of it is left.
    HelperGone,
    /// It has sent what does nothing but harm, and is killed. Its connection must end, as closing what it sent may wait for that.
    Cheats,
}

impl Engine {
    /// Handles what made the descriptor readable. The broker answers a call; without one, that is once the volume is
    /// mounted, every call is refused. Never waits.
    pub fn handle_event(&mut self, broker: Option<&mut Broker>) -> io::Result<EngineEvent> {
        match self {
            Self::Seccomp(listener) => listener.handle_event(broker),
            Self::Preload(server) => server.handle_event(broker),
            Self::Adopted(watch) => Ok(watch.handle_event()?.unwrap_or(EngineEvent::Call)),
        }
    }

    /// Whether a process of the helper is known to be left: then its mount namespace, and the number of that, is still its own.
    pub fn has_helper(&self) -> bool {
        match self {
            Self::Seccomp(listener) => listener.has_helper(),
            // They hold the namespace.
            Self::Preload(_) | Self::Adopted(_) => true,
        }
    }

    /// What was refused to the helper.
    pub fn refused(&self) -> Vec<String> {
        match self {
            Self::Seccomp(listener) => listener.objections.words(),
            Self::Preload(server) => server.objections.words(),
            Self::Adopted(_) => Vec::new(),
        }
    }

    /// Takes over what was refused before it had mounted.
    pub fn take_in(&mut self, objections: Objections) {
        match self {
            Self::Seccomp(listener) => listener.objections = objections,
            Self::Preload(server) => server.objections = objections,
            Self::Adopted(_) => {}
        }
    }

    /// Waits until no process of the helper is left, and not longer than `allowed`. Whether none is left.
    pub fn wait_for_end(&mut self, allowed: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + allowed;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
            if poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&left))? == 0 {
                return Ok(false);
            }
            if self.handle_event(None)? == EngineEvent::HelperGone {
                return Ok(true);
            }
        }
    }
}

impl AsFd for Engine {
    /// Readable, or hung up, when there is something to [handle](Self::handle_event).
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Seccomp(listener) => listener.as_fd(),
            Self::Preload(server) => server.as_fd(),
            Self::Adopted(watch) => watch.as_fd(),
        }
    }
}
