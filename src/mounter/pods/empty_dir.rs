//! Waiting for a pod's emptyDir: kubelet makes a pod's volumes ready at the same time, so that it may come after the call that needs it.
//!
//! Runs in the mounter, on a visit to the node. What is watched is kubelet's: no pod writes there.

use super::PodVolume;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long it is waited for. Kubelet asks again after that.
const ALLOWED: Duration = Duration::from_secs(5);

/// Waits until kubelet has the emptyDir ready, or the time is over, or `stopping` is readable. Not until the directory is there alone:
/// one in memory is mounted on it after that.
pub(super) fn wait_until_ready(volume: &PodVolume, kubelet_dir: &Path, stopping: BorrowedFd<'_>) -> io::Result<()> {
    let ready = volume.ready_file(kubelet_dir);
    let until = Instant::now() + ALLOWED;
    loop {
        let events = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        // The innermost directory on the way that is there already, which is watched before it is looked into.
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        let watched = ready.ancestors().skip(1).find(|directory| add_watch(&events, *directory, flags).is_ok());
        let inner =
            |directory: &Path| ready.ancestors().take_while(|path| *path != directory).last().map(Path::to_owned);
        let Some(next) = watched.and_then(inner) else { return Err(Errno::NOENT.into()) };
        if ready.exists() {
            return Ok(());
        }
        if next.exists() {
            continue;
        }
        let left = until.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut fds = [PollFd::new(&events, PollFlags::IN), PollFd::from_borrowed_fd(stopping, PollFlags::IN)];
        match poll(&mut fds, Some(&limit)) {
            Ok(0) => return Err(Errno::TIMEDOUT.into()),
            Ok(_) if !fds[1].revents().is_empty() => return Err(Errno::INTR.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
