//! Answering the calls that the filter stops.
//!
//! While a volume is being mounted its own thread answers, with a [`Broker`] that may perform the call; it stands in
//! the helper's mount namespace. For the rest of the helper's life the mounter's main thread answers: it refuses every call.

use super::calls::{Heard, refusal};
use super::filter;
use super::memory::StoppedThread;
use crate::engine::EngineEvent;
use crate::engine::broker::{Broker, MountCall, Progress};
use crate::engine::judge::Objection;
use crate::engine::objections::Objections;
use crate::observe::events;
use api::options::MountOptions;
use linux::sys::seccomp::{self, Notification};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tracing::info;

/// Old programs put this into the flags' upper half; the kernel ignores it (mount(2)).
const MS_MGC_VAL: u64 = 0xc0ed_0000;
const MS_MGC_MSK: u64 = 0xffff_0000;
const UMOUNT_NOFOLLOW: u64 = 8;

/// The mounter's end of a helper's filter. All processes that the helper starts share the filter, and the listener hangs up
/// when the last of them is gone: the exact answer to "is any process of this helper left?".
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
    /// The thread whose mount(2) was performed, and that was interrupted before it got the answer. It will call again, and
    /// must then get the answer to the first call (kernels before 5.19).
    unanswered_mount: Option<u32>,
    /// What was refused to it; while there is a broker, that one hears of it.
    pub objections: Objections,
}

impl Listener {
    /// Binds the calling thread, and everything that it starts from here on, which may use io_uring(7) or not.
    pub fn install(io_uring: bool) -> io::Result<Self> {
        let program = filter::program(Heard::ByListener, io_uring);
        Ok(Self { fd: seccomp::install(&program)?, unanswered_mount: None, objections: Objections::default() })
    }

    /// See [`Engine::handle_event`](crate::engine::Engine::handle_event).
    pub fn handle_event(&mut self, broker: Option<&mut Broker>) -> io::Result<EngineEvent> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        let flags = fds[0].revents();
        if flags.contains(PollFlags::IN) {
            self.answer(broker)?;
        } else if flags.contains(PollFlags::HUP) {
            return Ok(EngineEvent::HelperGone);
        }
        Ok(EngineEvent::Call)
    }

    /// See [`Engine::has_helper`](crate::engine::Engine::has_helper).
    pub fn has_helper(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let done = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        done.is_ok() && !fds[0].revents().contains(PollFlags::HUP)
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
            None => self.refuse(call),
        };
        match seccomp::respond(self.fd.as_fd(), call.id, answer) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let repeat = call.number == libc::SYS_mount && answer.is_ok();
                self.unanswered_mount = repeat.then_some(call.tid);
                Ok(())
            }
            done => done,
        }
    }

    fn stopped_thread(&self, call: Notification) -> StoppedThread<'_> {
        StoppedThread::new(self.fd.as_fd(), call)
    }

    fn perform(&mut self, call: Notification, broker: &mut Broker) -> Result<(), Errno> {
        if broker.progress() != Progress::Waiting {
            return self.perform_afterwards(call, broker);
        }
        let thread = self.stopped_thread(call);
        match call.number {
            libc::SYS_mount => broker.mount(&read_mount(&thread)?),
            libc::SYS_umount2 => {
                let target = thread.open_path(call.args[0], call.args[1] & UMOUNT_NOFOLLOW == 0)?;
                broker.unmount(&target)
            }
            number => forbidden(number, call.tid, broker.objections_mut()),
        }
    }

    /// The answer to a helper that asks for more than its one mount.
    fn refuse(&mut self, call: Notification) -> Result<(), Errno> {
        let thread = call.tid;
        match call.number {
            libc::SYS_mount => {
                self.objections.add(Objection::Twice.to_string());
                Err(Errno::PERM)
            }
            // Helpers unmount when they exit. Their own copy is detached by then, and the node's is not theirs: the kernel
            // would give the same answer.
            libc::SYS_umount2 => {
                let words = "refused umount2(2): the helper has nothing mounted";
                self.objections.log(|| info!(event = events::HELPER_REFUSED, thread, "{words}"));
                Err(Errno::INVAL)
            }
            number => forbidden(number, thread, &mut self.objections),
        }
    }

    /// A call of a helper that has mounted. Its arguments are not read any more: they may stand in a page of its filesystem,
    /// and their paths may lead there, so that reading them waits for the helper.
    fn perform_afterwards(&mut self, call: Notification, broker: &mut Broker) -> Result<(), Errno> {
        match call.number {
            libc::SYS_mount if self.unanswered_mount.take() == Some(call.tid) => Ok(()),
            libc::SYS_mount => broker.mount_again(),
            // Helpers do that when they give up; there is nothing else that one could unmount.
            libc::SYS_umount2 => broker.give_up(),
            number => forbidden(number, call.tid, broker.objections_mut()),
        }
    }
}

/// The answer to a call that is none of the old mount interface.
fn forbidden(number: i64, thread: u32, objections: &mut Objections) -> Result<(), Errno> {
    let Some((errno, words)) = refusal(number) else {
        objections.log(|| info!(thread, number, "answered ENOSYS to a call of the new mount interface"));
        return Err(Errno::NOSYS);
    };
    objections.add(words);
    Err(errno)
}

fn read_mount(thread: &StoppedThread<'_>) -> Result<MountCall, Errno> {
    let [source, target, fstype, mut flags, data, _] = thread.call.args;
    if flags & MS_MGC_MSK == MS_MGC_VAL {
        flags &= !MS_MGC_MSK;
    }
    let flags = MountFlags::from_bits_retain(u32::try_from(flags).map_err(|_| Errno::INVAL)?);
    let data = thread.text(data)?;
    // Quotes may be unbalanced here: the broker refuses them with an error.
    let number = MountOptions::parse(&data).ok().and_then(|options| descriptor_number(&options));
    let device = number.map(|number| thread.descriptor(number)).transpose()?.flatten();
    Ok(MountCall {
        source: thread.string(source)?,
        target: thread.open_path(target, true)?,
        fstype: thread.text(fstype)?,
        flags,
        data,
        device,
    })
}

/// The number after the last `fd=`. None is negative.
fn descriptor_number(data: &MountOptions) -> Option<i32> {
    data.value("fd")?.parse().ok().filter(|number| *number >= 0)
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_no_descriptor_has_is_none() {
        let number = |data| descriptor_number(&MountOptions::parse(data).unwrap());
        assert_eq!(number("fd=3,fd=5"), Some(5));
        for none in ["", "fd", "fd=", "fd=x", "fd=-1", "fd=-100", "fd=4294967296"] {
            assert_eq!(number(none), None, "{none}");
        }
    }
}
