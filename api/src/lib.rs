//! Requests to the mounter and its replies: options, messages, and the client that sends them.
//!
//! Runs in every program; needs no privilege. All of it is pure but [`client`], which connects to the mounter's socket.
//! Nothing here knows how a volume is mounted.

pub mod about;
pub mod client;
pub mod directory;
pub mod event;
pub mod exit;
pub mod explained;
pub mod log_events;
pub mod message;
pub mod mount_words;
pub mod options;
pub mod origin;
pub mod pod;
pub mod pod_event;
pub mod program;
pub mod request;
pub mod secret;
pub mod shown;
pub mod volume;
