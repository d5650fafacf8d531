//! `hostmount heal` and `hostmount swap`: a fresh helper for a volume, or for all of them.

use super::call::ask;
use crate::exit::Exit;
use crate::request::MountOptions;
use crate::secret::Secret;
use crate::wire::{Call, Changes, Reply, VolumeState, VolumeView};
use std::process::ExitCode;
use std::thread;

/// How many volumes are under way at a time with `--all`: a node must not start all its helpers at once.
const AT_A_TIME: usize = 4;

/// Which volumes.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The volume's target
    target: Option<String>,
    /// Every volume on this node, a few at a time; stops after the first that fails, which keeps its helper
    #[arg(long)]
    all: bool,
}

/// The command line of `hostmount heal`.
#[derive(Debug, clap::Args)]
pub struct HealArguments {
    #[command(flatten)]
    which: Which,
}

/// The command line of `hostmount swap`.
#[derive(Debug, clap::Args)]
pub struct SwapArguments {
    #[command(flatten)]
    which: Which,
    /// The volume's options from now on, instead of those it has; several -o are one list
    #[arg(short = 'o', long, value_name = "OPTIONS", conflicts_with = "all")]
    options: Vec<String>,
    /// A secret of the volume's from now on: the content of FILE for the key KEY; the others stay
    #[arg(long, value_name = "KEY=FILE", conflicts_with = "all")]
    secret: Vec<String>,
}

/// A volume that keeps what it has, and how the program ends for it.
struct Failure {
    exit: Exit,
    message: String,
}

/// Runs `hostmount heal`.
pub fn heal(arguments: &HealArguments) -> ExitCode {
    let call = |target| Call::Heal { target };
    end(match &arguments.which.target {
        Some(target) => replace_one(target, &call(target.clone())),
        None => replace_all(|volume| matches!(volume.state, VolumeState::Dead | VolumeState::Hung), call),
    })
}

/// Runs `hostmount swap`.
pub fn swap(arguments: &SwapArguments) -> ExitCode {
    let call = |target, changes| Call::Swap { target, changes };
    end(match &arguments.which.target {
        Some(target) => arguments.changes().and_then(|changes| replace_one(target, &call(target.clone(), changes))),
        None => replace_all(|_| true, |target| call(target, Changes::default())),
    })
}

impl SwapArguments {
    fn changes(&self) -> Result<Changes, Failure> {
        let usage = |message: String| Failure { exit: Exit::Usage, message };
        let options = (!self.options.is_empty()).then(|| MountOptions::parse(&self.options.join(",")));
        let options = options.transpose().map_err(|error| usage(error.to_string()))?;
        let secret = |argument: &String| {
            let Some((key, file)) = argument.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                return Err(usage("--secret is KEY=FILE".to_owned()));
            };
            let bytes =
                std::fs::read(file).map_err(|error| usage(format!("cannot read the secret in {file}: {error}")))?;
            Ok((key.to_owned(), Secret::new(bytes)))
        };
        Ok(Changes { options, secrets: self.secret.iter().map(secret).collect::<Result<_, _>>()? })
    }
}

fn end(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { exit, message }) => {
            eprintln!("hostmount: {message}.");
            exit.into()
        }
    }
}

fn replace_one(target: &str, call: &Call) -> Result<(), Failure> {
    replace(target, call).map(|line| println!("{line}"))
}

fn replace_all(wanted: impl Fn(&VolumeView) -> bool, call: impl Fn(String) -> Call + Sync) -> Result<(), Failure> {
    let targets: Vec<String> = volumes()?.into_iter().filter(wanted).map(|volume| volume.target).collect();
    let mut done = 0;
    for few in targets.chunks(AT_A_TIME) {
        let results: Vec<_> = thread::scope(|scope| {
            let tries: Vec<_> =
                few.iter().map(|target| scope.spawn(|| replace(target, &call(target.clone())))).collect();
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

fn replace(target: &str, call: &Call) -> Result<String, Failure> {
    match ask(call) {
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
