//! Holding all threads of a helper still for a moment: none of them reads or answers a request meanwhile.
//!
//! Runs in the mounter, by ptrace(2), on a thread of its own: the kernel lets go of whatever a thread traces when that ends, also
//! when the mounter is killed, so a helper cannot stay held. It gets no signal, nor does its parent see anything; the calls that its threads
//! wait in go on afterwards, as when strace(1) is attached to it.

use super::helper_processes::HelperProcesses;
use nix::sys::ptrace;
use nix::unistd::Pid;
use rustix::event::{Timespec, poll};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

/// How long it may take until they stand still. A thread that waits for a disk, or another filesystem, does not.
const PATIENCE: Duration = Duration::from_millis(500);

/// Does `work` while all threads of a helper stand still. An error: they do not.
pub fn while_still<T: Send>(helper: &HelperProcesses, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let traced = || {
        hold(helper)?;
        Ok(work())
    };
    thread::scope(|scope| {
        let tracer = thread::Builder::new().name("standstill".into()).spawn_scoped(scope, traced)?;
        tracer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn hold(helper: &HelperProcesses) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut held = HashSet::new();
    // A thread may start another one until it stands still: when a round has found all of them so, and the next finds no others, there
    // are none.
    let mut rounds = 0;
    while rounds < 2 {
        let mut still = true;
        for (process, _) in helper.list()? {
            for thread in process.threads() {
                let Some(id) = thread.file_name().and_then(|name| name.to_str()?.parse().ok()) else { continue };
                if held.insert(id) {
                    still = false;
                    // It may have ended by now. Another one traces it, or may trace nothing: it never stands still.
                    let id = Pid::from_raw(id);
                    if ptrace::seize(id, ptrace::Options::empty()).is_ok() {
                        let _ = ptrace::interrupt(id);
                    }
                } else {
                    still &= is_still(&fs::read_to_string(thread.join("stat")).unwrap_or_default());
                }
            }
        }
        rounds = if still { rounds + 1 } else { 0 };
        if !still {
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // The main thread gets the signal that would tell.
            let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 500_000 }));
        }
    }
    Ok(())
}

/// Whether a thread is held by who traces it, or has ended (proc_pid_stat(5)).
fn is_still(stat: &str) -> bool {
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['t', 'Z', 'X']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    #[ignore = "a mount namespace needs root: make test-quick"]
    fn nothing_of_it_moves_and_it_goes_on_afterwards() {
        let mut helper = Command::new("unshare");
        // Reads and writes for ever, in two processes.
        let endless = "dd if=/dev/zero of=/dev/null & exec dd if=/dev/zero of=/dev/null";
        let mut helper = helper.args(["-m", "sh", "-c", endless]).spawn().unwrap();
        let process =
            linux::processes::Process::at(std::path::Path::new("/proc"), rustix::process::Pid::from_child(&helper));
        while process.name() != "dd" {
            thread::yield_now();
        }
        let helpers = HelperProcesses::of_namespace(process.mount_namespace().unwrap());
        let calls = || {
            let all = helpers.list().unwrap();
            assert_eq!(all.len(), 2);
            all.iter().map(|(process, _)| process.read("io").unwrap()).collect::<Vec<_>>()
        };
        let pause = || poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 })).unwrap();
        let both = while_still(&helpers, || {
            let before = calls();
            pause();
            (before, calls())
        });
        let (before, after) = both.unwrap();
        assert_eq!(before, after);
        pause();
        assert_ne!(after, calls());
        helpers.kill().unwrap();
        helper.wait().unwrap();
    }
}
