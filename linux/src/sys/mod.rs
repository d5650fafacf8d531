//! The only unsafe code outside of `preload/`: system calls that neither nix nor rustix has, and forks that no exec follows.
//! Every block states the invariant it relies on.

#![allow(unsafe_code)]

pub mod allocator;
pub mod ask;
pub mod cgroup;
pub mod descriptor;
pub mod entry;
pub mod file_handle;
pub mod fork;
pub mod fuse;
pub mod fuse_of_users;
pub mod keyring;
pub mod mount_attr;
pub mod mount_ids;
pub mod same_file;
pub mod seccomp;
pub mod signals;
pub mod spawn;
pub mod statmount;
pub mod user_namespace;
