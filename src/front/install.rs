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
    /// Kubelet's FlexVolume plugin directory on the node, for the driver hostmount~fuse
    #[arg(long)]
    flexvolume: Option<PathBuf>,
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
    let installed = install(&arguments.to, types);
    match installed.and_then(|()| arguments.flexvolume.as_deref().map_or(Ok(()), install_driver)) {
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
    put(directory, "hostmount", copy_this_program).map_err(failed("install the binary in", directory))?;
    for name in NAMES {
        put(directory, name, |unfinished| symlink("hostmount", unfinished))
            .map_err(failed("install a name of the binary in", directory))?;
    }
    Ok(())
}

/// The driver is a copy: the plugin directory may be on another filesystem than the binary. Kubelet watches the
/// directory and skips names that begin with a dot, so it appears by rename, the binary in it.
fn install_driver(plugins: &Path) -> Result<(), InstallError> {
    let failed = |step, path: &Path| {
        let path = path.to_owned();
        move |source| InstallError { step, path, source }
    };
    let driver = plugins.join("hostmount~fuse");
    let copy = |directory: &Path| put(directory, "fuse", copy_this_program);
    if driver.is_dir() {
        return copy(&driver).map_err(failed("install the FlexVolume driver in", &driver));
    }
    let unfinished = plugins.join(".hostmount~fuse");
    fs::create_dir_all(&unfinished).map_err(failed("create", &unfinished))?;
    copy(&unfinished).map_err(failed("install the FlexVolume driver in", &unfinished))?;
    fs::rename(&unfinished, &driver).map_err(failed("put in place", &driver))
}

fn copy_this_program(to: &Path) -> io::Result<()> {
    fs::copy("/proc/self/exe", to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))
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
