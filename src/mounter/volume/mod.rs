//! What the mounter knows of a volume, and all the volumes that it knows.
//!
//! Runs in the mounter. [`state`] is the life of one and [`hold`] that of its connection, both pure; [`registry`] holds them all;
//! [`record`], [`kept_secrets`] and [`recovery`] carry them over from one mounter to the next; [`views`] shows them.

mod answering;
pub mod happened;
mod held;
pub mod helper_process;
pub mod hold;
pub mod keep;
pub mod kept_secrets;
pub mod orphan;
pub(super) mod pace;
pub mod past;
pub mod pods;
pub mod record;
pub mod recovery;
pub mod registry;
pub mod state;
pub mod usage;
pub mod views;
pub mod watching;
pub(super) mod whole_file;

use crate::config::open_files::OpenFiles;
use crate::engine::helper_processes::HelperProcesses;
use crate::node::connections::Identity;
use crate::policy::Plan;
use api::origin::Origin;
use api::pod::PodName;
use api::volume::{VolumeState, VolumeView};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Names a volume for as long as this mounter runs. A fresh helper that takes over makes a new one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeId(u64);

#[cfg(test)]
impl VolumeId {
    /// An id, whatever volume it may be of.
    pub fn for_test(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A volume that is on the node.
#[derive(Debug, Clone)]
pub struct Volume {
    /// What was asked for, and what follows from it: a fresh helper gets the same.
    pub plan: Plan,
    /// The helper's program.
    pub helper: String,
    /// Which filesystem it is.
    pub identity: Identity,
    /// When it was mounted.
    pub since: SystemTime,
    /// Everything its helper started.
    pub processes: HelperProcesses,
    /// How much is known of what was asked for.
    pub known: Known,
    /// Whether its helper runs from the image of an earlier container.
    pub earlier_image: bool,
    /// What is told of it.
    pub history: History,
}

/// What is told of a volume: it is shown, and nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Where the request for it came from. None: it is not known any more.
    pub origin: Option<Origin>,
    /// The pod that it is for, as the caller said.
    pub pod: Option<PodName>,
    /// How often it was given a fresh helper because the one before was dead or hung.
    pub heals: u64,
    /// How often it was given a fresh helper in the place of one that served.
    pub swaps: u64,
    /// How often it began to hang.
    pub hangs: u64,
}

/// How much the mounter knows of what a volume was asked for with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// All of it.
    All,
    /// All but its secrets: an earlier mounter could not keep them, or did not.
    AllButSecrets,
    /// What its mount shows: neither its options nor how its source was written.
    MountAlone,
}

impl Known {
    /// What an operator should know about it, and do.
    pub fn note(self) -> Option<&'static str> {
        match self {
            Self::All => None,
            Self::AllButSecrets => Some(
                "its secrets are not known any more, as an earlier mounter has mounted it and could not keep them: it cannot be healed; \
                 give them anew (hostmount swap --secret), or unmount it and mount it again",
            ),
            Self::MountAlone => Some(
                "its options are not known any more, as an earlier mounter has mounted it and its record is lost: it \
                 cannot be healed or swapped; unmount it and mount it again",
            ),
        }
    }
}

impl Volume {
    /// A volume that has just been mounted.
    pub fn new(plan: Plan, helper: String, identity: Identity, processes: HelperProcesses) -> Self {
        let (since, history) = (SystemTime::now(), History::default());
        Self { plan, helper, identity, since, processes, known: Known::All, earlier_image: false, history }
    }

    /// Why it is not healed when its helper has ended, and what to do then. None: it is healed.
    pub fn not_healed(&self) -> Option<&'static str> {
        let off = "healing is off: use `hostmount heal`, or unmount it and mount it again";
        self.known.note().or((!self.plan.settings.heal).then_some(off))
    }

    /// What an operator should know about it while its helper serves it.
    fn note(&self) -> Option<&'static str> {
        let earlier = "its helper runs from the image of an earlier container, and finds nothing there any more once that is removed; \
                       `hostmount swap` gives it one of this container's";
        self.known.note().or(self.earlier_image.then_some(earlier))
    }

    /// How long requests wait for a fresh helper, if it is to get one.
    pub fn hold_time(&self) -> Option<Duration> {
        self.plan.settings.hold_time.filter(|_| self.not_healed().is_none())
    }

    /// What is done for files that are open when its helper dies.
    pub fn open_files(&self) -> OpenFiles {
        self.plan.settings.open_files.unwrap_or_else(|| OpenFiles::of_type(&self.plan.request.fstype))
    }

    /// How it is shown in a list, in this state.
    fn view(&self, state: VolumeState) -> VolumeView {
        VolumeView {
            device: self.identity.device.to_string(),
            since: seconds(self.since),
            origin: self.history.origin,
            heals: self.history.heals,
            swaps: self.history.swaps,
            hangs: self.history.hangs,
            ..view_of(&self.plan, self.helper.clone(), state)
        }
    }

    /// What marks log lines about it.
    pub fn span(&self) -> tracing::Span {
        let Plan { target, request, .. } = &self.plan;
        let (source, pod) = (self.plan.source_shown(), self.history.pod.as_ref().map(PodName::path));
        tracing::info_span!("volume", target = %target.display(), fstype = request.fstype, source, pod)
    }
}

/// What is shown of a volume by its plan alone, in this state, as of now.
fn view_of(plan: &Plan, helper: String, state: VolumeState) -> VolumeView {
    VolumeView {
        target: plan.target.to_string_lossy().into_owned(),
        fstype: plan.request.fstype.clone(),
        source: plan.source_shown(),
        state,
        helper,
        device: String::new(),
        since: seconds(SystemTime::now()),
        waiting: None,
        hung_since: None,
        note: None,
        origin: None,
        pods: Vec::new(),
        memory: None,
        heals: 0,
        swaps: 0,
        hangs: 0,
    }
}

/// Since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
