//! `hostmount heal` and `hostmount swap`: a fresh helper for a volume, or for all of them.

use super::Complaint;
use super::show::words;
use api::client::Client;
use api::exit::Exit;
use api::message::{Changes, Replaced};
use api::options::MountOptions;
use api::origin::Origin;
use api::request::Request;
use api::secret::Secret;
use api::shown::{shown, shown_lines};
use api::volume::{VolumeDetail, VolumeState, VolumeView};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// How many volumes are replaced at a time with `--all`: a node must not start all its helpers at once.
const AT_A_TIME: usize = 4;

/// The type by which volumes are shown that programs of pods serve.
const PROGRAM: &str = "program";

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

/// How.
#[derive(Debug, clap::Args)]
struct How {
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// With --all: go on after one that fails; the exit code is the first failure's
    #[arg(long, requires = "all")]
    keep_going: bool,
}

/// The command line of `hostmount heal`.
#[derive(Debug, clap::Args)]
pub(super) struct HealArguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    how: How,
}

/// The command line of `hostmount swap`.
#[derive(Debug, clap::Args)]
pub(super) struct SwapArguments {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    how: How,
    /// The volume's options from now on; they replace all its options; several -o are one list
    #[arg(short = 'o', long, value_name = "OPTIONS", conflicts_with = "all")]
    options: Vec<String>,
    /// A secret of the volume from now on: the content of FILE for the key KEY; other secrets stay
    #[arg(long, value_name = "KEY=FILE", conflicts_with = "all")]
    secret: Vec<String>,
}

/// Runs `hostmount heal`.
pub(super) fn heal(HealArguments { which, how }: &HealArguments) -> Result<(), Complaint> {
    let client = Client::from_environment(Origin::Operator);
    if how.dry_run {
        return would_heal(&client, which.target.as_deref());
    }
    let heal = |target: &str| outcome(target, not_silently(target, || client.heal(target))?);
    match &which.target {
        Some(target) => heal(target).map(|done| linux::say!("{}", shown(&done.line))),
        None => all(&client, how.keep_going, needs_a_heal, heal),
    }
}

/// Runs `hostmount swap`.
pub(super) fn swap(arguments: &SwapArguments) -> Result<(), Complaint> {
    let SwapArguments { which, how, .. } = arguments;
    let client = Client::from_environment(Origin::Operator);
    let swap = |target: &str, changes| outcome(target, not_silently(target, || client.swap(target, changes))?);
    match &which.target {
        Some(target) if how.dry_run => would_swap(&client, target, arguments.changes()?),
        Some(target) => swap(target, arguments.changes()?).map(|done| linux::say!("{}", shown(&done.line))),
        None if how.dry_run => would_swap_all(&client),
        None => all(&client, how.keep_going, |_| true, |target| swap(target, Changes::default())),
    }
}

fn needs_a_heal(volume: &VolumeView) -> bool {
    matches!(volume.state, VolumeState::Dead | VolumeState::Hung)
}

fn would_heal(client: &Client, target: Option<&str>) -> Result<(), Complaint> {
    let volumes = match target {
        Some(target) => vec![client.status(target)?.view],
        None => client.list()?,
    };
    let (wanted, others): (Vec<_>, Vec<_>) = volumes.into_iter().partition(needs_a_heal);
    for VolumeView { target, state, .. } in &wanted {
        linux::say!("{}: it is {}, and would get a fresh helper", shown(target), state.word());
    }
    for VolumeView { target, state, .. } in others.iter().filter(|_| target.is_some()) {
        linux::say!("{}: it is {}: nothing to be done", shown(target), state.word());
    }
    if target.is_none() {
        linux::say!("{} would be healed", words::count(wanted.len(), "volume"));
    }
    Ok(())
}

/// What the mounter can say of it beforehand: the rules, the fresh helper's command, and the flags that a swap leaves.
fn would_swap(client: &Client, target: &str, changes: Changes) -> Result<(), Complaint> {
    let detail = client.status(target)?;
    match (detail.view.state, why_not(client, &detail, changes)?) {
        (VolumeState::Ended | VolumeState::Failed, _) => Err("there is no such volume any more".to_owned()),
        (_, Some(why)) => Err(why),
        (_, None) => {
            linux::say!("{}", shown(&would_be_swapped(&detail.view)));
            Ok(())
        }
    }
    .map_err(|why| Complaint::new(Exit::Usage, format!("{target}: it would not be swapped: {why}")))
}

fn why_not(client: &Client, detail: &VolumeDetail, changes: Changes) -> Result<Option<String>, Complaint> {
    let VolumeView { fstype, source, target, .. } = detail.view.clone();
    if fstype == PROGRAM {
        return Ok(Some("a program of its pod serves it, and no helper".to_owned()));
    }
    let Some(options) = changes.options else { return Ok(None) };
    let (switches, secrets) = Default::default();
    let explained = client.explain(Origin::Operator, Request { fstype, source, target, options, switches, secrets })?;
    let changed = detail.options.as_ref().is_some_and(|now| now.flags != explained.options.flags);
    let flags = changed.then(|| "the new options change mount flags, which a swap leaves as they are".to_owned());
    Ok(explained.refused.or(explained.problem).or(flags))
}

fn would_swap_all(client: &Client) -> Result<(), Complaint> {
    let volumes = client.list()?;
    volumes.iter().for_each(|volume| linux::say!("{}", shown(&would_be_swapped(volume))));
    linux::say!("{} would be swapped, {AT_A_TIME} at a time", words::count(volumes.len(), "volume"));
    Ok(())
}

fn would_be_swapped(volume: &VolumeView) -> String {
    let VolumeView { target, state, helper, note, .. } = volume;
    let note = note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
    format!("{target}: it is {}{note}, and would get a fresh helper ({helper})", state.word())
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

/// Replaces every volume that is `wanted`, a few at a time, up to the first that fails, or with `keep_going` all of them.
fn all(
    client: &Client,
    keep_going: bool,
    wanted: impl Fn(&VolumeView) -> bool,
    replace: impl Fn(&str) -> Result<Done, Complaint> + Sync,
) -> Result<(), Complaint> {
    let targets: Vec<String> = client.list()?.into_iter().filter(wanted).map(|volume| volume.target).collect();
    let mut sum = Sum { all: targets.len(), ..Sum::default() };
    let mut first = None;
    for few in targets.chunks(AT_A_TIME) {
        if first.is_some() && !keep_going {
            break;
        }
        let results: Vec<_> = thread::scope(|scope| {
            let tries: Vec<_> = few.iter().map(|target| (target, scope.spawn(|| replace(target)))).collect();
            let result = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            tries.into_iter().map(|(target, thread)| (target, result(thread))).collect()
        });
        for (target, result) in results {
            let nth = sum.fresh + sum.needed_none + sum.failed + 1;
            match result {
                Ok(Done { line, fresh }) => {
                    linux::say!("{nth}/{}  {}", sum.all, shown(&line));
                    *(if fresh { &mut sum.fresh } else { &mut sum.needed_none }) += 1;
                }
                Err(Complaint(mut failure)) => {
                    sum.failed += 1;
                    if !failure.message.starts_with(target.as_str()) {
                        failure.message = format!("{target}: {}", failure.message);
                    }
                    // The first one is what the command ends with.
                    match first {
                        None => first = Some(Complaint(failure)),
                        Some(_) => linux::complain!("hostmount: {}.", shown_lines(&failure.message)),
                    }
                }
            }
        }
    }
    linux::say!("{}", sum.words());
    first.map_or(Ok(()), Err)
}

/// What came of many.
#[derive(Debug, Default)]
struct Sum {
    all: usize,
    fresh: usize,
    needed_none: usize,
    failed: usize,
}

impl Sum {
    fn words(&self) -> String {
        let Self { all, fresh, needed_none, failed } = self;
        let left = all - fresh - needed_none - failed;
        let parts =
            [(*fresh, "got a fresh helper"), (*needed_none, "needed none"), (*failed, "failed"), (left, "not tried")];
        let parts: Vec<_> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        let parts = if parts.is_empty() { "nothing to be done".to_owned() } else { parts.join(", ") };
        format!("{}: {parts}", words::count(*all, "volume"))
    }
}

/// What came of one: a line, and whether it has a fresh helper.
#[derive(Debug)]
struct Done {
    line: String,
    fresh: bool,
}

/// Says what is waited for, if it takes long.
fn not_silently<T>(target: &str, ask: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (answered, waits) = channel::<()>();
        scope.spawn(move || {
            if waits.recv_timeout(SILENT) == Err(RecvTimeoutError::Timeout) {
                let words = "its fresh helper does not answer yet; perhaps the volume's server does not. The helper is given up after its \
                             ready_timeout_seconds (120 unless the configuration says otherwise)";
                linux::complain!("hostmount: {}: {words}.", shown(target));
            }
        });
        let answer = ask();
        drop(answered);
        answer
    })
}

/// The result, in a line.
fn outcome(target: &str, replaced: Replaced) -> Result<Done, Complaint> {
    match replaced {
        Replaced { places: 0, .. } => Ok(Done { line: format!("{target}: nothing to be done"), fresh: false }),
        Replaced { places, left } if left.is_empty() => {
            let places = words::count(places, "place");
            Ok(Done { line: format!("{target}: a fresh helper serves it, in {places}"), fresh: true })
        }
        Replaced { left, .. } => {
            let message =
                format!("{target}: a fresh helper serves it, but not everything is as it was: {}", left.join("; "));
            Err(Complaint::new(Exit::MountFailure, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_says_what_came_of_all() {
        let words = |all, fresh, needed_none, failed| Sum { all, fresh, needed_none, failed }.words();
        assert_eq!(words(0, 0, 0, 0), "0 volumes: nothing to be done");
        assert_eq!(words(1, 1, 0, 0), "1 volume: 1 got a fresh helper");
        assert_eq!(words(9, 3, 1, 1), "9 volumes: 3 got a fresh helper, 1 needed none, 1 failed, 4 not tried");
    }
}
