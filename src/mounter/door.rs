//! The doors: a socket for each kind of caller, by which the mounter knows where a request comes from.
//!
//! Runs in the mounter's main thread: they are made at its start, and accepted on by the event loop. A request's own thread
//! looks at its caller ([`peer`](super::peer)).

use super::step::{StepError, step};
use crate::config::doors::Doors;
use api::origin::Origin;
use rustix::fs::{Mode, chown};
use rustix::process::{Uid, umask};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How many connections are served at a time at each door, each by a thread: more than a kubelet makes. Further callers wait in
/// the socket's queue, and those at other doors do not.
pub(super) const CONNECTIONS: usize = 256;

/// Which processes may ask at a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayAsk {
    /// Root that could mount on the node by itself.
    Root,
    /// One user without any privilege.
    User(u32),
}

/// One of them.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) origin: Origin,
    pub(super) may_ask: MayAsk,
    pub(super) listener: UnixListener,
    socket: PathBuf,
    /// How many connections are served.
    pub(super) connections: Arc<AtomicUsize>,
    /// No connection is taken for now.
    pub(super) shut: Option<Shut>,
}

/// Until when no connection is taken.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shut {
    /// Until one of those that are served has ended.
    Full,
    /// The kernel has no descriptor, memory or process for another one.
    NoRoom(Instant),
}

/// Where the sockets are, of the doors that are open: the operator's is at `operators`.
pub(super) fn sockets(doors: &Doors, operators: &Path) -> Vec<(Origin, PathBuf)> {
    let socket = |origin: Origin| match &doors.csi {
        Some(csi) if origin == Origin::Csi => Some(csi.socket.clone()),
        _ => origin.socket(operators),
    };
    let open = Origin::ALL.into_iter().filter(|origin| doors.is_open(*origin));
    open.filter_map(|origin| Some((origin, socket(origin)?))).collect()
}

/// Opens the doors. A socket of a door that is closed now, which an earlier mounter has left, is removed.
pub(super) fn open(doors: &Doors, operators: &Path) -> Result<Vec<Door>, StepError> {
    for origin in Origin::ALL.into_iter().filter(|origin| !doors.is_open(*origin)) {
        let Some(socket) = origin.socket(operators) else { continue };
        remove(&socket).map_err(step(format!("remove {}", socket.display())))?;
    }
    let door = |(origin, socket): (Origin, PathBuf)| {
        let may_ask = match &doors.csi {
            Some(csi) if origin == Origin::Csi => MayAsk::User(csi.uid),
            _ => MayAsk::Root,
        };
        let listener = listen(&socket, may_ask)?;
        Ok(Door { origin, may_ask, listener, socket, connections: Arc::default(), shut: None })
    };
    sockets(doors, operators).into_iter().map(door).collect()
}

impl Door {
    /// Whether as many connections are served as may be.
    pub(super) fn is_full(&self) -> bool {
        self.connections.load(Ordering::Acquire) >= CONNECTIONS
    }

    /// Removes its socket. The connections that are there remain.
    pub(super) fn close(&self) -> Result<(), StepError> {
        remove(&self.socket).map_err(step(format!("remove {}", self.socket.display())))
    }
}

/// A socket that only those who may ask can connect to. It appears when it takes connections, and not before; one left behind by
/// a mounter that was killed is replaced (we hold the lock).
fn listen(socket: &Path, may_ask: MayAsk) -> Result<UnixListener, StepError> {
    let named = |what: &str| format!("{what} {}", socket.display());
    if let Some(directory) = socket.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
        made.map_err(step(named("create the directory of")))?;
        if may_ask != MayAsk::Root {
            root_alone_writes_to(directory).map_err(step(named("trust the directory of")))?;
        }
    }
    let unfinished = socket.with_extension("new");
    remove(&unfinished).map_err(step(named("make room for")))?;
    let before = umask(Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(&unfinished).map_err(step(named("listen on")));
    umask(before);
    let listener = listener?;
    if let MayAsk::User(uid) = may_ask {
        chown(&unfinished, Some(Uid::from_raw(uid)), None).map_err(step(named("give away")))?;
    }
    listener.set_nonblocking(true).map_err(step(named("prepare")))?;
    fs::rename(&unfinished, socket).map_err(step(named("put in place")))?;
    Ok(listener)
}

/// Others could lead what is done in it elsewhere.
fn root_alone_writes_to(directory: &Path) -> io::Result<()> {
    let there = fs::symlink_metadata(directory)?;
    if there.is_dir() && there.uid() == 0 && there.mode() & 0o022 == 0 {
        return Ok(());
    }
    let advice = "it must be a directory that root alone may write to (chown root, chmod 755): share one of the node's with the \
                  server, read-only there";
    Err(io::Error::other(advice))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::doors::CsiDoor;

    #[test]
    fn each_open_door_has_a_socket() {
        let csi = CsiDoor { socket: "/run/csi/mounter.sock".into(), uid: 5 };
        let mut doors = Doors::default();
        doors.csi = Some(csi);
        let sockets = sockets(&doors, Path::new("/run/x/operators.sock"));
        let names: Vec<_> = sockets.iter().map(|(origin, path)| (origin.name(), path.to_str().unwrap())).collect();
        assert_eq!(
            names,
            [
                ("operator", "/run/x/operators.sock"),
                ("kubelet", "/run/x/kubelet.sock"),
                ("flexvolume", "/run/x/flexvolume.sock"),
                ("csi", "/run/csi/mounter.sock"),
            ]
        );
    }
}
