//! `[filesystem.TYPE]`: how volumes of one type are served, if the defaults do not suit.
//!
//! Read by the mounter, `doctor` and `install`, in the container; pure. Settings that the caller of a mount may not
//! choose (capabilities, environment, forced options) are here.

use super::ConfigError;
use super::command::CommandTemplate;
use super::handover::{File, HandoverTemplates, Template, hold_placeholders};
use super::open_files::OpenFiles;
use super::user::User;
use api::options::MountOptions;
use api::request::Request;
use caps::{Capability, CapsHashSet};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// The settings of one type; where it has none, those for all types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The program and its arguments, instead of the program that would be found by the type's name.
    pub command: Option<CommandTemplate>,
    /// The program stays in the foreground: it is ready when its filesystem answers, not when it has exited.
    pub foreground: bool,
    /// The program's input beside its arguments.
    pub handover: HandoverTemplates,
    /// Directories that the program writes to, beside the usual ones: each is an empty tmpfs of its own, which is gone
    /// with it.
    pub writable: Vec<PathBuf>,
    /// The user that the program runs as; `None`: as the type has it by default.
    pub user: Option<User>,
    /// Files and directories of the container that a program of another uid than root is shown as its own; `None`: those that
    /// the type's program looks for by itself.
    pub readable: Option<Vec<PathBuf>>,
    /// The capabilities that the program keeps: `CAP_DAC_READ_SEARCH`.
    pub capabilities: CapsHashSet,
    /// Whether the program may use io_uring(7), which is refused otherwise.
    pub io_uring: bool,
    /// Whether the program sees /sys, read-only.
    pub sysfs: bool,
    /// How many processes and threads a helper with a uid of its own may have.
    pub process_limit: u64,
    /// How many files each process of a helper may have open, where the mounter itself may have as many.
    pub descriptor_limit: u64,
    /// How much memory all processes of a helper together may use, and what they write to their own directories.
    pub memory_limit: Option<MemoryLimit>,
    /// How long a helper may take until its filesystem answers.
    pub ready_timeout: Duration,
    /// Whether a volume whose helper died gets a fresh one.
    pub heal: bool,
    /// How long requests wait for that one; `None`: they do not.
    pub hold_time: Option<Duration>,
    /// What is done for files that are open when a helper dies; `None`: as the type has it by default.
    pub open_files: Option<OpenFiles>,
    /// After how long without an answer a volume hangs; `None`: it is not checked.
    pub hang_time: Option<Duration>,
    /// What is done about a volume that hangs.
    pub on_hang: OnHang,
    /// After how long without an answer a volume is ended that no living process of a pod has; `None`: never.
    pub abandoned_time: Option<Duration>,
    /// What becomes of a volume whose helper runs from an earlier container's image.
    pub upgrade: Upgrade,
    /// Options for volumes whose caller gives none of the same name.
    pub default_options: MountOptions,
    /// Options that every volume gets, last; they replace the caller's options of the same name.
    pub forced_options: MountOptions,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            command: None,
            foreground: false,
            handover: HandoverTemplates::default(),
            writable: Vec::new(),
            user: None,
            readable: None,
            capabilities: CapsHashSet::new(),
            io_uring: false,
            sysfs: false,
            process_limit: 1024,
            descriptor_limit: 65_536,
            memory_limit: None,
            ready_timeout: Duration::from_secs(120),
            heal: true,
            hold_time: Some(Duration::from_secs(10)),
            open_files: None,
            hang_time: Some(Duration::from_secs(120)),
            on_hang: OnHang::Report,
            abandoned_time: Some(Duration::from_secs(10)),
            upgrade: Upgrade::Swap,
            default_options: MountOptions::default(),
            forced_options: MountOptions::default(),
        }
    }
}

/// What is done about a volume that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnHang {
    /// It is logged and shown.
    Report,
    /// Its helper is killed as well, so that it is healed.
    Heal,
}

/// What becomes of a volume whose helper runs from the image of an earlier container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Upgrade {
    /// It is swapped: a helper of this container's image serves it.
    Swap,
    /// It keeps its helper.
    Leave,
}

/// The settings of one type as they are written. All of them are optional.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Section {
    pub(super) command: Option<CommandTemplate>,
    pub(super) foreground: bool,
    pub(super) environment: BTreeMap<String, Template>,
    pub(super) files: BTreeMap<String, File>,
    pub(super) stdin: Option<Template>,
    pub(super) writable: Vec<PathBuf>,
    pub(super) user: Option<User>,
    pub(super) readable: Option<Vec<PathBuf>>,
    pub(super) capabilities: Vec<String>,
    pub(super) io_uring: bool,
    pub(super) sysfs: bool,
    pub(super) process_limit: Option<u64>,
    pub(super) descriptor_limit: Option<u64>,
    pub(super) memory_limit: Option<MemoryLimit>,
    pub(super) ready_timeout_seconds: Option<u64>,
    pub(super) heal: Option<bool>,
    pub(super) hold_seconds: Option<u64>,
    pub(super) open_files: Option<OpenFiles>,
    pub(super) hang_seconds: Option<u64>,
    pub(super) on_hang: Option<OnHang>,
    pub(super) abandoned_seconds: Option<u64>,
    pub(super) upgrade: Option<Upgrade>,
    pub(super) default_options: MountOptions,
    pub(super) forced_options: MountOptions,
}

/// A helper with one of these could leave its mount namespace, move its root, or enter the mounter. It is confined, and
/// can be killed, only because it cannot.
const NEVER_KEPT: [Capability; 4] =
    [Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_CHROOT, Capability::CAP_SYS_MODULE, Capability::CAP_SYS_PTRACE];

impl Section {
    /// The settings; where this type has none, those for all types.
    pub(super) fn resolve(self, others: &Settings) -> Result<Settings, ConfigError> {
        let settings = Settings {
            command: self.command,
            foreground: self.foreground,
            handover: HandoverTemplates { environment: self.environment, files: self.files, stdin: self.stdin },
            writable: self.writable,
            user: self.user,
            readable: self.readable,
            capabilities: capabilities(&self.capabilities)?,
            io_uring: self.io_uring,
            sysfs: self.sysfs,
            process_limit: self.process_limit.map_or(Ok(others.process_limit), process_limit)?,
            descriptor_limit: self.descriptor_limit.map_or(Ok(others.descriptor_limit), descriptor_limit)?,
            memory_limit: self.memory_limit,
            ready_timeout: self.ready_timeout_seconds.map_or(Ok(others.ready_timeout), ready_timeout)?,
            heal: self.heal.unwrap_or(others.heal),
            hold_time: self.hold_seconds.map_or(others.hold_time, unless_zero),
            open_files: self.open_files.or(others.open_files),
            hang_time: self.hang_seconds.map_or(others.hang_time, unless_zero),
            abandoned_time: self.abandoned_seconds.map_or(others.abandoned_time, unless_zero),
            on_hang: self.on_hang.unwrap_or(others.on_hang),
            upgrade: self.upgrade.unwrap_or(others.upgrade),
            default_options: self.default_options,
            forced_options: self.forced_options,
        };
        settings.check()?;
        Ok(settings)
    }
}

fn ready_timeout(seconds: u64) -> Result<Duration, ConfigError> {
    if seconds == 0 {
        return Err(ConfigError::Value { key: "ready_timeout_seconds", problem: "must be at least 1".into() });
    }
    Ok(Duration::from_secs(seconds))
}

/// Of a helper, or of all together.
pub(super) fn process_limit(limit: u64) -> Result<u64, ConfigError> {
    if limit == 0 {
        return Err(ConfigError::Value { key: "process_limit", problem: "must be at least 1".into() });
    }
    Ok(limit)
}

/// Fewer than a program needs to be started would only make it fail with words that nobody understands.
fn descriptor_limit(limit: u64) -> Result<u64, ConfigError> {
    if limit < 64 {
        return Err(ConfigError::Value { key: "descriptor_limit", problem: "must be at least 64".into() });
    }
    Ok(limit)
}

fn unless_zero(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

fn capabilities(names: &[String]) -> Result<CapsHashSet, ConfigError> {
    let bad = |problem| Err(ConfigError::Value { key: "capabilities", problem });
    let mut capabilities = CapsHashSet::new();
    for name in names {
        match name.parse::<Capability>() {
            Ok(capability) if NEVER_KEPT.contains(&capability) => {
                return bad(format!("cannot hold {name}: with it a helper could leave its mount namespace"));
            }
            Ok(capability) => _ = capabilities.insert(capability),
            Err(_) => return bad(format!("cannot hold '{name}': no capability has this name")),
        }
    }
    Ok(capabilities)
}

impl Settings {
    /// A request with the default and forced options of its type.
    pub fn complete(&self, mut request: Request) -> Request {
        let named = |options: &MountOptions, name: &str| options.iter().any(|option| option.name == name);
        let mut options = self.default_options.clone();
        options.retain(|option| !named(&request.options, &option.name));
        options.append(request.options);
        options.force(&self.forced_options);
        request.options = options;
        request
    }

    fn check(&self) -> Result<(), ConfigError> {
        let bad = |key, problem: String| Err(ConfigError::Value { key, problem });
        // `/..` is the root too.
        let up = |path: &Path| path.components().any(|part| part == Component::ParentDir);
        let unfit = |path: &Path| !path.is_absolute() || path == Path::new("/") || up(path);
        for (key, paths) in [("writable", Some(&self.writable)), ("readable", self.readable.as_ref())] {
            if let Some(path) = paths.into_iter().flatten().find(|path| unfit(path)) {
                let problem = "absolute paths below / are needed, without '..'";
                return bad(key, format!("cannot hold '{}': {problem}", path.display()));
            }
        }
        for (key, options) in [("default_options", &self.default_options), ("forced_options", &self.forced_options)] {
            if hold_placeholders(options) {
                let problem =
                    "cannot hold a secret, as every process may read options, nor {file:…}: use the file's option";
                return bad(key, problem.into());
            }
        }
        self.handover.check(self.command.as_ref())
    }
}

/// An amount of memory, written as Kubernetes does: `512Mi`, `2Gi`, `300M`, or bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct MemoryLimit(u64);

/// Not an amount, or too little for any program.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a memory limit is written as 512Mi, 2Gi, 300M or a number of bytes, and is 1Mi at least")]
pub struct MemoryLimitError;

impl MemoryLimit {
    const LEAST: u64 = 1 << 20;

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

impl TryFrom<String> for MemoryLimit {
    type Error = MemoryLimitError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit {
            "" => 1,
            "k" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            _ => return Err(MemoryLimitError),
        };
        let bytes = number.parse().ok().and_then(|number: u64| number.checked_mul(unit));
        bytes.filter(|bytes| *bytes >= Self::LEAST).map(Self).ok_or(MemoryLimitError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::request::Switches;

    fn options(text: &str) -> MountOptions {
        MountOptions::parse(text).unwrap()
    }

    #[test]
    fn the_caller_overrides_defaults_and_is_overridden() {
        let settings = Settings {
            default_options: options("uid=5,retries=3"),
            forced_options: options("ro,url=https://s3"),
            ..Settings::default()
        };
        let request = Request {
            fstype: "s3fs".into(),
            source: "b".into(),
            target: "/t".into(),
            options: options("url=http://evil,rw,uid=7"),
            switches: Switches::default(),
            secrets: Default::default(),
        };
        assert_eq!(settings.complete(request).options.to_string(), "retries=3,rw,uid=7,ro,url=https://s3");
    }
}
