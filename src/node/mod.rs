//! What is outside the container: the node's mount namespace, its mount table, the places where volumes appear.

pub mod cgroup;
pub mod connections;
pub mod dying;
pub mod file_locks;
pub mod fuse_device;
pub mod fuse_interrupt;
pub mod fuse_protocol;
mod fuse_reader;
pub mod fuse_requests;
pub mod fuse_waiters;
pub mod fuse_waiting;
pub mod inner_mounts;
pub mod kernel;
mod known_namespaces;
pub mod log_file;
pub mod mount_search;
#[cfg(test)]
mod own_fuse;
#[cfg(test)]
mod own_mounts;
pub mod placeholder;
pub mod pod_cgroup;
pub mod programs;
pub mod ramfs;
pub mod target;
pub mod tree;
pub mod visible_mounts;
