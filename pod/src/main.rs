//! `hostmount-pod`, under the names that programs in a pod run it by; under its own, the first argument is the name.
//!
//! Runs in a pod, with the pod's privilege, which need be none.
#![no_main]

use hostmount_pod::{by_name, own_command};
use std::ffi::OsString;

linux::program!(run);

fn run(arguments: Vec<OsString>) -> u8 {
    by_name(&arguments).unwrap_or_else(|| own_command(arguments.get(1..).unwrap_or_default()))
}
