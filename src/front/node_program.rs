//! Becoming the node's own program of the same name, by execve(2): same arguments, same environment.
//!
//! Whatever hostmount does not serve must go on working on a node as if hostmount were not there.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Where a node keeps it, if PATH does not tell.
const DIRECTORIES: [&str; 5] = ["/bin", "/usr/bin", "/sbin", "/usr/sbin", "/run/current-system/sw/bin"];

/// Becomes the node's own `name` with `arguments` (without the program's name). Comes back only when there is none.
pub fn become_it(name: &str, arguments: &[OsString]) -> ExitCode {
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for program in candidates(name) {
        error = Command::new(&program).arg0(name).args(arguments).exec();
    }
    eprintln!("{name}: this node has no {name} program of its own, and hostmount does not serve this: {error}");
    ExitCode::from(crate::exit::Exit::Usage)
}

/// Programs called `name` that are not this one.
fn candidates(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let own = env::current_exe().ok();
    let own = own.as_deref().and_then(|exe| Some((exe.parent()?.to_owned(), fs::metadata(exe).ok()?)));
    env::split_paths(&path)
        .chain(DIRECTORIES.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .filter(|program| program.is_absolute() && !is_ours(program, own.as_ref()))
        .collect()
}

/// Whether `program` is this very file under some name, or another copy that hostmount installed: those have
/// `hostmount` beside them.
fn is_ours(program: &Path, own: Option<&(PathBuf, fs::Metadata)>) -> bool {
    let Ok(file) = fs::metadata(program) else { return true };
    let same = own.is_some_and(|(_, exe)| (exe.dev(), exe.ino()) == (file.dev(), file.ino()));
    let beside = fs::canonicalize(program).ok().and_then(|real| fs::metadata(real.with_file_name("hostmount")).ok());
    same || beside.is_some_and(|beside| (beside.dev(), beside.ino()) == (file.dev(), file.ino()))
}
