//! What the mounter hands over to an heir beside descriptors, and its way there: the command line.

use crate::config::open_files::OpenFiles;
use linux::mount_table::Device;
use linux::namespace::NamespaceId;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// The command of the operator's command line that becomes an heir.
pub const COMMAND: &str = "serve-open-files";

/// What an heir is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inherited {
    /// A proc filesystem that shows the node's processes.
    pub host_proc: PathBuf,
    /// The device number of the dead helper's filesystem.
    pub device: Device,
    /// What may be done for open files.
    pub mode: OpenFiles,
    /// How long other requests are answered if there is no file to be served.
    pub answers: Duration,
    /// The mount namespaces that it was visible in.
    pub namespaces: HashSet<NamespaceId>,
    /// The mounts by which it was, and that were detached, by their unique numbers: the directory of it that each showed.
    pub places: HashMap<u64, PathBuf>,
}

impl Inherited {
    /// The arguments of a program that becomes the heir, its name among them.
    pub fn command_line(&self) -> Vec<OsString> {
        let mode = if self.mode == OpenFiles::Write { "write" } else { "read" };
        let namespaces = self.namespaces.iter().map(|id| format!("namespace:{}:{}", id.device, id.inode).into());
        let places = self.places.iter().map(|(number, root)| {
            let mut place = OsString::from(format!("mount:{number}:"));
            place.push(root);
            place
        });
        let first = ["hostmount".into(), COMMAND.into(), self.host_proc.clone().into()];
        let answers = self.answers.as_millis().to_string();
        let next = [self.device.to_string().into(), mode.into(), answers.into()];
        first.into_iter().chain(next).chain(namespaces).chain(places).collect()
    }

    /// Understands them, from the one behind the command on.
    pub fn parse(arguments: &[OsString]) -> Option<Self> {
        let (host_proc, [device, mode, answers, rest @ ..]) = arguments.split_first()? else { return None };
        let (major, minor) = numbers(device.as_bytes())?;
        let device = Device { major: major.try_into().ok()?, minor: minor.try_into().ok()? };
        let mode = match mode.to_str()? {
            "write" => OpenFiles::Write,
            "read" => OpenFiles::Read,
            _ => return None,
        };
        let (host_proc, answers) = (host_proc.into(), Duration::from_millis(number(answers.as_bytes())?));
        let mut this = Self { host_proc, device, mode, answers, namespaces: HashSet::new(), places: HashMap::new() };
        for argument in rest {
            let (kind, what) = split(argument.as_bytes())?;
            match kind {
                b"namespace" => {
                    let (device, inode) = numbers(what)?;
                    this.namespaces.insert(NamespaceId { device, inode });
                }
                b"mount" => {
                    let (mount, root) = split(what)?;
                    this.places.insert(number(mount)?, OsStr::from_bytes(root).into());
                }
                _ => return None,
            }
        }
        Some(this)
    }
}

/// What is before the first colon, and what is behind it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    Some((&bytes[..colon], &bytes[colon + 1..]))
}

fn numbers(bytes: &[u8]) -> Option<(u64, u64)> {
    let (one, other) = split(bytes)?;
    Some((number(one)?, number(other)?))
}

fn number(bytes: &[u8]) -> Option<u64> {
    str::from_utf8(bytes).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let namespaces = [(4, 4_026_531_841), (4, 7)].map(|(device, inode)| NamespaceId { device, inode });
        let places = [(1, "/"), (u64::MAX, "/a b:c\n")].map(|(number, root)| (number, root.into()));
        for mode in [OpenFiles::Read, OpenFiles::Write] {
            let there = Inherited {
                host_proc: "/node/proc".into(),
                device: Device { major: 0, minor: 61 },
                mode,
                answers: Duration::from_millis(9_750),
                namespaces: namespaces.into(),
                places: places.clone().into(),
            };
            assert_eq!(Inherited::parse(&there.command_line()[2..]), Some(there));
        }
        for bad in
            [&[][..], &["/proc", "0:61"], &["/proc", "0:61", "none", "1"], &["/proc", "0:61", "read", "1", "mount:x:/"]]
        {
            let bad: Vec<OsString> = bad.iter().map(OsString::from).collect();
            assert_eq!(Inherited::parse(&bad), None);
        }
    }
}
