//! Waiting until a helper's filesystem may be shown: by events, and not longer than allowed.
//!
//! Runs in the mounter, on the volume's own thread, inside the helper's mount namespace.

use crate::engine::EngineEvent;
use crate::engine::broker::{Broker, Progress};
use crate::helper::cause::waits_for;
use crate::helper::launch::Helper;
use crate::mounter::Mounter;
use crate::node::connections::Identity;
use linux::statx::ask;
use linux::sys::ask::{Patience, answers_at};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitStatus;
use std::thread::{self, Scope};
use std::time::{Duration, Instant};
use tracing::warn;

/// Why a filesystem is not shown.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// The helper ended with an error.
    #[error("it failed ({status})")]
    Failed {
        /// Its exit status, or the signal that ended it.
        status: ExitStatus,
    },
    /// Nothing of it runs any more, without an error and without a filesystem.
    #[error("it ended without having mounted anything")]
    Ended,
    /// It mounted, and the filesystem is dead: the process that served it has gone.
    #[error("it mounted and then ended: its filesystem does not answer")]
    Died(#[source] io::Error),
    /// It unmounted again by itself.
    #[error("it unmounted again before it was ready")]
    Withdrawn,
    /// Too slow.
    #[error("it was not ready within {} s ({}); a longer time may be set with ready_timeout_seconds",
            .allowed.as_secs(), if *.mounted { "it has mounted, but its filesystem does not answer" } else { "it has not mounted" })]
    TimedOut {
        /// The time it had.
        allowed: Duration,
        /// Whether it had mounted.
        mounted: bool,
        /// What it was waiting for when it was looked at last and waited for something.
        waited_for: Option<String>,
    },
    /// The caller's program was ended, or the volume that it was for was unmounted.
    #[error("nobody waits for it any more: the caller went away, or the volume was unmounted")]
    Unwanted,
    /// SIGTERM.
    #[error("the mounter is being stopped")]
    Stopping,
    /// A system call of ours.
    #[error("cannot wait for the helper")]
    Wait(#[source] io::Error),
}

impl NotReady {
    /// Whether the helper itself has come to its end.
    pub fn is_its_own(&self) -> bool {
        matches!(self, Self::Failed { .. } | Self::Ended | Self::Died(_) | Self::Withdrawn)
    }

    /// What the helper was waiting for, if its time was over.
    pub fn waited_for(&self) -> Option<&str> {
        match self {
            Self::TimedOut { waited_for, .. } => waited_for.as_deref(),
            _ => None,
        }
    }
}

/// How often it is looked what a helper waits for that takes long: one that tries again and again is between two tries at times.
const LOOK: Duration = Duration::from_millis(700);

/// What else a wait depends on.
#[derive(Debug, Clone, Copy)]
pub struct Watched<'a> {
    /// Who may be stopping.
    pub mounter: &'a Mounter,
    /// Readable, or hung up, when nobody wants it any more.
    pub purpose: BorrowedFd<'a>,
    /// How long it may take.
    pub allowed: Duration,
}

/// When a helper's mount(2) was heard, and when it was performed.
#[derive(Debug, Clone, Copy)]
pub struct MountCall {
    /// Heard.
    pub begun: Instant,
    /// Performed.
    pub done: Instant,
}

/// Where an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Output,
    Engine,
    Ending,
    Probe,
    Purpose,
    Stopping,
}

/// Serves the helper's calls until it is ready: until it has mounted, the program that was started has exited with 0 (but
/// for one that stays in the foreground), and the filesystem answers. On an error the filesystem, if there is one, has been ended; the helper has not.
pub fn until_ready(helper: &mut Helper, broker: &mut Broker, watched: Watched<'_>) -> Result<MountCall, NotReady> {
    thread::scope(|scope| {
        let mut asked = None;
        let done = wait(scope, helper, broker, watched, &mut asked);
        if done.is_err() {
            // A probe may be waiting for an answer that will never come: this gives it one. The helper may have unmounted
            // the filesystem meanwhile, so the mount alone would not do.
            if let Some(asked) = asked
                && let Err(error) = watched.mounter.connections.abort(asked)
                && error.kind() != io::ErrorKind::NotFound
            {
                warn!("cannot abort the connection of a filesystem that is not ready: {error}");
            }
            broker.abort().map_err(NotReady::Wait)?;
        }
        done
    })
}

fn wait<'scope>(
    scope: &'scope Scope<'scope, '_>,
    helper: &mut Helper,
    broker: &mut Broker,
    watched: Watched<'_>,
    asked: &mut Option<Identity>,
) -> Result<MountCall, NotReady> {
    let Watched { mounter, purpose, allowed } = watched;
    let deadline = Instant::now() + allowed;
    let mut exited = false;
    let mut probe = None;
    let now = Instant::now();
    let mut call = MountCall { begun: now, done: now };
    let (mut looks, mut waited_for) = (now + LOOK, None);
    loop {
        let mounted = matches!(broker.progress(), Progress::Mounted(_));
        let says_ready = exited || helper.foreground;
        if mounted && says_ready && !broker.is_fuse() {
            // A filesystem of the kernel's: mount(2) has had its answer from the server.
            return Ok(call);
        }
        // Asked at once, so that the answer need not be waited for: it counts when the helper says that it is ready.
        if mounted && broker.is_fuse() && probe.is_none() {
            *asked = broker.mounted().map(|mounted| mounter.connections.identify(mounted.device));
            probe = broker
                .mounted()
                .map(|mounted| start_probe(scope, mounted.as_fd(), None))
                .transpose()
                .map_err(NotReady::Wait)?;
        }
        let now = Instant::now();
        if now >= looks {
            looks = now + LOOK;
            waited_for = waits_for(helper.processes()).or(waited_for);
        }
        let left = deadline.saturating_duration_since(now);
        // Whatever there is still to hear: a helper may have something to say without end.
        if left.is_zero() {
            return Err(NotReady::TimedOut { allowed, mounted, waited_for });
        }
        let answer = probe.as_ref().filter(|_| says_ready);
        let events =
            next_events(helper, exited, answer, mounter, purpose, left.min(looks - now)).map_err(NotReady::Wait)?;
        for source in events {
            match source {
                Source::Output => helper.output.drain(),
                Source::Engine => {
                    let begun = Instant::now();
                    let event = helper.engine.handle_event(Some(broker)).map_err(NotReady::Wait)?;
                    if !mounted && matches!(broker.progress(), Progress::Mounted(_)) {
                        call = MountCall { begun, done: Instant::now() };
                    }
                    if event == EngineEvent::Cheats {
                        return Err(NotReady::Died(gone()));
                    }
                    // The program's own status, if it is still to come, tells more.
                    if event == EngineEvent::HelperGone && exited && !mounted {
                        return Err(gave_up(broker));
                    }
                }
                Source::Ending => {
                    let status = helper.ending.status().map_err(NotReady::Wait)?;
                    exited = true;
                    if !status.success() {
                        helper.output.drain();
                        return Err(NotReady::Failed { status });
                    }
                    if broker.progress() == Progress::Withdrawn {
                        return Err(NotReady::Withdrawn);
                    }
                }
                Source::Probe => {
                    let answer = probe.take().map_or(Ok(()), Probe::answer);
                    // It may have been given by a process that has ended since.
                    let answer = answer.and_then(|()| if helper.engine.has_helper() { Ok(()) } else { Err(gone()) });
                    return answer.map(|()| call).map_err(NotReady::Died);
                }
                Source::Purpose => return Err(NotReady::Unwanted),
                Source::Stopping => return Err(NotReady::Stopping),
            }
        }
    }
}

fn gone() -> io::Error {
    Errno::NOTCONN.into()
}

fn gave_up(broker: &Broker) -> NotReady {
    if broker.progress() == Progress::Withdrawn { NotReady::Withdrawn } else { NotReady::Ended }
}

fn next_events(
    helper: &Helper,
    exited: bool,
    probe: Option<&Probe<'_>>,
    mounter: &Mounter,
    purpose: BorrowedFd<'_>,
    left: Duration,
) -> io::Result<Vec<Source>> {
    let mut sources = vec![Source::Stopping, Source::Engine];
    let mut fds = vec![PollFd::new(&mounter.stopping, PollFlags::IN), PollFd::new(&helper.engine, PollFlags::IN)];
    let mut add = |source, fd| {
        sources.push(source);
        fds.push(fd);
    };
    add(Source::Purpose, PollFd::from_borrowed_fd(purpose, PollFlags::IN | PollFlags::RDHUP));
    for fd in helper.output.descriptors() {
        add(Source::Output, PollFd::from_borrowed_fd(fd, PollFlags::IN));
    }
    if !exited {
        add(Source::Ending, PollFd::new(&helper.ending, PollFlags::IN));
    }
    if let Some(probe) = probe {
        add(Source::Probe, PollFd::new(&probe.done, PollFlags::IN));
    }
    let timeout = Timespec::try_from(left).map_err(|_| io::Error::from(Errno::OVERFLOW))?;
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let events = sources.into_iter().zip(fds.iter().map(PollFd::revents));
    Ok(events.filter(|(_, flags)| !flags.is_empty()).map(|(source, _)| source).collect())
}

/// A thread that asks the filesystem one question. It may wait in the kernel for as long as nobody answers; so it is
/// not the thread that watches.
pub(in crate::mounter) struct Probe<'scope> {
    /// Readable when it is through.
    pub(in crate::mounter) done: PipeReader,
    thread: thread::ScopedJoinHandle<'scope, io::Result<()>>,
}

/// How long a filesystem of a pod's own is asked: until it is ended.
const UNTIL_ENDED: Duration = Duration::from_secs(24 * 3600);

/// Starts one that asks for a root's attributes; as root of this user namespace, if it is one's.
pub(in crate::mounter) fn start_probe<'scope>(
    scope: &'scope Scope<'scope, '_>,
    root: BorrowedFd<'_>,
    users: Option<BorrowedFd<'_>>,
) -> io::Result<Probe<'scope>> {
    let (done, finished) = io::pipe()?;
    let root = root.try_clone_to_owned()?;
    let users = users.map(|users| users.try_clone_to_owned()).transpose()?;
    let thread = thread::Builder::new().name("probe".into()).spawn_scoped(scope, move || {
        // Closed when this thread is through, which makes the other end readable.
        let _finished = finished;
        match &users {
            None => ask(root.as_fd()),
            Some(users) => {
                let patience = Patience { limit: UNTIL_ENDED, stopping: None, users: Some(users.as_fd()) };
                answers_at(root.as_fd(), patience)
            }
        }
    })?;
    Ok(Probe { done, thread })
}

impl Probe<'_> {
    /// What came of it; waits until it is through.
    pub(in crate::mounter) fn answer(self) -> io::Result<()> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
