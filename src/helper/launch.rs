//! Starting a helper, confined; holding it while its volume is being mounted; ending it when that fails.
//!
//! Runs in the mounter, on the volume's own thread, inside the helper's mount namespace.

use super::confine::{ConfineError, confine_this_thread};
use super::family::Family;
use super::find::{Program, search_path};
use super::output::Output;
use super::reaper::{Ending, Reaper};
use crate::config::filesystem::Filesystem;
use crate::engine::seccomp::listener::Listener;
use rustix::event::Timespec;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use tracing::warn;

/// How long killed processes may take to go: they can be held up in the kernel, by storage that does not answer.
const LAST_MOMENTS: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// A helper that runs.
#[derive(Debug)]
pub struct Helper {
    /// Hears of the end of the program that was started (a daemon may live on).
    pub ending: Ending,
    /// Hears of its mount calls, and of the end of everything it started.
    pub listener: Listener,
    /// Its words.
    pub output: Output,
    /// Whether the program that was started serves the filesystem itself and does not exit.
    pub foreground: bool,
    family: Family,
}

/// Why a helper does not run.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Its privileges could not be taken away: it is not started with them.
    #[error("cannot confine the helper")]
    Confine(#[from] ConfineError),
    /// fork or exec failed.
    #[error("cannot start {program}", program = program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A pipe, a thread or a look into /proc.
    #[error("cannot prepare for the helper")]
    Prepare(#[source] io::Error),
}

/// Starts `program` with no capability (but those its type is set to keep), in a process group of its own, in the
/// calling thread's mount namespace.
///
/// It holds no descriptor but 0 (`/dev/null`), 1 and 2 (one pipe to us): all of ours are close-on-exec.
pub fn launch(
    reaper: &Reaper,
    program: &Program,
    arguments: &[OsString],
    settings: &Filesystem,
) -> Result<Helper, LaunchError> {
    let (output, writer) = Output::new().map_err(LaunchError::Prepare)?;
    let family = Family::of_this_thread().map_err(LaunchError::Prepare)?;
    let copy = writer.try_clone().map_err(LaunchError::Prepare)?;
    let mut command = Command::new(&program.path);
    if let Some(called) = program.called {
        command.arg0(called);
    }
    command.args(arguments).process_group(0).stdin(Stdio::null()).stdout(writer).stderr(copy);
    command.env("PATH", search_path()).env_remove(crate::wire::SOCKET_VARIABLE).env_remove("HOSTPROCPATH");
    command.envs(&settings.environment);
    let keep = settings.capabilities().collect();
    let start = move || {
        let listener = confine_this_thread(&keep)?;
        let ending = reaper.spawn(&mut command);
        Ok::<_, LaunchError>((
            listener,
            ending.map_err(|source| LaunchError::Spawn { program: program.path.clone(), source })?,
        ))
    };
    let (listener, ending) = thread::scope(|scope| {
        let launcher = thread::Builder::new().name("launch".into()).spawn_scoped(scope, start);
        match launcher.map_err(LaunchError::Prepare)?.join() {
            Ok(started) => started,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    Ok(Helper { ending, listener, output, foreground: settings.foreground, family })
}

impl Helper {
    /// The volume stands: from here on the helper ends with its mount, as helpers do.
    pub fn release(self) -> (Listener, Output) {
        let Self { listener, output, .. } = self;
        (listener, output)
    }

    /// Ends everything the helper started. What is left of it are its words, to the last.
    pub fn end(mut self) -> Output {
        if let Err(error) = self.family.kill() {
            warn!("cannot look for the helper's processes: {error}");
        }
        match self.listener.is_abandoned(&LAST_MOMENTS) {
            Ok(true) => {}
            Ok(false) => warn!("processes of the helper are still there after SIGKILL: they wait for storage"),
            Err(error) => warn!("cannot see whether the helper has ended: {error}"),
        }
        self.output.drain();
        self.output
    }
}
