//! The operator's command line: `hostmount` and what comes after it.
//!
//! Runs in the caller's process, on the node or in the container, with the caller's privileges; `serve` becomes the
//! mounter. Everything but `serve`, `doctor` and `install` only asks the mounter.

mod doctor;
mod heal_swap;
mod install;
mod list;
mod metrics;
mod policy;
mod serve;
mod show;
mod status;

use api::client::CallError;
use api::exit::Exit;
use api::message::Failure;
use api::origin::Origin;
use api::shown::{shown, shown_lines};
use clap::{Parser, Subcommand};
use shims::{flexvolume, mount8, umount8};
use std::ffi::OsString;
use std::process::ExitCode;

/// FUSE mounts for immutable Kubernetes nodes: the helper runs in a container, the mount appears on the node.
#[derive(Debug, Parser)]
#[command(name = "hostmount", version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
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
    #[command(visible_alias = "ls")]
    List(list::Arguments),
    /// Give a dead volume a fresh helper, here and in every running pod
    Heal(heal_swap::HealArguments),
    /// Put a fresh helper in the place of a running one; files that are open stay with the old one until closed
    Swap(heal_swap::SwapArguments),
    /// Show one volume in detail, also after it was unmounted
    Status(status::Arguments),
    /// Show the last lines that the helper of a volume wrote, also after it was unmounted or failed
    Logs {
        /// Where it is, was or should have been mounted
        target: String,
    },
    /// Show the metrics, in the text format of Prometheus
    Metrics,
    /// Say what may be mounted, and by which rule not
    #[command(subcommand)]
    Policy(policy::Action),
    /// Try what mounting needs on this node, and print what to do about failures (in the container)
    Doctor(doctor::Arguments),
    /// Install the static programs in a directory of the node, or remove them
    Install(install::Arguments),
}

/// Runs `hostmount` with `arguments`, the program's name among them.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    match Arguments::parse_from(arguments).action {
        Action::Serve(arguments) => serve::main(arguments),
        Action::Mount { arguments } => mount8::main(&arguments, Origin::Operator).into(),
        Action::Umount { arguments } => umount8::main(&arguments).into(),
        Action::Flexvolume { arguments } => flexvolume::main(&arguments).into(),
        Action::List(arguments) => end(list::list(&arguments)),
        Action::Heal(arguments) => end(heal_swap::heal(&arguments)),
        Action::Swap(arguments) => end(heal_swap::swap(&arguments)),
        Action::Status(arguments) => end(status::status(&arguments)),
        Action::Logs { target } => end(status::logs(&target)),
        Action::Metrics => end(metrics::metrics()),
        Action::Policy(action) => end(policy::policy(action)),
        Action::Doctor(arguments) => doctor::main(&arguments),
        Action::Install(arguments) => end(install::install(arguments)),
    }
}

/// An error of `hostmount`: one line for it, and the helper's output below.
struct Complaint(Failure);

impl From<CallError> for Complaint {
    fn from(error: CallError) -> Self {
        Self(error.into_failure())
    }
}

impl Complaint {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self(Failure::new(exit, message))
    }
}

fn end(done: Result<(), Complaint>) -> ExitCode {
    let Err(Complaint(Failure { exit, message, output, .. })) = done else { return ExitCode::SUCCESS };
    linux::complain!("hostmount: {}.", shown_lines(&message));
    output.iter().for_each(|line| linux::complain!("  {}", shown(line)));
    exit.into()
}
