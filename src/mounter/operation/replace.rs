//! Healing a dead volume and swapping a live one: a fresh helper's filesystem takes the old one's place, wherever the
//! old one shows, on the node and in every running pod.
//!
//! Runs in the mounter, on a thread of its own. It is the movement of mounting, with other places to graft to.

use super::bring_up::{BringUpError, FreshFilesystem, Purpose, bring_up};
use super::mount::tree_at;
use super::place::placeholders_of;
use crate::config::open_files::OpenFiles;
use crate::mounter::Mounter;
use crate::mounter::placeholders::renew_all_of;
use crate::mounter::target_locks::TargetBusy;
use crate::mounter::volume::orphan::Inheritance;
use crate::mounter::volume::state::{Event, Where};
use crate::mounter::volume::{Known, Volume, VolumeId};
use crate::node::connections::{Dead, Identity};
use crate::node::mount_search::VisibleMounts;
use crate::node::placeholder;
use crate::node::tree::Tree;
use crate::node::visible_mounts::{DetachedMount, Fresh, VisibleMount};
use crate::observe::events;
use crate::policy::{ChangeError, Denied, Plan, authorize};
use api::exit::chain;
use api::message::Changes;
use api::origin::Origin;
use linux::sys::ask::Patience;
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// What came of a replacement.
#[derive(Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The new filesystem shows at so many places. At others, named with the reason, the old one is left, or a mount that was
    /// inside the old one is lost.
    Shown {
        /// How many there are.
        places: usize,
        /// Where it did not work, and why.
        left: Vec<String>,
    },
    /// The old filesystem showed nowhere any more: there is nothing to replace, and the volume is forgotten.
    Gone,
}

/// Why a volume keeps its old helper, or none.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// Unmounted meanwhile.
    #[error("there is no such volume")]
    NoVolume,
    /// A fresh helper could not be told what the old one was.
    #[error("{0}")]
    NotKnown(&'static str),
    /// What is asked anew makes no sense, or cannot be changed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// What is asked anew is not to be had from where it came.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Another operation at this target is not finished yet.
    #[error(transparent)]
    Busy(#[from] TargetBusy),
    /// No new helper.
    #[error(transparent)]
    BringUp(#[from] BringUpError),
    /// /proc cannot be read.
    #[error("cannot search the mount tables for the volume")]
    Search(#[source] io::Error),
    /// It shows by its placeholder alone.
    #[error("its placeholder could not be given another process")]
    Placeholder,
    /// Not at a single place.
    #[error("the new filesystem could not be shown anywhere: {0}")]
    Nowhere(String),
}

/// What a caller asks for otherwise than before.
#[derive(Debug)]
pub struct Asked {
    /// What is to change.
    pub changes: Changes,
    /// Where the request came from.
    pub origin: Origin,
}

/// Why a volume is to have a fresh helper.
#[derive(Debug)]
pub enum Cause {
    /// Its helper is dead, or hangs.
    Heal,
    /// Its helper is of an earlier image.
    Upgrade,
    /// A caller wants it.
    Asked(Asked),
}

/// Puts a fresh helper in the place of the one of the volume at `target`, as a caller wants.
pub fn swap_for_caller(mounter: &Mounter, target: &Path, asked: Asked) -> Result<Replaced, ReplaceError> {
    let began = Instant::now();
    let (id, _) = mounter.registry.at(target).ok_or(ReplaceError::NoVolume)?;
    let volume = mounter.registry.volume(id).ok_or(ReplaceError::NoVolume)?;
    let _span = volume.span().entered();
    let result = replace(mounter, id, Cause::Asked(asked));
    let seconds = began.elapsed().as_secs_f64();
    match &result {
        Ok(Replaced::Shown { places, .. }) => info!(event = events::SWAPPED, places, seconds, "swapped"),
        Ok(Replaced::Gone) | Err(ReplaceError::NoVolume) => {}
        Err(error) => warn!(event = events::NOT_SWAPPED, seconds, "it keeps its helper: {}", chain(error)),
    }
    result
}

/// Puts a fresh helper in the place of volume `id`'s. Unless something else is asked for, it is given what the old one was.
///
/// Files that are open stay with the old helper, which ends by itself when the last of them is closed.
pub fn replace(mounter: &Mounter, id: VolumeId, cause: Cause) -> Result<Replaced, ReplaceError> {
    let volume = mounter.registry.volume(id).ok_or(ReplaceError::NoVolume)?;
    let _lock = mounter.target_locks.take(&volume.plan.target)?;
    // It may have been replaced or unmounted before the lock was had.
    let volume = mounter.registry.volume(id).ok_or(ReplaceError::NoVolume)?;
    let mut history = volume.history.clone();
    let asked = match cause {
        Cause::Heal => {
            history.heals += 1;
            None
        }
        Cause::Upgrade => {
            history.swaps += 1;
            None
        }
        Cause::Asked(asked) => {
            history.swaps += 1;
            Some(asked)
        }
    };
    let plan = next_plan(mounter, &volume, asked)?;
    // It may be unmounted while its server does not answer.
    let gone = mounter.registry.until_gone(id).map_err(ReplaceError::Search)?;
    let fresh = match bring_up(mounter, &plan, Purpose::Volume(gone.as_fd()), None) {
        Err(_) if mounter.registry.volume(id).is_none() => return Err(ReplaceError::NoVolume),
        fresh => fresh?,
    };
    mounter.registry.report(id, Event::ReplacementBegun);
    mounter.registry.expect(id, fresh.identity);
    let next = Volume {
        plan,
        helper: fresh.program.clone(),
        identity: fresh.identity,
        processes: fresh.processes(),
        since: volume.since,
        known: Known::All,
        earlier_image: false,
        history,
    };
    // Before it shows: a mounter that is killed then leaves one that the next knows.
    mounter.registry.records().keep(&next);
    let plan = &next.plan;
    let new = fresh.root().map_err(ReplaceError::Search).and_then(|root| {
        let new = Replacement { root, identity: fresh.identity, ids: fresh.ids(), empty: false, at: Places::All };
        let (shown, detached) = show_everywhere(mounter, volume.identity, mounter.registry.is_dead(id), new)?;
        Ok((with_placeholders(mounter, plan, root, shown)?, detached))
    });
    match new {
        Ok((Replaced::Gone, _)) => {
            mounter.registry.records().drop(fresh.identity);
            fresh.discard();
            mounter.registry.report(id, Event::ReplacementFailed);
            mounter.registry.report(id, Event::Found(Where::Nowhere));
            Ok(Replaced::Gone)
        }
        Ok((shown, detached)) => {
            let estate = estate(mounter, &volume, &fresh, detached);
            let identity = fresh.identity;
            let (old, new) = (volume.identity.device, identity.device);
            info!(event = events::REPLACED, %old, %new, "a fresh helper serves the volume");
            let released = fresh.release(&mounter.state);
            if let Some(waited) = mounter.registry.held_for(id) {
                mounter.metrics.holds.observe(waited.as_secs_f64());
            }
            mounter.registry.take_over(id, next, released.serving, estate);
            Ok(shown)
        }
        Err(error) => {
            mounter.registry.records().drop(fresh.identity);
            fresh.discard();
            mounter.registry.report(id, Event::ReplacementFailed);
            Err(error)
        }
    }
}

/// Placeholders of the volume's whose processes have ended are put there anew, with the fresh filesystem behind: where it showed by them alone,
/// the old one has ended with them.
fn with_placeholders(
    mounter: &Mounter,
    plan: &Plan,
    root: BorrowedFd<'_>,
    shown: Replaced,
) -> Result<Replaced, ReplaceError> {
    if plan.host_users {
        return Ok(shown);
    }
    let behind = || tree_at(root, plan.subdir.as_deref(), mounter.patience());
    match (renew_all_of(mounter, &plan.target, behind), shown) {
        (0, Replaced::Gone) if has_placeholder(mounter, &plan.target)? => Err(ReplaceError::Placeholder),
        (0, shown) => Ok(shown),
        (more, Replaced::Gone) => Ok(Replaced::Shown { places: more, left: Vec::new() }),
        (more, Replaced::Shown { places, left }) => Ok(Replaced::Shown { places: places + more, left }),
    }
}

/// Whether the volume at `target` shows on the node by a placeholder.
pub fn has_placeholder(mounter: &Mounter, target: &Path) -> Result<bool, ReplaceError> {
    placeholders_of(mounter, target).map(|found| !found.is_empty()).map_err(ReplaceError::Search)
}

/// What files that are open in the old filesystem are served from, if that is held: its helper is dead.
fn estate(
    mounter: &Mounter,
    old: &Volume,
    fresh: &FreshFilesystem,
    detached: Vec<DetachedMount>,
) -> Option<Inheritance> {
    let mode = old.open_files();
    if mode == OpenFiles::None || !mounter.registry.is_held(old.identity) {
        return None;
    }
    let tree = fresh.root().and_then(Tree::copy_at);
    let tree = tree.inspect_err(|error| warn!("files that are open cannot be served any more: {error}")).ok()?;
    Some(Inheritance { tree, detached, heirs: None, mode })
}

/// What the fresh helper shall do.
fn next_plan(mounter: &Mounter, volume: &Volume, asked: Option<Asked>) -> Result<Plan, ReplaceError> {
    let secrets_anew = asked.as_ref().is_some_and(|asked| !asked.changes.secrets.is_empty());
    let given_anew = volume.known == Known::AllButSecrets && secrets_anew;
    if let Some(note) = volume.known.note().filter(|_| !given_anew) {
        return Err(ReplaceError::NotKnown(note));
    }
    let Some(Asked { changes, origin }) = asked else { return Ok(volume.plan.clone()) };
    let new_options = changes.options.is_some();
    let config = mounter.configuration.get();
    let plan = volume.plan.changed(&config, origin, changes)?;
    if new_options {
        authorize(origin, &plan, &config)?;
    }
    Ok(plan)
}

/// What takes the place of a filesystem.
#[derive(Debug, Clone, Copy)]
pub struct Replacement<'a> {
    /// Its root, in the calling thread's mount namespace.
    pub root: BorrowedFd<'a>,
    /// Which one it is.
    pub identity: Identity,
    /// The mapping of ids that all of the volume has, if it has one.
    pub ids: Option<BorrowedFd<'a>>,
    /// It has its root and nothing else: where another directory shows, or something is mounted inside, the old one is left.
    pub empty: bool,
    /// Where.
    pub at: Places<'a>,
}

/// Which places it takes. A placeholder's are two kinds: where it shows as on the node, by a path with this end, it stays; elsewhere, in
/// containers, it gives way to the volume, whose owners show as they are stored.
#[derive(Debug, Clone, Copy)]
pub enum Places<'a> {
    /// Wherever the old one shows.
    All,
    /// Where a placeholder stays.
    AsOnNode(&'a Path),
    /// Where it gives way.
    InContainers(&'a Path),
}

impl Places<'_> {
    fn retain_in(self, mounts: &mut Vec<VisibleMount>) {
        let (view, on_node) = match self {
            Self::All => return,
            Self::AsOnNode(view) => (view, true),
            Self::InContainers(view) => (view, false),
        };
        let as_on_node = mounts.iter().filter(|mount| placeholder::is_as_on_node(&mount.mount, view));
        let as_on_node: HashSet<_> = as_on_node.map(VisibleMount::namespace).collect();
        mounts.retain(|mount| as_on_node.contains(&mount.namespace()) == on_node);
        if !on_node {
            mounts.iter_mut().for_each(VisibleMount::show_stored_owners);
        }
    }
}

/// How often the places are searched for. A pod can make more of them, each time, than are found.
const ROUNDS: usize = 8;
/// How long who does not answer on the way to a place, or for its directory, is waited for at all places together. After that each
/// has a moment.
const WAITED: Duration = Duration::from_secs(30);
const MOMENT: Duration = Duration::from_millis(100);
/// What takes longer than this was waited for.
const A_WAIT: Duration = Duration::from_secs(1);
/// How many problems are said.
const SAID: usize = 16;

/// What is put in the places, and how long others are waited for there.
struct Waits<'a> {
    fresh: Fresh<'a>,
    left: Duration,
}

impl<'a> Waits<'a> {
    fn new(fresh: Fresh<'a>) -> Self {
        Self { fresh, left: WAITED }
    }

    fn with<T>(&mut self, work: impl FnOnce(Fresh<'a>) -> T) -> T {
        let (began, patience) = (Instant::now(), self.fresh.patience);
        let limit = patience.limit.min(self.left).max(MOMENT);
        let done = work(Fresh { patience: Patience { limit, ..patience }, ..self.fresh });
        let took = began.elapsed();
        if took > A_WAIT {
            self.left = self.left.saturating_sub(took);
        }
        done
    }
}

/// The first of these problems, and how many more there are.
fn first_of(mut problems: Vec<String>) -> Vec<String> {
    let more = problems.len().saturating_sub(SAID);
    problems.truncate(SAID);
    problems.extend((more > 0).then(|| format!("and at {more} more places")));
    problems
}

/// Goes from place to place, and searches again until there is nothing more to be done: what is put in place on the node
/// may show in pods by itself, and a pod may have started meanwhile. Returns also what was detached.
///
/// `dead`: no process serves the old one.
pub fn show_everywhere(
    mounter: &Mounter,
    old: Identity,
    dead: bool,
    new: Replacement<'_>,
) -> Result<(Replaced, Vec<DetachedMount>), ReplaceError> {
    let dead = dead.then_some(Dead { filesystem: old, connections: &mounter.connections });
    let mut waits = Waits::new(Fresh { root: new.root, patience: mounter.patience(), dead, cover: true });
    let mut shown: Vec<VisibleMount> = Vec::new();
    let mut lost = Vec::new();
    let mut left = Vec::new();
    for round in 1..=ROUNDS {
        let before = shown.len();
        left.clear();
        let visible = mounter.search.find(old, &mounter.connections).map_err(ReplaceError::Search)?;
        let Some(VisibleMounts { mut mounts, more, pin: _pin }) = visible else { break };
        mounts.retain(|mount| !(mount.is_covered_by(new.identity) || new.empty && mount.needs_a_directory()));
        new.at.retain_in(&mut mounts);
        mounts.iter_mut().for_each(|mount| waits.with(|fresh| mount.copy_inner_mounts(fresh)));
        for mut mount in mounts {
            let master = shown.iter().find(|place| mount.follows(place));
            match waits.with(|fresh| mount.replace_by(fresh, new.ids, master)) {
                Ok(inner) => {
                    lost.extend(inner.iter().map(|inner| chain(inner)));
                    shown.push(mount);
                }
                Err(error) => left.push(chain(&error)),
            }
        }
        if more > 0 {
            left.push(format!("{more} more of its mounts are there than are looked after at a time"));
        }
        if shown.len() == before {
            break;
        }
        if round == ROUNDS {
            left.push("it may show at other places still: they are made as fast as they are found".to_owned());
        }
    }
    let (left, lost) = (first_of(left), first_of(lost));
    let places = shown.len();
    for problem in &left {
        warn!(event = events::PLACE_LEFT, "the old filesystem stays: {problem}");
    }
    for problem in &lost {
        warn!(event = events::INNER_MOUNT_LOST, "{problem}");
    }
    let replaced = match (places, left.is_empty()) {
        (0, true) => Replaced::Gone,
        (0, false) => return Err(ReplaceError::Nowhere(left.join("; "))),
        _ => Replaced::Shown { places, left: left.into_iter().chain(lost).collect() },
    };
    Ok((replaced, shown.iter().filter_map(VisibleMount::detached).collect()))
}
