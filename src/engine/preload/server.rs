//! Answering the shared object's calls, and noticing the helper's end.
//!
//! Runs in the mounter; as with the other engine, the volume's own thread answers with a [`Broker`] while the volume is
//! being mounted, and the main thread refuses after that.

use super::message::{self, Operation};
use crate::engine::Heard;
use crate::engine::broker::{Broker, MountCall};
use crate::helper::family::Family;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};
use std::collections::HashMap;
use std::fs::{Permissions, set_permissions};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use tracing::{debug, warn};

/// Marks events of the socket; those of processes carry numbers from 1.
const CALLS: u64 = 0;

/// The mounter's end of one helper.
#[derive(Debug)]
pub struct Server {
    socket: UnixDatagram,
    /// An epoll descriptor over the socket and the processes.
    events: OwnedFd,
    family: Family,
    members: HashMap<u64, OwnedFd>,
    last_number: u64,
}

impl Server {
    /// Listens at `path`, in the calling thread's mount namespace.
    pub fn listen(path: &Path, family: Family) -> io::Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        // Nobody else sees the path, and what the helper starts may run as somebody else.
        set_permissions(path, Permissions::from_mode(0o666))?;
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&events, &socket, epoll::EventData::new_u64(CALLS), epoll::EventFlags::IN)?;
        Ok(Self { socket, events, family, members: HashMap::new(), last_number: 0 })
    }

    /// Takes in a process of the helper's.
    pub fn watch(&mut self, process: OwnedFd) -> io::Result<()> {
        self.last_number += 1;
        let number = epoll::EventData::new_u64(self.last_number);
        epoll::add(&self.events, &process, number, epoll::EventFlags::IN)?;
        self.members.insert(self.last_number, process);
        Ok(())
    }

    /// See [`Engine::heed`](crate::engine::Engine::heed).
    pub fn heed(&mut self, broker: Option<&mut Broker>) -> io::Result<Heard> {
        let mut events = Vec::with_capacity(16);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&self.events, spare_capacity(&mut events), Some(&now))?;
        let tokens: Vec<u64> = events.iter().map(|event| event.data.u64()).collect();
        // What the helper asked for before it ended comes first.
        if tokens.contains(&CALLS) {
            self.answer(broker);
            return Ok(Heard::Call);
        }
        for token in tokens {
            // The last one stays: it goes on telling that everybody is gone.
            if self.members.len() == 1 {
                let others = self.family.members()?;
                if others.is_empty() {
                    return Ok(Heard::Gone);
                }
                others.into_iter().try_for_each(|(_, process)| self.watch(process))?;
            }
            if let Some(process) = self.members.remove(&token) {
                // Not closing alone: a copy in a process just being forked would keep the events coming.
                epoll::delete(&self.events, &process)?;
            }
        }
        Ok(Heard::Call)
    }

    fn answer(&self, broker: Option<&mut Broker>) {
        let mut bytes = [0; message::LIMIT + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(message::DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Ok(received) => received,
            Err(errno) => return debug!("no call of the helper's after all: {errno}"),
        };
        let mut descriptors = control.drain().flat_map(|part| match part {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let Some(reply) = descriptors.next() else {
            return warn!("a call of the helper's without a place for the answer");
        };
        let call = bytes.get(..received.bytes).and_then(message::parse);
        let answer = match (call, descriptors.next()) {
            (Some(call), Some(target)) => perform(call, target, descriptors.next(), broker),
            _ => Err(Errno::INVAL),
        };
        let errno = answer.err().map_or(0, Errno::raw_os_error);
        // A caller that has gone, or that gave us something else, does not care.
        let _ = send(&reply, &errno.to_ne_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

fn perform(
    call: message::Call<'_>,
    target: OwnedFd,
    device: Option<OwnedFd>,
    broker: Option<&mut Broker>,
) -> Result<(), Errno> {
    match (call.operation, broker) {
        (Operation::Mount, Some(broker)) => {
            let text = |string: &std::ffi::CStr| string.to_str().map(str::to_owned).map_err(|_| Errno::INVAL);
            broker.mount(&MountCall {
                source: call.source.to_owned(),
                target,
                fstype: text(call.fstype)?,
                flags: MountFlags::from_bits_retain(u32::try_from(call.flags).map_err(|_| Errno::INVAL)?),
                data: text(call.data)?,
                device,
            })
        }
        (Operation::Unmount, Some(broker)) => broker.unmount(&target),
        (Operation::Mount, None) => {
            warn!("refused mount(2): the helper has had its mount");
            Err(Errno::PERM)
        }
        // Helpers unmount when they end. Their own copy is long gone, and the node's is not theirs.
        (Operation::Unmount, None) => Err(Errno::INVAL),
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
