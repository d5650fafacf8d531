//! Becoming the node's own program of the same name, by execve(2): same arguments, same environment.
//!
//! Whatever hostmount does not serve must go on working on a node as if hostmount were not there. No hostmount ever
//! becomes another one, so there is no circle of them, however many are in PATH.

use crate::mark::is_ours;
use api::exit::Exit;
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Where a node keeps it, if PATH does not tell.
const DIRECTORIES: [&str; 5] = ["/bin", "/usr/bin", "/sbin", "/usr/sbin", "/run/current-system/sw/bin"];

/// Becomes the node's own `name` with `arguments` (without the program's name). Comes back only when there is none.
pub(crate) fn become_it(name: &str, arguments: &[OsString]) -> ExitCode {
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for program in candidates(name) {
        error = Command::new(&program).arg0(name).args(arguments).exec();
    }
    eprintln!("{name}: this node has no {name} program of its own, and hostmount does not serve this: {error}");
    Exit::Usage.into()
}

/// Programs called `name` that are no hostmount.
fn candidates(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path: Vec<PathBuf> = env::split_paths(&path).collect();
    in_path
        .into_iter()
        .chain(DIRECTORIES.map(PathBuf::from))
        .map(move |directory| directory.join(name))
        .filter(|program| program.is_absolute() && program.is_file() && !is_ours(program))
}
