//! The signals that this process is sent.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// The signals that this process was sent, but for those of its own faults.
pub(super) struct Signals(SignalFd);

impl Signals {
    /// From now on they wait to be read.
    pub(super) fn take() -> Result<Self, Errno> {
        let mut signals = SigSet::all();
        for fault in [
            Signal::SIGABRT,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGSEGV,
            Signal::SIGSYS,
            Signal::SIGTRAP,
        ] {
            signals.remove(fault);
        }
        signals.thread_block()?;
        Ok(Self(SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The number of one that has come, if any has.
    pub(super) fn pending(&self) -> Option<i32> {
        let signal = self.0.read_signal().ok()??;
        i32::try_from(signal.ssi_signo).ok()
    }
}

/// Whether a signal ends a process that does nothing about it.
pub(super) fn ends(number: i32) -> bool {
    ![Signal::SIGCHLD, Signal::SIGCONT, Signal::SIGURG, Signal::SIGWINCH].iter().any(|signal| *signal as i32 == number)
}
