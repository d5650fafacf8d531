//! What the mounter tells about itself.

pub mod events;
pub mod log;
pub mod metrics;
pub mod ration;
