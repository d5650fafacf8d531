//! `/etc/hostmount/config.toml`: the administrator's settings.
//!
//! Read by the mounter, `doctor` and `install`, in the container. Parsing is pure; only [`Config::load`] reads a file.
//! An unknown key is an error: a misspelt setting must not be ignored silently.
//!
//! ```toml
//! kubelet_dir = "/var/lib/kubelet"
//! ready_timeout_seconds = 120
//! heal = true
//! hold_seconds = 10
//! open_files = "read"
//! hang_seconds = 120
//! on_hang = "report"
//! abandoned_seconds = 10
//! upgrade = "swap"
//! program_timeout_seconds = 60
//! log = "info,hostmount::engine=trace"
//!
//! [helpers]
//! uids = "1900000000-1900065535"
//! memory_limit = "4Gi"
//! process_limit = 65536
//!
//! # Callers of a kind whose door is closed cannot ask. The CSI server's is closed unless it is here.
//! [doors]
//! kubelet = true
//! flexvolume = true
//! csi = { socket = "/run/hostmount-csi/mounter.sock", uid = 65532 }
//!
//! # Callers from FlexVolume may also have bindfs, of these directories; docs/policy.md.
//! [policy.flexvolume]
//! forbidden_options = ["exec"]
//! forced_options = "noexec"
//! [policy.flexvolume.filesystem.bindfs]
//! sources = ["/srv/shared/**"]
//! options = ["map", "create-for-user=nobody"]
//!
//! # Every key is optional; `s3fs` stands for `fuse.s3fs` too.
//! [filesystem.s3fs]
//! default_options = "use_path_request_style"
//! forced_options = "url=https://s3.example.org"
//!
//! # A file that only the helper sees; the helper gets the option `passwd_file=` with its path.
//! [filesystem.s3fs.files.passwd]
//! content = "{secret:access-key}:{secret:secret-key}"
//! option = "passwd_file"
//!
//! [filesystem.mine]
//! command = ["/opt/mine/bin/mine", "--at", "{target}", "{source}", "-o", "{options}"]
//! foreground = true
//! user = "own"
//! readable = ["/etc/mine/key"]
//! environment = { MINE_CACHE = "/var/cache/mine", MINE_TOKEN = "{secret:token}" }
//! stdin = "{secret:password}\n"
//! writable = ["/var/cache/mine"]
//! capabilities = ["CAP_DAC_READ_SEARCH"]
//! memory_limit = "512Mi"
//! ready_timeout_seconds = 30
//! heal = false
//! hang_seconds = 0
//! abandoned_seconds = 0
//! on_hang = "heal"
//! upgrade = "leave"
//! ```

mod changed;
pub mod command;
pub mod doors;
pub mod handover;
pub mod log_levels;
pub mod open_files;
pub mod policy;
pub mod settings;
pub mod user;

use api::request::Request;
use caps::CapsHashSet;
use doors::Doors;
use log_levels::LogLevels;
use open_files::OpenFiles;
use policy::Policy;
use serde::Deserialize;
use settings::{MemoryLimit, OnHang, Section, Settings, Upgrade};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use user::{Readable, UidRange, User};

/// The default configuration file. It need not exist.
pub const DEFAULT_PATH: &str = "/etc/hostmount/config.toml";

/// More than a thousand volumes need, and far less than the kernel has.
const ALL_PROCESSES: u64 = 65_536;
/// Longer than most containers take to start, and not so long that a pod's author wonders.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(60);

/// The mounter's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Kubelet's directory on the node. Below it no symbolic link is followed: pods may have made it.
    pub kubelet_dir: PathBuf,
    /// The uids for helpers that have one of their own.
    pub uids: UidRange,
    /// Which kinds of callers there is a socket for.
    pub doors: Doors,
    /// What callers of each kind may have, where the defaults do not suit.
    pub policy: Policy,
    /// How much memory all helpers together may use; `None`: half of the node's.
    pub all_memory: Option<MemoryLimit>,
    /// How many processes and threads all helpers together may have.
    pub all_processes: u64,
    /// How long calls wait for the program of a pod that serves a volume, and how long that may take to answer.
    pub program_timeout: Duration,
    /// What is logged; `None`: what `HOSTMOUNT_LOG` says, or else `info`.
    pub log: Option<LogLevels>,
    /// For some types, by their names without `fuse.`.
    types: BTreeMap<String, Arc<Settings>>,
    /// For all other types.
    others: Arc<Settings>,
}

impl Default for Config {
    fn default() -> Self {
        let (types, others) = (BTreeMap::new(), Arc::default());
        Self {
            kubelet_dir: "/var/lib/kubelet".into(),
            uids: UidRange::default(),
            all_memory: None,
            all_processes: ALL_PROCESSES,
            program_timeout: PROGRAM_TIMEOUT,
            log: None,
            doors: Doors::default(),
            policy: Policy::default(),
            types,
            others,
        }
    }
}

/// The file as it is written. Every key is optional.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ConfigFile {
    kubelet_dir: Option<PathBuf>,
    ready_timeout_seconds: Option<u64>,
    heal: Option<bool>,
    hold_seconds: Option<u64>,
    open_files: Option<OpenFiles>,
    hang_seconds: Option<u64>,
    on_hang: Option<OnHang>,
    abandoned_seconds: Option<u64>,
    upgrade: Option<Upgrade>,
    program_timeout_seconds: Option<u64>,
    log: Option<LogLevels>,
    helpers: Helpers,
    doors: doors::Section,
    policy: Policy,
    filesystem: BTreeMap<String, Section>,
}

/// What holds for all helpers.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Helpers {
    uids: UidRange,
    memory_limit: Option<MemoryLimit>,
    process_limit: Option<u64>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or was named and does not exist.
    #[error("cannot read the configuration {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Not TOML, or not our keys.
    #[error("the configuration {path} is not valid", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong there.
        source: toml::de::Error,
    },
    /// A value that cannot work.
    #[error("the configuration's {key} {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
}

impl Config {
    /// Reads `path`; with none given, the default file if it exists and the defaults if not.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(file) {
            Ok(text) => Self::parse(&text, file),
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read { path: file.to_owned(), source }),
        }
    }

    /// Reads the text of a configuration file; `path` is for its errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: ConfigFile =
            toml::from_str(text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
        file.resolve()
    }

    /// The settings for the type of a request.
    pub fn settings(&self, request: &Request) -> Arc<Settings> {
        Arc::clone(self.settings_of(request.filesystem().0))
    }

    /// The user that the helper for a request runs as.
    pub fn user(&self, request: &Request) -> User {
        let fstype = request.filesystem().0;
        self.settings_of(fstype).user.unwrap_or_else(|| User::by_default(fstype))
    }

    /// The files that the helper for a request may read although only root can. `home` is the mounter's.
    pub fn readable(&self, request: &Request, home: &Path) -> Readable {
        let fstype = request.filesystem().0;
        match &self.settings_of(fstype).readable {
            Some(paths) => Readable::All(paths.clone()),
            None => Readable::WhatIsThere(user::read_by_itself(fstype, home)),
        }
    }

    /// The settings for a type, by its name without `fuse.`.
    pub fn settings_of(&self, name: &str) -> &Arc<Settings> {
        self.types.get(name).unwrap_or(&self.others)
    }

    /// The types that have a command of their own.
    pub fn types_with_command(&self) -> impl Iterator<Item = &str> {
        let with_command = self.types.iter().filter(|(_, settings)| settings.command.is_some());
        with_command.map(|(name, _)| name.as_str())
    }

    /// The capabilities that helpers of any type may keep.
    pub fn capabilities(&self) -> CapsHashSet {
        let types = self.types.values().chain([&self.others]);
        types.flat_map(|settings| settings.capabilities.iter().copied()).collect()
    }

    /// Whether a type has a memory limit.
    pub fn limits_memory(&self) -> bool {
        self.types.values().any(|settings| settings.memory_limit.is_some())
    }

    /// The shortest time after which a volume of any type hangs; `None`: no volume is looked at.
    pub fn shortest_hang_time(&self) -> Option<Duration> {
        self.shortest(|settings| settings.hang_time)
    }

    /// The shortest time after which a volume of any type is ended that nobody has any more; `None`: none is.
    pub fn shortest_abandoned_time(&self) -> Option<Duration> {
        self.shortest(|settings| settings.abandoned_time)
    }

    fn shortest(&self, time: impl Fn(&Settings) -> Option<Duration>) -> Option<Duration> {
        self.types.values().chain([&self.others]).filter_map(|settings| time(settings)).min()
    }
}

impl ConfigFile {
    fn resolve(self) -> Result<Config, ConfigError> {
        let default = Config::default();
        let kubelet_dir = self.kubelet_dir.unwrap_or(default.kubelet_dir);
        if !kubelet_dir.is_absolute() {
            return Err(ConfigError::Value { key: "kubelet_dir", problem: "must be an absolute path".into() });
        }
        // A type without a section has the settings of an empty section.
        let everywhere = Section {
            ready_timeout_seconds: self.ready_timeout_seconds,
            heal: self.heal,
            hold_seconds: self.hold_seconds,
            open_files: self.open_files,
            hang_seconds: self.hang_seconds,
            on_hang: self.on_hang,
            abandoned_seconds: self.abandoned_seconds,
            upgrade: self.upgrade,
            ..Section::default()
        };
        let others = everywhere.resolve(&default.others)?;
        let resolve = |(name, section): (String, Section)| {
            if name.starts_with("fuse.") {
                let problem = format!("cannot hold '{name}': a type is named without 'fuse.', which changes nothing");
                return Err(ConfigError::Value { key: "filesystem", problem });
            }
            let settings = section.resolve(&others)?;
            if let Some(User::Number(uid)) = settings.user
                && self.helpers.uids.numbers().contains(&uid)
            {
                let problem = format!("cannot be {uid}: that is one of the helpers' own ({})", self.helpers.uids);
                return Err(ConfigError::Value { key: "user", problem });
            }
            Ok((name, Arc::new(settings)))
        };
        let types = self.filesystem.into_iter().map(resolve).collect::<Result<_, _>>()?;
        self.policy.check()?;
        let (doors, policy) = (self.doors.resolve()?, self.policy);
        let Helpers { uids, memory_limit: all_memory, process_limit } = self.helpers;
        let log = self.log;
        let all_processes = process_limit.map_or(Ok(ALL_PROCESSES), settings::process_limit)?;
        let others = Arc::new(others);
        let program_timeout = match self.program_timeout_seconds {
            Some(0) => {
                return Err(ConfigError::Value {
                    key: "program_timeout_seconds",
                    problem: "must be at least 1".into(),
                });
            }
            seconds => seconds.map_or(PROGRAM_TIMEOUT, Duration::from_secs),
        };
        Ok(Config { kubelet_dir, uids, all_memory, all_processes, program_timeout, log, doors, policy, types, others })
    }
}

#[cfg(test)]
mod tests;
