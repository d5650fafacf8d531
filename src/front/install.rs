//! `hostmount install`: puts the static binary and its names where the node can run them, and takes them away again.
//!
//! Runs in the container, or on the node itself, as root. The directories are those of the mount namespace of the first
//! process that /proc shows, in which `serve` shows volumes: no directory has to be shared for it.

use super::serve::host_proc;
use super::served::types_of_helpers;
use crate::config::Config;
use crate::exit::{Exit, chain};
use crate::node::namespace::MountNamespace;
use crate::node::programs::{Places, Version};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

/// Its command line.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Directory of the node's that it can run programs from: for hostmount, mount and umount
    #[arg(long, required_unless_present = "flexvolume", value_name = "DIR")]
    to: Option<PathBuf>,
    /// Kubelet's FlexVolume plugin directory on the node, for the driver hostmount~fuse
    #[arg(long, value_name = "DIR")]
    flexvolume: Option<PathBuf>,
    /// Take away what was put there before
    #[arg(long)]
    uninstall: bool,
    /// Configuration file: types with a command of their own are served too [default: as for `serve`]
    #[arg(long)]
    config: Option<PathBuf>,
    /// A proc filesystem of the node's [default: $HOSTPROCPATH/proc]
    #[arg(long)]
    host_proc: Option<PathBuf>,
}

/// Runs `hostmount install`.
pub fn main(arguments: Arguments) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err((exit, error)) => {
            eprintln!("hostmount: {}.", chain(error.as_ref()));
            exit.into()
        }
    }
}

type Failure = (Exit, Box<dyn Error>);

fn run(arguments: Arguments) -> Result<(), Failure> {
    let system = |error: Box<dyn Error>| (Exit::System, error);
    let places = Places { programs: arguments.to, plugins: arguments.flexvolume };
    let node = MountNamespace::of_node(&arguments.host_proc.unwrap_or_else(host_proc)).map_err(|e| system(e.into()))?;
    if arguments.uninstall {
        let removed = node.visit(|| places.uninstall()).map_err(|e| system(e.into()))?;
        for path in removed.map_err(|e| system(e.into()))? {
            println!("removed {}", path.display());
        }
        return Ok(());
    }
    let config = Config::load(arguments.config.as_deref()).map_err(|error| (Exit::Usage, error.into()))?;
    let version = Version::of_this_program(types_of_helpers(&config)).map_err(|e| system(e.into()))?;
    let installed = node.visit(|| places.install(&version)).map_err(|e| system(e.into()))?;
    for path in installed.map_err(|e| system(e.into()))? {
        println!("installed {}", path.display());
    }
    Ok(())
}
