//! `hostmount serve`: starts the mounter in the container.

use crate::config::Config;
use crate::config::log_levels::LogLevels;
use crate::engine::{Choice, preload::DEFAULT_OBJECT};
use crate::helper::find::served_types;
use crate::mounter::start::{ServeError, Settings, serve};
use crate::node::programs::Places;
use crate::observe::journal::Journal;
use crate::observe::log;
use api::client::host_proc;
use api::exit::{Exit, chain};
use api::shown::shown_lines;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Its command line.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Configuration file [default: /etc/hostmount/config.toml, if it is there]
    #[arg(long)]
    config: Option<PathBuf>,
    /// Socket to listen on, in a directory that the node shares
    #[arg(long, env = "HOSTMOUNT_SOCKET", default_value = api::client::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Directory of the mounter's state
    #[arg(long, default_value = "/run/hostmount")]
    state: PathBuf,
    /// The node's proc filesystem [default: $HOSTPROCPATH/proc]
    #[arg(long)]
    host_proc: Option<PathBuf>,
    /// How helpers' mount calls are intercepted
    #[arg(long, value_enum, default_value = "auto")]
    engine: Choice,
    /// The preload engine's shared object
    #[arg(long, default_value = DEFAULT_OBJECT)]
    preload: PathBuf,
    /// First install hostmount, mount and umount in this directory of the node, as `hostmount install --to` does
    #[arg(long, value_name = "DIR")]
    install: Option<PathBuf>,
    /// First install the FlexVolume driver in this directory of the node, as `hostmount install --flexvolume` does
    #[arg(long, value_name = "DIR")]
    install_flexvolume: Option<PathBuf>,
    /// Serve the metrics over HTTP at this address, for example 127.0.0.1:9464; every process that can connect may read
    /// them
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics: Option<SocketAddr>,
}

/// Runs `hostmount serve`.
pub(super) fn main(arguments: Arguments) -> ExitCode {
    let journal = Arc::new(Journal::default());
    let levels = log::start(Arc::clone(&journal));
    let config = match Config::load(arguments.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return fail(&error, Exit::Usage),
    };
    levels.set(config.log.as_ref().map(LogLevels::as_str));
    let settings = Settings {
        places: Places { programs: arguments.install, plugins: arguments.install_flexvolume },
        types: served_types(&config),
        config,
        config_file: arguments.config,
        socket: arguments.socket,
        state: arguments.state,
        host_proc: arguments.host_proc.unwrap_or_else(host_proc),
        engine: arguments.engine,
        preload: arguments.preload,
        metrics: arguments.metrics,
        journal,
        levels,
    };
    match serve(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ ServeError::AlreadyRunning { .. }) => fail(&error, Exit::Usage),
        Err(error) => fail(&error, Exit::System),
    }
}

fn fail(error: &dyn Error, exit: Exit) -> ExitCode {
    linux::complain!("hostmount: {}.", shown_lines(&chain(error)));
    exit.into()
}
