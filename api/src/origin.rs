//! Where a request comes from: each kind of caller has a socket of its own, its door.
//!
//! Pure. A caller chooses the socket, so an origin is no privilege: it says on whose words the caller acts. Kubelet is root
//! and mounts what a pod's author has written; at its own doors it gets no more than such an author may have.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// A kind of caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Root of the node, by `hostmount`.
    Operator,
    /// Kubelet, by the `mount` that is installed for it: in its PATH, or as its mounter path.
    Kubelet,
    /// Kubelet, by the FlexVolume driver.
    FlexVolume,
    /// The CSI server, which has no privilege of its own.
    Csi,
}

impl Origin {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Operator, Self::Kubelet, Self::FlexVolume, Self::Csi];

    /// Its name, in the configuration and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Kubelet => "kubelet",
            Self::FlexVolume => "flexvolume",
            Self::Csi => "csi",
        }
    }

    /// Its socket, where the operator's is `operators`: kubelet's are beside that, so that one directory is shared with the
    /// node, and one variable names them all. The CSI server's is elsewhere, as the configuration says.
    pub fn socket(self, operators: &Path) -> Option<PathBuf> {
        match self {
            Self::Operator => Some(operators.to_owned()),
            Self::Kubelet => Some(operators.with_file_name("kubelet.sock")),
            Self::FlexVolume => Some(operators.with_file_name("flexvolume.sock")),
            Self::Csi => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
