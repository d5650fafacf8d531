//! A step of the mounter's own that failed: what was tried, and what the kernel said.
//!
//! Pure.

use std::io;

/// What was tried, and what the kernel said.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}")]
pub struct StepError {
    step: String,
    source: io::Error,
}

/// Names the step that an error is of: `open(path).map_err(step("open the list"))?`.
pub(super) fn step<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> StepError {
    move |source| StepError { step: step.into(), source: source.into() }
}
