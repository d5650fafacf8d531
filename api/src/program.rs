//! What a FUSE program in a pod asks of the mounter: for the descriptor of a filesystem that shows at its volume's places.
//!
//! Pure. The socket is in an emptyDir of the pod, which its program sees at some path: beside the directory that the program is
//! told to mount at. The program's side is `fusermount3` and `hostmount start`; messages are framed as in
//! [`message`](crate::message), one call and one reply on a connection.

use crate::options::MountOptions;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The name of a pod's volume unless its attribute `name` says another.
pub const DEFAULT_NAME: &str = "volume";
/// Where a program's container has the emptyDir unless it names another place.
pub const DEFAULT_DIRECTORY: &str = "/run/hostmount";

/// The socket for the volume that a program mounts at `mount_point`: its name with `.sock`, in the same directory.
pub fn socket(mount_point: &Path) -> Option<PathBuf> {
    let mut name = OsString::from(mount_point.file_name()?);
    name.push(".sock");
    Some(mount_point.with_file_name(name))
}

/// A volume of a pod's that a program of the same pod is to serve, as the CSI driver asks the mounter for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramVolume {
    /// Where kubelet wants it: `<kubelet>/pods/UID/volumes/kubernetes.io~csi/NAME/mount`.
    pub target: String,
    /// The name, in the pod's specification, of the emptyDir that the socket is put into.
    pub empty_dir: String,
    /// The name that the socket has there, without `.sock`.
    pub name: String,
    /// Nobody writes, whatever the program says.
    pub read_only: bool,
    /// As in the pod's specification: without, it has a user namespace of its own.
    #[serde(default = "are_nodes")]
    pub host_users: bool,
}

/// What a CSI driver of before means.
fn are_nodes() -> bool {
    true
}

/// A call of the program's, or of what stands by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProgramCall {
    /// A fresh filesystem for the volume: [`Granted`], and with the first byte of the reply its descriptor of /dev/fuse (SCM_RIGHTS).
    /// It shows in the volume's places as soon as the program has answered INIT.
    Mount {
        /// As the program has named them, flags and FUSE's: `ro`, `noatime`, `allow_other`, `default_permissions`, `max_read`,
        /// `blksize`, `fsname`, `subtype`.
        options: MountOptions,
    },
    /// The program's filesystem is to show no longer; the volume waits for the next one: nothing, or
    /// [`NotMounted`](crate::message::Reason::NotMounted).
    Unmount {
        /// Also if it is in use (MNT_DETACH).
        lazy: bool,
        /// This one alone, by its number in [`Granted`]; if it does not show yet, it is not waited for any longer.
        #[serde(default)]
        filesystem: Option<u64>,
    },
    /// Whether a program serves the volume: [`Served`].
    Ready,
    /// The program has ended, and this is what it said last; at most [`MAX_WORDS`] lines are taken: nothing.
    Ended {
        /// As a shell has it: 128 and the signal's number if one has killed it.
        code: i32,
        /// Its last lines.
        words: Vec<String>,
    },
}

/// How many lines of a program's last words are taken.
pub const MAX_WORDS: usize = 20;

/// A filesystem that a program has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Its number, which no other has for as long as the node runs.
    pub filesystem: u64,
}

/// Whether a program serves the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// It has answered INIT, and its filesystem is in the volume's places.
    pub ready: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_beside_the_mount_point() {
        assert_eq!(socket(Path::new("/run/hostmount/volume")), Some("/run/hostmount/volume.sock".into()));
        assert_eq!(socket(Path::new("/run/hostmount/volume/")), Some("/run/hostmount/volume.sock".into()));
        assert_eq!(socket(Path::new("/")), None);
        assert_eq!(socket(Path::new("..")), None);
    }
}
