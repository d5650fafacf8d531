//! Executes the node's own program of the same name: same arguments, same environment.
//!
//! Everything that hostmount does not serve must work on a node as if hostmount were not there. No hostmount ever
//! executes another one, so they cannot loop, however many are in PATH.

use crate::mark::is_ours;
use api::exit::Exit;
use linux::sys::entry::become_program;
use std::env;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// Where a node may have it, beside the directories in PATH.
const DIRECTORIES: [&str; 5] = ["/bin", "/usr/bin", "/sbin", "/usr/sbin", "/run/current-system/sw/bin"];

/// Executes the node's own `name` with `arguments` (without the program's name). Returns only if there is none, with the exit
/// status.
pub(crate) fn become_it(name: &str, arguments: &[OsString]) -> u8 {
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for program in candidates(name) {
        error = become_program(&program, name, arguments);
    }
    linux::complain!("{name}: this node has no {name} program of its own, and hostmount does not serve this: {error}");
    Exit::Usage as u8
}

/// Programs called `name` that are not hostmount's.
fn candidates(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path: Vec<PathBuf> = env::split_paths(&path).collect();
    in_path
        .into_iter()
        .chain(DIRECTORIES.map(PathBuf::from))
        .map(move |directory| directory.join(name))
        .filter(|program| program.is_absolute() && program.is_file() && !is_ours(program))
}
