//! What the mounter says of itself.
//!
//! Pure.

use crate::origin::Origin;
use serde::{Deserialize, Serialize};

/// The mounter that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Its version.
    pub version: String,
    /// When it was started, in seconds since 1970.
    pub started: u64,
    /// The engine that intercepts helpers' calls.
    pub engine: String,
    /// Its sockets, as paths in its container.
    pub sockets: Vec<(Origin, String)>,
    /// The directory of the node that it installs programs into, if any.
    pub programs: Option<String>,
    /// The directory of the node that it installs the FlexVolume driver into, if any.
    pub plugins: Option<String>,
    /// The configuration that is in force.
    pub configuration: Configuration,
}

/// The configuration that is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Configuration {
    /// The file that it is from. It need not be there: then it is the defaults.
    pub file: String,
    /// Since when it is in force, in seconds since 1970.
    pub since: u64,
    /// Why what is in the file now is not in force.
    pub problem: Option<String>,
    /// The keys whose values in the file are taken over when the mounter is restarted.
    pub at_restart: Vec<String>,
}
