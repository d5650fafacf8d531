//! `kubectl hostmount heal --all` and `swap --all`: fresh helpers, one node after the other, up to the first that fails.
//!
//! Runs on the main thread.

use crate::Outcome;
use crate::ask::{Trouble, complain};
use crate::cluster::{Mounter, Where};
use crate::run::{Bounds, Lines, run};
use api::shown::shown;
use show::words;
use std::process::ExitCode;

/// What one node may say about its volumes.
const OUTPUT: usize = 8 << 20;

/// Its command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The volumes of all nodes; --node says of which
    #[arg(long, required = true)]
    all: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on after a volume or a node that fails; the exit code is the first failure's
    #[arg(long)]
    keep_going: bool,
}

/// Runs `kubectl hostmount heal` or `swap`.
pub(crate) fn change(place: &Where, verb: &str, arguments: &Arguments) -> Outcome {
    let mounters = place.mounters()?;
    let mut words = vec![verb, "--all"];
    words.extend(arguments.dry_run.then_some("--dry-run"));
    words.extend(arguments.keep_going.then_some("--keep-going"));
    let (mut well, mut failed, mut first) = (0, 0, None);
    for mounter in &mounters {
        if first.is_some() && !arguments.keep_going {
            break;
        }
        match on_one(place, mounter, &words) {
            Ok(()) => well += 1,
            Err(trouble) => {
                complain(mounter, &trouble);
                failed += 1;
                first = first.or(Some(trouble.code()));
            }
        }
    }
    linux::say!("{}", sum(mounters.len(), well, failed));
    Ok(first.map_or(ExitCode::SUCCESS, ExitCode::from))
}

fn on_one(place: &Where, mounter: &Mounter, words: &[&str]) -> Result<(), Trouble> {
    if let Some(down) = &mounter.down {
        return Err(Trouble::Down(down.clone()));
    }
    let (node, mut lines) = (shown(&mounter.node), Lines::default());
    let bounds = Bounds { time: Some(place.time_for_changes()), silence: true, output: Some(OUTPUT), stop: None };
    let say = |piece: &[u8]| lines.take(piece, |line| linux::say!("{node}  {}", shown(line)));
    let done = run(&mut place.hostmount(mounter, words), bounds, say)?;
    if done.code == Some(0) { Ok(()) } else { Err(Trouble::of(done)) }
}

fn sum(all: usize, well: usize, failed: usize) -> String {
    let parts = [(well, "done"), (failed, "failed"), (all - well - failed, "not tried")];
    let parts: Vec<_> = parts.iter().filter(|(count, _)| *count > 0).map(|(n, what)| format!("{n} {what}")).collect();
    format!("{}: {}", words::count(all, "node"), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_says_what_came_of_all() {
        assert_eq!(sum(5, 2, 1), "5 nodes: 2 done, 1 failed, 2 not tried");
        assert_eq!(sum(1, 1, 0), "1 node: 1 done");
    }
}
