//! What the mounter knows of a volume.
//!
//! Pure.

use crate::helper::family::Family;
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
    pub family: Family,
    /// Whether all of what was asked for is known; if not, a fresh helper cannot be given it.
    pub known: bool,
}

impl Volume {
    /// A volume that has just been mounted.
    pub fn new(admitted: Admitted, helper: String, identity: Identity, family: Family) -> Self {
        Self { admitted, helper, identity, since: SystemTime::now(), family, known: true }
    }
}
