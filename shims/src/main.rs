//! `hostmount-shim`, under the names that the node runs it by; under its own, the first argument is the name.
//!
//! Runs on the node, with the caller's privileges. It does without the start of Rust's library, which reads the process's memory
//! map from /proc each time.
#![no_main]

use hostmount_shims::by_name;
use std::ffi::OsString;

// The node's own `mount` is told from ours by it: `mark`.
#[cfg(not(any(target_feature = "crt-static", doc)))]
compile_error!(
    "this program must be static: build it with the project's .cargo/config.toml, or with -C target-feature=+crt-static"
);

linux::program!(run);

fn run(arguments: Vec<OsString>) -> u8 {
    let rest = arguments.get(1..).unwrap_or_default();
    by_name(&arguments).or_else(|| by_name(rest)).unwrap_or_else(|| {
        // An installation runs this to see whether the program can run on the node.
        if rest.first().is_some_and(|word| word == "--version") {
            linux::say!("hostmount-shim {}", env!("CARGO_PKG_VERSION"));
            return 0;
        }
        linux::complain!("hostmount-shim: call it as mount or umount, or as the FlexVolume driver fuse.");
        api::exit::Exit::Usage as u8
    })
}
