//! `hostmount install --to DIR`: puts the static binary and its names where the node can run them.
//!
//! Runs in the container; DIR is a directory of the node's. Every file appears by rename(2), so that kubelet never
//! runs half of one.

use super::served;
use crate::config::Config;
use crate::exit::{Exit, chain};
use crate::helper::find;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Its command line.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Directory of the node's that it can run programs from
    #[arg(long)]
    to: PathBuf,
    /// Configuration file: types with a command of their own are served too [default: as for `serve`]
    #[arg(long)]
    config: Option<PathBuf>,
}

/// The names beside `hostmount` that it answers to.
const NAMES: [&str; 2] = ["mount", "umount"];

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {path}", path = path.display())]
struct InstallError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Runs `hostmount install`.
pub fn main(arguments: &Arguments) -> ExitCode {
    let types = match Config::load(arguments.config.as_deref()) {
        Ok(config) => find::types().into_iter().chain(config.types_with_command().map(str::to_owned)).collect(),
        Err(error) => {
            eprintln!("hostmount: {}.", chain(&error));
            return Exit::Usage.into();
        }
    };
    match install(&arguments.to, types) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostmount: {}.", chain(&error));
            Exit::System.into()
        }
    }
}

fn install(directory: &Path, types: BTreeSet<String>) -> Result<(), InstallError> {
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| InstallError { step, path, source }
    };
    fs::create_dir_all(directory).map_err(failed("create", directory))?;
    served::write_list(directory, types).map_err(failed("write the list of types in", directory))?;
    let running = Path::new("/proc/self/exe");
    put(directory, "hostmount", |unfinished| {
        fs::copy(running, unfinished)?;
        fs::set_permissions(unfinished, fs::Permissions::from_mode(0o755))
    })
    .map_err(failed("install the binary in", directory))?;
    for name in NAMES {
        put(directory, name, |unfinished| symlink("hostmount", unfinished))
            .map_err(failed("install a name of the binary in", directory))?;
    }
    Ok(())
}

/// Makes a file under a name of its own first, and renames it when it is whole.
fn put(directory: &Path, name: &str, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let unfinished = directory.join(format!(".{name}.new"));
    if let Err(error) = fs::remove_file(&unfinished)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    make(&unfinished)?;
    fs::rename(&unfinished, directory.join(name))
}
