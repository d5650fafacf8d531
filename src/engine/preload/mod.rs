//! The `preload` engine: a shared object in the helper (the crate in `preload/`) sends its mount(2) calls to us.
//!
//! Runs in the mounter. For kernels and container runtimes without seccomp user notification, and weaker than it: it
//! sees what goes through libc, in programs that are linked dynamically. What it does not see fails, as the helper has
//! no capability; it is never granted.
//!
//! **The object** is loaded because `/etc/ld.so.preload` names it, in the helper's own mount namespace. `LD_PRELOAD` would
//! do for most, but some start `fusermount3` or `mount` with an environment of their own (gocryptfs, mount(8)).
//!
//! **The socket** is bound in that namespace too, always at the same path: only this helper and what it starts can reach
//! it, at any time, and there is no descriptor that a daemon could close or pass on by mistake.
//! Each call is one datagram that brings a descriptor for the answer with it: no connection, no state, and nothing that
//! a helper could make us wait for.
//!
//! **The end of the helper**: whatever it starts lives in its mount namespace, so we wait for the processes that we know
//! (pidfds), and when the last of them has exited, search for others there. If there are none, the helper is gone. That is a
//! little less exact than a seccomp listener: a process that forks and exits at the very moment of the search, with process
//! ids wrapping round, may be missed; and a helper may leave for a user namespace of its own, which the seccomp engine refuses.

mod elf;
mod furnish;
#[path = "../../../preload/src/message.rs"]
pub mod message;
mod server;

pub use elf::is_static;
pub use furnish::{FurnishError, check, furnish, socket};
pub use server::Server;

/// Where the image has the shared object.
pub const DEFAULT_OBJECT: &str = "/usr/local/lib/hostmount/libhostmount_preload.so";
