//! Which processes of a pod have a filesystem's descriptor: as long as one has, it is served.
//!
//! Runs in the mounter, on threads of its own: it walks through /proc. The mounter has a copy of the descriptor, so that the kernel does
//! not tell when the last other one is closed. The program that mounts is often not the one that asked (fusermount3), and may fork
//! into the background later; so it is the descriptor that is looked for.

use crate::node::fuse_device::{FuseDevice, may_serve};
use crate::node::pod_cgroup::is_of_pod;
use linux::processes::{self, Process};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// How often is looked again, as a process that has just ended may have passed it on.
const LOOKS: usize = 8;

/// A process that has it.
#[derive(Debug)]
pub(super) struct Holder {
    /// The name of its program.
    pub(super) program: String,
    /// Readable when it has ended.
    pub(super) held: OwnedFd,
}

/// Those of the pod `uid` that have `device` open.
pub(super) fn holders(uid: &str, device: &FuseDevice) -> io::Result<Vec<Holder>> {
    find(uid, |process| device.is_open_in(process))
}

/// Those that serve any filesystem: where an earlier mounter's copy is lost, and which of them is meant cannot be told.
pub(super) fn possible_holders(uid: &str) -> io::Result<Vec<Holder>> {
    find(uid, |process| Ok(may_serve(process)))
}

/// A copy of the descriptor by which one of the pod's processes serves what `of` looks for.
pub(super) fn find_device(uid: &str, of: impl Fn(&Process) -> Option<FuseDevice>) -> io::Result<Option<FuseDevice>> {
    Ok(of_pod(uid)?.0.iter().find_map(of))
}

fn find(uid: &str, has: impl Fn(&Process) -> io::Result<bool>) -> io::Result<Vec<Holder>> {
    let mut found = Vec::new();
    for _ in 0..LOOKS {
        let (processes, mut ended) = of_pod(uid)?;
        for process in processes {
            let Ok(held) = process.pidfd() else {
                ended = true;
                continue;
            };
            match has(&process) {
                Ok(true) => found.push(Holder { program: process.name(), held }),
                Ok(false) => {}
                Err(_) => ended = true,
            }
        }
        // What has ended meanwhile may have started another after those were listed.
        if !found.is_empty() || !ended {
            break;
        }
    }
    Ok(found)
}

/// The pod's processes, and whether any process has ended meanwhile.
fn of_pod(uid: &str) -> io::Result<(Vec<Process>, bool)> {
    let mut ended = false;
    let mut all = processes::all(Path::new(processes::OWN))?;
    all.retain(|process| match process.read("cgroup") {
        Ok(text) => is_of_pod(&text, uid),
        Err(_) => {
            ended = true;
            false
        }
    });
    Ok((all, ended))
}
