//! What is answered to who looks at a placeholder on the node: kubelet, for `subPath`, and a container runtime that is at work on a container.
//! They find the volume's files by name, with their attributes, and may make directories, whose mode kubelet sets; no contents are shown.
//!
//! The volume's filesystem is asked by processes that can be given up: its helper may hang.

use super::nodes::Nodes;
use super::requests::{self, Asked, Request};
use super::room;
use crate::node::fuse_protocol::space as space_of;
use crate::node::target::open_in_filesystem;
use linux::statx::{self, is_directory};
use linux::sys::ask::directories::{NewDirectory, make_directory};
use linux::sys::ask::{self, Patience};
use rustix::fs::Statx;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

const PATIENCE: Patience<'_> = Patience::USUAL;

/// The answer to a request.
pub(super) fn answer(request: &Request, nodes: &Mutex<Nodes>) -> Vec<u8> {
    match look(request, nodes) {
        Ok(body) => request.with(&body),
        Err(error) => request.error(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

fn look(request: &Request, nodes: &Mutex<Nodes>) -> io::Result<Vec<u8>> {
    match &request.asked {
        Asked::Attributes => {
            let path = locked(nodes).path(request.node).ok_or(Errno::STALE)?.to_owned();
            Ok(requests::attributes(&known(&path)?, request.node))
        }
        Asked::Lookup(name) => {
            let path = locked(nodes).path_in(request.node, name).ok_or(Errno::NOENT)?;
            entry(&path, nodes)
        }
        Asked::MakeDirectory(name, mode) => {
            let (parent, path) = {
                let nodes = locked(nodes);
                let parent = nodes.path(request.node).ok_or(Errno::STALE)?.to_owned();
                (parent, nodes.path_in(request.node, name).ok_or(Errno::NOENT)?)
            };
            let how = NewDirectory { mode: Some(*mode & 0o7777), ..NewDirectory::default() };
            let made = make_directory(open(&parent)?.as_fd(), OsStr::from_bytes(name), how, PATIENCE)?;
            if made { entry(&path, nodes) } else { Err(Errno::EXIST.into()) }
        }
        // `struct fuse_open_out`: there is nothing to remember.
        Asked::OpenDirectory => Ok(vec![0; 16]),
        Asked::SetMode(mode) => {
            let path = locked(nodes).path(request.node).ok_or(Errno::STALE)?.to_owned();
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(Errno::OPNOTSUPP.into());
            };
            if !is_directory(open(&path)?.as_fd())? {
                return Err(Errno::OPNOTSUPP.into());
            }
            let how = NewDirectory { mode: Some(*mode & 0o7777), ..NewDirectory::default() };
            make_directory(open(parent)?.as_fd(), name, how, PATIENCE)?;
            Ok(requests::attributes(&known(&path)?, request.node))
        }
        Asked::Space => match ask::space(room::volume()?.as_fd(), PATIENCE)? {
            Ok(space) => Ok(space_of(space)),
            Err(_) => Err(Errno::TIMEDOUT.into()),
        },
        _ => Err(Errno::OPNOTSUPP.into()),
    }
}

fn entry(path: &Path, nodes: &Mutex<Nodes>) -> io::Result<Vec<u8>> {
    let stat = known(path)?;
    let number = locked(nodes).tell(path).ok_or(Errno::NFILE)?;
    Ok(requests::entry(&stat, number))
}

/// A file of the volume's, for naming it only.
fn open(path: &Path) -> io::Result<OwnedFd> {
    open_in_filesystem(room::volume()?.as_fd(), path, PATIENCE)
}

/// Its attributes, as the kernel has had them just now when it was looked for.
fn known(path: &Path) -> io::Result<Statx> {
    statx::known(open(path)?.as_fd())
}

pub(super) fn locked(nodes: &Mutex<Nodes>) -> MutexGuard<'_, Nodes> {
    // Nothing is left half-done by a thread that panics while it holds it.
    nodes.lock().unwrap_or_else(PoisonError::into_inner)
}
