//! The mount point, as fusermount3 sees it. Runs in the pod, with the caller's privilege.

use super::shown;
use crate::asking::words;
use rustix::fs::{FileType, lstat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::canonicalize;
use std::path::{Component, Path, PathBuf};

/// The path without links, but for its last part: a mount point is not entered, as its filesystem may be dead. An error is in
/// words.
pub(super) fn resolve(given: &OsStr) -> Result<PathBuf, String> {
    if given.is_empty() {
        return Err("invalid mountpoint ''".to_owned());
    }
    let path = Path::new(given);
    let resolved = match path.components().next_back() {
        Some(Component::Normal(last)) if !ends_in_dot(given) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            canonicalize(parent).map(|parent| parent.join(last))
        }
        _ => canonicalize(path),
    };
    resolved.map_err(|error| {
        let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        format!("bad mount point {}: {}", shown(path), words(errno))
    })
}

/// Rust's own reading of a path drops a `.` at its end.
fn ends_in_dot(path: &OsStr) -> bool {
    let path = path.as_encoded_bytes().trim_ascii_end();
    let path = &path[..path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1)];
    path == b"." || path.ends_with(b"/.")
}

/// Whether a filesystem can be there; an error is in words. Whose it is and what is in it does not matter: the volume shows where
/// the pod's containers have it, and nothing is mounted here.
pub(super) fn check(mount_point: &Path) -> Result<(), String> {
    let shown = shown(mount_point);
    let stat = lstat(mount_point).map_err(|errno| format!("failed to access mountpoint {shown}: {}", words(errno)))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(()),
        FileType::RegularFile => Err(format!("mountpoint {shown} is a regular file: a volume is a directory")),
        _ => Err(format!("mountpoint {shown} is not a directory or a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_the_last_part_is_resolved() {
        let resolved = |path: &str| resolve(OsStr::new(path));
        assert_eq!(resolved("/proc/self/../volume//"), Ok("/proc/volume".into()));
        assert_eq!(resolved("/volume"), Ok("/volume".into()));
        assert_eq!(resolved("/"), Ok("/".into()));
        assert_eq!(resolved("/proc/."), Ok("/proc".into()));
        assert_eq!(resolved("/proc/./"), Ok("/proc".into()));
        assert_eq!(resolved("/proc/sys/.."), Ok("/proc".into()));
        assert_eq!(resolved("volume").map(|path| path.is_absolute()), Ok(true));
        assert_eq!(resolved("").unwrap_err(), "invalid mountpoint ''");
        assert_eq!(resolved("/none/volume").unwrap_err(), "bad mount point /none/volume: No such file or directory");
    }
}
