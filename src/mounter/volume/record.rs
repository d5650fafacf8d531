//! What the next mounter must know of a volume: a file for each, in the state directory.
//!
//! Runs in the mounter. Requests may hold secrets in their options, so records are kept on a memory filesystem only,
//! readable by root only. A volume's [secrets](api::secret) are not in its record, only that it has some: they are
//! [kept](super::kept_secrets) where nothing is swapped out. A file appears whole, by rename(2).

use super::kept_secrets::KeptSecrets;
use super::whole_file::write_at;
use super::{History, Known, Volume};
use crate::config::Config;
use crate::engine::helper_processes::HelperProcesses;
use crate::node::connections::Identity;
use crate::policy::Plan;
use api::exit::chain;
use api::request::Request;
use linux::mount_table::Device;
use linux::namespace::NamespaceId;
use rustix::fs::{AtFlags, Mode, OFlags, open, statfs, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tracing::warn;

/// Changes whenever an older mounter would misread a record.
const VERSION: u32 = 2;
/// What statfs(2) calls filesystems that are in memory.
const MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// The records, and what is kept with them.
#[derive(Debug)]
pub struct Records {
    /// None if it would be on a disk.
    directory: Option<Directory>,
    secrets: KeptSecrets,
}

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
    /// Earlier versions wrote none.
    #[serde(default)]
    history: History,
}

impl Records {
    /// The records below `state`. `host_proc` is a proc filesystem that shows the node's processes.
    pub fn below(state: &Path, host_proc: &Path) -> io::Result<Self> {
        if !MEMORY.contains(&statfs(state)?.f_type) {
            warn!(
                "{} is not on a memory filesystem: volumes will not be known any more after a restart of the mounter",
                state.display()
            );
            return Ok(Self { directory: None, secrets: KeptSecrets::default() });
        }
        let path = state.join("volumes");
        DirBuilder::new().recursive(true).mode(Mode::RWXU.bits()).create(&path)?;
        Ok(Self { directory: Some(Directory::open(path)?), secrets: KeptSecrets::below(state, host_proc) })
    }

    /// Keeps what is known of a volume. That it cannot be kept is no reason to fail: the volume works.
    pub fn keep(&self, volume: &Volume) {
        let (Some(directory), Some(name)) = (&self.directory, name_of(volume.identity)) else { return };
        // Before the record: without one they are dropped.
        if let Err(error) = self.secrets.keep(&name, &volume.plan.request.secrets) {
            warn!("cannot keep the volume's secrets, a later mounter cannot heal it: {}", chain(&error));
        }
        let written = describe(volume).map_err(io::Error::from);
        if let Err(error) = written.and_then(|record| write_at(directory.fd.as_fd(), &name, &record)) {
            let file = directory.path.join(name);
            warn!("cannot keep a record of the volume, a later mounter will not know it: {}: {error}", file.display());
        }
    }

    /// The helper is gone, or serves nothing new any more.
    pub fn drop(&self, filesystem: Identity) {
        let (Some(directory), Some(name)) = (&self.directory, name_of(filesystem)) else { return };
        match unlinkat(&directory.fd, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => warn!("cannot remove a record: {}: {error}", directory.path.join(&name).display()),
        }
        self.secrets.drop(&name);
    }

    fn recall_secrets(&self, volume: &mut Volume) {
        if volume.known == Known::AllButSecrets
            && let Some(secrets) = name_of(volume.identity).and_then(|name| self.secrets.read(&name))
        {
            volume.plan.request.secrets = secrets;
            volume.known = Known::All;
        }
    }

    /// No records: nothing is kept.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { directory: None, secrets: KeptSecrets::default() }
    }

    /// All volumes that were kept, the oldest first: of several at one target the last is on top. A record that is no
    /// record is removed: it would not be better the next time. One that this version does not understand stays: another
    /// version may, and its volume is found by its mount.
    pub fn read(&self, config: &Config) -> Vec<Volume> {
        let Some(Directory { path: directory, .. }) = &self.directory else { return Vec::new() };
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
        volumes.iter_mut().for_each(|volume| self.recall_secrets(volume));
        // One that is not understood has its own as well.
        let there = fs::read_dir(directory).into_iter().flatten().flatten();
        self.secrets.retain(&there.filter_map(|entry| entry.file_name().into_string().ok()).collect());
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
        history: volume.history.clone(),
    })
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
        earlier_image: false,
        history: record.history,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Records {
        fn of(directory: PathBuf) -> Self {
            Self { directory: Some(Directory::open(directory).unwrap()), secrets: KeptSecrets::default() }
        }
    }

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
        let volumes = Records::of(directory.clone()).read(&Config::default());
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
        assert!(Records::of(directory.clone()).read(&Config::default()).is_empty());
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
