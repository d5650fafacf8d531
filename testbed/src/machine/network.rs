//! A network of its own for one machine or several: nothing but a loopback interface.
//!
//! Runs in the process that makes the machines, as root.

use super::{Error, on_new_thread, open_namespace, step};
use nix::sched::{CloneFlags, unshare};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// A network namespace with `lo` up. Clones are the same network.
#[derive(Debug, Clone)]
pub struct Network(Arc<OwnedFd>);

impl Network {
    /// Makes one.
    pub fn new() -> Result<Self, Error> {
        on_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(step("make a network namespace"))?;
            bring_up_loopback().map_err(step("bring up the interface lo"))?;
            open_namespace("/proc/thread-self/ns/net").map(|fd| Self(Arc::new(fd)))
        })
    }
}

impl AsFd for Network {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One rtnetlink request, RTM_NEWLINK on the interface that every network namespace has as its first.
fn bring_up_loopback() -> io::Result<()> {
    const LENGTH: u32 = 32;
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    const LO: i32 = 1;
    const IFF_UP: u32 = 1;

    let mut request = Vec::with_capacity(LENGTH as usize);
    // struct nlmsghdr: length, type, flags, sequence, port
    request.extend(LENGTH.to_ne_bytes());
    request.extend(RTM_NEWLINK.to_ne_bytes());
    request.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    request.extend([0; 8]);
    // struct ifinfomsg: family and type (any), index, flags, which flags to change
    request.extend([0; 4]);
    request.extend(LO.to_ne_bytes());
    request.extend(IFF_UP.to_ne_bytes());
    request.extend(IFF_UP.to_ne_bytes());

    // No protocol is protocol 0, which is NETLINK_ROUTE.
    let kernel = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&kernel, &request, SendFlags::empty())?;
    let mut answer = [0; 128];
    let (length, _) = recv(&kernel, &mut answer, RecvFlags::empty())?;
    // struct nlmsgerr after the header: a negative errno, or 0
    match answer[..length].get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(-errno)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
