//! On a machine with systemd, which has fusectl mounted, and cgroup v2 with namespaces as boundaries (`nsdelegate`).
//!
//! tests/as-systemd makes this machine look like one; on a real one nothing is different.

use crate::harness::{Test, tests};
use crate::node::programs::{SHIM, TESTBED};
use std::path::Path;
use std::process::Command;

pub(crate) fn tests() -> Vec<Test> {
    tests![the_demo_is_shown_on_a_machine_with_systemd.needs_no(other_cgroup_namespace).alone().quick()]
}

/// The kernel heeds nsdelegate only if it is set from the machine's first cgroup namespace (its number is fixed).
fn other_cgroup_namespace() -> Option<String> {
    let first = std::fs::read_link("/proc/self/ns/cgroup").is_ok_and(|link| link == Path::new("cgroup:[4026531835]"));
    (!first).then(|| "this is not the machine's first cgroup namespace".to_owned())
}

fn the_demo_is_shown_on_a_machine_with_systemd() {
    // The demo finds it beside itself.
    assert!(SHIM.exists());
    let mut shown = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/as-systemd"));
    let shown = shown.arg(&*TESTBED).output().unwrap();
    let said = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.status.success(), "{said}{}", String::from_utf8_lossy(&shown.stderr));
    assert!(said.contains("everything is gone again"), "{said}");
}
