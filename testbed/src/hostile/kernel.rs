//! The kernel's rarer doors, and the node as a whole.

use super::sys::{address, call, place, text};
use super::{Attempts, Tried, got};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;

pub(super) fn list(attempts: &mut Attempts) {
    const SURFACE: &str = "parts of the kernel in which faults are found again and again";
    const NODE: &str = "the node as a whole";
    const NOBODY: u64 = u64::MAX;
    // struct perf_event_attr: a software event.
    let event: &'static [u64; 16] = &[1 | 128 << 32, 1, 0, 0, 0, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // The kernel writes to it, too.
    let zeros: &'static mut [u64; 64] = Box::leak(Box::new([0; 64]));
    for (name, gives, number, arguments) in [
        ("load a BPF program", SURFACE, libc::SYS_bpf, &[5, address(zeros), 128][..]),
        ("make a BPF map", SURFACE, libc::SYS_bpf, &[0, address(&[2_u32, 4, 4, 1]), 72]),
        ("go over the node's BPF programs", SURFACE, libc::SYS_bpf, &[11, address(zeros), 128]),
        ("count events", SURFACE, libc::SYS_perf_event_open, &[address(event), 0, NOBODY, NOBODY, 0]),
        ("userfaultfd", SURFACE, libc::SYS_userfaultfd, &[1]),
        ("set up io_uring", SURFACE, libc::SYS_io_uring_setup, &[4, address(zeros)]),
        ("look for its session keyring", "others' keys", libc::SYS_keyctl, &[0, (-3_i64).cast_unsigned(), 1]),
        ("look for its uid's keyring", "others' keys", libc::SYS_keyctl, &[0, (-4_i64).cast_unsigned(), 1]),
        (
            "leave a key for others",
            "others' trust",
            libc::SYS_add_key,
            &[text(c"user"), text(c"evil"), text(c"x"), 1, (-4_i64).cast_unsigned()],
        ),
        (
            "request a key",
            "a program that the kernel starts as root",
            libc::SYS_request_key,
            &[text(c"user"), text(c"evil"), 0, (-3_i64).cast_unsigned()],
        ),
        ("load a module", NODE, libc::SYS_init_module, &[address(zeros), 8, text(c"")]),
        ("load a module from a file", NODE, libc::SYS_finit_module, &[0, text(c""), 0]),
        ("remove a module", NODE, libc::SYS_delete_module, &[text(c"no_such_module"), 0]),
        ("load a kernel", NODE, libc::SYS_kexec_load, &[0, 0, 0, 0]),
        ("load a kernel from a file", NODE, libc::SYS_kexec_file_load, &[0, 0, 1, text(c""), 0]),
        ("reboot", NODE, libc::SYS_reboot, &[0, 0, 0, 0]),
        ("swap to a file", NODE, libc::SYS_swapon, &[text(c"/tmp/none"), 0]),
        ("stop swapping to a file", NODE, libc::SYS_swapoff, &[text(c"/tmp/none")]),
        ("keep accounts of all processes", NODE, libc::SYS_acct, &[text(c"/tmp/none")]),
        ("ask for quotas", NODE, libc::SYS_quotactl, &[0x80_0001 << 8, text(c"/dev/none"), 0, address(zeros)]),
        ("ask for quotas by a descriptor", NODE, 443, &[0, 0x80_0001 << 8, 0, address(zeros)]),
        ("read the kernel's log", NODE, libc::SYS_syslog, &[3, address(zeros), 512]),
        ("ask how long the kernel's log is", NODE, libc::SYS_syslog, &[9, 0, 0]),
        ("ask how the clock is adjusted", NODE, libc::SYS_adjtimex, &[address(zeros)]),
        ("ask how a clock is adjusted", NODE, libc::SYS_clock_adjtime, &[0, address(zeros)]),
        ("hang up its terminal", NODE, libc::SYS_vhangup, &[]),
        ("watch all files of a mount", "what others read", libc::SYS_fanotify_init, &[0x4 | 0x8, 0]),
        (
            "move its own pages between nodes",
            "nothing by itself",
            libc::SYS_migrate_pages,
            &[0, 64, address(zeros), address(zeros)],
        ),
    ] {
        attempts.call(name, gives, number, arguments);
    }
    // The name that it has.
    for (name, number, file) in [
        ("name the node", libc::SYS_sethostname, "/proc/sys/kernel/hostname"),
        ("name the node's domain", libc::SYS_setdomainname, "/proc/sys/kernel/domainname"),
    ] {
        attempts.add(name, NODE, move |_| {
            let now = fs::read_to_string(file)?;
            let now = now.trim_end();
            Ok(call(number, &[address(now), now.len() as u64]).map(|_| ())?)
        });
    }
    attempts.add("set the time of the day", NODE, |_| {
        let mut now: [i64; 2] = [0, 0];
        call(libc::SYS_gettimeofday, &[place(&mut now), 0])?;
        Ok(call(libc::SYS_settimeofday, &[address(&now), 0]).map(|_| ())?)
    });
    attempts.add("set the clock", NODE, |_| {
        let mut now: [i64; 2] = [0, 0];
        call(libc::SYS_clock_gettime, &[0, place(&mut now)])?;
        Ok(call(libc::SYS_clock_settime, &[0, address(&now)]).map(|_| ())?)
    });
    #[cfg(target_arch = "x86_64")]
    {
        attempts.call("reach the I/O ports", NODE, libc::SYS_iopl, &[3]);
        attempts.call("reach one I/O port", NODE, libc::SYS_ioperm, &[0x80, 1, 1]);
        attempts.call("change its segments", SURFACE, libc::SYS_modify_ldt, &[1, address(zeros), 16]);
        const X32: i64 = 0x4000_0000;
        attempts.add("call the kernel as a program for i386", "calls that the filter does not know", |_| {
            Ok(super::sys::call_as_i386()?)
        });
        for (name, number) in [("getpid", libc::SYS_getpid), ("mount", libc::SYS_mount), ("ptrace", 521)] {
            attempts.call(
                format!("{name} as a program for x32"),
                "calls that the filter does not know",
                X32 | number,
                &[],
            );
        }
    }
    attempts.add("open a file by its handle", "any file of a filesystem", |_| {
        let mut handle: [u32; 34] = std::array::from_fn(|nth| if nth == 0 { 128 } else { 0 });
        let mut mount_id = 0_i32;
        let at = libc::AT_FDCWD as u64;
        call(libc::SYS_name_to_handle_at, &[at, text(c"/"), place(&mut handle), place(&mut mount_id), 0])?;
        let root = File::open("/")?;
        Ok(call(libc::SYS_open_by_handle_at, &[root.as_raw_fd() as u64, address(&handle), 0]).map(|_| ())?)
    });
    attempts.add("put a filter of its own over ours", "an answer in the place of the mounter's", |_| {
        // One instruction: SECCOMP_RET_ALLOW; with a listener.
        let allow: [u64; 1] = [0x06 | 0x7fff_0000 << 32];
        let program: [u64; 2] = [1, address(&allow)];
        let listener = call(libc::SYS_seccomp, &[1, 8, address(&program)])?;
        got(listener >= 0)
    });
    for (name, major, minor, kind) in [
        ("a disk", 8, 0, libc::S_IFBLK),
        ("a loop device", 7, 0, libc::S_IFBLK),
        ("memory", 1, 1, libc::S_IFCHR),
        ("the kernel's log", 1, 11, libc::S_IFCHR),
        ("KVM", 10, 232, libc::S_IFCHR),
        ("a tunnel", 10, 200, libc::S_IFCHR),
    ] {
        attempts.add(format!("make a device: {name}"), NODE, move |_| {
            let device = libc::makedev(major, minor);
            let at = libc::AT_FDCWD as u64;
            call(libc::SYS_mknodat, &[at, text(c"/tmp/device"), u64::from(kind | 0o600), device])?;
            let opened = open_device("/tmp/device");
            fs::remove_file("/tmp/device")?;
            opened
        });
    }
    for device in [
        "mem",
        "port",
        "kmem",
        "kmsg",
        "kvm",
        "loop-control",
        "loop0",
        "sda",
        "vda",
        "nvme0n1",
        "net/tun",
        "vhost-net",
        "vhost-vsock",
        "ptmx",
        "tty0",
        "tty1",
        "console",
        "input/event0",
        "uinput",
        "mapper/control",
        "btrfs-control",
        "cuse",
        "vfio/vfio",
        "snapshot",
        "hpet",
        "cpu_dma_latency",
        "userfaultfd",
        "autofs",
        "watchdog",
    ] {
        attempts.add(format!("open /dev/{device}"), NODE, move |_| open_device(&format!("/dev/{device}")));
    }
    attempts.add("find any other device in /dev", NODE, |_| {
        const KNOWN: [&str; 7] = ["null", "zero", "full", "random", "urandom", "tty", "fuse"];
        let entries = fs::read_dir("/dev")?.flatten();
        let device = |entry: &fs::DirEntry| {
            entry.file_type().is_ok_and(|kind| kind.is_char_device() || kind.is_block_device())
                && !KNOWN.iter().any(|known| entry.file_name() == *known)
        };
        got(entries.filter(device).inspect(|entry| println!("hostile: {}", entry.path().display())).count() > 0)
    });
    attempts.add("type into a terminal", "commands as somebody else", |_| {
        let terminal = File::options().read(true).write(true).open("/dev/tty")?;
        Ok(call(libc::SYS_ioctl, &[terminal.as_raw_fd() as u64, libc::TIOCSTI, address(b"x")]).map(|_| ())?)
    });
    for descriptor in 0..3 {
        attempts.call(
            format!("type into its descriptor {descriptor}"),
            "commands as somebody else",
            libc::SYS_ioctl,
            &[descriptor, libc::TIOCSTI, address(b"x")],
        );
    }
}

fn open_device(path: &str) -> Tried {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    Ok(File::options().read(true).custom_flags(flags).open(path).map(drop)?)
}
