//! What a FUSE program in a pod has beside it, as one small static program: `fusermount3`, which programs of libfuse and others
//! run to mount; `start`, which gives a program the descriptor of its filesystem; `ready` for a container's probes; `copy`,
//! which puts it into a directory that containers share.
//!
//! Runs in a pod, beside the program, with the pod's privilege: no capability, any uid, a read-only root. It mounts nothing:
//! it asks the mounter at the socket of the pod's volume ([`api::program`]), and passes on what it gets. Others in the pod may
//! have put anything at that path: nothing that comes from there is read without a bound, or waited for without one.

// They panic where nobody reads: `linux::standard`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod asking;
mod copy;
pub mod fusermount;
pub mod options;
mod ready;
pub mod start;

use api::exit::Exit;
use std::ffi::OsString;
use std::path::Path;

/// Runs the program that the first argument names, as execve(2) passed it: `fusermount3`, or `fusermount` as libfuse 2 calls
/// it. `None`: another name.
pub fn by_name(arguments: &[OsString]) -> Option<u8> {
    let (name, rest) = arguments.split_first()?;
    match Path::new(name).file_name()?.to_str()? {
        "fusermount3" | "fusermount" => Some(fusermount::main(name, rest)),
        _ => None,
    }
}

/// Runs what the first argument names, for `hostmount-pod` under its own name.
pub fn own_command(arguments: &[OsString]) -> u8 {
    let Some((command, rest)) = arguments.split_first() else { return usage() };
    match command.to_str() {
        Some("start") => start::main(rest),
        Some("ready") => ready::main(rest),
        Some("copy") => copy::main(rest),
        Some("--version") => {
            linux::say!("hostmount-pod {}", env!("CARGO_PKG_VERSION"));
            0
        }
        _ => by_name(arguments).unwrap_or_else(usage),
    }
}

fn usage() -> u8 {
    linux::complain!("usage: hostmount-pod start ... | ready [PATH] | copy DIRECTORY | fusermount3 ... | --version");
    Exit::Usage as u8
}
