//! `hostmount install`: installs the static programs on the node, and removes them again.
//!
//! Runs in the container, or on the node itself, as root. The directories are in the mount namespace of the first
//! process in /proc, where `serve` mounts volumes: no directory has to be shared for it.

use super::Complaint;
use crate::config::Config;
use crate::helper::find::served_types;
use crate::node::programs::{Places, Programs};
use api::client::host_proc;
use api::exit::{Exit, chain};
use linux::mount_namespace::MountNamespace;
use std::error::Error;
use std::path::PathBuf;

/// Its command line.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Directory on the node from which it can run programs: for hostmount, mount and umount
    #[arg(long, required_unless_present = "flexvolume", value_name = "DIR")]
    to: Option<PathBuf>,
    /// Kubelet's FlexVolume plugin directory on the node, for the driver hostmount~fuse
    #[arg(long, value_name = "DIR")]
    flexvolume: Option<PathBuf>,
    /// Remove what was installed before
    #[arg(long)]
    uninstall: bool,
    /// Configuration file: types with a command of their own are served too [default: as for `serve`]
    #[arg(long)]
    config: Option<PathBuf>,
    /// The node's proc filesystem [default: $HOSTPROCPATH/proc]
    #[arg(long)]
    host_proc: Option<PathBuf>,
}

/// Runs `hostmount install`.
pub(super) fn install(arguments: Arguments) -> Result<(), Complaint> {
    let places = Places { programs: arguments.to, plugins: arguments.flexvolume };
    let node = MountNamespace::of_node(&arguments.host_proc.unwrap_or_else(host_proc)).map_err(system)?;
    if arguments.uninstall {
        let removed = node.visit(|| places.uninstall()).map_err(system)?.map_err(system)?;
        removed.iter().for_each(|path| linux::say!("removed {}", path.display()));
        return Ok(());
    }
    let config = Config::load(arguments.config.as_deref()).map_err(|error| complaint(Exit::Usage, error))?;
    let programs = Programs::of_this_container(served_types(&config)).map_err(system)?;
    let installed = node.visit(|| places.install(&programs)).map_err(system)?.map_err(system)?;
    installed.iter().for_each(|path| linux::say!("installed {}", path.display()));
    Ok(())
}

fn system(error: impl Error) -> Complaint {
    complaint(Exit::System, error)
}

fn complaint(exit: Exit, error: impl Error) -> Complaint {
    Complaint::new(exit, chain(&error))
}
