//! Answering the calls that the filter stops.
//!
//! While a volume is being mounted its own thread answers, with a [`Broker`] that may perform the call; it stands in
//! the helper's mount namespace. For the rest of the helper's life the mounter's main thread answers, and refuses.

use super::filter;
use super::memory::Caller;
use crate::engine::Heard;
use crate::engine::broker::{Broker, MountCall};
use api::options::MountOptions;
use linux::sys::seccomp::{self, Notification};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tracing::{info, warn};

/// Old programs put this into the flags' upper half; the kernel ignores it (mount(2)).
const MS_MGC_VAL: u64 = 0xc0ed_0000;
const MS_MGC_MSK: u64 = 0xffff_0000;
const UMOUNT_NOFOLLOW: u64 = 8;

/// The mounter's end of a helper's filter. It is shared by everything that the helper starts, and hangs up when the
/// last of them is gone: the exact answer to "does anything of this helper still run?".
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    /// The mount data of a call that was done, but whose caller was interrupted before it could hear of it: it will
    /// call again, and must then be told so (kernels before 5.19).
    unheard: Option<String>,
}

impl Listener {
    /// Binds the calling thread, and everything that it starts from here on.
    pub fn install() -> io::Result<Self> {
        Ok(Self { fd: seccomp::install(&filter::program())?, unheard: None })
    }

    /// See [`Engine::heed`](crate::engine::Engine::heed).
    pub fn heed(&mut self, broker: Option<&mut Broker>) -> io::Result<Heard> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        let flags = fds[0].revents();
        if flags.contains(PollFlags::IN) {
            self.answer(broker)?;
        } else if flags.contains(PollFlags::HUP) {
            return Ok(Heard::Gone);
        }
        Ok(Heard::Call)
    }

    /// Takes one stopped call and answers it.
    fn answer(&mut self, broker: Option<&mut Broker>) -> io::Result<()> {
        let call = match seccomp::receive(self.fd.as_fd()) {
            Ok(call) => call,
            // Its thread was killed in between.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        };
        let answer = match broker {
            Some(broker) => self.perform(call, broker),
            None => refuse(call),
        };
        match seccomp::respond(self.fd.as_fd(), call.id, answer) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let repeat = call.number == libc::SYS_mount && answer.is_ok();
                self.unheard = repeat.then(|| self.caller(call).text(call.args[4]).unwrap_or_default());
                Ok(())
            }
            done => done,
        }
    }

    fn caller(&self, call: Notification) -> Caller<'_> {
        Caller { listener: self.fd.as_fd(), call }
    }

    fn perform(&mut self, call: Notification, broker: &mut Broker) -> Result<(), Errno> {
        let caller = self.caller(call);
        match call.number {
            libc::SYS_mount => {
                let mount = read_mount(&caller)?;
                if self.unheard.take().is_some_and(|data| data == mount.data) {
                    return Ok(());
                }
                broker.mount(&mount)
            }
            libc::SYS_umount2 => {
                let target = caller.place(call.args[0], call.args[1] & UMOUNT_NOFOLLOW == 0)?;
                broker.unmount(&target)
            }
            _ => refuse(call),
        }
    }
}

fn read_mount(caller: &Caller<'_>) -> Result<MountCall, Errno> {
    let [source, target, fstype, mut flags, data, _] = caller.call.args;
    if flags & MS_MGC_MSK == MS_MGC_VAL {
        flags &= !MS_MGC_MSK;
    }
    let flags = MountFlags::from_bits_retain(u32::try_from(flags).map_err(|_| Errno::INVAL)?);
    let data = caller.text(data)?;
    // Quotes may be unbalanced here; the broker will say so.
    let number = MountOptions::parse(&data).ok().and_then(|options| options.value("fd")?.parse().ok());
    let device = number.map(|number| caller.descriptor(number)).transpose()?;
    Ok(MountCall {
        source: caller.string(source)?,
        target: caller.place(target, true)?,
        fstype: caller.text(fstype)?,
        flags,
        data,
        device,
    })
}

/// What a helper is told that asks for more than its one mount.
fn refuse(call: Notification) -> Result<(), Errno> {
    match call.number {
        libc::SYS_mount => {
            warn!(thread = call.tid, "refused mount(2): the helper has had its mount");
            Err(Errno::PERM)
        }
        // Helpers unmount when they end. Their own copy is long gone, and the node's is not theirs: what the kernel
        // would say is the truth.
        libc::SYS_umount2 => {
            info!(thread = call.tid, "refused umount2(2): nothing of the helper's is mounted");
            Err(Errno::INVAL)
        }
        number => {
            info!(thread = call.tid, number, "answered ENOSYS to a call of the new mount interface");
            Err(Errno::NOSYS)
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
