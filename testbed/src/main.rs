//! Called as `mount.memfs` it is a helper; under its own name it shows the demo.

use api::exit::{Exit, chain};
use hostmount_testbed::{demo, memfs};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    if Path::new(&name).file_name().is_some_and(|name| name == "mount.memfs") {
        return memfs::main(arguments);
    }
    match demo::show() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {}.", chain(&error));
            Exit::System.into()
        }
    }
}
