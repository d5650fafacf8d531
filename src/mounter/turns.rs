//! One at a time at a target: mounting, healing and swapping there take turns.
//!
//! Runs in the mounter, on the threads of requests.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The targets at which something is under way.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashSet<PathBuf>>);

/// The right to change what is mounted at a target. Dropped, it is given back.
#[derive(Debug)]
pub struct Turn<'a> {
    target: PathBuf,
    turns: &'a Turns,
}

/// Somebody else has it.
#[derive(Debug, thiserror::Error)]
#[error("another mount at this target is under way; try again when it is through")]
pub struct TargetBusy;

impl Turns {
    /// Takes the turn for `target`.
    pub fn take(&self, target: &Path) -> Result<Turn<'_>, TargetBusy> {
        if !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(target.to_owned()) {
            return Err(TargetBusy);
        }
        Ok(Turn { target: target.to_owned(), turns: self })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.target);
    }
}
