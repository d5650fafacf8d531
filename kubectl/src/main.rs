//! `kubectl hostmount`: the volumes on all nodes of a cluster. kubectl runs it as `kubectl-hostmount`, when that is in the PATH.
//!
//! Runs on an administrator's machine, with that person's kubeconfig and no privilege. It talks to nobody but the `kubectl` in the PATH, which
//! runs `hostmount` in the mounters' containers. What these and the API server answer is hostile: bounded, checked, and escaped.

// They panic where nobody reads: `linux::standard`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod ask;
mod change;
mod cluster;
mod complete;
mod doctor;
mod events;
mod examples;
mod follow;
mod list;
mod logs;
mod run;
mod status;
mod top;

use api::exit::{Exit, chain};
use api::shown::shown_lines;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use cluster::{ClusterError, Where};
use show::manual::{self, CompletionArguments, ManualArguments, Program};
use std::path::Path;
use std::process::ExitCode;

// One file for every distribution of Linux.
#[cfg(not(any(target_feature = "crt-static", doc)))]
compile_error!(
    "this program must be static: build it with the project's .cargo/config.toml, or with -C target-feature=+crt-static"
);

/// The volumes of hostmount on all nodes of a cluster. A node that does not answer is a line on standard error and exit code 2.
#[derive(Debug, Parser)]
#[command(name = "kubectl hostmount", bin_name = "kubectl hostmount", version)]
struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the volumes on all nodes
    #[command(visible_alias = "ls")]
    List(list::Arguments),
    /// Show the volume at one target in detail, on each node that has it or had it
    Status(status::Arguments),
    /// Show the last lines that the helpers of the volume at one target wrote, by their time
    Logs(show::logs::Arguments),
    /// Show what happened to volumes on all nodes, the newest last
    Events(show::events::Arguments),
    /// Show what helpers on all nodes use of processor time and memory, again and again
    Top(top::Arguments),
    /// Show what works on each node, and what to do about the rest
    Doctor(doctor::Arguments),
    /// Give the dead volumes of all nodes a fresh helper, one node after the other, up to the first that fails
    Heal(change::Arguments),
    /// Put fresh helpers in the place of running ones on all nodes, one node after the other, up to the first that fails
    Swap(change::Arguments),
    /// Print a completion for `kubectl-hostmount`; kubectl's own asks `kubectl_complete-hostmount`, a link to this program
    Completion(CompletionArguments),
    /// Print a manual page, or write all of them
    Manual(ManualArguments),
}

/// The command line, each command with its examples.
fn command() -> clap::Command {
    let names: Vec<_> = Arguments::command().get_subcommands().map(|below| below.get_name().to_owned()).collect();
    let with = |command: clap::Command, name: &str| command.after_help(show::examples::text(examples::of(name)));
    names
        .into_iter()
        .fold(with(Arguments::command(), ""), |command, name| command.mut_subcommand(&name, |below| with(below, &name)))
}

/// What a command has come to: a code to exit with, or why nothing could be done.
type Outcome = Result<ExitCode, ClusterError>;

fn main() -> ExitCode {
    let mut words: Vec<_> = std::env::args_os().collect();
    let name = words.first().and_then(|name| Path::new(name).file_name()).unwrap_or_default().to_owned();
    if name == complete::NAME {
        linux::standard::put(format_args!("{}", complete::answer(&mut command(), &words.split_off(1))));
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_arg_matches(&command().get_matches_from(words));
    let Arguments { place, action } = arguments.unwrap_or_else(|error| error.exit());
    let outcome = match action {
        Action::List(arguments) => list::list(&place, &arguments),
        Action::Status(arguments) => status::status(&place, &arguments),
        Action::Logs(arguments) => logs::logs(&place, &arguments),
        Action::Events(arguments) => events::events(&place, &arguments),
        Action::Top(arguments) => top::top(&place, &arguments),
        Action::Doctor(arguments) => doctor::doctor(&place, &arguments),
        Action::Heal(arguments) => change::change(&place, "heal", &arguments),
        Action::Swap(arguments) => change::change(&place, "swap", &arguments),
        Action::Completion(arguments) => {
            let text = manual::completion(command(), "kubectl-hostmount", &arguments);
            linux::standard::put(format_args!("{text}"));
            Ok(ExitCode::SUCCESS)
        }
        Action::Manual(arguments) => Ok(manual(&arguments)),
    };
    outcome.unwrap_or_else(|error| {
        linux::complain!("kubectl hostmount: {}.", shown_lines(&chain(&error)));
        Exit::System.into()
    })
}

fn manual(arguments: &ManualArguments) -> ExitCode {
    let (name, examples) = ("kubectl-hostmount", examples::of);
    let program = Program { command: command(), name, examples, section_8: &[], more: Vec::new() };
    match program.pages().and_then(|pages| arguments.answer(&pages)) {
        Ok(text) => {
            linux::standard::put(format_args!("{text}"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            linux::complain!("kubectl hostmount: {}.", shown_lines(&chain(&error)));
            error.exit().into()
        }
    }
}
