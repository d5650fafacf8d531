//! What the next mounter must know of a volume that a program of a pod serves: a file for each, in the state directory.
//!
//! Runs in the mounter. There is no secret in it, and no option; it is kept beside those of the other volumes, on a memory filesystem.

use super::PodVolume;
use super::entry::Entry;
use crate::mounter::volume::whole_file::write_at;
use crate::node::connections::Identity;
use linux::mount_table::Device;
use rustix::fs::{AtFlags, Mode, OFlags, open, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::warn;

/// Changes whenever an older mounter would misread a record.
const VERSION: u32 = 1;

/// The records. Held by a descriptor: threads stand in other mount namespaces.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    directory: OwnedFd,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    volume: PodVolume,
    /// Since 1970.
    since: Duration,
    filesystem: Filesystem,
    #[serde(default)]
    successor: Option<Filesystem>,
    left: Vec<Filesystem>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Filesystem {
    device: (u32, u32),
    connection: Option<u64>,
}

/// A volume as an earlier mounter knew it.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) volume: PodVolume,
    pub(super) since: SystemTime,
    /// What showed at its places, and what was being put there.
    pub(super) filesystem: Identity,
    pub(super) successor: Option<Identity>,
    pub(super) left: Vec<Identity>,
}

impl Records {
    /// Those below `state`.
    pub fn below(state: &Path) -> io::Result<Self> {
        let path = state.join("programs");
        DirBuilder::new().recursive(true).mode(Mode::RWXU.bits()).create(&path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = open(&path, flags, Mode::empty())?;
        Ok(Self { path, directory })
    }

    /// Keeps what is known of a volume. That it cannot be kept is no reason to fail: the volume works.
    pub(super) fn keep(&self, entry: &Entry) {
        self.write(&Record {
            version: VERSION,
            volume: entry.volume.as_ref().clone(),
            since: entry.since.duration_since(UNIX_EPOCH).unwrap_or_default(),
            filesystem: (&entry.filesystem).into(),
            successor: entry.successor.as_ref().map(Filesystem::from),
            left: entry.left.iter().map(Filesystem::from).collect(),
        });
    }

    /// The same for one that is not shown yet: a mounter that is killed as soon as it is must not leave one that nobody knows.
    pub(super) fn announce(&self, volume: &PodVolume, since: SystemTime, filesystem: Identity) {
        self.write(&Record {
            version: VERSION,
            volume: volume.clone(),
            since: since.duration_since(UNIX_EPOCH).unwrap_or_default(),
            filesystem: (&filesystem).into(),
            successor: None,
            left: Vec::new(),
        });
    }

    fn write(&self, record: &Record) {
        let written = serde_json::to_vec(record).map_err(io::Error::from);
        let written = written.and_then(|bytes| write_at(self.directory.as_fd(), &name_of(&record.volume), &bytes));
        if let Err(error) = written {
            warn!("cannot keep a record of the volume, a later mounter will not know it: {error}");
        }
    }

    /// Removes that of a volume that is no more.
    pub(super) fn drop(&self, volume: &PodVolume) {
        match unlinkat(&self.directory, name_of(volume), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => warn!("cannot remove the record of a volume that is no more: {errno}"),
        }
    }

    /// All that there are. One that is not understood stays, for a mounter that understands it.
    pub(super) fn read(&self) -> Vec<Recorded> {
        let files = fs::read_dir(&self.path).into_iter().flatten().flatten().map(|file| file.path());
        let files = files.filter(|file| file.extension().is_some_and(|extension| extension == "json"));
        let read = |file: PathBuf| match fs::read(&file).and_then(|bytes| understood(&bytes)) {
            Ok(recorded) => Some(recorded),
            Err(error) => {
                warn!("a record is not understood, and stays: {}: {error}", file.display());
                None
            }
        };
        files.filter_map(read).collect()
    }
}

fn understood(bytes: &[u8]) -> io::Result<Recorded> {
    let Record { version, volume, since, filesystem, successor, left } = serde_json::from_slice(bytes)?;
    if version != VERSION {
        return Err(io::Error::other(format!("it has version {version}")));
    }
    let since = UNIX_EPOCH.checked_add(since).ok_or(io::ErrorKind::InvalidData)?;
    let (filesystem, successor) = (filesystem.into(), successor.map(Identity::from));
    Ok(Recorded { volume, since, filesystem, successor, left: left.into_iter().map(Identity::from).collect() })
}

/// A file's name for each volume: a pod's volumes have names of their own.
fn name_of(volume: &PodVolume) -> String {
    let name = volume.target.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    // As long as a name may be, with what is at its end while it is written.
    let mut name: String = format!("{}_{name}", volume.pod).chars().take(240).collect();
    name.push_str(".json");
    name
}

impl From<&Identity> for Filesystem {
    fn from(identity: &Identity) -> Self {
        let Identity { device: Device { major, minor }, connection } = *identity;
        Self { device: (major, minor), connection }
    }
}

impl From<Filesystem> for Identity {
    fn from(Filesystem { device: (major, minor), connection }: Filesystem) -> Self {
        Self { device: Device { major, minor }, connection }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_not_understood_stays() {
        let state = std::env::temp_dir().join(format!("hostmount-programs-{}", std::process::id()));
        let records = Records::below(&state).unwrap();
        fs::write(state.join("programs/newer.json"), r#"{"version":9}"#).unwrap();
        let volume = r#"{"target":"/k/pods/u/volumes/kubernetes.io~csi/v/mount","pod":"u","empty_dir":"e","name":"n","read_only":true}"#;
        let filesystem = r#"{"device":[0,7],"connection":8}"#;
        let record = format!(
            r#"{{"version":1,"volume":{volume},"since":{{"secs":1,"nanos":0}},"filesystem":{filesystem},"left":[{filesystem}]}}"#
        );
        fs::write(state.join("programs/u_v.json"), record).unwrap();
        let [recorded] = records.read().try_into().unwrap();
        let identity = Identity { device: Device { major: 0, minor: 7 }, connection: Some(8) };
        assert_eq!((recorded.filesystem, recorded.left, recorded.volume.read_only), (identity, vec![identity], true));
        assert_eq!(name_of(&recorded.volume), "u_v.json");
        records.drop(&recorded.volume);
        assert!(records.read().is_empty() && state.join("programs/newer.json").exists());
        fs::remove_dir_all(state).unwrap();
    }
}
