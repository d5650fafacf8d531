//! The programs that kubelet and operators run on the node: `mount`, `umount` and the FlexVolume driver.
//!
//! They run in the caller's process, on the node, with the caller's privileges, and are one small static executable, as
//! kubelet runs it for every mount. Requests for the mounter go through [`api::client`]; for everything else the
//! process executes the node's own program, so that a node works as if hostmount were not there.

// They panic where nobody reads: `linux::standard`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod flexvolume;
pub mod mark;
pub mod mount8;
mod node_program;
pub mod served_types;
pub mod umount8;

use api::origin::Origin;
use std::ffi::OsString;
use std::path::Path;

/// Runs the program that the first argument names, as execve(2) passed it: `mount`, `umount`, or `fuse`, as FlexVolume
/// drivers are named after their directory (`hostmount~fuse/fuse`). Returns its exit status; `None`: another name.
pub fn by_name(arguments: &[OsString]) -> Option<u8> {
    let (name, rest) = arguments.split_first()?;
    match Path::new(name).file_name()?.to_str()? {
        "mount" => Some(mount8::main(rest, Origin::Kubelet)),
        "umount" => Some(umount8::main(rest)),
        "fuse" => Some(flexvolume::main(rest)),
        _ => None,
    }
}
