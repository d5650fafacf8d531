//! The mounter's log and metrics.

pub mod events;
pub mod log;
pub mod metrics;
