//! Work on a directory of a filesystem that shows nowhere: a helper is brought up for it, and ended with it.
//!
//! Runs in the mounter, on a thread of the request's own, inside the helper's mount namespace. The filesystem may be anybody's: each
//! step is a question that a process of its own asks, and that is given up when the time is over or the caller goes away.

use super::bring_up::{FreshFilesystem, Purpose, bring_up};
use super::mount::{MountError, admit};
use crate::mounter::Mounter;
use crate::mounter::connection::Connection;
use crate::node::target::open_in_filesystem;
use crate::policy::below_root;
use api::directory::{Directory, Work, Worked};
use api::volume::Space;
use linux::statx::is_directory;
use linux::sys::ask::directories::{NewDirectory, make_directory, remove_all, rename};
use linux::sys::ask::{self, Patience};
use rustix::event::epoll;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long it may take, whatever is asked for.
const LONGEST: Duration = Duration::from_secs(3600);
/// The mode of directories that are made above the one that is asked for.
const ABOVE: NewDirectory = NewDirectory { mode: Some(0o755), uid: None, gid: None };

/// Why it was not done. What a removal has removed is removed; nothing else is left.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The filesystem cannot be had, or does not answer.
    #[error(transparent)]
    Filesystem(#[from] MountError),
    /// The path, or the name.
    #[error("'{}' is not the path of a directory below the filesystem's root", .0.escape_debug())]
    Path(String),
    /// The filesystem, about the directory.
    #[error("cannot {step} {path} in the filesystem", path = path.display())]
    Work {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the filesystem said.
        source: io::Error,
    },
    /// No answer.
    #[error("the filesystem did not {step} {path} in time, or the caller went away; try again, what was done is done", path = path.display())]
    TimedOut {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
    },
}

/// Does what is `asked`, for the process at the other end of `caller`.
pub fn work(mounter: &Mounter, asked: Directory, caller: &Connection) -> Result<Worked, DirectoryError> {
    let Directory { request, path, work, within } = asked;
    let not_a_path = || DirectoryError::Path(path.clone());
    let below = if path.is_empty() && work == Work::Find {
        PathBuf::new()
    } else {
        below_root(&path).ok_or_else(not_a_path)?
    };
    if let Work::Rename { name } = &work
        && (name.contains('/') || below_root(name).is_none())
    {
        return Err(DirectoryError::Path(name.clone()));
    }
    let within = Duration::from_secs(within).min(LONGEST);
    let until = Instant::now() + within;
    let plan = admit(mounter, caller.origin(), request)?;
    let _lock = mounter.target_locks.take(&plan.target).map_err(MountError::from)?;
    let either = either(mounter.stopping.as_fd(), caller.as_fd()).map_err(failed("watch the caller of", &below))?;
    let fresh = bring_up(mounter, &plan, Purpose::Caller(caller), Some(within)).map_err(MountError::from)?;
    let done = InFilesystem { fresh: &fresh, until, gone: either.as_fd() }.work(&below, &work);
    // Nothing of ours is in it any more, or it waits for an answer, which it gets now.
    fresh.discard();
    done
}

/// Readable when one of the two is, or has hung up.
fn either(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let either = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (number, fd) in [one, other].into_iter().enumerate() {
        let events = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        epoll::add(&either, fd, epoll::EventData::new_u64(number as u64), events)?;
    }
    Ok(either)
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError + use<> {
    let path = path.to_owned();
    move |source| match Errno::from_io_error(&source) {
        Some(Errno::TIMEDOUT) => DirectoryError::TimedOut { step, path },
        _ => DirectoryError::Work { step, path, source },
    }
}

/// A filesystem, for some time.
struct InFilesystem<'a> {
    fresh: &'a FreshFilesystem,
    until: Instant,
    gone: BorrowedFd<'a>,
}

impl InFilesystem<'_> {
    /// One answer takes no longer than any filesystem's; a removal may take all the time that there is.
    fn patience(&self, whole: bool) -> Patience<'_> {
        let left = self.until.saturating_duration_since(Instant::now());
        let limit = if whole { left } else { left.min(Patience::USUAL.limit) };
        Patience { limit, stopping: Some(self.gone), users: None }
    }

    fn work(&self, path: &Path, work: &Work) -> Result<Worked, DirectoryError> {
        let root = self.fresh.root().map_err(failed("open", path))?;
        if let Work::Make { mode, uid, gid } = *work {
            return self.make(root, path, NewDirectory { mode, uid, gid });
        }
        let Some((parent, name)) = self.find(root, path)? else { return Ok(worked(false)) };
        match (work, name) {
            (Work::Remove, Some(name)) => {
                remove_all(parent.as_fd(), name, self.patience(true)).map_err(failed("remove", path))?;
            }
            (Work::Rename { name: to }, Some(name)) => {
                rename(parent.as_fd(), name, to.as_ref(), self.patience(false)).map_err(failed("rename", path))?;
            }
            _ => return Ok(Worked { was_there: true, space: self.space(root)? }),
        }
        Ok(worked(true))
    }

    /// The directory that a directory is in, and its name there; `None`: there is none. The root has no name.
    fn find<'a>(
        &self,
        root: BorrowedFd<'_>,
        path: &'a Path,
    ) -> Result<Option<(OwnedFd, Option<&'a OsStr>)>, DirectoryError> {
        let open = |path: &Path| open_in_filesystem(root, path, self.patience(false));
        let found = open(path).and_then(|found| {
            let parent = open(path.parent().unwrap_or(Path::new("")))?;
            if is_directory(found.as_fd())? { Ok(parent) } else { Err(Errno::NOTDIR.into()) }
        });
        match found {
            Ok(parent) => Ok(Some((parent, path.file_name()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("open", path)(error)),
        }
    }

    fn make(&self, root: BorrowedFd<'_>, path: &Path, how: NewDirectory) -> Result<Worked, DirectoryError> {
        let mut made = false;
        let mut above = PathBuf::new();
        for name in path {
            let parent = open_in_filesystem(root, &above, self.patience(false)).map_err(failed("open", &above))?;
            above.push(name);
            let last = above == path;
            if !last && open_in_filesystem(root, &above, self.patience(false)).is_ok() {
                continue;
            }
            let how = if last { how } else { ABOVE };
            made = make_directory(parent.as_fd(), name, how, self.patience(false)).map_err(failed("make", &above))?;
        }
        Ok(worked(!made))
    }

    fn space(&self, root: BorrowedFd<'_>) -> Result<Option<Space>, DirectoryError> {
        let said = ask::space(root, self.patience(false)).map_err(failed("tell the space of", Path::new("/")))?;
        let Ok(said) = said else {
            return Err(DirectoryError::TimedOut { step: "tell the space of", path: "/".into() });
        };
        Ok(Some(super::stats::in_bytes(said, Duration::ZERO)))
    }
}

fn worked(was_there: bool) -> Worked {
    Worked { was_there, space: None }
}
