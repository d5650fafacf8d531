//! A node with a mounter whose helpers misbehave, and everything that may not be left behind.
//!
//! Runs in the tests' process.

use super::mounter::Mounter;
use super::preloaded;
use super::{Done, TestNode};
use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Where volumes are mounted.
pub const TARGET: &str = "/var/lib/kubelet/pods/p/volumes/v";

/// All that a request may not leave behind.
#[derive(Debug, PartialEq, Eq)]
pub struct State {
    node_mounts: Vec<String>,
    container_mounts: Vec<String>,
    processes: BTreeSet<String>,
    state_directory: String,
    descriptors: usize,
    /// Of the mounter.
    pub threads: String,
    cgroups: String,
}

/// A node with a mounter, and a helper that misbehaves on request.
#[derive(Debug)]
pub struct Setting {
    /// The node.
    pub test: TestNode,
    /// Its mounter.
    pub mounter: Mounter,
}

impl Setting {
    /// A mounter without configuration.
    pub fn start() -> Self {
        Self::with_config("")
    }

    /// A mounter with this configuration.
    pub fn with_config(config: &str) -> Self {
        Self::with_config_and(config, &[])
    }

    /// And with these arguments.
    pub fn with_config_and(config: &str, arguments: &[&str]) -> Self {
        let test = TestNode::start();
        test.node.sh_ok(&format!("mkdir -p {TARGET}"));
        test.container.visit(|| {
            fs::create_dir_all("/etc/hostmount").unwrap();
            fs::write("/etc/hostmount/config.toml", config).unwrap();
            fs::create_dir("/tmp/source").unwrap();
        });
        if arguments.contains(&"preload") {
            preloaded::install(&test.container);
        }
        let mounter = test.start_mounter(arguments, &[]);
        Self { test, mounter }
    }

    /// All that might be left behind, as it is now.
    pub fn state(&self) -> State {
        let pid = self.mounter.pid();
        State {
            node_mounts: self.test.node.mountinfo(),
            container_mounts: self.test.container.mountinfo(),
            processes: self.test.processes().into_values().collect(),
            // What happened is kept, within its bound.
            state_directory: self.test.container.sh_ok("find /run/hostmount ! -name events.old | sort"),
            descriptors: self.test.descriptors(pid).len(),
            threads: self.test.node.sh_ok(&format!("grep Threads /proc/{pid}/status")),
            cgroups: super::cgroups::all(&self.test.node),
        }
    }

    /// Waits until everything is as it was: threads and processes exit a moment after their effects are visible.
    #[track_caller]
    pub fn wait_until(&self, before: &State) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.state() != *before {
            assert!(Instant::now() < deadline, "left behind:\nnow    {:?}\nbefore {before:?}", self.state());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until no request is under way.
    #[track_caller]
    pub fn wait_until_idle(&self, before: &State) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.state().threads != before.threads {
            assert!(Instant::now() < deadline, "a request does not end: {:?}", self.state());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Mounts, expecting failure with these words, and nothing changed.
    #[track_caller]
    pub fn refuses(&self, code: i32, words: &[&str], arguments: &[&str]) -> Done {
        let before = self.state();
        let done = self.test.mount(arguments);
        for word in words {
            assert!(done.stderr.contains(word), "{arguments:?}: {:?} is not in: {}", word, done.stderr);
        }
        assert_eq!(done.code, Some(code), "{arguments:?}: {}", done.stderr);
        self.wait_until(&before);
        done
    }

    /// A helper for type `fuse.fault` that runs these lines of shell; `$1` is the source, `$2` the mount point.
    pub fn fault(&self, lines: &str) {
        self.test.container.helper("fuse.fault", lines);
    }
}
