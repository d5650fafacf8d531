//! The mounter, and the operator's command line.
//!
//! Dependencies point downwards only. ARCHITECTURE.md says where each line of code runs, and with which privilege.
//!
//! | module | what it holds | runs |
//! |---|---|---|
//! | [`cli`] | the operator's command line | in the caller's process; `serve` and `doctor` in the container |
//! | [`mounter`] | the daemon and the life of volumes | in the container, privileged |
//! | [`helper`] | finding, confining, starting and ending helpers | in the mounter |
//! | [`engine`] | intercepting a helper's mount(2), and the broker that performs it | in the mounter, in the helper's mount namespace |
//! | [`heir`], [`placeholder`] | what serves open files of a dead helper's, and what shows in a volume's place | in processes of their own |
//! | [`node`] | what is outside the container: targets, trees, cgroups, programs | in the mounter, on visits to the node |
//! | [`policy`], [`config`] | a request's plan and grant, and whether the caller may have it | anywhere; pure |
//! | [`observe`] | the log and the metrics | in the mounter |

// They panic where nobody reads: `linux::standard`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod cli;
pub mod config;
pub mod engine;
pub mod heir;
pub mod helper;
pub mod mounter;
pub mod node;
pub mod observe;
pub mod placeholder;
pub mod policy;
