//! The operator's command line: `hostmount` and what comes after it.
//!
//! Runs in the caller's process, on the node or in the container, with the caller's privileges; `serve` becomes the
//! mounter. Everything but `serve`, `doctor` and `install` only asks the mounter.

mod again;
mod doctor;
mod events;
mod examples;
mod heal_swap;
mod install;
mod list;
mod logs;
mod manual;
mod metrics;
mod mount;
mod policy;
mod serve;
mod serve_open_files;
mod serve_placeholder;
mod status;
mod top;

use api::client::CallError;
use api::exit::Exit;
use api::message::Failure;
use api::shown::{shown, shown_lines};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use shims::{flexvolume, umount8};
use show;
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
    /// Serve files that are open in a filesystem whose helper is gone (the mounter starts it)
    #[command(hide = true)]
    ServeOpenFiles {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Serve the placeholder of a volume, for pods with a user namespace (the mounter starts it)
    #[command(hide = true)]
    ServePlaceholder {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Mount a volume on this node; the arguments are mount(8)'s
    Mount(mount::Arguments),
    /// Unmount a volume on this node; the arguments are umount(8)'s
    Umount {
        /// umount(8)'s arguments: TARGET…
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Answer a call of kubelet's as a FlexVolume driver
    Flexvolume {
        /// The call, and what kubelet gives it
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
    Logs(show::logs::Arguments),
    /// Show what happened to volumes, the newest last, also to those that are gone
    Events(show::events::Arguments),
    /// Show what helpers use of processor time and memory, again and again
    Top(top::Arguments),
    /// Show the metrics, in the text format of Prometheus
    Metrics,
    /// Say what may be mounted, and by which rule not
    #[command(subcommand)]
    Policy(policy::Action),
    /// Try what mounting needs on this node, and print what to do about failures (in the container)
    Doctor(doctor::Arguments),
    /// Print a completion for a shell
    Completion(show::manual::CompletionArguments),
    /// Print a manual page, or write all of them
    Manual(show::manual::ManualArguments),
    /// Install the static programs in a directory of the node, or remove them
    Install(install::Arguments),
}

/// The command line, each command with its examples.
fn command() -> clap::Command {
    with_examples(Arguments::command(), "")
}

fn with_examples(command: clap::Command, words: &str) -> clap::Command {
    let below: Vec<_> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let command = command.after_help(examples::text(examples::of(words)));
    below.into_iter().fold(command, |command, name| {
        let words = format!("{words} {name}");
        command.mut_subcommand(name, |below| with_examples(below, words.trim()))
    })
}

/// Runs `hostmount` with `arguments`, the program's name among them.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let arguments = Arguments::from_arg_matches(&command().get_matches_from(arguments));
    match arguments.unwrap_or_else(|error| error.exit()).action {
        Action::Serve(arguments) => serve::main(arguments),
        Action::ServeOpenFiles { arguments } => serve_open_files::main(&arguments),
        Action::ServePlaceholder { arguments } => serve_placeholder::main(&arguments),
        Action::Mount(arguments) => mount::main(&arguments),
        Action::Umount { arguments } => umount8::main(&arguments).into(),
        Action::Flexvolume { arguments } => flexvolume::main(&arguments).into(),
        Action::List(arguments) => end(list::list(&arguments)),
        Action::Heal(arguments) => end(heal_swap::heal(&arguments)),
        Action::Swap(arguments) => end(heal_swap::swap(&arguments)),
        Action::Status(arguments) => end(status::status(&arguments)),
        Action::Logs(arguments) => end(logs::logs(&arguments)),
        Action::Events(arguments) => end(events::events(&arguments)),
        Action::Top(arguments) => end(top::top(&arguments)),
        Action::Metrics => end(metrics::metrics()),
        Action::Policy(action) => end(policy::policy(action)),
        Action::Completion(arguments) => end({
            manual::completion(&arguments);
            Ok(())
        }),
        Action::Manual(arguments) => end(manual::manual(&arguments)),
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
