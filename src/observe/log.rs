//! The mounter's log, on standard error: JSON lines for machines, or plain lines on a terminal.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Starts logging. `HOSTMOUNT_LOG` sets the level (`debug`, `hostmount::engine=trace`); `info` without it.
pub fn start() {
    let filter = EnvFilter::builder()
        .with_env_var("HOSTMOUNT_LOG")
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() { log.compact().init() } else { log.json().init() }
}
