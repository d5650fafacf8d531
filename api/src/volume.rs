//! How a volume is shown: in lists, in detail, and by its state.
//!
//! Pure.

use crate::origin::Origin;
use crate::pod::Pod;
use serde::{Deserialize, Serialize};

/// A volume as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeView {
    /// Where it is, on the node.
    pub target: String,
    /// The type that was asked for.
    #[serde(rename = "type")]
    pub fstype: String,
    /// What is mounted.
    pub source: String,
    /// Its state.
    pub state: VolumeState,
    /// The helper's program.
    pub helper: String,
    /// The device number in the mount table, `major:minor`; a FUSE connection's number is its minor. Empty if there was
    /// never a mount.
    pub device: String,
    /// When it was mounted (or the mount was tried), in seconds since 1970.
    pub since: u64,
    /// How many requests wait for its helper's answer; none if it is not a FUSE filesystem, or has no helper.
    pub waiting: Option<u64>,
    /// Since when it has hung, in seconds since 1970, if it does.
    pub hung_since: Option<u64>,
    /// What an operator should know, and do.
    pub note: Option<String>,
    /// Where the request for it came from, if that is known.
    #[serde(default)]
    pub origin: Option<Origin>,
    /// The pods below whose directories of kubelet's it shows.
    #[serde(default)]
    pub pods: Vec<Pod>,
    /// What its helper uses of memory, in bytes, if that is counted.
    #[serde(default)]
    pub memory: Option<u64>,
    /// How often it was given a fresh helper because the one before was dead or hung.
    #[serde(default)]
    pub heals: u64,
    /// How often it was given a fresh helper in the place of one that served.
    #[serde(default)]
    pub swaps: u64,
    /// How often it began to hang.
    #[serde(default)]
    pub hangs: u64,
}

impl VolumeView {
    /// One that is mounted, for tests.
    #[doc(hidden)]
    pub fn example() -> Self {
        Self {
            target: "/mnt/a".into(),
            fstype: "fuse.bindfs".into(),
            source: "/s".into(),
            state: VolumeState::Mounted,
            helper: "bindfs".into(),
            device: "0:61".into(),
            since: 7,
            waiting: None,
            hung_since: None,
            note: None,
            origin: None,
            pods: Vec::new(),
            memory: None,
            heals: 0,
            swaps: 0,
            hangs: 0,
        }
    }
}

/// A volume's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeState {
    /// Mounted and served.
    Mounted,
    /// Unmounted at its target; something else (a pod, an open file) still keeps the helper running.
    Detached,
    /// Its helper runs, and does not answer.
    Hung,
    /// Its helper is gone, its mount is not: every access answers "Transport endpoint is not connected".
    Dead,
    /// No program of its pod serves it: calls wait for one, or fail if none came in time.
    Waiting,
    /// It was unmounted, and its helper has exited.
    Ended,
    /// It was never mounted: its helper failed.
    Failed,
}

impl VolumeState {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Mounted, Self::Detached, Self::Hung, Self::Dead, Self::Waiting, Self::Ended, Self::Failed];

    /// The state in a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mounted => "mounted",
            Self::Detached => "detached",
            Self::Hung => "hung",
            Self::Dead => "dead",
            Self::Waiting => "waiting",
            Self::Ended => "ended",
            Self::Failed => "failed",
        }
    }
}

/// A volume in detail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeDetail {
    /// As in a list.
    #[serde(flatten)]
    pub view: VolumeView,
    /// When it ended, in seconds since 1970, if it has.
    pub ended: Option<u64>,
    /// The last lines that its helper wrote.
    pub lines: Vec<String>,
    /// Where it shows on the node; of many places the first.
    #[serde(default)]
    pub places: Vec<String>,
    /// Its helper, while that runs.
    #[serde(default)]
    pub process: Option<HelperProcess>,
    /// What became of its options, if they are known.
    #[serde(default)]
    pub options: Option<Options>,
}

impl VolumeDetail {
    /// One of which nothing is known but its view, and what its helper wrote.
    pub fn of(view: VolumeView, ended: Option<u64>, lines: Vec<String>) -> Self {
        Self { view, ended, lines, places: Vec::new(), process: None, options: None }
    }
}

/// What a volume's helper uses just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// As in a list; of one whose memory its cgroup does not count it is what its processes have resident.
    #[serde(flatten)]
    pub view: VolumeView,
    /// How many processes it is.
    pub processes: u64,
    /// How long they were on a processor, in hundredths of a second.
    pub processor: u64,
}

/// A line that a helper wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Each has a greater one than those before. 0: it may still become longer, or is the mounter's.
    pub number: u64,
    /// When it was read, in seconds since 1970.
    pub time: u64,
    /// What it says.
    pub text: String,
}

/// The last lines of a volume's helpers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// In the order in which they were written.
    pub lines: Vec<Line>,
    /// No more will come: the volume has ended, or was never mounted.
    pub over: bool,
}

/// A helper that runs, as /proc and its cgroup show it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelperProcess {
    /// The process that serves, by its number on the node: the one that has the FUSE device open.
    pub pid: u32,
    /// Its effective uid.
    pub uid: u32,
    /// The program that it runs, as a path in the container.
    pub program: Option<String>,
    /// The package that the program is from, and its version, if that is known.
    pub package: Option<String>,
    /// How many processes the helper is.
    pub processes: u64,
    /// How many descriptors they have open.
    pub descriptors: u64,
    /// Its memory in bytes: what its cgroup counts, or else what its processes have resident.
    pub memory: u64,
    /// Its limit in bytes, if it has one of its own.
    pub memory_limit: Option<u64>,
    /// The path of its cgroup below the node's top, where memory is counted.
    pub cgroup: Option<String>,
    /// When it was started, in seconds since 1970.
    pub started: u64,
}

/// What became of a volume's options. Values that may be secrets are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// What the caller has given.
    pub asked: String,
    /// What the helper is given: the defaults of its type, what the policy forces, and what makes it say why it fails, among it.
    pub given: String,
    /// The flags that the mount has, whatever the helper does.
    pub flags: Vec<String>,
}

/// How a volume is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Its state.
    pub state: VolumeState,
    /// How many requests wait for its helper's answer; none if it is not a FUSE filesystem, or has no helper.
    pub waiting: Option<u64>,
    /// Since when it has hung, in seconds since 1970, if it does.
    pub hung_since: Option<u64>,
    /// What an operator should know, and do.
    pub note: Option<String>,
    /// What its filesystem last said of its space; none if it never did.
    pub space: Option<Space>,
    /// How often it was given a fresh helper because the one before was dead or hung, as far as this mounter knows.
    #[serde(default)]
    pub heals: u64,
}

/// What a filesystem says of its space (statfs(2)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// In bytes.
    pub total: u64,
    /// In bytes, those that only root may use among them.
    pub free: u64,
    /// In bytes, for everybody.
    pub available: u64,
    /// Inodes in all; 0 where the filesystem counts none.
    pub files: u64,
    /// Inodes that are free.
    pub files_free: u64,
    /// How long ago it said so, in seconds.
    pub age: u64,
}
