//! Mount namespaces: the node's, and going there.
//!
//! Runs in the mounter, with CAP_SYS_ADMIN and CAP_SYS_CHROOT.

use crate::namespace::NamespaceId;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::fchdir;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::abort;
use std::thread;

/// A mount namespace, held by a descriptor.
#[derive(Debug)]
pub struct MountNamespace {
    fd: OwnedFd,
    path: PathBuf,
}

impl fmt::Display for MountNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

/// A namespace that cannot be opened or entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// No such file, or no right to it.
    #[error(
        "cannot open the mount namespace {path}; the mounter needs the node's /proc \
         (hostPID, or the node's /proc mounted and --host-proc) and to be privileged",
        path = path.display()
    )]
    Open {
        /// The file below /proc.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// setns(2) refused.
    #[error("cannot enter the mount namespace {path}; the mounter needs CAP_SYS_ADMIN and CAP_SYS_CHROOT",
            path = path.display())]
    Enter {
        /// The file below /proc.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// No thread could be had for the visit.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

impl MountNamespace {
    /// The namespace of the node's first process, as `host_proc` (a proc filesystem of the node's) shows it.
    pub fn of_node(host_proc: &Path) -> Result<Self, NamespaceError> {
        Self::at(host_proc.join("1/ns/mnt"))
    }

    /// The namespace behind a link `…/ns/mnt`.
    pub fn at(path: PathBuf) -> Result<Self, NamespaceError> {
        match File::open(&path) {
            Ok(file) => Ok(Self { fd: file.into(), path }),
            Err(source) => Err(NamespaceError::Open { path, source }),
        }
    }

    /// The one that the calling thread lives in.
    pub fn of_this_thread() -> Result<Self, NamespaceError> {
        Self::at(PathBuf::from("/proc/thread-self/ns/mnt"))
    }

    /// Which one it is.
    pub fn id(&self) -> io::Result<NamespaceId> {
        NamespaceId::of(&self.fd)
    }

    /// Whether it is the one that the calling thread lives in.
    pub fn is_callers(&self) -> io::Result<bool> {
        Ok(NamespaceId::of_this_threads_mounts()? == self.id()?)
    }

    /// Moves the **calling thread** there, for ever: its root and its working directory become the namespace's root.
    pub fn enter(&self) -> Result<(), NamespaceError> {
        self.move_there().map_err(|source| NamespaceError::Enter { path: self.path.clone(), source })
    }

    fn move_there(&self) -> io::Result<()> {
        // setns(2) refuses a thread that shares its root and working directory with others.
        unshare(CloneFlags::CLONE_FS)?;
        Ok(move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Mount))?)
    }

    /// Runs `work` inside the namespace on the **calling thread**, and brings that back to its own one, with the root of that
    /// as its root and its working directory. For a thread that is an operation's own: a thread for the visit would cost two
    /// turns of the scheduler more, and what a busy node takes for them.
    ///
    /// A thread that cannot be brought back would go on in the wrong namespace: rather than that the process ends here, which the
    /// next one is made for. It would take a kernel without memory for a structure of it. A panic goes on in the thread's own namespace. Inside, the working directory is as with [`visit`](Self::visit).
    pub fn visit_on_this_thread<T>(&self, work: impl FnOnce() -> T) -> Result<T, NamespaceError> {
        let enter = |source| NamespaceError::Enter { path: self.path.clone(), source };
        let proc = open_directory("/proc").map_err(enter)?;
        let own = Self::of_this_thread()?;
        self.move_there().map_err(enter)?;
        let done = match fchdir(&proc) {
            Ok(()) => Ok(catch_unwind(AssertUnwindSafe(work))),
            Err(errno) => Err(enter(errno.into())),
        };
        if let Err(error) = own.enter() {
            crate::complain!("a thread of the mounter cannot leave the node's mount namespace: {error}");
            abort();
        }
        done.map(|result| result.unwrap_or_else(|panic| resume_unwind(panic)))
    }

    /// Runs `work` inside the namespace and comes back with its result.
    ///
    /// A thread of its own goes there and ends there, so that no code of ours can be left standing in the wrong
    /// namespace. Descriptors opened inside stay valid outside: threads share their table. Inside, the working directory
    /// is our own /proc: `self/fd/N` is a path to descriptor N.
    pub fn visit<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        let enter = |source| NamespaceError::Enter { path: self.path.clone(), source };
        let proc = open_directory("/proc").map_err(enter)?;
        thread::scope(|scope| {
            let visitor = thread::Builder::new().name("visit".into()).spawn_scoped(scope, || {
                self.move_there()?;
                // Names for descriptors, also where no /proc is mounted, or another's.
                fchdir(&proc)?;
                Ok::<T, io::Error>(work())
            });
            match visitor.map_err(NamespaceError::Thread)?.join() {
                Ok(result) => result.map_err(enter),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl AsFd for MountNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn open_directory(path: &str) -> io::Result<OwnedFd> {
    Ok(open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statx::device_at;

    #[test]
    #[ignore = "a mount namespace needs root: make test-quick"]
    fn a_visit_ends_where_it_began() {
        let visited = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let slave = rustix::mount::MountPropagationFlags::DOWNSTREAM | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", slave).unwrap();
            let other = MountNamespace::of_this_thread().unwrap();
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            rustix::mount::mount("x", "/mnt", c"tmpfs", rustix::mount::MountFlags::empty(), None::<&std::ffi::CStr>)
                .unwrap();
            let look = || (NamespaceId::of_this_threads_mounts().unwrap(), device_at(Path::new("/mnt")).unwrap());
            let before = look();
            assert!(before.1.is_some());
            let there = other.visit_on_this_thread(look).unwrap();
            assert_eq!(there, (other.id().unwrap(), None));
            assert_eq!(look(), before);
            let panics = || {
                other.visit_on_this_thread(|| {
                    if look().1.is_none() {
                        panic!("inside")
                    }
                })
            };
            assert!(catch_unwind(panics).is_err());
            assert_eq!(look(), before);
            // The working directory as well.
            assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
        });
        visited.join().unwrap();
    }
}
