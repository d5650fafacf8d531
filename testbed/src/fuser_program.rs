//! `fuser-program MOUNT-POINT [auto_unmount]`: the filesystem in memory as most programs with Rust's library fuser have theirs: the library
//! mounts it, by `fusermount3` where it has no privilege. As with libfuse, `/dev/fd/N` is a mount point that is mounted already.
//!
//! Runs in a pod of a test's, as any user without any capability, until the filesystem is unmounted.

use crate::memfs::{self, Session};
use linux::sys::descriptor::duplicate;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs the program; `arguments` follow its name.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(place) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: fuser-program MOUNT-POINT [auto_unmount]");
        return ExitCode::FAILURE;
    };
    let auto_unmount = arguments.next().is_some_and(|word| word == "auto_unmount");
    match start(&place, auto_unmount).and_then(Session::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuser-program: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(place: &Path, auto_unmount: bool) -> io::Result<Session> {
    match place.strip_prefix("/dev/fd").ok().and_then(|number| number.to_str()?.parse().ok()) {
        Some(number) => memfs::start_for_all(duplicate(number)?, None),
        None => memfs::mounted_by_fuser(place, auto_unmount),
    }
}
