//! `hostmount`: the mounter, and the operator's command line. Called by the name of one of the programs on the node it
//! behaves as that one.

use hostmount::cli;
use std::process::ExitCode;

// The node's own `mount` is told from ours by it: shims/src/mark.rs.
#[cfg(not(any(target_feature = "crt-static", doc)))]
compile_error!(
    "this program must be static: build it with the project's .cargo/config.toml, or with -C target-feature=+crt-static"
);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    shims::by_name(&arguments).map_or_else(|| cli::main(arguments), ExitCode::from)
}
