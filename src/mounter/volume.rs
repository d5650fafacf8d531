//! What the mounter knows of a volume.
//!
//! Pure.

use crate::engine::helper_processes::HelperProcesses;
use crate::node::connections::Identity;
use crate::policy::Admitted;
use std::time::SystemTime;

/// A volume that is on the node.
#[derive(Debug, Clone)]
pub struct Volume {
    /// What was asked for: a fresh helper gets the same.
    pub admitted: Admitted,
    /// The helper's program.
    pub helper: String,
    /// Which filesystem it is.
    pub identity: Identity,
    /// When it was mounted.
    pub since: SystemTime,
    /// Everything its helper started.
    pub family: HelperProcesses,
    /// What of it is not known any more: a fresh helper could not be given it.
    pub lost: Lost,
}

/// What the mounter does not know any more of what a volume was asked for with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Everything is known.
    Nothing,
    /// Its secrets, which are never recorded.
    Secrets,
    /// Its options, and how its source was written: there was no record.
    Request,
}

impl Lost {
    /// What an operator should know about it, and do.
    pub fn note(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Secrets => Some(
                "its secrets are not known any more, as an earlier mounter has mounted it: it cannot be healed; \
                 give them anew (hostmount swap --secret), or unmount it and mount it again",
            ),
            Self::Request => Some(
                "its options are not known any more, as an earlier mounter has mounted it and its record is lost: it \
                 cannot be healed or swapped; unmount it and mount it again",
            ),
        }
    }
}

impl Volume {
    /// A volume that has just been mounted.
    pub fn new(admitted: Admitted, helper: String, identity: Identity, family: HelperProcesses) -> Self {
        Self { admitted, helper, identity, since: SystemTime::now(), family, lost: Lost::Nothing }
    }
}
