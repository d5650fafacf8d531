//! A fresh placeholder takes the places on the node of one whose process has ended, and the volume those in containers that have not looked
//! yet: the movement of a heal.
//!
//! Runs in the mounter, on a thread of a task, or of the operation that gives the volume a fresh helper. Behind the fresh one is the volume's
//! filesystem, which is found where it shows. If it shows nowhere, as no container had it yet, it has ended with the placeholder that held
//! it: then the volume gets a fresh helper.

use super::{Dead, Placeholder};
use crate::helper::namespace;
use crate::mounter::Mounter;
use crate::mounter::operation::abandoned::below;
use crate::mounter::operation::placeholder::{Behind, PlaceholderError, bring_up};
use crate::mounter::operation::replace::{Cause, Places, ReplaceError, Replaced, Replacement};
use crate::mounter::operation::replace::{replace, show_everywhere};
use crate::mounter::pods::renew_placeholder;
use crate::mounter::target_locks::TargetBusy;
use crate::mounter::volume::keep::keep_new;
use crate::node::fuse_device::{Answered, FuseDevice};
use crate::node::tree::Tree;
use crate::observe::events;
use api::exit::chain;
use linux::statx::mount_root;
use nix::sched::{CloneFlags, unshare};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, mount};
use std::fs::create_dir_all;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// How long what waits on the old one is told to look again, if that does not end by itself; and how often it is looked meanwhile whether a
/// container that was just being started shows it.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Why a placeholder without a process stays.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// Its volume is not known.
    #[error("the volume is not known any more")]
    NoVolume,
    /// It would need a fresh helper.
    #[error("no container had the volume yet, so that it has ended with its placeholder, and it is not healed: {0}")]
    NotHealed(&'static str),
    /// Something else is done with the volume.
    #[error(transparent)]
    Busy(#[from] TargetBusy),
    /// Its helper.
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    /// A fresh one.
    #[error(transparent)]
    Placeholder(#[from] PlaceholderError),
    /// A step of ours.
    #[error("cannot {0}")]
    Step(&'static str, #[source] io::Error),
}

/// Puts a fresh one in the place of the one of this number, or sees to it that it is tried again.
pub fn renew(mounter: &Mounter, number: u64) {
    let Some((placeholder, news)) = mounter.placeholders.dead(number) else { return };
    let _span = placeholder.span().entered();
    match try_to_renew(mounter, number, &placeholder, news) {
        Ok(()) => {}
        Err(RenewError::Busy(_)) => _ = mounter.placeholders.again(number, true),
        Err(error) => {
            let of_use = !matches!(error, RenewError::NoVolume | RenewError::NotHealed(_));
            let next_try_seconds = mounter.placeholders.again(number, of_use).map(|wait| wait.as_secs_f64());
            let to_do = if of_use { "" } else { ": unmount the volume, and mount it again" };
            error!(
                event = events::PLACEHOLDER_LEFT,
                next_try_seconds,
                "containers that start do not get the volume, its placeholder has no process: {}{to_do}",
                chain(&error)
            );
        }
    }
}

fn try_to_renew(mounter: &Mounter, number: u64, placeholder: &Placeholder, news: bool) -> Result<(), RenewError> {
    let visible = mounter.search.find(placeholder.filesystem, &mounter.connections).map_err(ReplaceError::Search)?;
    if visible.is_none() {
        // It was unmounted, and its process has ended for that.
        drop(mounter.placeholders.take(number));
        return Ok(());
    }
    if news {
        warn!(
            event = events::PLACEHOLDER_ENDED,
            "the process of the volume's placeholder has ended: containers that start wait for another one"
        );
    }
    if let Some(id) = mounter.pods.at(&placeholder.volume) {
        renew_placeholder(mounter, id, number)?;
        let left = mounter.placeholders.dead(number).is_some();
        return if left { Err(ReplaceError::Placeholder.into()) } else { Ok(()) };
    }
    {
        let _lock = mounter.target_locks.take(&placeholder.volume)?;
        if let Some(tree) = tree_of(mounter, &placeholder.volume)? {
            return put_in_place(mounter, number, tree).map(drop);
        }
    }
    let (id, _) = mounter.registry.at(&placeholder.volume).ok_or(RenewError::NoVolume)?;
    let volume = mounter.registry.volume(id).ok_or(RenewError::NoVolume)?;
    if let Some(why) = volume.not_healed() {
        return Err(RenewError::NotHealed(why));
    }
    let replaced = replace(mounter, id, Cause::Heal);
    keep_new(mounter);
    match replaced? {
        Replaced::Gone => Err(RenewError::NoVolume),
        Replaced::Shown { .. } => Ok(()),
    }
}

/// All of a volume's filesystem that its placeholders show, from wherever it is mounted.
fn tree_of(mounter: &Mounter, target: &Path) -> Result<Option<Tree>, RenewError> {
    let (id, _) = mounter.registry.at(target).ok_or(RenewError::NoVolume)?;
    let volume = mounter.registry.volume(id).ok_or(RenewError::NoVolume)?;
    let root = Path::new("/").join(volume.plan.subdir.as_deref().unwrap_or(Path::new("")));
    if mounter.registry.is_dead(id) {
        return Ok(None);
    }
    let visible = mounter.search.find(volume.identity, &mounter.connections).map_err(ReplaceError::Search)?;
    let Some(tree) = visible.and_then(|visible| visible.copy_of(&root)) else { return Ok(None) };
    // What is copied is a container's mount, which may be read-only.
    tree.make_writable().map_err(|error| RenewError::Step("copy the volume's mount", error))?;
    Ok(Some(tree))
}

/// Puts fresh ones in the places of all of a volume's whose processes have ended, with `behind` behind them: at how many places. Who calls
/// has the volume's lock.
pub fn renew_all_of(mounter: &Mounter, volume: &Path, behind: impl Fn() -> io::Result<Tree>) -> usize {
    let renew = |number| {
        let tree = behind().map_err(|error| RenewError::Step("copy the volume's mount", error))?;
        put_in_place(mounter, number, tree)
    };
    let renew_or_say = |number| {
        renew(number).unwrap_or_else(|error: RenewError| {
            error!(event = events::PLACEHOLDER_LEFT, "the volume's placeholder has no process: {}", chain(&error));
            0
        })
    };
    mounter.placeholders.dead_of(volume).into_iter().map(renew_or_say).sum()
}

/// Puts a fresh one in the places of the one of this number, with `behind` behind it: how many there are. Who calls has the volume's
/// lock.
pub fn put_in_place(mounter: &Mounter, number: u64, behind: Tree) -> Result<usize, RenewError> {
    let Some(mut dead) = mounter.placeholders.take(number) else { return Ok(0) };
    // It gets a mount namespace of its own.
    let done = thread::scope(|scope| {
        let show = || show(mounter, &mut dead, behind);
        let shown = thread::Builder::new().name("placeholder".into()).spawn_scoped(scope, show);
        let shown = shown.map_err(|error| RenewError::Step("start a thread", error))?.join();
        shown.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    if done.is_err() {
        mounter.placeholders.give_back(number, dead);
    }
    done
}

/// The same, on a thread that ends with this.
fn show(mounter: &Mounter, dead: &mut Dead, behind: Tree) -> Result<usize, RenewError> {
    let failed = |what| move |error| RenewError::Step(what, error);
    let Placeholder { filesystem: old, volume, target } = &dead.placeholder;
    let mut places = OwnPlaces::new(mounter).map_err(failed("make a place for a fresh placeholder"))?;
    // Its path is none of a target's.
    let of_volume = places.show(behind, Path::new("/.volume")).map_err(failed("mount the volume's filesystem"))?;
    let copy = || Tree::copy_at(of_volume.as_fd()).map_err(failed("copy the volume's mount"));
    let (fresh, mut served) = bring_up(mounter, copy()?, Behind { volume, target, read_only: false })?;
    // The path ends as that on the node: who looks there is shown what kubelet is.
    let of_fresh = places.show(fresh, target).map_err(failed("mount a fresh placeholder"))?;
    let view = below(target, &mounter.kubelet_dir);
    let device = mount_root(of_volume.as_fd()).map_err(failed("look at the volume's mount"))?;
    let identity = device.map(|device| mounter.connections.identify(device)).ok_or(RenewError::NoVolume)?;
    let stays = Replacement {
        root: of_fresh.as_fd(),
        identity: served.placeholder.filesystem,
        ids: None,
        empty: false,
        at: Places::AsOnNode(&view),
    };
    // What waits there is to find the volume, and no placeholder: the kernel looks again once, and not twice.
    let gives_way =
        Replacement { root: of_volume.as_fd(), identity, ids: None, empty: false, at: Places::InContainers(&view) };
    let show = || {
        let shown = |new| match show_everywhere(mounter, *old, true, new) {
            Ok((Replaced::Shown { places, .. }, _)) => Ok(places),
            Ok((Replaced::Gone, _)) => Ok(0),
            Err(error) => Err(error),
        };
        Ok::<_, ReplaceError>(shown(stays)? + shown(gives_way)?)
    };
    let mut shown = show()?;
    if shown == 0 {
        return Ok(0);
    }
    served.failures = dead.failures.saturating_add(1);
    mounter.placeholders.add(served);
    if let Some(connection) = dead.connection.take() {
        shown += look_again(mounter, connection, show);
    }
    info!(event = events::PLACEHOLDER_RENEWED, places = shown, "another process serves the volume's placeholder");
    Ok(shown)
}

/// What waits on the old one is answered so that the kernel looks again. A container that was just being started may show the old one a
/// moment later.
fn look_again(mounter: &Mounter, old: FuseDevice, show: impl Fn() -> Result<usize, ReplaceError>) -> usize {
    let Ok(mut answers) = old.answers() else { return 0 };
    let (until, mut shown) = (Instant::now() + LOOK_AGAIN, 0);
    while answers.answer(false) != Answered::Ended && Instant::now() < until {
        let mut fds = [PollFd::new(&answers, PollFlags::IN), PollFd::new(&mounter.stopping, PollFlags::IN)];
        if poll(&mut fds, Some(&LOOK)).is_err() || !fds[1].revents().is_empty() {
            break;
        }
        shown += show().unwrap_or(0);
    }
    answers.end();
    shown
}

/// Places in a mount namespace that is the thread's own.
struct OwnPlaces<'a>(&'a Mounter);

impl<'a> OwnPlaces<'a> {
    fn new(mounter: &'a Mounter) -> io::Result<Self> {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
        let top = namespace::mount_point(&mounter.state, Path::new("/"));
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(c"hostmount", &top, c"tmpfs", flags, c"mode=0700,size=64k")?;
        Ok(Self(mounter))
    }

    /// Shows a tree at a path there; returns its root.
    fn show(&mut self, tree: Tree, path: &Path) -> io::Result<OwnedFd> {
        let place = namespace::mount_point(&self.0.state, path);
        create_dir_all(&place)?;
        tree.graft_at(&place)?;
        Ok(open(&place, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
    }
}
