//! The only unsafe code of this crate: what nix and rustix lack. Every block states the invariant it relies on.

#![allow(unsafe_code)]

pub mod descriptor;
pub mod fork;
pub mod mount_attr;
pub mod seccomp;
pub mod spawn;
pub mod user_namespace;
