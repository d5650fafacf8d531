//! `hostmount metrics`: what the mounter counts, in the text format of Prometheus.

use super::call::ask;
use super::list::fail;
use crate::exit::Exit;
use crate::wire::{Call, Reply};
use std::process::ExitCode;

/// Runs `hostmount metrics`.
pub fn main() -> ExitCode {
    match ask(&Call::Metrics) {
        Ok(Reply::Metrics(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Reply::Failed { exit, message, .. }) => fail(exit, &message),
        Ok(_) => fail(Exit::Internal, "the mounter answered another question"),
        Err(error) => fail(error.exit(), &error.message()),
    }
}
