//! Whether a process lives, or is on its way out: one that was killed and waits for a filesystem in the kernel is still there, and holds
//! whatever waits for its end, but will never see the answer.
//!
//! Runs in the mounter. It reads /proc.

use linux::processes::Process;
use std::fs;

/// How far a process is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Life {
    /// It has ended; a zombie has.
    Ended,
    /// A signal has ended it, but for what it waits for.
    Killed,
    /// It has exited by itself, but for what it waits for: its files are being closed, perhaps with what they have not stored yet.
    Exits,
    /// It lives.
    Lives,
}

/// That of a process: of those of its threads, the longest.
pub fn life_of(process: &Process) -> Life {
    let read = |thread: &std::path::Path, name| fs::read_to_string(thread.join(name)).unwrap_or_default();
    let lives = process.threads().map(|thread| life(&read(&thread, "status"), &read(&thread, "stat")));
    lives.max().unwrap_or(Life::Ended)
}

/// What /proc says of a thread (proc_pid_status(5), proc_pid_stat(5)).
fn life(status: &str, stat: &str) -> Life {
    const PF_EXITING: u64 = 4;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
    let killed = |set: &str| u64::from_str_radix(set, 16).is_ok_and(|set| set >> (libc::SIGKILL - 1) & 1 == 1);
    // The name may hold anything.
    let after_name = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let number = |nth| after_name.split_whitespace().nth(nth).and_then(|number| number.parse::<u64>().ok());
    if status.is_empty() || field("State:").starts_with(['Z', 'X']) {
        Life::Ended
    } else if killed(field("SigPnd:")) || killed(field("ShdPnd:")) {
        Life::Killed
    } else if number(6).is_some_and(|flags| flags & PF_EXITING != 0) {
        // What wait(2) will tell: the number of a signal is in the lower bits.
        if number(49).is_some_and(|code| code & 0x7f != 0) { Life::Killed } else { Life::Exits }
    } else {
        Life::Lives
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::Pid;
    use std::path::Path;
    use std::process::Command;

    #[test]
    fn who_is_on_its_way_out() {
        let of = |state: &str, pending: u64, flags: u64, code: u64| {
            let status = format!("Name:\tx\nState:\t{state}\nSigPnd:\t{pending:016x}\nShdPnd:\t{:016x}\n", 0);
            let zeros = |count| "0 ".repeat(count);
            life(&status, &format!("7 (a) b) D {}{flags} {}{code}\n", zeros(5), zeros(42)))
        };
        assert_eq!(of("D (disk sleep)", 0, 0x40_0000, 0), Life::Lives);
        // SIGTERM is no end yet.
        assert_eq!(of("S (sleeping)", 1 << 14, 0, 0), Life::Lives);
        assert_eq!(of("D (disk sleep)", 1 << 8, 0, 0), Life::Killed);
        assert_eq!((of("D (disk sleep)", 0, 4, 9), of("D (disk sleep)", 0, 4, 15)), (Life::Killed, Life::Killed));
        assert_eq!((of("D (disk sleep)", 0, 4, 0), of("D (disk sleep)", 0, 4, 0x100)), (Life::Exits, Life::Exits));
        assert_eq!((of("Z (zombie)", 1 << 8, 4, 9), life("", "")), (Life::Ended, Life::Ended));
    }

    #[test]
    fn a_process_and_its_zombie() {
        let of = |pid| life_of(&Process::at(Path::new("/proc"), pid));
        assert_eq!(of(rustix::process::getpid()), Life::Lives);
        let mut child = Command::new("sleep").arg("infinity").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert_eq!(of(pid), Life::Lives);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(of(pid), Life::Ended);
    }
}
