//! The `seccomp` engine: the kernel stops a helper's mount(2) and hands it to the mounter (seccomp_unotify(2)).
//!
//! The helper is not changed in any way and needs no capability. [`filter`] decides which calls are stopped, [`listener`]
//! answers them, `memory` reads their arguments.

mod architecture;
pub mod calls;
pub mod filter;
pub mod listener;
mod memory;

use listener::Listener;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::thread;

/// Whether the engine works here, by trying: a filter with a listener, on a thread that ends with it, and taking over a
/// descriptor (pidfd_getfd(2), 5.6 and later).
pub fn probe() -> io::Result<()> {
    let tried = thread::scope(|scope| {
        let thread = thread::Builder::new().name("probe".into()).spawn_scoped(scope, || Listener::install(false))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let listener = tried?;
    let number = listener.as_fd().as_raw_fd();
    pidfd_getfd(pidfd_open(getpid(), PidfdFlags::empty())?, number, PidfdGetfdFlags::empty())?;
    Ok(())
}
