//! Called as `mount.memfs` or `libfuse` it is a helper, as `hostile` one that was taken over, as `pod-program` a fake program of a
//! pod, as `fuser-program` one whose library mounts; `pod-mounter` answers a pod's programs; under its own name it shows the demo.

use api::exit::{Exit, chain};
use hostmount_testbed::{demo, fuser_program, hostile, libfuse, memfs, pod_mounter, pod_program};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some("mount.memfs") => return memfs::main(arguments),
        Some("libfuse") => return libfuse::main(arguments),
        Some("pod-mounter") => return pod_mounter::main(arguments),
        Some("pod-program") => return pod_program::main(arguments),
        Some("fuser-program") => return fuser_program::main(arguments),
        Some("hostile") => return hostile::main(arguments),
        _ => {}
    }
    match demo::show() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {}.", chain(&error));
            Exit::System.into()
        }
    }
}
