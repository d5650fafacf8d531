//! `hostmount heal` and `hostmount swap`: a fresh helper for a volume, or for all of them.

use super::Complaint;
use api::client::Client;
use api::exit::Exit;
use api::message::{Changes, Replaced};
use api::options::MountOptions;
use api::origin::Origin;
use api::secret::Secret;
use api::shown::shown;
use api::volume::{VolumeState, VolumeView};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How many volumes are replaced at a time with `--all`: a node must not start all its helpers at once.
const AT_A_TIME: usize = 4;

/// Longer than a helper takes whose server answers.
const SILENT: Duration = Duration::from_secs(3);

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
pub(super) struct HealArguments {
    #[command(flatten)]
    which: Which,
}

/// The command line of `hostmount swap`.
#[derive(Debug, clap::Args)]
pub(super) struct SwapArguments {
    #[command(flatten)]
    which: Which,
    /// The volume's options from now on; they replace all its options; several -o are one list
    #[arg(short = 'o', long, value_name = "OPTIONS", conflicts_with = "all")]
    options: Vec<String>,
    /// A secret of the volume from now on: the content of FILE for the key KEY; other secrets stay
    #[arg(long, value_name = "KEY=FILE", conflicts_with = "all")]
    secret: Vec<String>,
}

/// Runs `hostmount heal`.
pub(super) fn heal(arguments: &HealArguments) -> Result<(), Complaint> {
    let client = Client::from_environment(Origin::Operator);
    let heal = |target: &str| outcome(target, not_silently(target, || client.heal(target))?);
    match &arguments.which.target {
        Some(target) => heal(target).map(|line| linux::say!("{}", shown(&line))),
        None => all(&client, |volume| matches!(volume.state, VolumeState::Dead | VolumeState::Hung), heal),
    }
}

/// Runs `hostmount swap`.
pub(super) fn swap(arguments: &SwapArguments) -> Result<(), Complaint> {
    let client = Client::from_environment(Origin::Operator);
    let swap = |target: &str, changes| outcome(target, not_silently(target, || client.swap(target, changes))?);
    match &arguments.which.target {
        Some(target) => swap(target, arguments.changes()?).map(|line| linux::say!("{}", shown(&line))),
        None => all(&client, |_| true, |target| swap(target, Changes::default())),
    }
}

impl SwapArguments {
    fn changes(&self) -> Result<Changes, Complaint> {
        let usage = |message: String| Complaint::new(Exit::Usage, message);
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

/// Replaces every volume that is `wanted`, a few at a time, up to the first that fails.
fn all(
    client: &Client,
    wanted: impl Fn(&VolumeView) -> bool,
    replace: impl Fn(&str) -> Result<String, Complaint> + Sync,
) -> Result<(), Complaint> {
    let targets: Vec<String> = client.list()?.into_iter().filter(wanted).map(|volume| volume.target).collect();
    let mut done = 0;
    for few in targets.chunks(AT_A_TIME) {
        let results: Vec<_> = thread::scope(|scope| {
            let tries: Vec<_> = few.iter().map(|target| (target, scope.spawn(|| replace(target)))).collect();
            let result = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            tries.into_iter().map(|(target, thread)| (target, result(thread))).collect()
        });
        for (target, result) in results {
            let line = result.map_err(|Complaint(mut failure)| {
                if !failure.message.starts_with(target.as_str()) {
                    failure.message = format!("{target}: {}", failure.message);
                }
                Complaint(failure)
            })?;
            done += 1;
            linux::say!("{done}/{}  {}", targets.len(), shown(&line));
        }
    }
    Ok(())
}

/// Says what is waited for, if it takes long.
fn not_silently<T>(target: &str, ask: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (answered, waits) = channel::<()>();
        scope.spawn(move || {
            if waits.recv_timeout(SILENT) == Err(RecvTimeoutError::Timeout) {
                let words = "its fresh helper does not answer yet; perhaps the volume's server does not. The helper is given up after its \
                             ready_timeout_seconds (120 unless the configuration says otherwise)";
                eprintln!("hostmount: {}: {words}.", shown(target));
            }
        });
        let answer = ask();
        drop(answered);
        answer
    })
}

/// The result, in a line.
fn outcome(target: &str, replaced: Replaced) -> Result<String, Complaint> {
    match replaced {
        Replaced { places: 0, .. } => Ok(format!("{target}: nothing to be done")),
        Replaced { places, left } if left.is_empty() => {
            let places = if places == 1 { "1 place".to_owned() } else { format!("{places} places") };
            Ok(format!("{target}: a fresh helper serves it, in {places}"))
        }
        Replaced { left, .. } => {
            let message =
                format!("{target}: a fresh helper serves it, but not everything is as it was: {}", left.join("; "));
            Err(Complaint::new(Exit::MountFailure, message))
        }
    }
}
