//! The doors to the kernel that more than one program uses: mount tables, mount namespaces, processes, and the system calls
//! that neither nix nor rustix has.
//!
//! Runs in every program, with the privilege of its caller. The only unsafe code outside of `preload/` is in [`sys`].

pub mod mount_namespace;
pub mod mount_table;
pub mod namespace;
pub mod processes;
pub mod sockets;
pub mod standard;
pub mod statx;
pub mod strangers;
pub mod sys;
