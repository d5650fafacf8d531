//! The `seccomp` engine: the kernel stops a helper's mount(2) and hands it to the mounter (seccomp_unotify(2)).
//!
//! The helper is not changed in any way and needs no capability. [`filter`] says which calls are stopped, [`listener`]
//! answers them, `memory` reads their arguments.

pub mod filter;
pub mod listener;
mod memory;
