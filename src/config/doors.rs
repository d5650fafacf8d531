//! `[doors]`: which kinds of callers the mounter has a socket for.
//!
//! Read by the mounter, in the container; pure.

use super::ConfigError;
use api::origin::Origin;
use serde::Deserialize;
use std::path::PathBuf;

/// The doors that are open. The operator's always is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doors {
    /// For the `mount` that is installed for kubelet.
    kubelet: bool,
    /// For the FlexVolume driver.
    flexvolume: bool,
    /// For the CSI server.
    pub csi: Option<CsiDoor>,
}

impl Default for Doors {
    fn default() -> Self {
        Self { kubelet: true, flexvolume: true, csi: None }
    }
}

/// Where the CSI server asks, and what it is known by.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CsiDoor {
    /// The socket, in a directory of its own that the server's container shares.
    pub socket: PathBuf,
    /// The server's user, whom nobody else is.
    pub uid: u32,
}

impl Doors {
    /// Whether there is a socket for callers from `origin`.
    pub fn is_open(&self, origin: Origin) -> bool {
        match origin {
            Origin::Operator => true,
            Origin::Kubelet => self.kubelet,
            Origin::FlexVolume => self.flexvolume,
            Origin::Csi => self.csi.is_some(),
        }
    }
}

/// `[doors]` as it is written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    kubelet: Option<bool>,
    flexvolume: Option<bool>,
    csi: Option<CsiDoor>,
}

impl Section {
    pub(super) fn resolve(self) -> Result<Doors, ConfigError> {
        let bad = |key, problem: &str| Err(ConfigError::Value { key, problem: problem.to_owned() });
        if let Some(CsiDoor { socket, uid }) = &self.csi {
            if !socket.is_absolute() || socket.file_name().is_none() {
                return bad("doors.csi.socket", "must be an absolute path");
            }
            if *uid == 0 {
                return bad(
                    "doors.csi.uid",
                    "must not be 0: the CSI server needs no privilege, give it a user of its own",
                );
            }
        }
        let Doors { kubelet, flexvolume, .. } = Doors::default();
        let (kubelet, flexvolume) = (self.kubelet.unwrap_or(kubelet), self.flexvolume.unwrap_or(flexvolume));
        Ok(Doors { kubelet, flexvolume, csi: self.csi })
    }
}
