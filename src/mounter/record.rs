//! What the next mounter must know of a volume: a file for each, in the state directory.
//!
//! Runs in the mounter. Requests may hold secrets in their options, so records are kept on a memory filesystem only,
//! readable by root only. A volume's [secrets](crate::secret) are not recorded, only that it had some: the next mounter
//! cannot start a fresh helper for it. A file appears whole, by rename(2).

use super::volume::{Lost, Volume};
use crate::engine::helper_processes::HelperProcesses;
use crate::node::connections::Identity;
use crate::policy::admit;
use api::request::Request;
use linux::mount_table::Device;
use linux::namespace::NamespaceId;
use rustix::fs::{Mode, statfs};
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tracing::warn;

/// Changes whenever an older mounter would misread a record.
const VERSION: u32 = 2;
/// What statfs(2) calls filesystems that are in memory.
const MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// The directory of the records, or none if it would be on a disk.
#[derive(Debug)]
pub struct Records(Option<PathBuf>);

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// Without its secrets.
    request: Request,
    had_secrets: bool,
    helper: String,
    device: (u32, u32),
    /// See [`Identity`].
    connection: Option<u64>,
    /// Since 1970.
    since: Duration,
    /// The mount namespace that the helper lives in. Its number may be used again: the reader must look who lives there.
    namespace: (u64, u64),
}

impl Records {
    /// The records below `state`.
    pub fn below(state: &Path) -> io::Result<Self> {
        if !MEMORY.contains(&statfs(state)?.f_type) {
            warn!(
                "{} is not on a memory filesystem: volumes will not be known any more after a restart of the mounter",
                state.display()
            );
            return Ok(Self(None));
        }
        let directory = state.join("volumes");
        DirBuilder::new().recursive(true).mode(Mode::RWXU.bits()).create(&directory)?;
        Ok(Self(Some(directory)))
    }

    /// Keeps what is known of a volume. That it cannot be kept is no reason to fail: the volume works.
    pub fn keep(&self, volume: &Volume) {
        let Some(file) = self.file_of(volume.identity) else { return };
        if let Err(error) = write(&file, volume) {
            warn!("cannot keep a record of the volume, a later mounter will not know it: {}: {error}", file.display());
        }
    }

    /// The helper is gone, or serves nothing new any more.
    pub fn drop(&self, filesystem: Identity) {
        if let Some(file) = self.file_of(filesystem)
            && let Err(error) = fs::remove_file(&file)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!("cannot remove a record: {}: {error}", file.display());
        }
    }

    /// All volumes that were kept, the oldest first: of several at one target the last is on top. What cannot be read is told and removed: it would not be better the next time.
    pub fn read(&self) -> Vec<Volume> {
        let Some(directory) = &self.0 else { return Vec::new() };
        let files = match fs::read_dir(directory) {
            Ok(files) => files.flatten().map(|entry| entry.path()),
            Err(error) => {
                warn!("cannot list the records in {}: {error}", directory.display());
                return Vec::new();
            }
        };
        let volume = |file: PathBuf| match read(&file) {
            Ok(volume) if self.file_of(volume.identity).as_ref() == Some(&file) => Some(volume),
            Ok(_) => discard(&file, "its name is not its filesystem's"),
            Err(problem) => discard(&file, &problem),
        };
        let mut volumes: Vec<Volume> = files.filter_map(volume).collect();
        volumes.sort_by_key(|volume| volume.since);
        volumes
    }

    /// A name that no other volume gets, before or after. None for a filesystem of the kernel's own, which needs no helper.
    fn file_of(&self, filesystem: Identity) -> Option<PathBuf> {
        let (minor, connection) = (filesystem.device.minor, filesystem.connection?);
        Some(self.0.as_ref()?.join(format!("{minor}-{connection}.json")))
    }
}

fn discard(file: &Path, problem: &str) -> Option<Volume> {
    warn!("a record is left aside: {}: {problem}", file.display());
    if let Err(error) = fs::remove_file(file) {
        warn!("cannot remove it: {error}");
    }
    None
}

fn write(file: &Path, volume: &Volume) -> io::Result<()> {
    let mut request = volume.admitted.request.clone();
    let had_secrets = !std::mem::take(&mut request.secrets).is_empty();
    let namespace = volume.family.namespace();
    let record = Record {
        version: VERSION,
        request,
        had_secrets,
        helper: volume.helper.clone(),
        device: (volume.identity.device.major, volume.identity.device.minor),
        connection: volume.identity.connection,
        since: volume.since.duration_since(UNIX_EPOCH).unwrap_or_default(),
        namespace: (namespace.device, namespace.inode),
    };
    let unfinished = file.with_extension("new");
    let mut options = OpenOptions::new();
    let mut new = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    new.write_all(&serde_json::to_vec(&record)?)?;
    fs::rename(unfinished, file)
}

fn read(file: &Path) -> Result<Volume, String> {
    let bytes = fs::read(file).map_err(|error| error.to_string())?;
    let record: Record = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if record.version != VERSION {
        return Err(format!("it has version {}", record.version));
    }
    let (major, minor) = record.device;
    let (device, inode) = record.namespace;
    Ok(Volume {
        admitted: admit(record.request).map_err(|error| error.to_string())?,
        helper: record.helper,
        identity: Identity { device: Device { major, minor }, connection: record.connection },
        since: UNIX_EPOCH + record.since,
        family: HelperProcesses::of_namespace(NamespaceId { device, inode }),
        lost: if record.had_secrets { Lost::Secrets } else { Lost::Nothing },
    })
}
