//! Starting a program in a cgroup, so that not even its first instruction runs outside of it: clone3(2) with
//! CLONE_INTO_CGROUP, which the standard library does not have.
//!
//! Runs in the mounter, on the thread whose confinement the program is to inherit. The other way, a write to
//! `cgroup.procs` by the child, makes the kernel stop every fork on the node for milliseconds.

use super::descriptor::close_range;
use super::fork::fork_held;
use super::seccomp::Instruction;
use nix::errno::Errno;
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A program to be started.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its file; PATH is not searched.
    pub file: PathBuf,
    /// Its arguments, beginning with the name that it is called by.
    pub arguments: Vec<OsString>,
    /// All of its environment.
    pub environment: BTreeMap<OsString, OsString>,
    /// Its standard input, output and error; none of them is one of our own three.
    pub standard: [BorrowedFd<'a>; 3],
    /// The user that it runs as, if it is not ours.
    pub user: Option<User>,
    /// How many files it may have open, if not as many as we; no more than that.
    pub descriptors: Option<u64>,
    /// A further seccomp filter for it alone, or nothing.
    pub filter: Vec<Instruction>,
    /// The directory of a cgroup of version 2 that it starts in, if it is not ours.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// Another user than root.
#[derive(Debug, Clone)]
pub struct User {
    /// The uid.
    pub uid: u32,
    /// The gid.
    pub gid: u32,
    /// How many processes and threads of this uid there may be, if that is limited.
    pub processes: Option<u64>,
    /// The capabilities that it keeps, by their numbers: we have them permitted and inheritable, and PR_SET_KEEPCAPS is set.
    pub capabilities: Vec<u8>,
}

/// The step at which a program could not be started. At the last three there is a process to be collected all the same.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A string with a NUL byte in it, or no pipe.
    #[error("cannot prepare to start a program")]
    Prepare(#[from] io::Error),
    /// clone3(2), in the caller's cgroup.
    #[error("cannot make a process")]
    Fork(#[source] io::Error),
    /// clone3(2) with CLONE_INTO_CGROUP. ENOENT: the cgroup, or the caller's own, is outside of the caller's cgroup namespace,
    /// and cgroup2 is mounted with `nsdelegate` (cgroups(7)).
    #[error("cannot make a process in that cgroup")]
    ForkIntoCgroup(#[source] io::Error),
    /// setresgid(2), setresuid(2) or prctl(PR_CAP_AMBIENT). EINVAL: our user namespace does not have it.
    #[error("cannot run as another user")]
    User(#[source] io::Error),
    /// seccomp(2).
    #[error("cannot install the program's seccomp filter")]
    Filter(#[source] io::Error),
    /// execve(2).
    #[error("cannot run the program")]
    Exec(#[source] io::Error),
}

/// Starts it, in a process group of its own, with no signal blocked or ignored, without core dumps, and waits until it runs. Returns its id,
/// which it keeps until it is collected, and a descriptor of it.
///
/// Only close-on-exec keeps other descriptors from it. Kernel: CLONE_INTO_CGROUP, 5.7.
pub fn spawn(program: &Program<'_>) -> Result<(Pid, OwnedFd), SpawnError> {
    let Program { file, arguments, environment, standard, user, descriptors, filter, cgroup } = program;
    let standard = standard.map(|fd| fd.as_raw_fd());
    if standard.iter().any(|fd| *fd <= libc::STDERR_FILENO) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
    }
    let file = c_string(file.clone().into())?;
    let arguments = arguments.iter().cloned().map(c_string).collect::<io::Result<Vec<_>>>()?;
    let environment = environment.iter().map(|(name, value)| {
        let mut variable = name.clone();
        variable.push("=");
        variable.push(value);
        c_string(variable)
    });
    let environment = environment.collect::<io::Result<Vec<_>>>()?;
    let ended_by_null = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (argv, envp) = (ended_by_null(&arguments), ended_by_null(&environment));
    let length = u16::try_from(filter.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let filter = libc::sock_fprog { len: length, filter: filter.as_ptr().cast_mut() };
    let (mut report, verdict) = io::pipe()?;

    let (user, descriptors, report_to) = (user.as_ref(), *descriptors, verdict.as_raw_fd());
    let child =
        Child { file: &file, argv: &argv, envp: &envp, filter, user, descriptors, standard, verdict: report_to };
    let child = || become_program(&child);
    // SAFETY: `become_program` makes system calls only.
    let forked = unsafe { fork_held(0, *cgroup, child) };
    let (pid, process) =
        forked.map_err(if cgroup.is_some() { SpawnError::ForkIntoCgroup } else { SpawnError::Fork })?;
    drop(verdict);
    let mut words = [0; 8];
    // A successful execve closes the pipe.
    if report.read(&mut words)? > 0 {
        let [step, errno] =
            [&words[..4], &words[4..]].map(|word| i32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        let error = io::Error::from_raw_os_error(errno);
        return Err(match step {
            CHANGING_USER => SpawnError::User(error),
            FILTERING => SpawnError::Filter(error),
            _ => SpawnError::Exec(error),
        });
    }
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::Error::from(io::ErrorKind::InvalidData))?;
    Ok((pid, process))
}

/// What the child was doing when it failed: the first word of its report. The second is the errno.
const FILTERING: i32 = 1;
const EXECUTING: i32 = 2;
const CHANGING_USER: i32 = 3;

/// Where the child has its end of the pipe.
const VERDICT: RawFd = libc::STDERR_FILENO + 1;

/// What the child needs, ready for system calls.
struct Child<'a> {
    file: &'a CString,
    /// Ends with a null pointer, as does the next.
    argv: &'a [*const libc::c_char],
    envp: &'a [*const libc::c_char],
    filter: libc::sock_fprog,
    user: Option<&'a User>,
    descriptors: Option<u64>,
    standard: [RawFd; 3],
    verdict: RawFd,
}

/// The child's part: system calls only, no allocation, no panic.
fn become_program(child: &Child<'_>) -> ! {
    let Child { file, argv, envp, filter, user, descriptors, standard, verdict } = *child;
    for (number, fd) in standard.into_iter().enumerate() {
        // SAFETY: changes this process's own descriptor table only; nothing here owns a descriptor any more.
        unsafe { libc::dup2(fd, number as RawFd) };
    }
    // If the parent is killed just now, this process must not be taken for it: its socket and the like are closed at once.
    // SAFETY: as above.
    unsafe { libc::dup3(verdict, VERDICT, libc::O_CLOEXEC) };
    // SAFETY: as above.
    unsafe { close_range(VERDICT.cast_unsigned() + 1, u32::MAX) };
    // SAFETY: takes plain numbers.
    unsafe { libc::setpgid(0, 0) };
    // What it holds in memory, secrets among it, goes into no file.
    let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the limit lives in this frame.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) };
    if let Some(descriptors) = descriptors {
        let limit = libc::rlimit { rlim_cur: descriptors, rlim_max: descriptors };
        // It fails where ours is less already, and that holds then.
        // SAFETY: as above.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
    // Ignored by every Rust program, and that would be inherited.
    // SAFETY: the default action installs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: all-zero bytes are an empty signal set.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set lives in this frame, and the old one is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
    let changed = user.is_none_or(become_user);
    // SAFETY: `filter` names so many instructions, in a copy of the parent's memory; the kernel only reads and copies them.
    let filtered = changed
        && (filter.len == 0
            || unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) == 0 });
    if filtered {
        // SAFETY: the strings and both arrays, which end with a null pointer, are copies of the parent's and live as
        // long as this process.
        unsafe { libc::execve(file.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    }
    let step = match (changed, filtered) {
        (false, _) => CHANGING_USER,
        (true, false) => FILTERING,
        (true, true) => EXECUTING,
    };
    let report = [step, Errno::last_raw()];
    // SAFETY: the buffer is the eight bytes of `report`, which lives in this frame.
    unsafe { libc::write(VERDICT, (&raw const report).cast(), size_of_val(&report)) };
    // SAFETY: ends the process without running anything of the parent's.
    unsafe { libc::_exit(127) }
}

/// The child's part of becoming another user. Here and not on the parent's thread: that would have to start this process without
/// the right to write to its cgroup.
fn become_user(user: &User) -> bool {
    // The group first: others than root may not change it.
    // SAFETY: takes plain numbers, and changes this thread alone, which is the whole process.
    if unsafe { libc::syscall(libc::SYS_setresgid, user.gid, user.gid, user.gid) } != 0 {
        return false;
    }
    // SAFETY: as above.
    if unsafe { libc::syscall(libc::SYS_setresuid, user.uid, user.uid, user.uid) } != 0 {
        return false;
    }
    if let Some(processes) = user.processes {
        let limit = libc::rlimit { rlim_cur: processes, rlim_max: processes };
        // It fails where ours is less already.
        // SAFETY: the limit lives in this frame.
        unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) };
    }
    // What others than root keep when they execute a program.
    user.capabilities.iter().all(|capability| {
        let (raise, capability) = (libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong, libc::c_ulong::from(*capability));
        // SAFETY: takes plain numbers.
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, capability, 0, 0) == 0 }
    })
}

fn c_string(string: OsString) -> io::Result<CString> {
    // A NUL byte inside: InvalidInput.
    Ok(CString::new(string.into_vec())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    /// What comes of starting a program, in the cgroup behind a descriptor.
    fn spawned(file: &str, filter: Vec<Instruction>, cgroup: Option<BorrowedFd<'_>>) -> Result<(), SpawnError> {
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let (file, arguments, standard) = (file.into(), vec![file.into()], [null.as_fd(); 3]);
        let (environment, descriptors) = (BTreeMap::new(), Some(64));
        spawn(&Program { file, arguments, environment, standard, user: None, descriptors, filter, cgroup }).map(drop)
    }

    #[test]
    fn an_error_names_the_step() {
        let no_cgroup = File::open("/").unwrap();
        assert!(spawned("/bin/true", Vec::new(), None).is_ok());
        assert!(
            matches!(spawned("/nonexistent", Vec::new(), None), Err(SpawnError::Exec(error)) if is(&error, libc::ENOENT))
        );
        let refused = spawned("/bin/true", Vec::new(), Some(no_cgroup.as_fd()));
        assert!(matches!(refused, Err(SpawnError::ForkIntoCgroup(error)) if is(&error, libc::EBADF)));
        // A program that does not end with an answer.
        let load = Instruction { code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: 0 };
        assert!(matches!(spawned("/bin/true", vec![load], None), Err(SpawnError::Filter(_))));
        assert!(matches!(spawned("/bin/\0", Vec::new(), None), Err(SpawnError::Prepare(_))));
    }

    fn is(error: &io::Error, errno: i32) -> bool {
        error.raw_os_error() == Some(errno)
    }
}
