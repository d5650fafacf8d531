//! A real cluster uses hostmount's CSI driver: its own manifests, an API server, kubelet, claims, Secrets, pods of many users.
//!
//!     make test-cluster                                   or some of it: STEPS="apply specifications operators"
//!
//! Runs as root, step by step, on a node of its own, and prints a table; the first step that fails is the last. With words only steps that
//! have one of them in their names. What the programs
//! of the cluster have logged is in `kubelet/` of cargo's target directory then.

#[allow(dead_code, reason = "only a part of it is used here")]
#[path = "../../../tests/node/mod.rs"]
mod node;

#[path = "../../../tests/kubelet-node/host.rs"]
mod host;
#[allow(dead_code, reason = "only a part of it is used here")]
#[path = "../../../tests/kubelet-node/pod.rs"]
mod pod;

#[path = "../calls.rs"]
mod calls;

mod cluster;
mod frozen;
mod load;
mod objects;
mod provisioner;
mod steps;
mod tokens;

use cluster::Cluster;
use node::sshd::Sshd;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use steps::{STEPS, Story};
use testbed::machine::Network;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let work = arguments.next().expect("the directory that prepare has filled");
    let work = fs::canonicalize(work).unwrap();
    let words: Vec<_> = arguments.collect();
    let is_wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    println!("| step | seen |\n|---|---|");
    let network = Network::new().unwrap();
    let (server, cluster) = (Sshd::start(&network), Cluster::start(&network, &work));
    let (story, stop) = (Story::new(cluster, server), AtomicBool::new(false));
    thread::scope(|scope| {
        let stop = StopAtEnd(&stop);
        scope.spawn(|| provisioner::work_until(&story.cluster, stop.0));
        for (name, step) in STEPS.iter().filter(|(name, _)| is_wanted(name)) {
            let seen = catch_unwind(AssertUnwindSafe(|| step(&story)));
            if let Ok(seen) = &seen {
                println!("| {name} | {seen} |");
            } else {
                println!("| {name} | **failed** |");
                story.cluster.keep_logs();
                println!("logs: {}/*.log", work.display());
                return ExitCode::FAILURE;
            }
        }
        ExitCode::SUCCESS
    })
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
