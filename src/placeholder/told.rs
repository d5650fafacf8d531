//! What the mounter tells a placeholder's process beside descriptors, and its way there: the command line.

use linux::mount_table::Device;
use std::ffi::OsString;
use std::path::PathBuf;

/// The command of the operator's command line that becomes one.
pub const COMMAND: &str = "serve-placeholder";

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// A proc filesystem that shows the node's processes, of whose PID namespace it is.
    pub host_proc: PathBuf,
    /// The device number of the placeholder's filesystem.
    pub device: Device,
    /// Where it is on the node.
    pub target: PathBuf,
    /// The end of that path, as it is wherever kubelet's directory is shown; all of it outside of that.
    pub view: PathBuf,
}

impl Told {
    /// The arguments of a program that becomes it, its name among them.
    pub fn command_line(&self) -> Vec<OsString> {
        let Self { host_proc, device, target, view } = self;
        let device = device.to_string().into();
        vec!["hostmount".into(), COMMAND.into(), host_proc.into(), device, target.into(), view.into()]
    }

    /// Understands them, from the one behind the command on.
    pub fn parse(arguments: &[OsString]) -> Option<Self> {
        let [host_proc, device, target, view] = arguments else { return None };
        let (major, minor) = device.to_str()?.split_once(':')?;
        let device = Device { major: major.parse().ok()?, minor: minor.parse().ok()? };
        Some(Self { host_proc: host_proc.into(), device, target: target.into(), view: view.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let told = Told {
            host_proc: "/node/proc".into(),
            device: Device { major: 0, minor: 61 },
            target: "/var/lib/kubelet/pods/u/volumes/v w".into(),
            view: "u/volumes/v w".into(),
        };
        assert_eq!(Told::parse(&told.command_line()[2..]), Some(told));
        for bad in [&[][..], &["/proc", "0:61", "/t"], &["/proc", "61", "/t", "t"]] {
            assert_eq!(Told::parse(&bad.iter().map(OsString::from).collect::<Vec<_>>()), None);
        }
    }
}
