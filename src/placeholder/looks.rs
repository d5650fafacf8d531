//! What is answered to who looks at a placeholder on the node: kubelet, for `subPath`, and a container runtime that is at work on a container.
//! They find the volume's files by name, with their attributes, and may make directories, whose mode kubelet sets; no contents are shown.
//!
//! The volume's filesystem is asked by processes that can be given up: its helper may hang.

use super::nodes::Nodes;
use super::requests::{self, Asked, Request};
use super::room;
use super::users::{Users, asked_by};
use crate::node::fuse_protocol::space as space_of;
use crate::node::target::open_in_filesystem;
use linux::statx;
use linux::sys::ask::directories::{NewDirectory, make_directory};
use linux::sys::ask::{self, Patience};
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The answer to a request.
pub(super) fn answer(request: &Request, nodes: &Mutex<Nodes>, users: &Users) -> Vec<u8> {
    let look_as = |users: Option<Arc<File>>| Look { nodes, patience: asked_by(users.as_deref()) }.at(request);
    let looked = match look_as(users.known()) {
        // It is of the pod's user namespace, perhaps.
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            users.look().map_or(Err(error), |found| look_as(Some(found)))
        }
        looked => looked,
    };
    match looked {
        Ok(body) => request.with(&body),
        Err(error) => request.error(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

/// A look at the volume.
struct Look<'a> {
    nodes: &'a Mutex<Nodes>,
    patience: Patience<'a>,
}

impl Look<'_> {
    fn at(&self, request: &Request) -> io::Result<Vec<u8>> {
        match &request.asked {
            Asked::Attributes => {
                let path = self.path(request)?;
                Ok(requests::attributes(&self.known(&path)?, request.node))
            }
            Asked::Lookup(name) => {
                let path = locked(self.nodes).path_in(request.node, name).ok_or(Errno::NOENT)?;
                self.entry(&path)
            }
            Asked::MakeDirectory(name, mode) => {
                let parent = self.path(request)?;
                let path = locked(self.nodes).path_in(request.node, name).ok_or(Errno::NOENT)?;
                let how = NewDirectory { mode: Some(*mode & 0o7777), ..NewDirectory::default() };
                let made = make_directory(self.open(&parent)?.as_fd(), OsStr::from_bytes(name), how, self.patience)?;
                if made { self.entry(&path) } else { Err(Errno::EXIST.into()) }
            }
            // `struct fuse_open_out`: there is nothing to remember.
            Asked::OpenDirectory => Ok(vec![0; 16]),
            Asked::SetMode(mode) => {
                let path = self.path(request)?;
                let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                    return Err(Errno::OPNOTSUPP.into());
                };
                if !FileType::from_raw_mode(self.known(&path)?.stx_mode.into()).is_dir() {
                    return Err(Errno::OPNOTSUPP.into());
                }
                let how = NewDirectory { mode: Some(*mode & 0o7777), ..NewDirectory::default() };
                make_directory(self.open(parent)?.as_fd(), name, how, self.patience)?;
                Ok(requests::attributes(&self.known(&path)?, request.node))
            }
            Asked::Space => match ask::space(room::volume()?.as_fd(), self.patience)? {
                Ok(space) => Ok(space_of(space)),
                Err(_) => Err(Errno::TIMEDOUT.into()),
            },
            _ => Err(Errno::OPNOTSUPP.into()),
        }
    }

    /// The path of the file that a request is about.
    fn path(&self, request: &Request) -> io::Result<PathBuf> {
        Ok(locked(self.nodes).path(request.node).ok_or(Errno::STALE)?.to_owned())
    }

    fn entry(&self, path: &Path) -> io::Result<Vec<u8>> {
        let stat = self.known(path)?;
        let number = locked(self.nodes).tell(path).ok_or(Errno::NFILE)?;
        Ok(requests::entry(&stat, number))
    }

    /// A file of the volume's, for naming it only.
    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        open_in_filesystem(room::volume()?.as_fd(), path, self.patience)
    }

    /// Its attributes, as the kernel has had them just now when it was looked for; or as the pod's own filesystem tells them to a process
    /// of the pod's, with the owners that such a one sees.
    fn known(&self, path: &Path) -> io::Result<Statx> {
        let file = self.open(path)?;
        match self.patience.users {
            None => statx::known(file.as_fd()),
            Some(_) => ask::attributes(file.as_fd(), self.patience),
        }
    }
}

pub(super) fn locked(nodes: &Mutex<Nodes>) -> MutexGuard<'_, Nodes> {
    // Nothing is left half-done by a thread that panics while it holds it.
    nodes.lock().unwrap_or_else(PoisonError::into_inner)
}
