//! The mount table, as /proc/PID/mountinfo shows it (proc_pid_mountinfo(5)).
//!
//! Parsing is pure and works on bytes: a path on Linux need not be UTF-8.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A device number, as the mount table prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    /// 0 for filesystems without a block device.
    pub major: u32,
    /// For FUSE: the number of the connection.
    pub minor: u32,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// Among a mount's options: it shows other owners than the filesystem stores.
pub const IDMAPPED: &str = "idmapped";

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The mount's own id.
    pub id: u64,
    /// The id of the mount it is mounted on.
    pub parent: u64,
    /// The filesystem's device number.
    pub device: Device,
    /// The directory of the filesystem that is shown here.
    pub root: PathBuf,
    /// Where it is shown.
    pub target: PathBuf,
    /// The options of this mount alone: `rw,nosuid,noatime`.
    pub options: String,
    /// The peer group it belongs to, if mounts on it are shared (mount_namespaces(7)).
    pub shared: Option<u64>,
    /// The peer group it receives mounts from.
    pub master: Option<u64>,
    /// `fuse.glusterfs`, `tmpfs`.
    pub fstype: OsString,
    /// What is mounted, as the filesystem names it.
    pub source: OsString,
    /// The filesystem's own options, which all of its mounts have: `rw,user_id=0`.
    pub super_options: String,
}

impl Mount {
    /// Whether it is a FUSE filesystem (one on a block device, `fuseblk`, is none of ours).
    pub fn is_fuse(&self) -> bool {
        self.fstype == "fuse" || self.fstype.as_encoded_bytes().starts_with(b"fuse.")
    }

    /// Whether the directory that it shows was deleted. Its [`root`](Self::root) names nothing then, or something else.
    pub fn is_deleted(&self) -> bool {
        // Nothing else has an empty name in it.
        self.root.as_os_str().as_encoded_bytes().ends_with(b"//deleted")
    }

    /// Whether it shows other owners than the filesystem stores.
    pub fn maps_ids(&self) -> bool {
        self.options.split(',').any(|word| word == IDMAPPED)
    }
}

/// Reads a whole table, in its order: later mounts cover earlier ones. Lines that are none are left out.
pub fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let device = Device { major: major.parse().ok()?, minor: minor.parse().ok()? };
    let root = unescape(fields.next()?).into();
    let target = unescape(fields.next()?).into();
    let options = String::from_utf8_lossy(fields.next()?).into_owned();
    // Any number of optional fields up to a lone hyphen.
    let (mut shared, mut master) = (None, None);
    loop {
        match fields.next()? {
            b"-" => break,
            field => {
                let group = |name: &[u8]| field.strip_prefix(name).and_then(number);
                shared = shared.or(group(b"shared:"));
                master = master.or(group(b"master:"));
            }
        }
    }
    let fstype = unescape(fields.next()?);
    let source = unescape(fields.next()?);
    let super_options = String::from_utf8_lossy(fields.next().unwrap_or_default()).into_owned();
    Some(Mount { id, parent, device, root, target, options, shared, master, fstype, source, super_options })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// The kernel writes space, tab, newline and backslash as a backslash and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_with_everything() {
        let table =
            b"36 35 0:98 /sub /mnt/a\\040b rw,noatime shared:7 master:1 - fuse.sshfs me@host:/x\\134y rw,user_id=0\n";
        let [mount] = parse(table).try_into().unwrap();
        assert_eq!((mount.id, mount.parent, mount.device.to_string().as_str()), (36, 35, "0:98"));
        assert_eq!(mount.root, PathBuf::from("/sub"));
        assert_eq!((mount.options.as_str(), mount.shared, mount.master), ("rw,noatime", Some(7), Some(1)));
        assert_eq!(mount.target, PathBuf::from("/mnt/a b"));
        assert_eq!((mount.fstype.to_str(), mount.source.to_str()), (Some("fuse.sshfs"), Some("me@host:/x\\y")));
        assert_eq!(mount.super_options, "rw,user_id=0");
    }

    #[test]
    fn a_deleted_directory_is_known() {
        let is_deleted =
            |root: &str| parse(format!("36 35 0:98 {root} /mnt rw - tmpfs x rw").as_bytes())[0].is_deleted();
        assert!(is_deleted("/a//deleted") && is_deleted("/a/deleted//deleted"));
        assert!(!is_deleted("/a/deleted") && !is_deleted("/deleted") && !is_deleted("/"));
    }

    #[test]
    fn our_own_table_is_read_whole() {
        let table = std::fs::read("/proc/self/mountinfo").unwrap();
        let lines = table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        assert_eq!(parse(&table).len(), lines);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            parse(&bytes);
        }

        #[test]
        fn escapes_come_back(name in "[ -~\t\n]{0,16}") {
            let escaped: String = name.bytes().map(|byte| match byte {
                b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}"),
                _ => char::from(byte).to_string(),
            }).collect();
            prop_assert_eq!(unescape(escaped.as_bytes()), OsString::from(name));
        }
    }
}
