//! The command line of `hostmount` itself.

use super::{doctor, flexvolume, install, list, look, metrics, mount8, replace, serve, umount8};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// FUSE mounts for immutable Kubernetes nodes: the helper runs in a container, the mount appears on the node.
#[derive(Debug, Parser)]
#[command(name = "hostmount", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the mounter (in the container)
    Serve(serve::Arguments),
    /// Mount a volume on this node; the arguments are mount(8)'s
    #[command(disable_help_flag = true)]
    Mount {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Unmount a volume on this node; the arguments are umount(8)'s
    #[command(disable_help_flag = true)]
    Umount {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Answer a call of kubelet's as a FlexVolume driver
    #[command(disable_help_flag = true)]
    Flexvolume {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Show the volumes on this node
    List {
        /// How to show them
        #[arg(long, value_enum, default_value = "table")]
        output: list::Output,
    },
    /// Give a dead volume a fresh helper, here and in every running pod
    Heal(replace::HealArguments),
    /// Put a fresh helper in the place of a running one; files that are open stay with the old one until closed
    Swap(replace::SwapArguments),
    /// Show one volume in detail, also after it ended
    Status {
        /// Where it is or was mounted
        target: String,
        /// How to show it
        #[arg(long, value_enum, default_value = "table")]
        output: list::Output,
    },
    /// Show the last lines that the helper of a volume wrote, also after it ended or failed
    Logs {
        /// Where it is, was or should have been mounted
        target: String,
    },
    /// Show what the mounter counts, in the text format of Prometheus
    Metrics,
    /// Exits with 0 if the filesystem at PATH answers
    #[command(hide = true)]
    Ask { path: PathBuf },
    /// Try what this container and this node can do (in the container)
    Doctor(doctor::Arguments),
    /// Put the static binary and its names into a directory of the node's, or take them away
    Install(install::Arguments),
    /// Show the whole path on a throw-away node; needs root and /dev/fuse, nothing else
    Demo,
}

/// Runs `hostmount` with `arguments`, the program's name among them.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match Arguments::parse_from(arguments).command {
        Command::Serve(arguments) => serve::main(arguments),
        Command::Mount { arguments } => mount8::main(&arguments),
        Command::Umount { arguments } => umount8::main(&arguments),
        Command::Flexvolume { arguments } => flexvolume::main(&arguments),
        Command::List { output } => list::main(output),
        Command::Heal(arguments) => replace::heal(&arguments),
        Command::Swap(arguments) => replace::swap(&arguments),
        Command::Status { target, output } => look::status(target, output),
        Command::Logs { target } => look::logs(target),
        Command::Metrics => metrics::main(),
        Command::Ask { path } => umount8::ask_main(&path),
        Command::Doctor(arguments) => doctor::main(&arguments),
        Command::Install(arguments) => install::main(arguments),
        Command::Demo => crate::demo::main(),
    }
}
