//! `umount`, as kubelet and operators call it on the node: umount(8)'s command line for FUSE filesystems.
//!
//! Runs on the node with the caller's privileges and does not ask the mounter: unmounting must work when the mounter
//! is away. What is not a FUSE filesystem at an absolute path is the business of the node's own umount(8).

use super::node_program;
use crate::exit::Exit;
use crate::node::mounts;
use crate::node::target::ask;
use clap::Parser;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
        match unmount_even_if_dead(&target, flags) {
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

/// A filesystem whose helper is dead must not keep a pod from ending: in use or not, it is detached.
pub fn unmount_even_if_dead(target: &Path, flags: UnmountFlags) -> Result<(), Errno> {
    match unmount(target, flags) {
        Err(Errno::BUSY) if ask(target).is_err() => unmount(target, flags | UnmountFlags::DETACH),
        done => done,
    }
}

/// Where FUSE filesystems are mounted. Without /proc none is known, and the node's own program shall see to it.
fn fuse_targets() -> HashSet<PathBuf> {
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
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
