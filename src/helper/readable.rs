//! Files of the container that a helper of another uid than root may read although only root can: it is shown copies of its
//! own, in their places.
//!
//! Runs in the mounter, on the volume's own thread, in the helper's mount namespace. Which files is an administrator's to say,
//! never a caller's.

use super::account::Account;
use crate::config::user::Readable;
use rustix::fs::{Mode, chmod};
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Copies are in memory, which is never swapped out.
const LARGEST: u64 = 1 << 20;
/// Files and directories in one directory that is named.
const ENTRIES: usize = 256;
/// How deep it may be.
const DEPTH: usize = 8;
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// What went wrong with one of them.
#[derive(Debug, thiserror::Error)]
#[error("showing the helper {path}, which its type's `readable` names: cannot {step}", path = path.display())]
pub struct ReadableError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Copies of what a helper may read, before anything is shown in their places.
#[derive(Debug)]
pub struct Copies {
    paths: Vec<PathBuf>,
    directory: PathBuf,
}

impl Copies {
    /// Copies these, as `account`'s, into a `directory` that only this mount namespace has.
    pub fn of(readable: Readable, account: &Account<'_>, directory: PathBuf) -> Result<Self, ReadableError> {
        let paths = match readable {
            // Root reads them where they are.
            _ if account.is_root() => Vec::new(),
            Readable::All(paths) => paths,
            Readable::WhatIsThere(mut paths) => {
                paths.retain(|path| path.exists());
                paths
            }
        };
        if !paths.is_empty() {
            fs::create_dir(&directory).and_then(|()| cover(&directory)).map_err(failed("prepare", &directory))?;
        }
        for (number, path) in paths.iter().enumerate() {
            let mut left = Left { bytes: LARGEST, entries: ENTRIES };
            let copy = directory.join(number.to_string());
            copy_into(path, &copy, account, &mut left, DEPTH).map_err(failed("copy it", path))?;
        }
        Ok(Self { paths, directory })
    }

    /// Shows them. `home` is an empty directory of the helper's own, if it has one.
    pub fn show(self, home: Option<&Path>) -> Result<(), ReadableError> {
        // What is covered has no places for them yet.
        let mut covered: Vec<PathBuf> = home.map(Path::to_owned).into_iter().collect();
        let own = covered.len();
        for (number, path) in self.paths.iter().enumerate() {
            let step = |step| failed(step, path);
            let closed = closed_above(path, &covered).map_err(step("look at the directories above it"))?;
            if let Some(closed) = closed {
                cover(&closed).map_err(step("cover the directory that only root may enter"))?;
                covered.push(closed);
            }
            let copy = self.directory.join(number.to_string());
            if covered.iter().any(|covered| path.starts_with(covered)) {
                place_for(path, copy.is_dir()).map_err(step("make a place for it"))?;
            }
            mount_bind(&copy, path).map_err(|errno| step("bind a copy over it")(errno.into()))?;
            read_only(path, MountFlags::BIND)?;
        }
        covered[own..].iter().try_for_each(|closed| read_only(closed, MountFlags::empty()))?;
        if self.paths.is_empty() { Ok(()) } else { read_only(&self.directory, MountFlags::empty()) }
    }
}

fn read_only(path: &Path, how: MountFlags) -> Result<(), ReadableError> {
    let made = mount_remount(path, FLAGS | MountFlags::RDONLY | how, c"");
    made.map_err(|errno| failed("make it read-only", path)(errno.into()))
}

fn cover(directory: &Path) -> io::Result<()> {
    Ok(mount(c"hostmount-files", directory, c"ramfs", FLAGS, c"mode=0755")?)
}

/// The outermost directory above `path` that others may not pass, and that is not covered yet.
fn closed_above(path: &Path, covered: &[PathBuf]) -> io::Result<Option<PathBuf>> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    for directory in above {
        if covered.iter().any(|covered| directory.starts_with(covered)) {
            return Ok(None);
        }
        if fs::metadata(directory)?.mode() & 0o001 == 0 {
            return Ok(Some(directory.to_owned()));
        }
    }
    Ok(None)
}

fn place_for(path: &Path, directory: bool) -> io::Result<()> {
    if directory {
        return fs::create_dir_all(path);
    }
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    File::create(path).map(drop)
}

/// How much more may be copied.
struct Left {
    bytes: u64,
    entries: usize,
}

/// Links are followed: the keys of a Kubernetes secret are links.
fn copy_into(path: &Path, copy: &Path, account: &Account<'_>, left: &mut Left, depth: usize) -> io::Result<()> {
    let too_much = |what| io::Error::new(io::ErrorKind::FileTooLarge, what);
    left.entries = left.entries.checked_sub(1).ok_or_else(|| too_much("it holds more than 256 files"))?;
    let kind = fs::metadata(path)?;
    if kind.is_dir() {
        let depth = depth.checked_sub(1).ok_or_else(|| too_much("it is more than 8 directories deep"))?;
        fs::DirBuilder::new().mode(0o700).create(copy)?;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // Nothing to be read: a socket that ssh has left, a link that leads nowhere.
            if !fs::metadata(entry.path()).is_ok_and(|kind| kind.is_file() || kind.is_dir()) {
                continue;
            }
            copy_into(&entry.path(), &copy.join(entry.file_name()), account, left, depth)?;
        }
    } else if kind.is_file() {
        let mut content = zeroize::Zeroizing::new(Vec::new());
        File::open(path)?.take(left.bytes + 1).read_to_end(&mut content)?;
        left.bytes = left.bytes.checked_sub(content.len() as u64).ok_or_else(|| too_much("it is larger than 1 MiB"))?;
        fs::write(copy, &*content)?;
        chmod(copy, Mode::RUSR)?;
    } else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a file nor a directory"));
    }
    account.own(copy)
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ReadableError + use<> {
    let path = path.to_owned();
    move |source| ReadableError { step, path, source }
}
