//! `hostmount demo`: the whole path on a throw-away node, with a small filesystem of our own.
//!
//! Runs as root; what it makes lives in namespaces of its own and is gone with the process. The integration tests use
//! the same machines.

pub mod machine;
pub mod memfs;
mod story;

use crate::exit::{Exit, chain};
use std::process::ExitCode;

/// Runs `hostmount demo`.
pub fn main() -> ExitCode {
    match story::tell() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hostmount demo: {}.", chain(&error));
            Exit::System.into()
        }
    }
}
