//! How a helper's own mount(2) call reaches the mounter.
//!
//! An engine turns what the helper did into a [`broker::MountCall`]; the [`broker`] alone decides and mounts.

pub mod broker;
pub mod seccomp;
