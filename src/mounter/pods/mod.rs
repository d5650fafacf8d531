//! Volumes that a program of a pod serves, and no helper: the mounter gives it the descriptor of a filesystem that shows at the volume's
//! places. A volume has a filesystem all the time: while no program serves it, the mounter answers what it must, and what else comes
//! waits ([`Waiting`](crate::node::fuse_waiting::Waiting)).
//!
//! Runs in the mounter. [`publish`] puts one there; [`conversation`] hears its programs, at a socket in the pod ([`door`]); [`put`] lets a
//! fresh filesystem take the place of another, as a heal does; [`registry`] has them all, and what the main thread does for them.

mod carry_out;
pub mod conversation;
mod descriptors;
mod door;
mod empty_dir;
mod entry;
mod events;
mod fresh;
mod holders;
mod look;
pub mod mount_options;
pub mod publish;
mod put;
mod ration;
mod record;
pub mod recovery;
pub mod registry;
mod renew;
mod task;
mod view;

pub use carry_out::carry_out;
pub use record::Records;
pub use registry::Pods;
pub use renew::renew_placeholder;
pub use task::Task;

use std::path::{Path, PathBuf};

/// A volume as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PodVolume {
    /// Where kubelet wants it.
    pub target: PathBuf,
    /// The pod's UID.
    pub pod: String,
    /// The emptyDir of the pod that the socket is in.
    pub empty_dir: String,
    /// The name of the socket, without `.sock`.
    pub name: String,
    /// Nobody writes.
    pub read_only: bool,
    /// The pod's users are the node's: without, what shows is a placeholder whose ids a container runtime can map.
    #[serde(default = "are_nodes")]
    pub host_users: bool,
}

/// As they were for an earlier mounter.
fn are_nodes() -> bool {
    true
}

/// Names a volume for as long as this mounter runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodVolumeId(u64);

impl PodVolume {
    /// The directory of the emptyDir, which is the pod's.
    fn directory(&self, kubelet_dir: &Path) -> PathBuf {
        self.of_pod(kubelet_dir).join("volumes/kubernetes.io~empty-dir").join(&self.empty_dir)
    }

    /// What kubelet makes when the emptyDir is ready, where no pod writes.
    fn ready_file(&self, kubelet_dir: &Path) -> PathBuf {
        self.of_pod(kubelet_dir).join("plugins/kubernetes.io~empty-dir").join(&self.empty_dir).join("ready")
    }

    fn of_pod(&self, kubelet_dir: &Path) -> PathBuf {
        kubelet_dir.join("pods").join(&self.pod)
    }

    /// The socket's name.
    fn socket(&self) -> String {
        format!("{}.sock", self.name)
    }

    /// What marks log lines about it.
    fn span(&self) -> tracing::Span {
        tracing::info_span!("volume", target = %self.target.display(), fstype = view::TYPE, source = self.name)
    }
}
