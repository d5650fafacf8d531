//! hostmount: FUSE mounts for immutable Kubernetes nodes.
//!
//! The map of the house; dependencies point downwards only.
//!
//! | module | what it holds | runs |
//! |---|---|---|
//! | [`front`] | front doors: `mount`, `umount`, the CLI | in the caller's process, on the node |
//! | [`demo`] | a throw-away node and a filesystem of our own | in processes of its own |
//! | [`mounter`] | the daemon and the life of volumes | in the container, privileged |
//! | [`helper`] | finding, confining, starting and ending helpers | in the mounter |
//! | [`engine`] | how a helper's mount(2) reaches us, and the broker that performs it | in the mounter, in the helper's mount namespace |
//! | [`node`] | the node's mount namespace, table and targets; trees | in the mounter, on visits to the node |
//! | [`observe`] | the log | in the mounter |
//! | [`request`], [`idmap`], [`secret`], [`policy`], [`config`], [`wire`], [`exit`] | words, rules and messages | anywhere; pure |
//! | [`sys`] | the only unsafe code | anywhere |

pub mod config;
pub mod demo;
pub mod engine;
pub mod exit;
pub mod front;
pub mod helper;
pub mod idmap;
pub mod mounter;
pub mod node;
pub mod observe;
pub mod policy;
pub mod request;
pub mod secret;
pub mod sys;
pub mod wire;
