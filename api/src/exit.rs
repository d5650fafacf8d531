//! mount(8)'s exit codes, and the one way an error is printed.

use serde::{Deserialize, Serialize};
use std::error::Error;
use std::process::ExitCode;

/// The exit codes of mount(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exit {
    /// Wrong usage, or not permitted.
    Usage = 1,
    /// The system lacks something: no memory, no descriptor, no namespace.
    System = 2,
    /// A bug in hostmount.
    Internal = 4,
    /// The caller closed its connection, or the mounter stopped.
    Interrupted = 8,
    /// The mount failed.
    MountFailure = 32,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error and everything behind it in one line, each part once.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        let part = error.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        behind = error.source();
    }
    text
}
