//! Names above and around its mount point, which others look up.

use super::sys::{call, text};
use super::{Around, Attempts, Outcome, Tried, got};
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const ELSEWHERE: &str = "what the mounter does at its mount point, done elsewhere";

/// The directory so many levels above its mount point.
fn above(around: &Around, levels: usize) -> PathBuf {
    Path::new(&around.mount_point).ancestors().nth(levels).unwrap_or(Path::new("/")).to_owned()
}

/// Renamed, it gets its name back.
fn rename(path: &Path) -> Tried {
    let away = path.with_extension("away");
    fs::rename(path, &away)?;
    Ok(fs::rename(&away, path)?)
}

pub(super) fn list(attempts: &mut Attempts) {
    for (levels, which) in
        [(0, "its mount point"), (1, "the directory above"), (2, "the second above"), (3, "the third above")]
    {
        attempts.add(format!("rename {which}"), ELSEWHERE, move |around| rename(&above(around, levels)));
        attempts.add(format!("remove {which}"), ELSEWHERE, move |around| {
            let path = above(around, levels);
            fs::remove_dir(&path)?;
            Ok(fs::create_dir(&path)?)
        });
        if levels > 0 {
            attempts.add(format!("leave a link in {which}"), ELSEWHERE, move |around| {
                let link = above(around, levels).join("link");
                symlink("/", &link)?;
                Ok(fs::remove_file(link)?)
            });
        }
    }
    for path in
        ["/run/hostmount/mnt", "/run/hostmount/files", "/run/hostmount", "/run", "/tmp", "/var/log", "/proc", "/dev"]
    {
        attempts.add(format!("rename {path}"), ELSEWHERE, move |_| rename(Path::new(path)));
    }
    attempts.add("exchange its mount point for another directory", ELSEWHERE, |around| {
        fs::create_dir_all("/tmp/other")?;
        let own = CString::new(around.mount_point.clone()).map_err(|_| Outcome::Nothing)?;
        let at = libc::AT_FDCWD as u64;
        // RENAME_EXCHANGE
        Ok(call(libc::SYS_renameat2, &[at, text(&own), at, text(c"/tmp/other"), 2]).map(|_| ())?)
    });
    attempts.add("leave a link in the state directory as it sees it", ELSEWHERE, |_| {
        symlink("/", "/run/hostmount/link")?;
        Ok(fs::remove_file("/run/hostmount/link")?)
    });
    attempts.add("rename the preload engine's socket", "its own calls, unanswered", |_| {
        rename(Path::new("/run/hostmount/preload/socket"))
    });
    attempts.add("leave the root by its parent", "what is above it", |_| {
        got(fs::read_dir("/../../../../proc/1/root/")?.next().transpose()?.is_some())
    });
    attempts.add("have a working directory that others go to", ELSEWHERE, |around| {
        got(std::env::current_dir()?.starts_with(&around.mount_point))
    });
}
