//! Front doors: each turns its callers' words into a [`Request`](crate::request::Request), or into what it shows them.
//!
//! Except for [`serve`], all of this runs in the caller's own process: on the node, with the caller's privileges.

pub mod call;
pub mod cli;
pub mod doctor;
pub mod flexvolume;
pub mod install;
pub mod list;
pub mod look;
pub mod metrics;
pub mod mount8;
pub mod node_program;
pub mod replace;
pub mod serve;
pub mod served;
pub mod umount8;
