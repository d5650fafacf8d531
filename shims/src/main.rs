//! `hostmount-shim`, under the names that the node runs it by; under its own, the first argument is the name.
//!
//! Runs on the node, with the caller's privileges.

use hostmount_shims::by_name;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let rest = arguments.get(1..).unwrap_or_default();
    by_name(&arguments).or_else(|| by_name(rest)).unwrap_or_else(|| {
        // An installation runs this to see whether the program can run on the node.
        if rest.first().is_some_and(|word| word == "--version") {
            linux::say!("hostmount-shim {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        linux::complain!("hostmount-shim: call it as mount or umount, or as the FlexVolume driver fuse.");
        api::exit::Exit::Usage.into()
    })
}
