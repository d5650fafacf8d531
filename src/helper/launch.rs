//! Starting a helper, confined; holding it while its volume is being mounted; ending it when that fails.
//!
//! Runs in the mounter, on the volume's own thread, inside the helper's mount namespace.

use super::account::{Account, Shown};
use super::beginning::{environment, stdin};
use super::confine::{ConfineError, confine_this_thread};
use super::domain::enter_domain;
use super::find::HelperProgram;
use super::output::HelperOutput;
use super::reaper::{Ending, Reaper};
use crate::config::handover::Handover;
use crate::config::settings::Settings;
use crate::engine::helper_processes::HelperProcesses;
use crate::engine::preload::{self, FurnishError, is_static};
use crate::engine::seccomp::calls::Heard;
use crate::engine::seccomp::filter;
use crate::engine::seccomp::listener::Listener;
use crate::engine::{Engine, EngineEvent, Method};
use crate::node::cgroup::{Cgroup, Placement};
use crate::observe::events;
use caps::Capability;
use linux::sys::keyring::join_new_session_keyring;
use linux::sys::seccomp::restrict;
use linux::sys::spawn::{Program, SpawnError, User};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fchown;
use rustix::io::Errno;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use tracing::{debug, warn};

/// How long killed processes may take to go: they can be held up in the kernel, by storage that does not answer.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

/// How long a helper that has failed may go on until it has ended by itself.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A helper that runs.
#[derive(Debug)]
pub struct Helper {
    /// Readable when the program that was started has exited (a daemon may live on).
    pub ending: Ending,
    /// Readable when it makes a mount call, or when no process of it is left.
    pub engine: Engine,
    /// What it writes.
    pub output: HelperOutput,
    /// Whether the program that was started serves the filesystem itself and does not exit.
    pub foreground: bool,
    processes: HelperProcesses,
    cgroup: Option<Cgroup>,
    /// Why the engine may have missed its mount(2), if it can miss one.
    missed_call_hint: Option<String>,
}

/// What is kept of a helper whose volume is mounted.
#[derive(Debug)]
pub struct Serving {
    /// Readable when it makes a call, or when no process of it is left.
    pub engine: Engine,
    /// What it writes, until no process can write any more.
    pub output: Option<HelperOutput>,
    /// Its cgroup, if it has one of its own.
    pub cgroup: Option<Cgroup>,
}

/// Why a helper does not run.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Its privileges could not be taken away: it is not started with them.
    #[error("cannot confine the helper")]
    Confine(#[from] ConfineError),
    /// seccomp(2) with a listener.
    #[error(
        "cannot install the seccomp filter; the kernel needs seccomp user notification (5.0 and later), \
             and the container's own seccomp profile must allow seccomp(2): run it privileged"
    )]
    Filter(#[source] io::Error),
    /// What the shared object needs in the helper's mount namespace.
    #[error(transparent)]
    Preload(#[from] FurnishError),
    /// The socket for the shared object.
    #[error("cannot listen for the helper's calls")]
    Listen(#[source] io::Error),
    /// clone3(2).
    #[error("cannot make a process for the helper")]
    Fork(#[source] io::Error),
    /// setresuid(2) or setresgid(2), in the process that becomes the helper.
    #[error(
        "cannot run the helper as uid {uid}; if the mounter's user namespace does not have that number (/proc/self/uid_map), name \
         others: `[helpers] uids` in the configuration"
    )]
    User {
        /// Its uid, and gid.
        uid: u32,
        /// The kernel's error.
        source: io::Error,
    },
    /// seccomp(2), in the process that becomes the helper.
    #[error("cannot forbid the helper to call clone3(2)")]
    ForbidClone3(#[source] io::Error),
    /// execve(2).
    #[error("cannot start {program}", program = program.display())]
    Exec {
        /// The program.
        program: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The configured standard input.
    #[error("cannot fill the helper's standard input, for which a pipe has room (64 KiB)")]
    Stdin(#[source] io::Error),
    /// A pipe, a thread or a look into /proc.
    #[error("cannot prepare for the helper")]
    Prepare(#[source] io::Error),
}

/// What is to be started, and where.
#[allow(missing_debug_implementations, reason = "it holds secrets")]
pub struct Start<'a> {
    /// The state directory.
    pub state: &'a Path,
    /// What the volume is of.
    pub source: &'a str,
    /// The program.
    pub program: &'a HelperProgram,
    /// Its arguments, without its name.
    pub arguments: Vec<OsString>,
    /// The settings of its type.
    pub settings: &'a Settings,
    /// What it runs as, and how that is shown to it.
    pub account: (&'a Account<'a>, Option<Shown>),
    /// The secrets that it is given otherwise than in files.
    pub handover: Handover,
    /// Its places among the node's cgroups.
    pub placement: Placement<'a>,
}

/// Starts a program under its account, with no capability (but those its type is set to keep) and no group, in a process group of its own, in the
/// calling thread's mount namespace, and in its cgroup from its first instruction on.
///
/// It holds no descriptor but 0 (`/dev/null`, or a pipe with what it shall read), 1 and 2 (one pipe to us): all of ours
/// are close-on-exec.
pub fn launch(method: &Method, reaper: &Reaper, start: Start<'_>) -> Result<Helper, LaunchError> {
    let Start { state, source, program, arguments, settings, account: (account, shown), handover, mut placement } =
        start;
    let (mut output, writer) = HelperOutput::new(source).map_err(LaunchError::Prepare)?;
    output.hear_syslog(state);
    let processes = HelperProcesses::of_this_thread().map_err(LaunchError::Prepare)?;
    let failed = if handover.stdin.is_some() { LaunchError::Stdin } else { LaunchError::Prepare };
    let stdin = stdin(&handover, account).map_err(failed)?;
    let user = (!account.is_root()).then(|| User {
        uid: account.uid.as_raw(),
        gid: account.gid.as_raw(),
        processes: account.is_its_own().then_some(settings.process_limit),
        capabilities: settings.capabilities.iter().map(Capability::index).collect(),
    });
    // So that it may open /dev/stdout.
    if user.is_some() {
        fchown(&writer, Some(account.uid), Some(account.gid)).map_err(|errno| LaunchError::Prepare(errno.into()))?;
    }
    let called = program.called.map_or_else(|| program.path.clone().into_os_string(), OsString::from);
    let arguments: Vec<_> = [called].into_iter().chain(arguments).collect();
    let environment = environment((&program.name(), &arguments), &handover, shown);
    let server = match method {
        Method::Seccomp => None,
        Method::Preload(object) => {
            preload::furnish(object)?;
            Some(preload::Server::listen(processes.clone()).map_err(LaunchError::Listen)?)
        }
    };
    let begin = || -> Result<_, LaunchError> {
        if let Err(error) = placement.enter() {
            warn!("the helper stays in a cgroup of the container's, and ends with it: {error}");
        }
        // Each of the two is there or not, as the kernel has it.
        if let Err(error) = join_new_session_keyring() {
            debug!("the helper has the mounter's session keyring: {error}");
        }
        confine_this_thread(&settings.capabilities, user.is_some())?;
        let domain = enter_domain();
        debug!("Landlock: {domain}");
        let (mut engine, filtered) = filtered(server, settings.io_uring)?;
        let standard = [stdin.as_fd(), writer.as_fd(), writer.as_fd()];
        let filter = if filtered { filter::without_clone3() } else { Vec::new() };
        let cgroup = placement.version_2().map(|(cgroup, _)| cgroup);
        let file = program.path.clone();
        let mut helper = Program {
            file,
            arguments,
            environment,
            standard,
            user,
            descriptors: Some(settings.descriptor_limit),
            filter,
            cgroup,
        };
        let started = match reaper.spawn(&helper) {
            Err(SpawnError::ForkIntoCgroup(error)) => {
                warn_of_cgroup(&placement, &error);
                helper.cgroup = None;
                let started = reaper.spawn(&helper);
                placement.give_up_version_2();
                started
            }
            started => started,
        };
        let ending = started.map_err(|error| LaunchError::at_spawn(error, &program.path, account))?;
        if let Engine::Preload(server) = &mut engine
            && let Err(error) = ending.process().and_then(|process| server.watch(process))
        {
            // Its end could not be noticed, so it is killed at once.
            let _ = processes.kill();
            return Err(LaunchError::Prepare(error));
        }
        Ok((engine, ending))
    };
    let (engine, ending) = thread::scope(|scope| {
        let launcher = thread::Builder::new().name("launch".into()).spawn_scoped(scope, begin);
        match launcher.map_err(LaunchError::Prepare)?.join() {
            Ok(started) => started,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    let missed_call_hint = missed_call_hint(method, &program.path);
    let cgroup = placement.own.take();
    Ok(Helper { ending, engine, output, foreground: settings.foreground, processes, cgroup, missed_call_hint })
}

/// The helper works all the same, as one that the container's cgroup was never left for.
fn warn_of_cgroup(placement: &Placement<'_>, error: &io::Error) {
    let path = placement.version_2().map(|(_, path)| path.display().to_string()).unwrap_or_default();
    let why = match error.kind() {
        // What the kernel says then is "No such file or directory" (cgroups(7)).
        io::ErrorKind::NotFound => {
            " (cgroup2 is mounted with nsdelegate, and that cgroup or the mounter's is outside of the mounter's cgroup namespace)"
        }
        _ => "",
    };
    warn!(
        "the helper cannot be started in the cgroup {path}: {error}{why}; it stays in the container's cgroup, without a limit \
         in version 2, and ends with the container"
    );
}

impl LaunchError {
    fn at_spawn(error: SpawnError, program: &Path, account: &Account<'_>) -> Self {
        match error {
            SpawnError::Prepare(error) => Self::Prepare(error),
            SpawnError::Fork(error) | SpawnError::ForkIntoCgroup(error) => Self::Fork(error),
            SpawnError::User(source) => Self::User { uid: account.uid.as_raw(), source },
            SpawnError::Filter(error) => Self::ForbidClone3(error),
            SpawnError::Exec(source) => Self::Exec { program: program.to_owned(), source },
        }
    }
}

/// Binds the thread that is about to start the helper with a filter. Returns the engine that receives the helper's calls, which
/// is the preload engine's `server` if there is one, and whether a filter is in force.
fn filtered(server: Option<preload::Server>, io_uring: bool) -> Result<(Engine, bool), LaunchError> {
    match server {
        None => {
            let listener = Listener::install(io_uring).map_err(LaunchError::Filter)?;
            Ok((Engine::Seccomp(listener), true))
        }
        Some(server) => {
            // This engine is for kernels and containers that have no seccomp(2), too.
            let filtered = restrict(&filter::program(Heard::ByNobody, io_uring));
            if let Err(error) = &filtered {
                debug!("the helper runs without a seccomp filter: {error}");
            }
            Ok((Engine::Preload(server), filtered.is_ok()))
        }
    }
}

/// A hint for the case that the helper fails and no mount(2) of it was seen: it may have made one that the engine cannot see.
fn missed_call_hint(method: &Method, program: &Path) -> Option<String> {
    let Method::Preload(_) = method else { return None };
    let program_name = program.display();
    Some(if is_static(program).unwrap_or(false) {
        format!(
            "{program_name} is statically linked, so the preload engine does not see its mount(2): \
             run the mounter with --engine seccomp"
        )
    } else {
        format!(
            "no mount(2) of {program_name} was seen; if it made one, the preload engine could not see it (a statically linked program, or one that makes its system calls itself): run the mounter with --engine seccomp"
        )
    })
}

impl Helper {
    /// Everything it started.
    pub fn processes(&self) -> &HelperProcesses {
        &self.processes
    }

    /// If it failed without a mount(2) that was seen: why the engine may have missed one.
    pub fn missed_call_hint(&self) -> Option<&str> {
        self.missed_call_hint.as_deref()
    }

    /// The volume is mounted: from here on the helper exits when its mount is gone, as helpers do.
    pub fn release(self) -> Serving {
        let Self { engine, output, cgroup, .. } = self;
        Serving { engine, output: Some(output), cgroup }
    }

    /// A message for the caller, if it has run out of memory.
    pub fn ran_out_of_memory(&self) -> Option<String> {
        self.cgroup.as_ref().and_then(Cgroup::ran_out_of_memory)
    }

    /// Waits for a moment until it has ended by itself: a program of its may still have something to say.
    pub fn hear_out(&mut self) {
        let deadline = Instant::now() + LAST_WORDS;
        let ended = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(left) = Timespec::try_from(left) else { break Ok(false) };
            let mut fds: Vec<_> =
                [self.engine.as_fd()].into_iter().chain(self.output.descriptors()).map(readable).collect();
            match poll(&mut fds, Some(&left)) {
                Ok(0) => break Ok(false),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => break Err(errno.into()),
            }
            let called = !fds[0].revents().is_empty();
            self.output.drain();
            if called {
                match self.engine.handle_event(None) {
                    Ok(EngineEvent::HelperGone) => break Ok(true),
                    Ok(EngineEvent::Call | EngineEvent::ProcessEnded | EngineEvent::Cheats) => {}
                    Err(error) => break Err(error),
                }
            }
        };
        if let Err(error) = ended {
            warn!("cannot wait for what the helper may still say: {error}");
        }
    }

    /// Kills everything the helper started, and returns all that it has written.
    pub fn end(mut self) -> HelperOutput {
        if let Err(error) = self.processes.kill() {
            warn!("cannot look for the helper's processes: {error}");
        }
        self.cgroup.iter().for_each(Cgroup::kill);
        match self.engine.wait_for_end(LAST_MOMENTS) {
            Ok(true) => {}
            Ok(false) => warn!(
                event = events::HELPER_STAYS,
                "processes of the helper are still there after SIGKILL: they wait for storage"
            ),
            Err(error) => warn!("cannot see whether the processes of the helper are gone: {error}"),
        }
        self.output.drain();
        self.output
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::from_borrowed_fd(fd, PollFlags::IN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::helper::output::texts;
    use api::exit::chain;
    use nix::sched::{CloneFlags, unshare};

    /// Launches a program in a mount namespace of its own, and returns the first that it writes.
    fn launched(program: &'static str, placement: fn() -> Placement<'static>) -> Result<Vec<String>, LaunchError> {
        let test = move || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let style = super::super::arguments::Style::Fuse;
            let program = HelperProgram { path: program.into(), called: None, style };
            let config = Config::default();
            let settings = config.settings_of("x");
            let handover = Handover::default();
            let arguments = vec!["started".into()];
            let (root, placement) = (Account::root(), placement());
            let state = Path::new("/run/hostmount");
            let start = Start {
                state,
                source: "",
                program: &program,
                arguments,
                settings,
                account: (&root, None),
                handover,
                placement,
            };
            let mut helper = launch(&Method::Seccomp, &Reaper::default(), start)?;
            let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
            poll(&mut [readable(helper.output.descriptors().next().unwrap())], Some(&patience)).unwrap();
            helper.output.drain();
            Ok(texts(helper.output.lines()))
        };
        thread::spawn(test).join().unwrap()
    }

    #[test]
    #[ignore = "confining a helper needs root: make test-quick"]
    fn a_cgroup_that_refuses_the_helper_is_done_without() {
        let refused = || Placement::refused_at(Path::new("/sys/fs/cgroup/hostmount/x.1"));
        assert_eq!(launched("/bin/echo", refused).unwrap(), ["started"]);
        let error = launched("/nonexistent", refused).unwrap_err();
        assert!(chain(&error).starts_with("cannot start /nonexistent: No such file or directory"), "{error:?}");
    }
}
