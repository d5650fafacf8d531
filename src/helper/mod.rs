//! A helper: the program in the container that speaks a filesystem, from finding it to its end.

pub mod account;
pub mod arguments;
pub mod beginning;
pub mod cause;
pub mod confine;
pub mod domain;
pub mod find;
pub mod launch;
pub mod log_files;
pub mod namespace;
pub mod output;
pub mod packages;
pub mod readable;
pub mod reaper;
pub mod scratch;
pub mod syslog;
pub mod uids;
pub mod work;
pub mod world;
