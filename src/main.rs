//! `hostmount`: the mounter, and the operator's command line. Called by the name of one of the programs on the node it
//! behaves as that one.

use hostmount::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    shims::by_name(&arguments).unwrap_or_else(|| cli::main(arguments))
}
