//! The name that the binary is called by, or its first argument, decides which front door it is.

use hostmount::{demo, front};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let name = arguments.first().and_then(|path| Path::new(path).file_name()).unwrap_or_default();
    let rest = arguments.get(1..).unwrap_or_default();
    match name.to_str() {
        Some("mount") => front::mount8::main(rest),
        Some("umount") => front::umount8::main(rest),
        // FlexVolume drivers are named after their directory: hostmount~fuse/fuse.
        Some("fuse") => front::flexvolume::main(rest),
        Some("mount.memfs") => demo::memfs::main(rest.iter().cloned()),
        _ => front::cli::main(arguments.into_iter()),
    }
}
