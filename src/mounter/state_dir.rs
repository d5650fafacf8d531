//! The state directory: for root's eyes only, and one mounter's at a time.
//!
//! Runs in the mounter's main thread, before any other thread is there.

use super::step::{StepError, step};
use crate::node::dying::{Life, life_of};
use crate::observe::journal;
use linux::processes::{self, Process};
use nix::fcntl::{FcntlArg, fcntl};
use rustix::fs::{FlockOperation, Mode, OFlags, fcntl_lock, open};
use rustix::io::Errno;
use rustix::process::Pid;
use std::fs::{self, File, Permissions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use tracing::{info, warn};

/// What may be in a state directory: of another one the mode is not ours to change.
const OURS: [&str; 15] = [
    "lock",
    "lock.taking",
    journal::FILES[0],
    journal::FILES[1],
    "mnt",
    "files",
    "volumes",
    "secrets",
    "preload",
    "hostmount.sock",
    "hostmount.new",
    "kubelet.sock",
    "kubelet.new",
    "flexvolume.sock",
    "flexvolume.new",
];

/// Makes the directory if it is missing, and lets nobody but its owner enter it.
pub(super) fn prepare(state: &Path) -> Result<(), StepError> {
    let named = |what: &str| format!("{what} {}", state.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state).map_err(step(named("create")))?;
    let metadata = fs::metadata(state).map_err(step(named("look at")))?;
    if metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    let mut names = fs::read_dir(state).map_err(step(named("list")))?.flatten().map(|entry| entry.file_name());
    match names.find(|name| !OURS.iter().any(|ours| name == *ours)) {
        None => fs::set_permissions(state, Permissions::from_mode(0o700)).map_err(step(named("close to others"))),
        Some(foreign) => {
            warn!(
                "others than root may enter {}, which is not the mounter's alone ({} is in it): give it a state directory of \
                 its own, with --state",
                state.display(),
                foreign.display()
            );
            Ok(())
        }
    }
}

/// Takes the lock that one mounter holds for each state directory. None: another mounter has it.
///
/// The lock is a lock on a file, and goes with the last thread of its process. One of a mounter that was killed may be stuck in
/// the kernel, so that is not waited for: the file is put aside with its lock, and a new one takes its place. So is one on
/// which another process has a lock of its own that is none of a mounter's.
pub(super) fn take_lock(state: &Path, host_proc: &Path) -> Result<Option<File>, StepError> {
    let (path, turn) = (state.join("lock"), state.join("lock.taking"));
    let named = |what: &str| format!("{what} {}", path.display());
    // Held for the moment that it takes: nobody is ever stuck with it.
    let taking = create(&turn).map_err(step(format!("create {}", turn.display())))?;
    if !lock(&taking).map_err(step(format!("lock {}", turn.display())))? {
        return Ok(None);
    }
    let mut file = create(&path).map_err(step(named("create")))?;
    if !lock(&file).map_err(step(named("lock")))? {
        if holder_lives(&file, &path, host_proc).map_err(step(named("see who has locked")))? {
            return Ok(None);
        }
        info!("{} was locked by a mounter that is dead, or by none: a new one takes its place", path.display());
        fs::remove_file(&path).map_err(step(named("put aside")))?;
        file = create(&path).map_err(step(named("create")))?;
        if !lock(&file).map_err(step(named("lock")))? {
            return Ok(None);
        }
    }
    file.set_permissions(Permissions::from_mode(0o600)).map_err(step(named("close to others")))?;
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| match Holder::ourselves(host_proc) {
        Some(Holder { pid, start }) => writeln!(file, "{} {start}", pid.as_raw_nonzero()),
        None => Ok(()),
    });
    written.map_err(step(named("write")))?;
    Ok(Some(file))
}

fn create(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(open(path, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Not flock(2): its lock would be a helper's too, from fork to exec, and outlive us.
fn lock(file: &File) -> io::Result<bool> {
    match fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK | Errno::ACCESS) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// A mounter, as the node's processes are numbered.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    pid: Pid,
    start: u64,
}

impl Holder {
    fn ourselves(host_proc: &Path) -> Option<Self> {
        let pid = Pid::from_raw(fs::read_link(host_proc.join("self")).ok()?.to_str()?.parse().ok()?)?;
        Some(Self { pid, start: Process::at(host_proc, pid).start().ok()? })
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, start) = text.trim().split_once(' ')?;
        Some(Self { pid: Pid::from_raw(pid.parse().ok().filter(|pid| *pid > 0)?)?, start: start.parse().ok()? })
    }

    /// Whether it is there, and will run another instruction.
    fn lives(&self, host_proc: &Path) -> bool {
        let process = Process::at(host_proc, self.pid);
        let life = life_of(&process);
        process.start().is_ok_and(|start| start == self.start) && life > Life::Killed
    }
}

/// Whether the lock that is in our way is that of a mounter that runs.
fn holder_lives(file: &File, path: &Path, host_proc: &Path) -> io::Result<bool> {
    let mut held =
        libc::flock { l_type: libc::F_WRLCK as _, l_whence: libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(file, FcntlArg::F_GETLK(&mut held))?;
    // No mounter takes a lock that is shared.
    if held.l_type != libc::F_WRLCK as libc::c_short {
        return Ok(false);
    }
    Ok(match Holder::parse(&fs::read_to_string(path)?) {
        Some(holder) => holder.lives(host_proc),
        // An earlier version's, which says nothing of itself; the kernel names it if it is in our PID namespace.
        None => {
            let named = Some(held.l_pid).filter(|pid| *pid > 0).and_then(Pid::from_raw);
            let named = named.map(|pid| Process::at(Path::new(processes::OWN), pid));
            !named.is_some_and(|process| process.start().is_ok() && life_of(&process) <= Life::Killed)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_told_by_its_start_too() {
        let proc = Path::new("/proc");
        let ourselves = Holder::ourselves(proc).unwrap();
        assert!(ourselves.lives(proc));
        let text = format!("{} {}\n", ourselves.pid.as_raw_nonzero(), ourselves.start);
        assert_eq!(Holder::parse(&text).as_ref(), Some(&ourselves));
        assert!(!Holder { start: ourselves.start + 1, ..ourselves }.lives(proc));
        assert_eq!(
            (Holder::parse(""), Holder::parse("0 1"), Holder::parse("-5 1"), Holder::parse("5")),
            (None, None, None, None)
        );
    }

    #[test]
    fn others_cannot_enter_unless_others_things_are_there() {
        let state = std::env::temp_dir().join(format!("hostmount-state-{}", std::process::id()));
        let mode = || fs::metadata(&state).unwrap().mode() & 0o777;
        prepare(&state).unwrap();
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&state, Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(state.join("mnt")).unwrap();
        prepare(&state).unwrap();
        assert_eq!(mode(), 0o700);
        fs::set_permissions(&state, Permissions::from_mode(0o755)).unwrap();
        fs::write(state.join("foreign"), "").unwrap();
        prepare(&state).unwrap();
        assert_eq!(mode(), 0o755);
        fs::remove_dir_all(state).unwrap();
    }
}
