//! Lines of shell in the background: what a pod does while something happens to its volume.
//!
//! Runs in the tests' process.

use super::Place;
use std::io::Read;
use std::process::Stdio;
use testbed::machine::{Process, Room};

/// Starts a line of shell in the background.
pub fn start(place: &Place, line: &str) -> Process {
    let mut command = Room::command("/bin/sh");
    command.args(["-c", line]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    place.spawn(command)
}

/// Waits for its end, and returns what it printed.
pub fn end(mut process: Process) -> String {
    let mut said = String::new();
    process.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    process.wait().unwrap();
    said
}
