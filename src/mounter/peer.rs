//! The process at the other end of a connection: may it ask at this door? At most doors only if it could mount on the node by
//! itself: there the mounter is no way to a privilege that one has not. The CSI server is known by its user.
//!
//! Runs in the mounter, on the request's own thread. It looks at the process through the node's proc filesystem, or its own,
//! and holds it by a pidfd meanwhile, so that its id is no other's.

use super::door::MayAsk;
use crate::helper::namespace;
use crate::node::pod_cgroup::is_of_pod;
use linux::namespace::NamespaceId;
use linux::processes::{self, Process, has_ended};
use linux::statx;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{PeerCredentials, PeerPidfd};
use rustix::process::Pid;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// `CAP_SYS_ADMIN`, as capabilities are numbered in /proc/PID/status.
const SYS_ADMIN: u32 = 21;
/// The other end may not ask.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// Mounting is root's business, as with mount(8).
    #[error("only root may ask the mounter; you are uid {uid}")]
    NotRoot {
        /// The peer's uid.
        uid: u32,
    },
    /// The door is another user's.
    #[error("only uid {may} may ask the mounter here (doors.csi.uid in config.toml); you are uid {uid}")]
    AnotherUser {
        /// The user who may.
        may: u32,
        /// The peer's uid.
        uid: u32,
    },
    /// It could not mount by itself.
    #[error(
        "only a process that could mount on the node by itself may ask the mounter; yours has no CAP_SYS_ADMIN in the node's \
         user namespace"
    )]
    NotAble,
    /// It lives where helpers live.
    #[error("no helper may ask the mounter")]
    Helper,
    /// It is another pod's, or none's.
    #[error("only processes of the volume's own pod may ask here")]
    NotOfPod,
    /// It did not wait for an answer.
    #[error("the caller has ended already")]
    Ended,
    /// The kernel does not tell.
    #[error("cannot see who is calling")]
    Unknown(#[source] io::Error),
}

/// Looks at the process that connected `stream`. Its id in our PID namespace, if it has one there.
pub(super) fn check(
    stream: &UnixStream,
    may_ask: MayAsk,
    host_proc: &Path,
    state: &Path,
) -> Result<Option<Pid>, PeerError> {
    let peer = getsockopt(stream, PeerCredentials).map_err(|errno| PeerError::Unknown(errno.into()))?;
    match (may_ask, peer.uid()) {
        (MayAsk::Root, 0) => {}
        (MayAsk::Root, uid) => return Err(PeerError::NotRoot { uid }),
        (MayAsk::User(may), uid) if may == uid => {}
        (MayAsk::User(may), uid) => return Err(PeerError::AnotherUser { may, uid }),
    }
    let own_id = Pid::from_raw(peer.pid());
    // Outside of our PID namespace, which every helper of ours lives in, and not to be seen by any means.
    let Some((process, held)) = connected(stream, own_id, host_proc)? else { return Ok(None) };
    if let Found::Process(process) = process {
        let is_able = if may_ask == MayAsk::Root { could_mount(&process) } else { Ok(true) };
        let is_helper = lives_with_a_helper(&process, state);
        // All that was read is its own as long as it has not ended.
        if has_ended(&held).map_err(PeerError::Unknown)? {
            return Err(PeerError::Ended);
        }
        if is_helper.map_err(PeerError::Unknown)? {
            return Err(PeerError::Helper);
        }
        if !is_able.map_err(PeerError::Unknown)? {
            return Err(PeerError::NotAble);
        }
    }
    Ok(own_id)
}

/// Looks whether the process that connected `stream` is one of the pod with this UID. Returns its user namespace, if that is not ours.
pub(super) fn check_pod(stream: &UnixStream, uid: &str, host_proc: &Path) -> Result<Option<File>, PeerError> {
    let peer = getsockopt(stream, PeerCredentials).map_err(|errno| PeerError::Unknown(errno.into()))?;
    let Some((Found::Process(process), held)) = connected(stream, Pid::from_raw(peer.pid()), host_proc)? else {
        return Err(PeerError::NotOfPod);
    };
    let cgroups = process.read("cgroup");
    let users = process.other_user_namespace();
    // What was read is its own as long as it has not ended.
    if has_ended(&held).map_err(PeerError::Unknown)? {
        return Err(PeerError::Ended);
    }
    let is_its = cgroups.is_ok_and(|text| is_of_pod(&text, uid));
    if is_its { users.map_err(PeerError::Unknown) } else { Err(PeerError::NotOfPod) }
}

/// The process that connected `stream`, which had this id in our PID namespace, with a descriptor that holds it; none if it is in none of
/// the PID namespaces that we see, and the kernel cannot tell more (Linux before 6.5).
fn connected(
    stream: &UnixStream,
    own_id: Option<Pid>,
    host_proc: &Path,
) -> Result<Option<(Found, OwnedFd)>, PeerError> {
    match getsockopt(stream, PeerPidfd) {
        Ok(held) => Ok(Some((find(&held, host_proc)?, held))),
        // Linux before 6.5.
        Err(nix::errno::Errno::ENOPROTOOPT) => {
            let Some(pid) = own_id else { return Ok(None) };
            let latest = now().map_err(PeerError::Unknown)?;
            let process = Process::at(Path::new(processes::OWN), pid);
            let held = process.pidfd().map_err(|_| PeerError::Ended)?;
            // Not one that has got the id since.
            if process.start().map_err(|_| PeerError::Ended)? > latest {
                return Err(PeerError::Ended);
            }
            Ok(Some((Found::Process(process), held)))
        }
        Err(nix::errno::Errno::ESRCH | nix::errno::Errno::EINVAL | nix::errno::Errno::ENODATA) => Err(PeerError::Ended),
        Err(errno) => Err(PeerError::Unknown(errno.into())),
    }
}

/// The time since the machine was started, as [`Process::start`] tells it.
fn now() -> io::Result<u64> {
    let uptime = fs::read_to_string(Path::new(processes::OWN).join("uptime"))?;
    let digits = uptime.split_whitespace().next().map(|seconds| seconds.replace('.', ""));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Where a process can be looked at.
enum Found {
    Process(Process),
    /// In no PID namespace of the node's nor of ours: it is root outside of the node, which it has in its hands.
    OutsideOfNode,
}

/// Finds the process behind a pidfd. A proc filesystem tells which id it has in the PID namespace that it shows.
fn find(held: &OwnedFd, host_proc: &Path) -> Result<Found, PeerError> {
    let mut seen = Err(PeerError::Unknown(io::ErrorKind::NotFound.into()));
    for proc in [host_proc, Path::new(processes::OWN)] {
        // A thread is not shown under its own id where only its process is listed, so `self` it is.
        let told = processes::read_short(&proc.join("self/fdinfo").join(held.as_raw_fd().to_string()));
        let id = told.as_ref().ok().and_then(|told| told.lines().find_map(|line| line.strip_prefix("Pid:")));
        match (id.and_then(|id| id.trim().parse::<i32>().ok()), told) {
            (Some(0), _) => seen = Ok(Found::OutsideOfNode),
            (Some(id), _) => {
                // -1: it has ended.
                let pid = Some(id).filter(|id| *id > 0).and_then(Pid::from_raw).ok_or(PeerError::Ended)?;
                return Ok(Found::Process(Process::at(proc, pid)));
            }
            (None, Err(error)) if seen.is_err() => seen = Err(PeerError::Unknown(error)),
            (None, _) => {}
        }
    }
    seen
}

/// Whether it has CAP_SYS_ADMIN where we have it.
fn could_mount(process: &Process) -> io::Result<bool> {
    let ours = NamespaceId::at(&Path::new(processes::OWN).join("self/ns/user"))?;
    let effective = has_capability(&process.read("status")?, SYS_ADMIN).ok_or(io::ErrorKind::InvalidData)?;
    Ok(effective && NamespaceId::at(&process.file("ns/user"))? == ours)
}

/// Whether a capability is effective, by the text of /proc/PID/status.
fn has_capability(status: &str, number: u32) -> Option<bool> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    Some(u64::from_str_radix(set.trim(), 16).ok()? >> number & 1 == 1)
}

/// Whether its mount namespace was made for a helper: there alone something is mounted where mount points are.
fn lives_with_a_helper(process: &Process, state: &Path) -> io::Result<bool> {
    let places = namespace::mount_point(state, Path::new("/"));
    let seen = process.file("root").join(places.strip_prefix("/").unwrap_or(&places));
    match statx::device_at(&seen) {
        Ok(mounted) => Ok(mounted.is_some()),
        // No such directory in its root: it has another one.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_were_started_before_now() {
        let (start, now) =
            (Process::at(Path::new("/proc"), rustix::process::getpid()).start().unwrap(), now().unwrap());
        assert!(start <= now && now < start + 100 * 3600, "{start} {now}");
    }

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let status = |set: &str| format!("Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{set}\nCapBnd:\t0\n");
        assert_eq!(has_capability(&status("000001ffffffffff"), SYS_ADMIN), Some(true));
        assert_eq!(has_capability(&status("0000000000200000"), SYS_ADMIN), Some(true));
        assert_eq!(has_capability(&status("000001ffffdfffff"), SYS_ADMIN), Some(false));
        assert_eq!(has_capability(&status("0000000000000000"), SYS_ADMIN), Some(false));
        assert_eq!((has_capability(&status("x"), SYS_ADMIN), has_capability("", SYS_ADMIN)), (None, None));
    }
}
