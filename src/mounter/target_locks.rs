//! One operation at a time at a target: mounting, healing and swapping there take turns, and so do mounting and unmounting at a
//! place.
//!
//! Runs in the mounter, on the threads of operations.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The targets at which an operation is under way.
#[derive(Debug, Default)]
pub struct TargetLocks(Mutex<HashSet<PathBuf>>);

/// The right to change what is mounted at a target. Dropped, it is given back.
#[derive(Debug)]
pub struct TargetLock<'a> {
    target: PathBuf,
    locks: &'a TargetLocks,
}

/// Another operation has it.
#[derive(Debug, thiserror::Error)]
#[error("another mount at this target is under way; try again when it is finished")]
pub struct TargetBusy;

impl TargetLocks {
    /// Takes the lock of `target`, or says that it is taken.
    pub fn take(&self, target: &Path) -> Result<TargetLock<'_>, TargetBusy> {
        if !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(target.to_owned()) {
            return Err(TargetBusy);
        }
        Ok(TargetLock { target: target.to_owned(), locks: self })
    }

    /// Whether somebody has it, at this moment.
    pub fn is_taken(&self, target: &Path) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(target)
    }
}

impl Drop for TargetLock<'_> {
    fn drop(&mut self) {
        self.locks.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.target);
    }
}
