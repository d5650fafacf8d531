//! Other processes: the mounter, another volume's helper, the node's.

use super::files::read;
use super::sys::{address, call, place};
use super::{Around, Attempts, Outcome, Tried, got};
use std::fs::{self, File};
use std::path::Path;

type Choose = fn(&Around) -> u32;

const OTHERS: [(&str, Choose); 3] = [
    ("the mounter", |around| around.mounter),
    ("another helper", |around| around.victim),
    ("a process of the node", |around| around.bystander),
];

fn by_pid(number: libc::c_long, pid: u32, more: &[u64]) -> Tried {
    Ok(call(number, &[&[u64::from(pid)], more].concat()).map(|_| ())?)
}

pub(super) fn list(attempts: &mut Attempts) {
    const ALL: &str = "all that the other process has";
    const END: &str = "its end";
    const SLOW: &str = "to slow it down";
    for (who, choose) in OTHERS {
        let mut add = |name: &str, gives, run: fn(u32) -> Tried| {
            attempts.add(format!("{name} {who}"), gives, move |around| run(choose(around)));
        };
        add("attach to", ALL, |pid| Ok(call(libc::SYS_ptrace, &[16, pid.into(), 0, 0]).map(|_| ())?));
        add("seize", ALL, |pid| Ok(call(libc::SYS_ptrace, &[0x4206, pid.into(), 0, 0]).map(|_| ())?));
        add("read the memory of", ALL, |pid| memory_of(libc::SYS_process_vm_readv, pid));
        add("write the memory of", ALL, |pid| memory_of(libc::SYS_process_vm_writev, pid));
        add("take a descriptor of", ALL, |pid| {
            let process = call(libc::SYS_pidfd_open, &[pid.into(), 0])?;
            Ok(call(libc::SYS_pidfd_getfd, &[process.cast_unsigned(), 0, 0]).map(|_| ())?)
        });
        add("send a signal to", END, |pid| by_pid(libc::SYS_kill, pid, &[0]));
        add("send a signal to a thread of", END, |pid| by_pid(libc::SYS_tgkill, pid, &[pid.into(), 0]));
        add("send a signal by pidfd to", END, |pid| {
            let process = call(libc::SYS_pidfd_open, &[pid.into(), 0])?;
            Ok(call(libc::SYS_pidfd_send_signal, &[process.cast_unsigned(), 0, 0, 0]).map(|_| ())?)
        });
        add("compare descriptors with", "addresses in the kernel", |pid| {
            by_pid(libc::SYS_kcmp, pid, &[std::process::id().into(), 1, 0, 0])
        });
        add("limit", END, |pid| {
            let most: [u64; 2] = [u64::MAX, u64::MAX];
            by_pid(libc::SYS_prlimit64, pid, &[4, address(&most), 0])
        });
        add("read the limits of", "nothing by itself", |pid| {
            let mut limits: [u64; 2] = [0, 0];
            by_pid(libc::SYS_prlimit64, pid, &[4, 0, place(&mut limits)])
        });
        // To what they are: every processor, SCHED_OTHER, best effort.
        add("lower the priority of", SLOW, |pid| {
            // To what it is: the kernel returns 20 less the niceness.
            let now = 20 - call(libc::SYS_getpriority, &[0, pid.into()])?;
            Ok(call(libc::SYS_setpriority, &[0, pid.into(), now.cast_unsigned()]).map(|_| ())?)
        });
        add("bind to a processor", SLOW, |pid| {
            let all = [u64::MAX; 16];
            by_pid(libc::SYS_sched_setaffinity, pid, &[128, address(&all)])
        });
        add("set the scheduler of", SLOW, |pid| by_pid(libc::SYS_sched_setscheduler, pid, &[0, address(&0_u64)]));
        add("set the I/O priority of", SLOW, |pid| {
            Ok(call(libc::SYS_ioprio_set, &[1, pid.into(), 2 << 13 | 4]).map(|_| ())?)
        });
        add("move pages of", SLOW, |pid| by_pid(libc::SYS_move_pages, pid, &[0, 0, 0, 0, 0]));
        add("find the robust futexes of", "an address of its memory", |pid| {
            let (mut head, mut length) = (0_u64, 0_u64);
            by_pid(libc::SYS_get_robust_list, pid, &[place(&mut head), place(&mut length)])
        });
        for (file, gives) in [
            ("environ", "secrets"),
            ("mem", ALL),
            ("auxv", "where its memory is"),
            ("syscall", "what it does"),
            ("stack", "the kernel's inside"),
        ] {
            attempts.add(format!("read /proc/PID/{file} of {who}"), gives, move |around| {
                read(&format!("/proc/{}/{file}", choose(around)))
            });
        }
        for file in ["maps", "smaps", "pagemap", "numa_maps"] {
            attempts.add(format!("read /proc/PID/{file} of {who}"), "where its memory is", move |around| {
                read(&format!("/proc/{}/{file}", choose(around)))
            });
        }
        for link in ["root", "cwd"] {
            attempts.add(format!("go to /proc/PID/{link} of {who}"), "its files", move |around| {
                got(fs::read_dir(format!("/proc/{}/{link}/", choose(around)))?.next().transpose()?.is_some())
            });
        }
        for directory in ["fd", "map_files", "fdinfo"] {
            attempts.add(format!("see /proc/PID/{directory} of {who}"), "its files", move |around| {
                let entry = fs::read_dir(format!("/proc/{}/{directory}", choose(around)))?.next().transpose()?;
                let Some(entry) = entry else { return Err(Outcome::Nothing) };
                if directory == "fdinfo" {
                    Ok(File::open(entry.path()).map(drop)?)
                } else {
                    Ok(fs::read_link(entry.path()).map(drop)?)
                }
            });
        }
        attempts.add(format!("open the program of {who} by /proc/PID/exe"), ALL, move |around| {
            Ok(File::options().write(true).open(format!("/proc/{}/exe", choose(around))).map(drop)?)
        });
        for namespace in ["user", "mnt", "net"] {
            attempts.add(format!("open the {namespace} namespace of {who}"), "a way into it", move |around| {
                Ok(File::open(format!("/proc/{}/ns/{namespace}", choose(around))).map(drop)?)
            });
        }
        attempts.add(format!("make {who} the first that dies when memory is short"), END, move |around| {
            let file = format!("/proc/{}/oom_score_adj", choose(around));
            Ok(File::options().write(true).open(file).map(drop)?)
        });
        attempts.add(
            format!("open any file in /proc/PID of {who} for writing"),
            "to change how it runs",
            move |around| super::files::any_writable(Path::new(&format!("/proc/{}", choose(around))), 2),
        );
    }
    const PRIVILEGE: &str = "privilege";
    for (name, number, arguments) in [
        ("become uid 1", libc::SYS_setuid, &[1_u64][..]),
        ("become gid 1", libc::SYS_setgid, &[1]),
        ("become uid 0", libc::SYS_setresuid, &[0, 0, 1]),
        ("enter group 0", libc::SYS_setgroups, &[1, 0]),
        ("take the capabilities of set-uid programs", libc::SYS_prctl, &[38, 0, 0, 0, 0]),
        ("raise an ambient capability", libc::SYS_prctl, &[47, 2, 21, 0, 0]),
        ("change its securebits", libc::SYS_prctl, &[28, 0x2f, 0, 0, 0]),
        ("set its memory's layout", libc::SYS_prctl, &[35, 1, 0x1000, 0, 0]),
    ] {
        attempts.call(name, PRIVILEGE, number, arguments);
    }
    attempts.add("give itself all capabilities", PRIVILEGE, |_| {
        let header: [u32; 2] = [0x2008_0522, 0];
        let everything = [u32::MAX; 6];
        call(libc::SYS_capset, &[address(&header), address(&everything)])?;
        has_capabilities("/proc/self/status")
    });
    attempts.add("get capabilities by starting a program", PRIVILEGE, |_| {
        let told = std::process::Command::new("/bin/cat").arg("/proc/self/status").output()?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        got(!all_zero(&told))
    });
    attempts.add("be without no_new_privs", PRIVILEGE, |_| {
        got(fs::read_to_string("/proc/self/status")?.lines().any(|line| line == "NoNewPrivs:\t0"))
    });
    attempts.add("be without a filter", PRIVILEGE, |_| {
        got(fs::read_to_string("/proc/self/status")?.lines().any(|line| line == "Seccomp:\t0"))
    });
    attempts.add("have a descriptor that it was not given", "what it leads to", |_| {
        let open = fs::read_dir("/proc/self/fd")?.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        let given =
            |path: &Path| ["pipe:", "/dev/null", "/proc"].iter().any(|begin| path.to_string_lossy().starts_with(begin));
        got(open
            .inspect(|path| {
                if !given(path) {
                    println!("hostile: {}", path.display())
                }
            })
            .any(|path| !given(&path)))
    });
}

fn memory_of(number: libc::c_long, pid: u32) -> Tried {
    let mut buffer = [0_u8; 8];
    let (own, its) = ([place(&mut buffer), 8], [0x40_0000_u64, 8]);
    by_pid(number, pid, &[address(&own), 1, address(&its), 1, 0])
}

fn has_capabilities(status: &str) -> Tried {
    got(!all_zero(&fs::read_to_string(status)?))
}

fn all_zero(status: &str) -> bool {
    let sets = status.lines().filter(|line| line.starts_with("Cap"));
    sets.filter_map(|line| line.split('\t').nth(1)).all(|set| set.chars().all(|digit| digit == '0'))
}
