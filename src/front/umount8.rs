//! `umount`, as kubelet and operators call it on the node: umount(8)'s command line for FUSE filesystems.
//!
//! Runs on the node with the caller's privileges and does not ask the mounter: unmounting must work when the mounter
//! is away. What is not a FUSE filesystem at an absolute path is the business of the node's own umount(8).
//!
//! A kubelet may run in a container: volumes are in the node's mount namespace all the same, and are unmounted there.

use super::node_program;
use super::serve::host_proc;
use crate::exit::Exit;
use crate::node::mounts;
use crate::node::namespace::MountNamespace;
use crate::node::target::{ask, device_at};
use clap::Parser;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// How long a filesystem that is in use may take to answer.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// The part of umount(8)'s command line that we know.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, disable_version_flag = true, args_override_self = true)]
struct Arguments {
    #[arg(short = 'f', long)]
    force: bool,
    #[arg(short = 'l', long)]
    lazy: bool,
    #[arg(short = 'n', long)]
    no_mtab: bool,
    #[arg(short = 'v', long)]
    verbose: bool,
    #[arg(required = true)]
    targets: Vec<PathBuf>,
}

/// Runs `umount` with `arguments` (without the program's name).
pub fn main(arguments: &[OsString]) -> ExitCode {
    let Ok(given) = Arguments::try_parse_from(arguments) else {
        return node_program::become_it("umount", arguments);
    };
    let fuse = fuse_targets();
    if !given.targets.iter().all(|target| fuse.contains(target)) {
        return node_program::become_it("umount", arguments);
    }
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::FORCE, given.force);
    flags.set(UnmountFlags::DETACH, given.lazy);
    let mut code = ExitCode::SUCCESS;
    for target in given.targets {
        match unmount_volume(&target, flags) {
            Ok(()) if given.verbose => println!("umount: {} unmounted", target.display()),
            Ok(()) => {}
            Err(errno) => {
                eprintln!("umount: {}: {}.", target.display(), words(errno));
                code = exit_of(errno).into();
            }
        }
    }
    code
}

/// Unmounts the volume at `target` on the node, and in the caller's own mount namespace if that is another one and it
/// still shows there. Something else at that path on the node stays.
pub fn unmount_volume(target: &Path, flags: UnmountFlags) -> Result<(), Errno> {
    let Some(node) = node_elsewhere() else { return unmount_even_if_dead(target, flags) };
    let device = || device_at(target).ok().flatten();
    let here = device();
    let on_node = node.visit(|| match device() {
        Some(there) if here.is_none_or(|here| here == there) => unmount_even_if_dead(target, flags).map(|()| true),
        _ => Ok(false),
    });
    // A namespace that cannot be entered is not one that a volume can be unmounted in.
    let unmounted = on_node.unwrap_or(Err(Errno::PERM))?;
    // As a rule the node's umount has propagated to here.
    if unmounted && (here.is_none() || device() != here) { Ok(()) } else { unmount_even_if_dead(target, flags) }
}

/// The node's mount namespace, where the caller lives in another one.
fn node_elsewhere() -> Option<MountNamespace> {
    MountNamespace::of_node(&host_proc()).ok().filter(|node| node.is_callers().is_ok_and(|same| !same))
}

/// A filesystem whose helper is dead or hangs must not keep a pod from ending: in use or not, it is detached.
fn unmount_even_if_dead(target: &Path, flags: UnmountFlags) -> Result<(), Errno> {
    match unmount(target, flags) {
        Err(Errno::BUSY) if !answers(target) => unmount(target, flags | UnmountFlags::DETACH),
        done => done,
    }
}

/// Whether the filesystem at `target` answers, in good time.
///
/// Another process asks: whoever asks one that hangs cannot even be killed before it goes.
fn answers(target: &Path) -> bool {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("hostmount").arg("ask").arg(target);
    // Who waits for the end of our output shall not wait for it.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut asking) = command.spawn() else { return true };
    let pid = asking.id().try_into().ok().and_then(Pid::from_raw);
    let Some(Ok(end)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return true };
    match poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&PATIENCE)) {
        Ok(0) => false,
        _ => asking.wait().is_ok_and(|status| status.success()),
    }
}

/// Runs `hostmount ask`.
pub fn ask_main(path: &Path) -> ExitCode {
    ask(path).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
}

/// Where FUSE filesystems are mounted, here and on the node. Without /proc none is known, and the node's own program
/// shall see to it.
fn fuse_targets() -> HashSet<PathBuf> {
    let mut table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    if node_elsewhere().is_some() {
        table.extend(std::fs::read(host_proc().join("1/mountinfo")).unwrap_or_default());
    }
    mounts::parse(&table).into_iter().filter(mounts::Mount::is_fuse).map(|mount| mount.target).collect()
}

/// As umount(8) says it.
fn words(errno: Errno) -> String {
    match errno {
        Errno::BUSY => "target is busy; see which process uses it (fuser -m, lsof), or detach it with -l".to_owned(),
        Errno::PERM => "must be superuser to unmount".to_owned(),
        Errno::INVAL => "not mounted".to_owned(),
        errno => errno.to_string(),
    }
}

fn exit_of(errno: Errno) -> Exit {
    if errno == Errno::PERM { Exit::Usage } else { Exit::MountFailure }
}
