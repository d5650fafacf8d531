//! Killed processes that wait for a volume which others have that live: their requests alone are answered, "interrupted", so that they and
//! their pods can go. Whoever lives waits on, and has his answer when the server has one.
//!
//! Runs in the mounter, on the thread of the look that has found the volume idle ([`abandoned`](super::abandoned)). It never touches
//! the filesystem. The helper is held still for milliseconds at a time, some of which pass in /proc.

use crate::config::open_files::OpenFiles;
use crate::engine::standstill::while_still;
use crate::mounter::Mounter;
use crate::mounter::volume::{Volume, VolumeId};
use crate::node::cgroup::has_own_pid_namespace;
use crate::node::dying::Life;
use crate::node::fuse_interrupt::{Interrupter, MOST};
use crate::node::fuse_waiters::{Waiters, waiting_in};
use crate::node::kernel;
use crate::node::mount_search::VisibleMounts;
use crate::observe::events;
use rustix::event::{Timespec, poll};
use std::collections::HashSet;
use std::io;
use tracing::{debug, warn};

/// How often a process that ends may wait once more, each time for one of the files that it had open. The helper has what living ones wait
/// for as often again; what is left then has its turn at a later look.
const ROUNDS: usize = 16;
/// How long a process has for that, and the helper for reading what has come.
const MOMENTS: usize = 50;
const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 4_000_000 };

/// Answers the requests of processes that live no longer than `until`. Whether there were any: then the helper was held, or that was tried, and
/// is left alone for a while.
pub(super) fn let_go_of_killed(
    mounter: &Mounter,
    id: VolumeId,
    volume: &Volume,
    visible: &VisibleMounts,
    until: Life,
) -> bool {
    match try_to(mounter, id, volume, visible, until) {
        Ok(0) => false,
        Ok(answered) => {
            warn!(
                event = events::INTERRUPTED,
                answered,
                "requests wait, and the helper does nothing: those of killed processes were answered, to hold no pod; those of \
                 living ones wait on"
            );
            true
        }
        Err(error) => {
            debug!("requests of killed processes cannot be answered alone: {error}");
            error.kind() != io::ErrorKind::Unsupported
        }
    }
}

/// Returns how many were answered.
fn try_to(mounter: &Mounter, id: VolumeId, volume: &Volume, visible: &VisibleMounts, until: Life) -> io::Result<usize> {
    let namespaces: HashSet<_> = visible.mounts.iter().map(|mount| mount.namespace()).collect();
    // Others may take only what follows on what they have had.
    let write_again = volume.open_files() == OpenFiles::Write;
    let look = || waiting_in(&namespaces, until, &mounter.host_proc, write_again);
    if look()?.killed.is_empty() {
        return Ok(0);
    }
    // In another PID namespace requests name other threads than /proc.
    if has_own_pid_namespace(&mounter.host_proc) || !kernel::has_resend() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let kept = mounter.registry.copy_of_kept(id).ok_or(io::ErrorKind::Unsupported)?;
    let mut interrupter = Interrupter::of(kept)?;
    let (mut all, mut in_vain) = (0, 0);
    for _ in 0..ROUNDS {
        // As long as it stands still, nobody but us answers them: who was killed and waits cannot go, nor can another get its number.
        let round = while_still(&volume.processes, || {
            let Waiters { killed, once } = look()?;
            if once || mounter.connections.waiting(volume.identity)? > MOST {
                return Err(io::Error::other("what a living process waits for must not be done twice"));
            }
            let answered = if killed.is_empty() { 0 } else { interrupter.answer(&killed)? };
            Ok((answered, killed))
        })?;
        let (answered, killed) = match round {
            Ok(done) => done,
            Err(_) if all > 0 => break,
            Err(error) => return Err(error),
        };
        all += answered;
        // Others than this volume may let them wait; or they had no time yet to take note of the last answer.
        in_vain = if answered == 0 { in_vain + 1 } else { 0 };
        if killed.is_empty() || in_vain == 2 {
            break;
        }
        if !wait_again(&killed, &interrupter, mounter, look)? {
            break;
        }
    }
    Ok(all)
}

/// Waits a moment for threads that have got an answer: to end, or to ask for the next thing, as who ends closes its files, and the
/// helper to hear of it. Whether they do.
fn wait_again(
    threads: &HashSet<i32>,
    interrupter: &Interrupter,
    mounter: &Mounter,
    look: impl Fn() -> io::Result<Waiters>,
) -> io::Result<bool> {
    for _ in 0..MOMENTS {
        // No event says so.
        let _ = poll(&mut [], Some(&MOMENT));
        if !threads.iter().any(|thread| mounter.host_proc.join(thread.to_string()).exists()) {
            return Ok(false);
        }
        if interrupter.is_read() && !look()?.killed.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
