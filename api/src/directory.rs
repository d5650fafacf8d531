//! A directory of a filesystem that shows nowhere: to make one for a volume, and to take it away again.
//!
//! Pure.

use crate::request::Request;
use crate::volume::Space;
use serde::{Deserialize, Serialize};

/// Work on a directory of a filesystem. A helper serves the filesystem for this alone, nobody else sees it, and it ends with the
/// work, or when the caller goes away.
#[derive(Debug, Serialize, Deserialize)]
pub struct Directory {
    /// The filesystem. Nothing is mounted at its target, which is only what the helper is known by: two with the same target take
    /// turns.
    pub request: Request,
    /// The directory, as a path below the filesystem's root; empty for the root itself, which can only be [found](Work::Find).
    pub path: String,
    /// What is to be done.
    pub work: Work,
    /// All of it is given up after so many seconds. What was removed until then is removed.
    pub within: u64,
}

/// What is done with a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// See whether it is there, and how much space the filesystem has.
    Find,
    /// Make it, and those above it, unless they are there. One that is there is given the mode and the owners as well, if they are
    /// named; for those above nothing is changed.
    Make {
        /// Its mode (chmod(2)); without it 0777, as far as the filesystem has modes.
        mode: Option<u32>,
        /// Its owner.
        uid: Option<u32>,
        /// Its group.
        gid: Option<u32>,
    },
    /// Remove it, and everything in it, if it is there.
    Remove,
    /// Give it this name in the directory that it is in, if it is there and the name is free.
    Rename {
        /// The name.
        name: String,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worked {
    /// Whether the directory was there before.
    pub was_there: bool,
    /// What the filesystem says of its space, if that was to be found out.
    pub space: Option<Space>,
}
