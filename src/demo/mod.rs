//! A throw-away node to show the whole path on, and a small filesystem to mount there.
//!
//! Runs in `hostmount demo` and in the integration tests, as root; what it makes lives in namespaces of its own and
//! is gone with the process.

pub mod machine;
pub mod memfs;
