//! `/etc/hostmount/config.toml`: what an administrator may set for the mounter.
//!
//! Parsing is pure; [`Config::load`] alone reads a file. A key that is not known is an error: a misspelt setting
//! must not be silently without effect.

use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the configuration is looked for when nothing else is said. It need not exist.
pub const DEFAULT_PATH: &str = "/etc/hostmount/config.toml";

/// The mounter's settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Kubelet's directory on the node. Below it no symbolic link is followed: pods may have made it.
    pub kubelet_dir: PathBuf,
    /// How long a helper may take until its filesystem answers, in seconds.
    pub ready_timeout_seconds: u64,
    /// Whether a volume whose helper died gets a fresh one.
    pub heal: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { kubelet_dir: "/var/lib/kubelet".into(), ready_timeout_seconds: 120, heal: true }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is there and cannot be read, or was named and is not there.
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
        problem: &'static str,
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

    fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let config: Self =
            toml::from_str(text).map_err(|source| ConfigError::Parse { path: file.to_owned(), source })?;
        if !config.kubelet_dir.is_absolute() {
            return Err(ConfigError::Value { key: "kubelet_dir", problem: "must be an absolute path" });
        }
        if config.ready_timeout_seconds == 0 {
            return Err(ConfigError::Value { key: "ready_timeout_seconds", problem: "must be at least 1" });
        }
        Ok(config)
    }

    /// How long a helper may take until its filesystem answers.
    pub fn ready_timeout(&self) -> Duration {
        Duration::from_secs(self.ready_timeout_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("config.toml"))
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        assert_eq!(parse("").unwrap(), Config::default());
        assert_eq!(Config::default().ready_timeout(), Duration::from_secs(120));
    }

    #[test]
    fn misspelt_keys_and_impossible_values_are_errors() {
        assert!(parse("ready_timeout = 3").is_err());
        assert!(parse("ready_timeout_seconds = 0").is_err());
        assert!(parse("kubelet_dir = 'var/lib'").is_err());
        assert!(Config::load(Some(Path::new("/nonexistent/config.toml"))).is_err());
    }
}
