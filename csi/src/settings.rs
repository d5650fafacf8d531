//! The command line.
//!
//! Pure but for the environment variables `NODE_NAME` and `API_ACCESS`.

use lexopt::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What the driver is called unless it is said otherwise. CSIDriver, StorageClass and volumes name it.
pub const DEFAULT_NAME: &str = "hostmount.csi";

const HELP: &str = "\
The CSI driver of hostmount: asks the mounter for the volumes that kubelet wants.

Usage: hostmount-csi [OPTIONS]
       hostmount-csi --make-directories UID DIRECTORY…    make them, for that user and its group, and exit

  --node-id NAME        this node's name, as Kubernetes has it [environment: NODE_NAME]
  --driver-name NAME    what the driver is called [hostmount.csi]
  --kubelet-dir DIR     kubelet's directory, on the node and in this container [/var/lib/kubelet]
  --endpoint SOCKET     serve at this socket alone, and do not register with kubelet: for a controller
  --mounter SOCKET      where the mounter listens for the CSI driver [/run/hostmount-csi/mounter.sock]
  --mount-timeout SECS  how long a mount may take; kubelet waits for 120 [90]
  --max-volumes N       how many volumes there may be on this node; 0: any number [0]
  --api-access LIST     what the pod's service account is used for: events (of pods whose volumes are dead, hang or were healed),
                        taint (hostmount.csi/agent-not-ready is taken from the node), volumes (a controller lists the
                        PersistentVolumes of the driver), several with commas; docs/csi.md has the rights that each
                        needs [environment: API_ACCESS; none]
  --help, --version
";

/// What is asked of the program.
#[derive(Debug)]
pub enum Action {
    /// To serve.
    Serve(Settings),
    /// To make the driver's directories.
    MakeDirectories {
        /// For this user, and the group of the same number.
        owner: u32,
        /// Which.
        directories: Vec<PathBuf>,
    },
    /// To print this.
    Show(String),
}

/// How it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The node's name.
    pub node_id: String,
    /// The driver's.
    pub driver_name: String,
    /// Kubelet's directory.
    pub kubelet_dir: PathBuf,
    /// Where it serves, if not where kubelet calls it.
    pub endpoint: Option<PathBuf>,
    /// The mounter's socket.
    pub mounter: PathBuf,
    /// How long a mount may take.
    pub mount_timeout: Duration,
    /// How many volumes there may be; 0: any number.
    pub max_volumes: u32,
    /// What the API server is asked for.
    pub api_access: ApiAccess,
}

/// What the API server is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApiAccess {
    /// Events of pods.
    pub events: bool,
    /// The node's start-up taint.
    pub taint: bool,
    /// PersistentVolumes, to list volumes.
    pub volumes: bool,
}

impl ApiAccess {
    /// Reads a list of words with commas; an empty one has none.
    fn read(list: &str) -> Result<Self, SettingsError> {
        let mut access = Self::default();
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "events" => access.events = true,
                "taint" => access.taint = true,
                "volumes" => access.volumes = true,
                _ => return Err(SettingsError::ApiAccess(word.to_owned())),
            }
        }
        Ok(access)
    }
}

/// Why it cannot serve so.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The command line is none.
    #[error(transparent)]
    Usage(#[from] lexopt::Error),
    /// Kubernetes needs it.
    #[error("--node-id is missing, and the environment has no NODE_NAME (spec.nodeName)")]
    NoNode,
    /// There is nothing to do.
    #[error("--make-directories wants the number of a user and absolute paths of directories, and nothing else")]
    NoDirectories,
    /// Kubernetes would refuse it, or it would lead elsewhere as part of a path.
    #[error(
        "'{0}' is not the name of a driver: at most 63 letters, digits, '-' and '.', a letter or digit first and last"
    )]
    Name(String),
    /// A misspelt word would be ignored silently.
    #[error("--api-access (or API_ACCESS) has the word '{0}'; known are events, taint and volumes")]
    ApiAccess(String),
    /// The name is part of a path.
    #[error("--api-access needs a --node-id that Kubernetes would give to a node: small letters, digits, '-' and '.'")]
    NoNodeName,
    /// The same path must do here and on the node.
    #[error("--kubelet-dir must be an absolute path without '..'")]
    KubeletDir,
}

/// Reads the command line, the program's name first.
pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Action, SettingsError> {
    let mut settings = Settings {
        node_id: std::env::var("NODE_NAME").unwrap_or_default(),
        driver_name: DEFAULT_NAME.to_owned(),
        kubelet_dir: "/var/lib/kubelet".into(),
        endpoint: None,
        mounter: "/run/hostmount-csi/mounter.sock".into(),
        mount_timeout: Duration::from_secs(90),
        max_volumes: 0,
        api_access: ApiAccess::default(),
    };
    let mut api_access = std::env::var("API_ACCESS").unwrap_or_default();
    let (mut owner, mut directories) = (None, Vec::new());
    let mut parser = lexopt::Parser::from_iter(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("node-id") => settings.node_id = parser.value()?.string()?,
            Long("driver-name") => settings.driver_name = parser.value()?.string()?,
            Long("kubelet-dir") => settings.kubelet_dir = parser.value()?.into(),
            Long("endpoint") => settings.endpoint = Some(parser.value()?.into()),
            Long("mounter") => settings.mounter = parser.value()?.into(),
            Long("mount-timeout") => settings.mount_timeout = Duration::from_secs(parser.value()?.parse()?),
            Long("max-volumes") => settings.max_volumes = parser.value()?.parse()?,
            Long("api-access") => api_access = parser.value()?.string()?,
            Long("make-directories") => owner = Some(parser.value()?.parse()?),
            Value(directory) if owner.is_some() => directories.push(PathBuf::from(directory)),
            Long("help") => return Ok(Action::Show(HELP.to_owned())),
            Long("version") => {
                return Ok(Action::Show(concat!("hostmount-csi ", env!("CARGO_PKG_VERSION"), "\n").to_owned()));
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if let Some(owner) = owner {
        if directories.is_empty() || !directories.iter().all(|directory| directory.is_absolute()) {
            return Err(SettingsError::NoDirectories);
        }
        return Ok(Action::MakeDirectories { owner, directories });
    }
    if settings.node_id.is_empty() {
        return Err(SettingsError::NoNode);
    }
    if !is_driver_name(&settings.driver_name) {
        return Err(SettingsError::Name(settings.driver_name));
    }
    settings.api_access = ApiAccess::read(&api_access)?;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if settings.api_access != ApiAccess::default() && !settings.node_id.chars().all(good) {
        return Err(SettingsError::NoNodeName);
    }
    let parent = |part| part == std::path::Component::ParentDir;
    if !settings.kubelet_dir.is_absolute() || settings.kubelet_dir.components().any(parent) {
        return Err(SettingsError::KubeletDir);
    }
    Ok(Action::Serve(settings))
}

fn is_driver_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    bytes.len() <= 63 && bytes.iter().all(|byte| good(*byte)) && ends(bytes.first()) && ends(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(line: &str) -> Result<Action, SettingsError> {
        read(["hostmount-csi"].into_iter().chain(line.split_ascii_whitespace()).map(OsString::from))
    }

    #[test]
    fn what_is_given_counts() {
        let line = "--node-id n --driver-name a.b --kubelet-dir /k --endpoint /e --mounter /m --mount-timeout 5 --max-volumes 7 --api-access taint,events";
        let Action::Serve(read) = settings(line).unwrap() else { panic!() };
        let wanted = Settings {
            node_id: "n".into(),
            driver_name: "a.b".into(),
            kubelet_dir: "/k".into(),
            endpoint: Some("/e".into()),
            mounter: "/m".into(),
            mount_timeout: Duration::from_secs(5),
            max_volumes: 7,
            api_access: ApiAccess { events: true, taint: true, volumes: false },
        };
        assert_eq!(read, wanted);
        let make = settings("--make-directories=5 /a /b").unwrap();
        assert!(matches!(make, Action::MakeDirectories { owner: 5, directories } if directories.len() == 2));
        assert!(matches!(settings("--help").unwrap(), Action::Show(_)));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for line in [
            "--node-id",
            "--node-id n --driver-name ../x",
            "--node-id n --driver-name .x",
            "--node-id n --driver-name a/b",
            "--node-id n --kubelet-dir k",
            "--node-id n --kubelet-dir /k/../l",
            "--node-id n --max-volumes -1",
            "--node-id n --nosuch",
            "--make-directories 5",
            "--make-directories 5 a",
            "--make-directories x /a",
            "--node-id n word",
            "--node-id n --api-access events,secrets",
            "--node-id n/status --api-access taint",
        ] {
            assert!(settings(line).is_err(), "{line}");
        }
    }
}
