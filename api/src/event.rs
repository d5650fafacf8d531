//! What happened to volumes, as the mounter remembers it.
//!
//! Pure. The mounter keeps events in its state directory in the same words (JSON, one a line), and a later version reads them: a member
//! that it misses has its default.

use crate::pod::{Pod, PodName};
use serde::{Deserialize, Serialize};

/// Something that happened to a volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeEvent {
    /// Each has a greater one than those before, whichever mounter has written it.
    pub number: u64,
    /// In seconds since 1970.
    pub time: u64,
    /// Its name in the log (docs/log-events.md): `volume.mounted`.
    pub event: String,
    /// The volume's target.
    pub target: String,
    /// Its type, if it is known.
    pub fstype: Option<String>,
    /// What is mounted, if it is known; without secrets.
    pub source: Option<String>,
    /// The pod that it is for, as the caller said.
    pub said: Option<PodName>,
    /// The pods that had it. They are found when somebody asks, and are not kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<Pod>,
    /// How long it took, in seconds.
    pub seconds: Option<f64>,
    /// The exit code: of a mount that failed, as mount(8) has it, or of a pod's program.
    pub code: Option<i64>,
    /// What the log says.
    pub message: String,
}

/// Events, in the order in which they happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// Those that are kept: the oldest go first.
    pub events: Vec<VolumeEvent>,
    /// Why some may be missing.
    pub trouble: Option<String>,
}
