//! A throw-away node, a FUSE filesystem in memory, and the demo that uses both. Tests and benches use the same
//! machines.
//!
//! Runs as root; what it makes lives in namespaces of its own and is gone with the process. It is never shipped.

pub mod demo;
pub mod fuser_program;
pub mod hostile;
pub mod libfuse;
pub mod machine;
pub mod memfs;
pub mod pod_mounter;
pub mod pod_program;
