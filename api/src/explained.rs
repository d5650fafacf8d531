//! What would become of a request for a mount: what would be run, as whom, with which options, and by which rules. Nothing is done.
//!
//! Pure. Values that may be secrets are left out.

use crate::volume::Options;
use serde::{Deserialize, Serialize};

/// What would become of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// Why it would be refused, if it would.
    pub refused: Option<String>,
    /// What is judged, and by which rule.
    pub rules: Vec<Rule>,
    /// The program, as a path in the container.
    pub program: Option<String>,
    /// Why there is none, or why it cannot be called so.
    pub problem: Option<String>,
    /// Its arguments, its name first.
    pub arguments: Vec<String>,
    /// What it would run as.
    pub user: String,
    /// The capabilities that it would keep.
    pub capabilities: Vec<String>,
    /// The environment variables that are set for its type, or to make it say why it fails, by their names.
    pub environment: Vec<String>,
    /// The files that are made for it, as paths that it alone sees.
    pub files: Vec<String>,
    /// The secrets that it would be given, by their keys.
    pub secrets: Vec<String>,
    /// What it reads although only root can.
    pub readable: Vec<String>,
    /// What would become of its options.
    pub options: Options,
    /// How much memory it may have, in bytes, if it has a limit of its own.
    pub memory_limit: Option<u64>,
    /// How long it may take until its filesystem answers, in seconds.
    pub ready_timeout: u64,
    /// Whether it is healed when its helper dies.
    pub heal: bool,
}

/// What is judged, and by what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// `type`, `target`, `source` or `options`.
    pub about: String,
    /// The key in config.toml, or the default policy.
    pub rule: String,
}
