//! Tests of the CSI driver from outside: kubelet's calls, on test nodes, with a mounter and real programs.
//!
//! Runs as root. The test node and the harness are those of hostmount's own integration tests.

#[allow(dead_code, reason = "these tests do not need all of it")]
#[path = "../../tests/node/mod.rs"]
mod node;

#[allow(dead_code, reason = "these tests do not need all of it")]
#[path = "../../tests/integration/harness.rs"]
mod harness;

mod api_server;
mod calls;
mod controller;
mod driver;
mod frozen;
mod hostile_claims;
mod kubelet;
mod life;
mod many;
mod programs;
mod refused;
mod storm;
mod tokens;
mod volumes;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::run([
        ("volumes", volumes::tests()),
        ("refused", refused::tests()),
        ("kubelet", kubelet::tests()),
        ("frozen", frozen::tests()),
        ("life", life::tests()),
        ("programs", programs::tests()),
        ("controller", controller::tests()),
        ("hostile_claims", hostile_claims::tests()),
        ("tokens", tokens::tests()),
        ("storm", storm::tests()),
        ("many", many::tests()),
        ("api_server", api_server::tests()),
    ])
}
