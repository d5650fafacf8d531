//! What the mounter tells about itself.

pub mod log;
pub mod metrics;
