//! The mounter's log, its metrics, and its journal of what happened to volumes.

pub mod heard;
pub mod journal;
pub mod log;
pub mod metrics;
pub mod ration;

pub use api::log_events as events;
