//! More of the node than its share.

use super::sys::{address, call, place};
use super::{Attempts, Tried, got};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const FULL: &str = "to leave nothing for others";

pub(super) fn list(attempts: &mut Attempts) {
    for (name, resource) in [
        ("descriptors", libc::RLIMIT_NOFILE),
        ("processes", libc::RLIMIT_NPROC),
        ("locked memory", libc::RLIMIT_MEMLOCK),
        ("real-time priority", libc::RLIMIT_RTPRIO),
        ("niceness", libc::RLIMIT_NICE),
        ("size of core dumps", libc::RLIMIT_CORE),
        ("message queues", libc::RLIMIT_MSGQUEUE),
    ] {
        attempts.add(format!("raise its limit of {name}"), FULL, move |_| {
            let mut before: [u64; 2] = [0, 0];
            call(libc::SYS_prlimit64, &[0, u64::from(resource), 0, place(&mut before)])?;
            if before[1] == u64::MAX {
                // There is none, and nothing to raise.
                return got(resource != libc::RLIMIT_NPROC);
            }
            let more: [u64; 2] = [before[1] + 1, before[1] + 1];
            Ok(call(libc::SYS_prlimit64, &[0, u64::from(resource), address(&more), 0]).map(|_| ())?)
        });
    }
    for (name, number, arguments) in [
        ("run before all others", libc::SYS_sched_setscheduler, &[0, 1, address(&1_u64)][..]),
        ("run at a better priority", libc::SYS_setpriority, &[0, 0, (-20_i64).cast_unsigned()]),
        ("read and write before all others", libc::SYS_ioprio_set, &[1, 0, 1 << 13]),
    ] {
        attempts.call(name, FULL, number, arguments);
    }
    attempts.add("lock more memory than a few pages", FULL, |_| {
        let length = 256 << 20;
        let memory = call(libc::SYS_mmap, &[0, length, 3, 0x22, u64::MAX, 0])?.cast_unsigned();
        // MLOCK_ONFAULT: nothing is used.
        Ok(call(libc::SYS_mlock2, &[memory, length, 1]).map(|_| ())?)
    });
    for directory in
        ["/tmp", "/run", "/var/tmp", "/var/log", "/dev/shm", "/dev", "/run/hostmount", "/run/hostmount/mnt"]
    {
        attempts.add(format!("have more than 256 MiB in {directory}"), FULL, move |_| room_in(Path::new(directory)));
    }
    attempts.add("start 3,000 processes", FULL, |_| {
        let mut started: Vec<Child> = Vec::new();
        let quiet = || Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let tried = (0..3000).try_for_each(|_| quiet().map(|child| started.push(child)));
        for child in &mut started {
            let _ = child.kill();
        }
        for child in &mut started {
            let _ = child.wait();
        }
        println!("hostile: {} processes", started.len());
        Ok(tried?)
    });
    attempts.add("open 200,000 descriptors", FULL, |_| {
        let mut open = Vec::new();
        let tried = (0..200_000).try_for_each(|_| File::open("/dev/null").map(|file| open.push(file)));
        println!("hostile: {} descriptors", open.len());
        Ok(tried?)
    });
    attempts.add("leave shared memory (System V)", "memory that stays when it is gone", |_| {
        let segment = call(libc::SYS_shmget, &[0, 4096, 0o1600])?.cast_unsigned();
        Ok(call(libc::SYS_shmctl, &[segment, 0, 0]).map(|_| ())?)
    });
    attempts.add("leave a message queue (System V)", "memory that stays when it is gone", |_| {
        let queue = call(libc::SYS_msgget, &[0, 0o1600])?.cast_unsigned();
        Ok(call(libc::SYS_msgctl, &[queue, 0, 0]).map(|_| ())?)
    });
    attempts.add("leave semaphores (System V)", "memory that stays when it is gone", |_| {
        let set = call(libc::SYS_semget, &[0, 1, 0o1600])?.cast_unsigned();
        Ok(call(libc::SYS_semctl, &[set, 0, 0]).map(|_| ())?)
    });
    attempts.add("leave a message queue (POSIX)", "memory that stays when it is gone", |_| {
        let name = super::sys::text(c"hostmount-hostile");
        call(libc::SYS_mq_open, &[name, (libc::O_CREAT | libc::O_RDWR) as u64, 0o600, 0])?;
        Ok(call(libc::SYS_mq_unlink, &[name]).map(|_| ())?)
    });
    attempts.add("hold a pipe of 64 MiB", FULL, |_| {
        let (reader, _writer) = std::io::pipe()?;
        // F_SETPIPE_SZ
        Ok(call(libc::SYS_fcntl, &[reader.as_raw_fd() as u64, 1031, 64 << 20]).map(|_| ())?)
    });
    attempts.add("leave a core dump", "its memory, and a program that the node starts for it", |_| {
        got(!fs::read_to_string("/proc/self/limits")?
            .lines()
            .any(|line| line.starts_with("Max core file size") && line.split_whitespace().rev().nth(1) == Some("0")))
    });
}

/// Whether a filesystem that it can write to holds more than its share.
fn room_in(directory: &Path) -> Tried {
    let probe = directory.join("evil");
    File::create_new(&probe)?;
    fs::remove_file(&probe)?;
    let has = rustix::fs::statvfs(directory)?;
    got(has.f_blocks * has.f_frsize > 256 << 20)
}
