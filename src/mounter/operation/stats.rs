//! How a volume is, and how full.
//!
//! Runs in the mounter, on a thread of the request's own. Callers ask again and again, also about a volume that hangs: so one
//! process at most asks a filesystem, and while it waits the last answer is given, with its age.

use super::place::PlaceError;
use super::placeholder::filesystem_at;
use crate::mounter::Mounter;
use crate::mounter::volume::views;
use crate::node::connections::Identity;
use crate::node::target::{Target, TargetError};
use crate::policy::{PlanError, normal};
use api::volume::{Space, Stats, VolumeState};
use linux::sys::ask::{self, GivenUp};
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::debug;

/// How long an answer is good enough.
const FRESH: Duration = Duration::from_secs(15);
/// How long one that nobody asks for any more is kept.
const KEPT: Duration = Duration::from_secs(3600);

/// Why nothing is known of a place.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// A path that is none.
    #[error(transparent)]
    Path(#[from] PlanError),
    /// The place.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Nothing there.
    #[error("no volume is mounted at {0}")]
    NotMounted(String),
}

/// What filesystems have said of their space.
#[derive(Debug, Default)]
pub struct Spaces(Mutex<HashMap<Identity, Said>>);

/// What one of them has said.
#[derive(Debug)]
struct Said {
    last: Option<(ask::Space, Instant)>,
    /// When it was last of interest.
    used: Instant,
    /// A thread asks it now.
    asked: bool,
    /// It did not answer one in time.
    given_up: Option<GivenUp>,
}

/// How the volume at `asked` is.
pub fn stats(mounter: &Mounter, asked: &str) -> Result<Stats, StatsError> {
    let place = normal(asked)?;
    let open = || Target::open(&place, &mounter.kubelet_dir, mounter.patience());
    let opened = mounter.node.visit(open).map_err(PlaceError::from)?;
    let target = match opened {
        Err(TargetError::Missing) => return Err(StatsError::NotMounted(asked.to_owned())),
        opened => opened.map_err(PlaceError::from)?,
    };
    let device = target.mounted.ok_or_else(|| StatsError::NotMounted(asked.to_owned()))?;
    let filesystem = filesystem_at(mounter, &place, device);
    let mut stats = views::condition(mounter, filesystem);
    let answers = matches!(stats.state, VolumeState::Mounted | VolumeState::Detached);
    if answers && mounter.spaces.may_ask(filesystem) {
        let ask = || ask::space(target.as_fd(), mounter.patience());
        // A placeholder answers who lives on the node.
        let said =
            if filesystem.device == device { ask() } else { mounter.node.visit(ask).map_err(PlaceError::from)? };
        if let Err(error) = &said {
            debug!("the filesystem does not say how much space it has: {error}");
            if [libc::ENOTCONN, libc::ECONNABORTED].map(Some).contains(&error.raw_os_error()) {
                stats.state = VolumeState::Dead;
            }
        }
        mounter.spaces.has_said(filesystem, said);
    }
    stats.space = mounter.spaces.last(filesystem);
    Ok(stats)
}

impl Spaces {
    fn locked(&self) -> MutexGuard<'_, HashMap<Identity, Said>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the filesystem is to be asked, by the caller, which must report what it [has said](Self::has_said).
    fn may_ask(&self, filesystem: Identity) -> bool {
        let (now, mut all) = (Instant::now(), self.locked());
        all.retain(|_, said| said.asked || now.duration_since(said.used) < KEPT);
        let said = all.entry(filesystem).or_insert(Said { last: None, used: now, asked: false, given_up: None });
        said.used = now;
        said.given_up.take_if(|process| process.has_ended());
        let fresh = said.last.is_some_and(|(_, at)| now.duration_since(at) < FRESH);
        let may = !fresh && !said.asked && said.given_up.is_none();
        said.asked |= may;
        may
    }

    fn has_said(&self, filesystem: Identity, answer: io::Result<Result<ask::Space, GivenUp>>) {
        let mut all = self.locked();
        let Some(said) = all.get_mut(&filesystem) else { return };
        said.asked = false;
        match answer {
            Ok(Ok(space)) => said.last = Some((space, Instant::now())),
            Ok(Err(process)) => said.given_up = Some(process),
            Err(_) => {}
        }
    }

    /// What it said last.
    fn last(&self, filesystem: Identity) -> Option<Space> {
        let (space, at) = self.locked().get(&filesystem)?.last?;
        Some(in_bytes(space, at.elapsed()))
    }
}

/// What a filesystem said so long ago.
pub fn in_bytes(said: ask::Space, age: Duration) -> Space {
    let bytes = |blocks: u64| blocks.saturating_mul(said.block);
    Space {
        total: bytes(said.blocks),
        free: bytes(said.free),
        available: bytes(said.available),
        files: said.files,
        files_free: said.files_free,
        age: age.as_secs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use linux::mount_table::Device;

    const FILESYSTEM: Identity = Identity { device: Device { major: 0, minor: 7 }, connection: Some(7) };

    #[test]
    fn one_asks_at_a_time_and_an_answer_lasts() {
        let spaces = Spaces::default();
        assert!(spaces.may_ask(FILESYSTEM));
        assert!(!spaces.may_ask(FILESYSTEM), "another asks already");
        assert_eq!(spaces.last(FILESYSTEM), None);
        spaces.has_said(FILESYSTEM, Err(io::ErrorKind::Other.into()));
        assert!(spaces.may_ask(FILESYSTEM), "it has not said anything yet");
        let space = ask::Space { block: 4096, blocks: 10, free: 5, available: 4, files: 3, files_free: 2 };
        spaces.has_said(FILESYSTEM, Ok(Ok(space)));
        assert!(!spaces.may_ask(FILESYSTEM), "that is fresh");
        let last = spaces.last(FILESYSTEM).unwrap();
        assert_eq!((last.total, last.free, last.available), (40960, 20480, 16384));
        spaces.locked().get_mut(&FILESYSTEM).unwrap().last = None;
        assert!(spaces.may_ask(FILESYSTEM));
    }
}
