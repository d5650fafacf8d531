//! For tests: a mount namespace of their own, which ends with them. They need root, and are marked `#[ignore]` for other users.

use linux::mount_table::Mount;
use linux::processes::{OWN, Process};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use std::fs;
use std::path::Path;
use std::thread;

/// Runs a test on a thread in a mount namespace of its own, which has an empty private tmpfs at /mnt.
pub(super) fn in_own_mounts(test: fn()) {
    let tested = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        new_tmpfs("/mnt");
        test();
    });
    tested.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Makes a directory, and mounts an empty private filesystem on it.
pub(super) fn new_tmpfs(path: &str) {
    fs::create_dir_all(path).unwrap();
    mount(c"test", path, c"tmpfs", MountFlags::empty(), c"").unwrap();
    mount_change(path, MountPropagationFlags::PRIVATE).unwrap();
}

/// The mount table of the calling thread.
pub(super) fn own_table() -> Vec<Mount> {
    Process::at(Path::new(OWN), rustix::thread::gettid()).mounts().unwrap()
}

/// The topmost mount at a path.
pub(super) fn mounted_at(path: &str) -> Mount {
    own_table().into_iter().rfind(|mount| mount.target == Path::new(path)).unwrap()
}
