//! Answering the calls of the shared object, and noticing the end of the helper.
//!
//! Runs in the mounter; as with the other engine, the volume's own thread answers with a [`Broker`] while the volume is
//! being mounted, and the main thread refuses after that.

use super::message::{self, Operation};
use crate::engine::EngineEvent;
use crate::engine::broker::{Broker, MountCall};
use crate::engine::helper_processes::HelperProcesses;
use crate::engine::judge::Objection;
use crate::engine::objections::Objections;
use crate::engine::watch::Watch;
use linux::strangers::{let_go, waits_when_closed};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};
use std::fs::{Permissions, set_permissions};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use tracing::{debug, warn};

/// The mounter's end of one helper.
#[derive(Debug)]
pub struct Server {
    socket: UnixDatagram,
    watch: Watch,
    /// What was refused to it; while there is a broker, that one hears of it.
    pub objections: Objections,
}

impl Server {
    /// Listens for the helper in the calling thread's mount namespace, which is [furnished](fn@super::furnish).
    pub fn listen(processes: HelperProcesses) -> io::Result<Self> {
        let path = super::socket();
        let socket = UnixDatagram::bind(path)?;
        // Only the helper's mount namespace has the path, and what the helper starts may run under another uid.
        set_permissions(path, Permissions::from_mode(0o666))?;
        let mut watch = Watch::new(processes)?;
        watch.take_in_other(&socket)?;
        Ok(Self { socket, watch, objections: Objections::default() })
    }

    /// Takes in a process of the helper's.
    pub fn watch(&mut self, process: OwnedFd) -> io::Result<()> {
        self.watch.take_in(process)
    }

    /// See [`Engine::handle_event`](crate::engine::Engine::handle_event).
    pub fn handle_event(&mut self, broker: Option<&mut Broker>) -> io::Result<EngineEvent> {
        match self.watch.handle_event()? {
            Some(event) => Ok(event),
            None => Ok(self.answer(broker)),
        }
    }

    fn answer(&mut self, broker: Option<&mut Broker>) -> EngineEvent {
        let mut bytes = [0; message::LIMIT + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(message::DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Ok(received) => received,
            Err(errno) => {
                debug!("there was no call of the helper to receive: {errno}");
                return EngineEvent::Call;
            }
        };
        let descriptors = control.drain().flat_map(|part| match part {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let (strange, descriptors): (Vec<OwnedFd>, Vec<_>) =
            descriptors.partition(|one| waits_when_closed(one.as_fd()));
        if !strange.is_empty() {
            // No shared object of ours sends such, and to close them may take as long as the helper likes, whose own they may be.
            self.objections
                .add("it came with a file that is open for reading or writing: the helper is killed".to_owned());
            strange.into_iter().for_each(let_go);
            self.watch.kill();
            return EngineEvent::Cheats;
        }
        let mut descriptors = descriptors.into_iter();
        let Some(reply) = descriptors.next() else {
            let words = "ignored a call of the helper: it came without a descriptor for the answer";
            self.objections.log(|| warn!("{words}"));
            return EngineEvent::Call;
        };
        let call = bytes.get(..received.bytes).and_then(message::parse);
        let answer = match (call, descriptors.next()) {
            (Some(call), Some(target)) => perform(call, target, descriptors.next(), broker, &mut self.objections),
            _ => Err(Errno::INVAL),
        };
        let errno = answer.err().map_or(0, Errno::raw_os_error);
        // It fails if the calling process is gone, or passed a descriptor that is no socket; then no answer is expected.
        let _ = send(&reply, &errno.to_ne_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        EngineEvent::Call
    }
}

fn perform(
    call: message::Call<'_>,
    target: OwnedFd,
    device: Option<OwnedFd>,
    broker: Option<&mut Broker>,
    objections: &mut Objections,
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
            objections.add(Objection::Twice.to_string());
            Err(Errno::PERM)
        }
        // Helpers unmount when they exit. Their own copy is detached by then, and the node's is not theirs.
        (Operation::Unmount, None) => Err(Errno::INVAL),
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}
