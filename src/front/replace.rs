//! `hostmount heal` and `hostmount swap`: a fresh helper for a volume, or for all of them.

use super::call::ask;
use crate::exit::Exit;
use crate::wire::{Call, Reply, VolumeState, VolumeView};
use std::process::ExitCode;
use std::thread;

/// How many volumes are under way at a time with `--all`: a node must not start all its helpers at once.
const AT_A_TIME: usize = 4;

/// Their command line.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Arguments {
    /// The volume's target
    target: Option<String>,
    /// Every volume on this node, a few at a time; stops after the first that fails, which keeps its helper
    #[arg(long)]
    all: bool,
}

/// Which volumes are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those whose helper has ended.
    Dead,
    /// Those too whose helper runs.
    Any,
}

/// A volume that keeps what it has, and how the program ends for it.
struct Failure {
    exit: Exit,
    message: String,
}

/// Runs `hostmount heal` or `hostmount swap`.
pub fn main(arguments: &Arguments, which: Which) -> ExitCode {
    let done = match &arguments.target {
        Some(target) => replace(target, which).map(|line| println!("{line}")),
        None => replace_all(which),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { exit, message }) => {
            eprintln!("hostmount: {message}.");
            exit.into()
        }
    }
}

fn replace_all(which: Which) -> Result<(), Failure> {
    let wanted = |volume: &VolumeView| which == Which::Any || volume.state == VolumeState::Dead;
    let targets: Vec<String> = volumes()?.into_iter().filter(wanted).map(|volume| volume.target).collect();
    let mut done = 0;
    for few in targets.chunks(AT_A_TIME) {
        let results: Vec<_> = thread::scope(|scope| {
            let tries: Vec<_> = few.iter().map(|target| scope.spawn(|| replace(target, which))).collect();
            tries
                .into_iter()
                .map(|result| result.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        for result in results {
            let line = result?;
            done += 1;
            println!("{done}/{}  {line}", targets.len());
        }
    }
    Ok(())
}

fn volumes() -> Result<Vec<VolumeView>, Failure> {
    match ask(&Call::List) {
        Ok(Reply::Volumes(volumes)) => Ok(volumes),
        other => Err(unexpected(other.map_err(|error| Failure { exit: error.exit(), message: error.message() }))),
    }
}

fn replace(target: &str, which: Which) -> Result<String, Failure> {
    let call = Call::Replace { target: target.to_owned(), only_if_dead: which == Which::Dead };
    match ask(&call) {
        Ok(Reply::Replaced { places: 0, .. }) => Ok(format!("{target}: nothing to be done")),
        Ok(Reply::Replaced { places, left }) if left.is_empty() => Ok(format!(
            "{target}: a fresh helper serves it, in {places} {}",
            if places == 1 { "place" } else { "places" }
        )),
        Ok(Reply::Replaced { left, .. }) => {
            let message = format!("{target}: the old filesystem is left in some places: {}", left.join("; "));
            Err(Failure { exit: Exit::MountFailure, message })
        }
        other => {
            let error = unexpected(other.map_err(|error| Failure { exit: error.exit(), message: error.message() }));
            Err(Failure { message: format!("{target}: {}", error.message), ..error })
        }
    }
}

fn unexpected(reply: Result<Reply, Failure>) -> Failure {
    match reply {
        Err(failure) => failure,
        Ok(Reply::Failed { exit, message, output }) => {
            let words: String = output.iter().map(|line| format!("\n  {line}")).collect();
            Failure { exit, message: format!("{message}{words}") }
        }
        Ok(_) => Failure { exit: Exit::Internal, message: "the mounter answered another question".to_owned() },
    }
}
