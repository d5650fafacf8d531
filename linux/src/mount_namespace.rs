//! Mount namespaces: the node's, and going there.
//!
//! Runs in the mounter, with CAP_SYS_ADMIN and CAP_SYS_CHROOT.

use crate::namespace::NamespaceId;
use nix::sched::{CloneFlags, unshare};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
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

    /// Runs `work` inside the namespace and comes back with its result.
    ///
    /// A thread of its own goes there and ends there, so that no code of ours can be left standing in the wrong
    /// namespace. Descriptors opened inside stay valid outside: threads share their table. Inside, the working directory
    /// is our own /proc: `self/fd/N` is a path to descriptor N.
    pub fn visit<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        let enter = |source| NamespaceError::Enter { path: self.path.clone(), source };
        let proc = File::open("/proc").map_err(enter)?;
        thread::scope(|scope| {
            let visitor = thread::Builder::new().name("visit".into()).spawn_scoped(scope, || {
                self.move_there()?;
                // Names for descriptors, also where no /proc is mounted, or another's.
                rustix::process::fchdir(&proc)?;
                Ok::<T, io::Error>(work())
            });
            match visitor.map_err(NamespaceError::Thread)?.join() {
                Ok(result) => result.map_err(enter),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}
