//! What a helper that failed has written to files in its `/var/log`: some, as GlusterFS, say why in no other place.
//!
//! Runs in the mounter, on the volume's own thread, in the helper's mount namespace, when nothing of the helper runs any more. The
//! directory is the helper's own and may hold anything: only regular files are opened, without links, and a part of one is read.

use super::cause::speaks_of_trouble;
use super::world::SOURCE;
use linux::processes::{OWN, Process};
use linux::statx;
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const DIRECTORY: &str = "/var/log";
/// How many files and directories are looked at.
const ENTRIES: usize = 100;
/// How much of a file is read, from its end.
const PORTION: i64 = 16 << 10;
/// How many lines are of interest.
const LINES: usize = 6;
/// How many characters of a line.
const LINE: usize = 400;

/// The last errors in the file that was written last, if the directory is the helper's own. No more is known if it cannot be read.
pub fn last_errors() -> Vec<String> {
    match newest().and_then(|file| file.map(end_of).transpose()) {
        Ok(Some(end)) => errors(&String::from_utf8_lossy(&end)),
        Ok(None) | Err(_) => Vec::new(),
    }
}

/// The file that was written last.
fn newest() -> io::Result<Option<File>> {
    let directory = open(DIRECTORY, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if !is_helpers_own(&directory)? {
        return Ok(None);
    }
    let mut newest = None;
    let mut left = ENTRIES;
    let mut directories = VecDeque::from([directory]);
    while let Some(directory) = directories.pop_front() {
        for entry in Dir::read_from(&directory)?.flatten() {
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            left -= 1;
            if left == 0 {
                return Ok(newest.map(|(_, file)| file));
            }
            // A FIFO that was opened to be read without waiting is no regular file, and is closed again.
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV | ResolveFlags::BENEATH;
            let Ok(found) = openat2(&directory, name, flags, Mode::empty(), resolve) else { continue };
            let stat = fstat(&found)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => directories.push_back(found),
                FileType::RegularFile if stat.st_size > 0 => {
                    let written = (stat.st_mtime, stat.st_mtime_nsec);
                    if newest.as_ref().is_none_or(|(time, _)| *time <= written) {
                        newest = Some((written, File::from(found)));
                    }
                }
                _ => {}
            }
        }
    }
    Ok(newest.map(|(_, file)| file))
}

/// Where the container has a mount of its own there, it is left as it is, and holds what others have written.
fn is_helpers_own(directory: &OwnedFd) -> io::Result<bool> {
    let id = statx::cached(directory.as_fd())?.stx_mnt_id;
    let table = Process::at(Path::new(OWN), rustix::thread::gettid()).mounts()?;
    Ok(table.iter().any(|mount| mount.id == id && mount.fstype == "tmpfs" && mount.source == SOURCE))
}

fn end_of(mut file: File) -> io::Result<Vec<u8>> {
    let length = file.seek(SeekFrom::End(0))?;
    let portion = PORTION.min(i64::try_from(length).unwrap_or(PORTION));
    file.seek(SeekFrom::End(-portion))?;
    let mut end = Vec::new();
    file.take(PORTION.unsigned_abs()).read_to_end(&mut end)?;
    Ok(end)
}

/// The last lines that speak of trouble; of a log that has none the last lines.
fn errors(log: &str) -> Vec<String> {
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    let speaking: Vec<_> = lines().filter(|line| speaks_of_trouble(line)).collect();
    let chosen = if speaking.is_empty() { lines().collect() } else { speaking };
    let last = &chosen[chosen.len().saturating_sub(LINES)..];
    last.iter().map(|line| line.chars().take(LINE).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_speak_of_trouble_come_first() {
        assert_eq!(errors("begin\n\nConnection refused\nend\n"), ["Connection refused"]);
        assert_eq!(errors("begin\nend\n"), ["begin", "end"]);
        let many: String = (0..100).map(|number| format!("error {number}\n")).collect();
        assert_eq!(errors(&many).first().map(String::as_str), Some("error 94"));
        assert_eq!(errors(&format!("failed {}", "é".repeat(5000)))[0].chars().count(), LINE);
        assert_eq!(errors(""), [""; 0]);
    }
}
