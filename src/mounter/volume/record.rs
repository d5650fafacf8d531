//! What the next mounter must know of a volume: a file for each, in the state directory.
//!
//! Runs in the mounter. Requests may hold secrets in their options, so records are kept on a memory filesystem only,
//! readable by root only. A volume's [secrets](api::secret) are not recorded, only that it had some: the next mounter
//! cannot start a fresh helper for it. A file appears whole, by rename(2).

use super::{Known, Volume};
use crate::config::Config;
use crate::engine::helper_processes::HelperProcesses;
use crate::node::connections::Identity;
use crate::policy::Plan;
use api::exit::chain;
use api::request::Request;
use linux::mount_table::Device;
use linux::namespace::NamespaceId;
use rustix::fs::{AtFlags, Mode, OFlags, open, openat, renameat, statfs, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tracing::warn;

/// Changes whenever an older mounter would misread a record.
const VERSION: u32 = 2;
/// What statfs(2) calls filesystems that are in memory.
const MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// The directory of the records, or none if it would be on a disk.
#[derive(Debug)]
pub struct Records(Option<Directory>);

/// Held by a descriptor: volumes' threads stand in their helpers' mount namespaces, which do not show it.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

impl Directory {
    fn open(path: PathBuf) -> io::Result<Self> {
        let fd = open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { path, fd })
    }
}

/// What every version's record begins with.
#[derive(Debug, Deserialize)]
struct VersionOnly {
    version: u32,
}

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
        let path = state.join("volumes");
        DirBuilder::new().recursive(true).mode(Mode::RWXU.bits()).create(&path)?;
        Ok(Self(Some(Directory::open(path)?)))
    }

    /// Keeps what is known of a volume. That it cannot be kept is no reason to fail: the volume works.
    pub fn keep(&self, volume: &Volume) {
        let (Some(directory), Some(name)) = (&self.0, name_of(volume.identity)) else { return };
        if let Err(error) = write(directory, &name, volume) {
            let file = directory.path.join(name);
            warn!("cannot keep a record of the volume, a later mounter will not know it: {}: {error}", file.display());
        }
    }

    /// The helper is gone, or serves nothing new any more.
    pub fn drop(&self, filesystem: Identity) {
        let (Some(directory), Some(name)) = (&self.0, name_of(filesystem)) else { return };
        match unlinkat(&directory.fd, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => warn!("cannot remove a record: {}: {error}", directory.path.join(name).display()),
        }
    }

    /// No records: nothing is kept.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// All volumes that were kept, the oldest first: of several at one target the last is on top. A record that is no
    /// record is removed: it would not be better the next time. One that this version does not understand stays: another
    /// version may, and its volume is found by its mount.
    pub fn read(&self, config: &Config) -> Vec<Volume> {
        let Some(directory) = &self.0 else { return Vec::new() };
        let directory = &directory.path;
        let files = match fs::read_dir(directory) {
            Ok(files) => files.flatten().map(|entry| entry.path()),
            Err(error) => {
                warn!("cannot list the records in {}: {error}", directory.display());
                return Vec::new();
            }
        };
        let volume = |file: PathBuf| match read(&file, config) {
            Ok(volume) if name_of(volume.identity).is_some_and(|name| file.file_name() == Some(name.as_ref())) => {
                Some(volume)
            }
            Ok(_) => discard(&file, "its name is not its filesystem's"),
            Err(Unreadable::Never(problem)) => discard(&file, &problem),
            Err(Unreadable::ByThisVersion(problem)) => {
                warn!("a record is not understood, and stays: {}: {problem}", file.display());
                None
            }
        };
        let mut volumes: Vec<Volume> = files.filter_map(volume).collect();
        volumes.sort_by_key(|volume| volume.since);
        volumes
    }
}

/// A name that no other volume gets, before or after. None for a filesystem of the kernel's own, which needs no helper.
fn name_of(filesystem: Identity) -> Option<String> {
    Some(format!("{}-{}.json", filesystem.device.minor, filesystem.connection?))
}

fn discard(file: &Path, problem: &str) -> Option<Volume> {
    warn!("a record is left aside: {}: {problem}", file.display());
    if let Err(error) = fs::remove_file(file) {
        warn!("cannot remove it: {error}");
    }
    None
}

/// The record of a volume, without its secrets.
pub fn describe(volume: &Volume) -> serde_json::Result<Vec<u8>> {
    let mut request = volume.plan.request.clone();
    let had_secrets = !std::mem::take(&mut request.secrets).is_empty();
    serde_json::to_vec(&Record {
        version: VERSION,
        request,
        had_secrets,
        helper: volume.helper.clone(),
        device: (volume.identity.device.major, volume.identity.device.minor),
        connection: volume.identity.connection,
        since: volume.since.duration_since(UNIX_EPOCH).unwrap_or_default(),
        namespace: (volume.processes.namespace().device, volume.processes.namespace().inode),
    })
}

fn write(directory: &Directory, name: &str, volume: &Volume) -> io::Result<()> {
    let unfinished = format!("{}new", name.trim_end_matches("json"));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let new = openat(&directory.fd, &unfinished, flags, Mode::RUSR | Mode::WUSR)?;
    let written = File::from(new)
        .write_all(&describe(volume)?)
        .and_then(|()| Ok(renameat(&directory.fd, &unfinished, &directory.fd, name)?));
    if written.is_err() {
        // Each volume has a name of its own: on a full filesystem they would become more and more.
        let _ = unlinkat(&directory.fd, &unfinished, AtFlags::empty());
    }
    written
}

/// Why a record is of no use.
#[derive(Debug)]
pub enum Unreadable {
    /// It is damaged, or none of ours.
    Never(String),
    /// Another version of the mounter may know better.
    ByThisVersion(String),
}

fn read(file: &Path, config: &Config) -> Result<Volume, Unreadable> {
    understand(&fs::read(file).map_err(|error| Unreadable::Never(error.to_string()))?, config)
}

/// The volume that a record describes.
pub fn understand(record: &[u8], config: &Config) -> Result<Volume, Unreadable> {
    let never = |problem: &dyn std::fmt::Display| Unreadable::Never(problem.to_string());
    let version: VersionOnly = serde_json::from_slice(record).map_err(|error| never(&error))?;
    if version.version != VERSION {
        return Err(Unreadable::ByThisVersion(format!("it has version {}", version.version)));
    }
    let record: Record = serde_json::from_slice(record).map_err(|error| never(&error))?;
    let since = UNIX_EPOCH.checked_add(record.since).ok_or_else(|| never(&"it is from after the end of time"))?;
    let (major, minor) = record.device;
    let (device, inode) = record.namespace;
    // Whether it may be had was decided when it was mounted.
    let (plan, known) = match Plan::recorded(config, record.request.clone()) {
        Ok(plan) => (plan, if record.had_secrets { Known::AllButSecrets } else { Known::All }),
        Err(error) => {
            // The volume is there, and the record stays for a version that understands it.
            warn!("the request of a recorded volume is not understood: {}: {}", record.request.target, chain(&error));
            (Plan::of_lost_request(config, record.request), Known::MountAlone)
        }
    };
    Ok(Volume {
        plan,
        helper: record.helper,
        identity: Identity { device: Device { major, minor }, connection: record.connection },
        since,
        processes: HelperProcesses::of_namespace(NamespaceId { device, inode }),
        known,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of one record whose request has these options.
    fn read_one(options: &str) -> (Vec<Volume>, bool) {
        let directory = std::env::temp_dir().join(format!("hostmount-record-{}-{options}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("7-8.json");
        let request = format!(r#"{{"fstype":"x","source":"s","target":"/t","options":"{options}"}}"#);
        let since = r#"{"secs":1,"nanos":0}"#;
        let record = format!(
            r#"{{"version":2,"request":{request},"had_secrets":false,"helper":"h","device":[0,7],"connection":8,"since":{since},"namespace":[4,5]}}"#
        );
        fs::write(&file, record).unwrap();
        let volumes = Records(Some(Directory::open(directory.clone()).unwrap())).read(&Config::default());
        let stays = file.exists();
        fs::remove_dir_all(directory).unwrap();
        (volumes, stays)
    }

    #[test]
    fn a_request_that_is_not_understood_any_more_costs_neither_the_record_nor_the_volume() {
        let (volumes, stays) = read_one("ro,X-mount.new");
        assert!(stays);
        let [volume] = volumes.as_slice() else { panic!("{volumes:?}") };
        assert_eq!((volume.known, volume.plan.target.as_path()), (Known::MountAlone, Path::new("/t")));
        assert!(volume.plan.request.options.is_empty());
    }

    #[test]
    fn a_record_of_another_version_stays_for_that_version() {
        let directory = std::env::temp_dir().join(format!("hostmount-records-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (newer, damaged) = (directory.join("7-8.json"), directory.join("7-9.json"));
        fs::write(&newer, r#"{"version":999,"anything":true}"#).unwrap();
        fs::write(&damaged, r#"{"version":"#).unwrap();
        assert!(Records(Some(Directory::open(directory.clone()).unwrap())).read(&Config::default()).is_empty());
        assert_eq!((newer.exists(), damaged.exists()), (true, false));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_would_not_be_granted_any_more_is_known_all_the_same() {
        let (volumes, stays) = read_one("suid,uid=5");
        assert!(stays);
        assert_eq!(volumes[0].known, Known::All);
        assert_eq!(volumes[0].plan.request.options.to_string(), "suid,uid=5");
    }
}
