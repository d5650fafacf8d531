//! `umount`, as kubelet and operators call it on the node: umount(8)'s command line for FUSE filesystems.
//!
//! Runs on the node with the caller's privileges and unmounts by itself: that must work when no mounter runs. Only of a
//! filesystem that is in use the mounter is asked, if there is one, whether it is dead. What is not a FUSE filesystem at an absolute path is left to the node's own umount(8).
//!
//! A kubelet may run in a container: volumes are in the node's mount namespace all the same, and are unmounted there.

use crate::node_program;
use api::client::{Client, host_proc};
use api::exit::Exit;
use api::origin::Origin;
use api::shown::shown_path;
use api::volume::VolumeState;
use lexopt::Arg::{Long, Short, Value};
use lexopt::Parser;
use linux::mount_namespace::MountNamespace;
use linux::mount_table::{self, Mount};
use linux::statx::device_at;
use linux::sys::ask::answers;
use linux::sys::statmount::mount_of;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// How long a filesystem that is in use may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the mounter may take to answer.
const MOUNTERS_TIME: Duration = Duration::from_secs(1);

/// The part of umount(8)'s command line that we know.
#[derive(Debug)]
struct Arguments {
    flags: UnmountFlags,
    verbose: bool,
    targets: Vec<PathBuf>,
}

/// Runs `umount` with `arguments` (without the program's name). Returns the exit status.
pub fn main(arguments: &[OsString]) -> u8 {
    let Ok(given) = parse(arguments) else { return node_program::become_it("umount", arguments) };
    let node = node_elsewhere();
    if !are_fuse(&given.targets, node.is_some()) {
        return node_program::become_it("umount", arguments);
    }
    let mut code = 0;
    for target in given.targets {
        match unmount_on(node.as_ref(), &target, given.flags) {
            Ok(()) if given.verbose => linux::say!("umount: {} unmounted", shown_path(&target)),
            Ok(()) => {}
            Err(errno) => {
                linux::complain!("umount: {}: {}.", shown_path(&target), words(errno));
                code = exit_of(errno) as u8;
            }
        }
    }
    code
}

/// Whatever it does not know is an error: the node's own umount(8) may know it.
fn parse(arguments: &[OsString]) -> Result<Arguments, lexopt::Error> {
    let mut given = Arguments { flags: UnmountFlags::NOFOLLOW, verbose: false, targets: Vec::new() };
    let mut parser = Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('f') | Long("force") => given.flags |= UnmountFlags::FORCE,
            Short('l') | Long("lazy") => given.flags |= UnmountFlags::DETACH,
            // There is no mtab to be written to.
            Short('n') | Long("no-mtab") => {}
            Short('v') | Long("verbose") => given.verbose = true,
            Value(target) => given.targets.push(target.into()),
            unknown => return Err(unknown.unexpected()),
        }
    }
    if given.targets.is_empty() { Err("no target".into()) } else { Ok(given) }
}

/// Unmounts the volume at `target` on the node, and in the caller's own mount namespace if that is another one and the
/// volume is still mounted there. Another filesystem at that path on the node stays.
pub fn unmount_volume(target: &Path, flags: UnmountFlags) -> Result<(), Errno> {
    unmount_on(node_elsewhere().as_ref(), target, flags)
}

fn unmount_on(node: Option<&MountNamespace>, target: &Path, flags: UnmountFlags) -> Result<(), Errno> {
    let Some(node) = node else { return unmount_even_if_dead(target, flags) };
    let device = || device_at(target).ok().flatten();
    let here = device();
    let on_node = node.visit(|| match device() {
        Some(there) if here.is_none_or(|here| here == there) => unmount_even_if_dead(target, flags).map(|()| true),
        _ => Ok(false),
    });
    // A volume cannot be unmounted in a namespace that cannot be entered.
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
        // If no child can be started to ask, the error of umount(2) stands.
        Err(Errno::BUSY) if is_dead(target) || !answers(target, PATIENCE).unwrap_or(true) => {
            unmount(target, flags | UnmountFlags::DETACH)
        }
        // What answers may be a fresh helper's, which nothing uses.
        Err(Errno::BUSY) => unmount(target, flags),
        done => done,
    }
}

/// Whether the mounter says that the volume at `target` is dead: then what is asked waits for the next helper, and to ask is of
/// no use. A mounter that does not run holds nothing; one that does not answer is not waited for.
fn is_dead(target: &Path) -> bool {
    let Some(target) = target.to_str().map(str::to_owned) else { return false };
    let (sender, answer) = channel();
    let ask = move || {
        let volume = Client::from_environment(Origin::Operator).status(&target);
        // Nobody waits for it any more if it took too long.
        let _ = sender.send(volume.is_ok_and(|volume| volume.view.state == VolumeState::Dead));
    };
    let asked = thread::Builder::new().spawn(ask).is_ok();
    asked && answer.recv_timeout(MOUNTERS_TIME).unwrap_or(false)
}

/// Whether each of these is where a FUSE filesystem is mounted.
fn are_fuse(targets: &[PathBuf], node_is_elsewhere: bool) -> bool {
    let each = targets.iter().map(|target| is_fuse_at(target)).collect::<Option<Vec<_>>>();
    // What is not seen here may be seen on the node.
    if let Some(each) = each.filter(|_| !node_is_elsewhere) {
        return each.into_iter().all(|is_fuse| is_fuse);
    }
    let fuse = fuse_targets(node_is_elsewhere);
    targets.iter().all(|target| fuse.contains(target))
}

/// Whether a FUSE filesystem is mounted there; none where the table must tell (Linux before 6.8, a filesystem that answers its
/// own user alone).
fn is_fuse_at(target: &Path) -> Option<bool> {
    let mount = mount_of(target).ok()?;
    Some(mount.fstype == "fuse" && mount.target == target)
}

/// Where FUSE filesystems are mounted, here and on the node. Without /proc none is known, and the node's own program
/// is executed.
fn fuse_targets(node_is_elsewhere: bool) -> HashSet<PathBuf> {
    let mut table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    if node_is_elsewhere {
        table.extend(std::fs::read(host_proc().join("1/mountinfo")).unwrap_or_default());
    }
    mount_table::parse(&table).into_iter().filter(Mount::is_fuse).map(|mount| mount.target).collect()
}

/// The message, in umount(8)'s terms.
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
