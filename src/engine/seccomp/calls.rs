//! What becomes of each system call of a helper: the lists, and the reasons.
//!
//! Pure. [`filter`](super::filter) makes a program for the kernel of it.

use super::architecture;
use libc::{SECCOMP_RET_ERRNO, SECCOMP_RET_USER_NOTIF};
use rustix::io::Errno;

/// Not in the libc crate yet (6.15 and later).
const SYS_OPEN_TREE_ATTR: i64 = 467;

/// What the mounter does for a helper, within its grant.
pub const MOUNTS: [i64; 2] = [libc::SYS_mount, libc::SYS_umount2];

/// The new mount interface: ENOSYS, upon which libmount and libfuse fall back to mount(2).
pub const NEW_MOUNTS: [i64; 7] = [
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_fsmount,
    libc::SYS_open_tree,
    SYS_OPEN_TREE_ATTR,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
];

/// `FUSE_DEV_IOC_SYNC_INIT` (Linux 6.18), with which libfuse asks for its INIT while fsconfig(2) creates the filesystem. A thread
/// that reads such a descriptor waits in the kernel until it is mounted, and after fsopen(2) was refused that never happens:
/// the daemon would hang. ENOTTY, as on a kernel without it, upon which libfuse takes its INIT after mount(2), as ever.
pub const SYNC_INIT: u32 = 0xe503;

/// What no helper needs: most of it takes a capability that it has not got either, the rest reaches other processes of its
/// uid, or parts of the kernel in which faults are found again and again.
const FORBIDDEN: &[(i64, &str)] = &[
    // Other processes.
    (libc::SYS_ptrace, "ptrace"),
    (libc::SYS_process_vm_readv, "process_vm_readv"),
    (libc::SYS_process_vm_writev, "process_vm_writev"),
    (libc::SYS_pidfd_getfd, "pidfd_getfd"),
    (libc::SYS_kcmp, "kcmp"),
    (libc::SYS_process_madvise, "process_madvise"),
    (libc::SYS_setns, "setns"),
    // Surface.
    (libc::SYS_bpf, "bpf"),
    (libc::SYS_perf_event_open, "perf_event_open"),
    (libc::SYS_userfaultfd, "userfaultfd"),
    // Past all paths. With CAP_DAC_READ_SEARCH, which a type may be set to keep, it opens any file of a filesystem.
    (libc::SYS_open_by_handle_at, "open_by_handle_at"),
    // The node as a whole.
    (libc::SYS_init_module, "init_module"),
    (libc::SYS_finit_module, "finit_module"),
    (libc::SYS_delete_module, "delete_module"),
    (libc::SYS_kexec_load, "kexec_load"),
    (libc::SYS_kexec_file_load, "kexec_file_load"),
    (libc::SYS_reboot, "reboot"),
    (libc::SYS_swapon, "swapon"),
    (libc::SYS_swapoff, "swapoff"),
    (libc::SYS_acct, "acct"),
    (libc::SYS_quotactl, "quotactl"),
    (SYS_QUOTACTL_FD, "quotactl_fd"),
    (libc::SYS_syslog, "syslog"),
    (libc::SYS_settimeofday, "settimeofday"),
    (libc::SYS_clock_settime, "clock_settime"),
    (libc::SYS_adjtimex, "adjtimex"),
    (libc::SYS_clock_adjtime, "clock_adjtime"),
];

/// Not in the libc crate for every architecture (5.14 and later).
const SYS_QUOTACTL_FD: i64 = 443;

/// Keyrings outlive processes and are shared by a uid. As on a kernel without them: mount.ceph then hands its secret to
/// mount(2) instead, and goes no such way after EPERM.
const KEYS: [i64; 3] = [libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl];

/// What these make stays when the helper is gone, and is the whole container's. As on a kernel without them.
const LEFT_BEHIND: [i64; 4] = [libc::SYS_shmget, libc::SYS_msgget, libc::SYS_semget, libc::SYS_mq_open];

/// The families of sockets that helpers speak with their servers, beside AF_UNIX among themselves. Of netlink only what tells addresses and
/// routes, as getaddrinfo(3) asks it. Others lead to the hypervisor (vsock), or to rarely used parts of the kernel (AF_ALG, TIPC). These two
/// have other protocols than everybody's: anyone who names one (SCTP, DCCP, UDP-Lite, L2TP) has the kernel load its module.
pub const INTERNET: [i32; 2] = [libc::AF_INET, libc::AF_INET6];
/// The types of such sockets: TCP's, UDP's, and raw ones, for which the kernel asks for CAP_NET_RAW.
pub const TYPES: [i32; 3] = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RAW];
/// Their protocols: what belongs to the type, and this.
pub const PROTOCOLS: [i32; 6] = [
    libc::IPPROTO_IP,
    libc::IPPROTO_ICMP,
    libc::IPPROTO_TCP,
    libc::IPPROTO_UDP,
    libc::IPPROTO_ICMPV6,
    libc::IPPROTO_MPTCP,
];

/// EPERM, as the sysctl `kernel.io_uring_disabled` answers: programs know it.
const IO_URING: [(i64, &str); 3] = [
    (libc::SYS_io_uring_setup, "io_uring_setup"),
    (libc::SYS_io_uring_enter, "io_uring_enter"),
    (libc::SYS_io_uring_register, "io_uring_register"),
];

/// Namespaces of any kind, for `unshare`; `clone` has its exit signal where CLONE_NEWTIME is.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP)
    .cast_unsigned();
/// As a flag of `unshare` only.
pub const CLONE_NEWTIME: u32 = 0x80;

/// Not simply performed, unless an argument is of a certain kind.
const SOME: [(i64, &str); 3] =
    [(libc::SYS_unshare, "unshare"), (libc::SYS_clone, "clone"), (libc::SYS_prlimit64, "prlimit64")];

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// This action of seccomp(2).
    Always(u32),
    /// This action if its first argument has any of these bits, else it is performed.
    With(u32, u32),
    /// EAFNOSUPPORT unless its first argument is AF_UNIX, one of [`INTERNET`], or netlink's and its third NETLINK_ROUTE. ESOCKTNOSUPPORT
    /// and EPROTONOSUPPORT for one of the [`INTERNET`] that is not of these [`TYPES`] and [`PROTOCOLS`].
    Socket,
    /// EAFNOSUPPORT unless its first argument is AF_UNIX.
    SocketPair,
    /// This error if its second argument is this, else it is performed.
    NotCommand(u32, i32),
}

/// Whether the filter has a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It sees to mount(2) and umount2(2), and refuses what is refused, so that it can log it.
    ByListener,
    /// The kernel refuses. The `preload` engine's object makes no mount(2).
    ByNobody,
}

/// Every call that is not simply let through.
pub fn table(heard: Heard, io_uring: bool) -> Vec<(u32, Verdict)> {
    let refused = match heard {
        Heard::ByListener => SECCOMP_RET_USER_NOTIF,
        Heard::ByNobody => errno_action(libc::EPERM),
    };
    let enosys = Verdict::Always(errno_action(libc::ENOSYS));
    let mut table = Vec::new();
    let mut put = |calls: &[i64], verdict| table.extend(calls.iter().map(|number| (call(*number), verdict)));
    match heard {
        Heard::ByListener => {
            put(&MOUNTS, Verdict::Always(SECCOMP_RET_USER_NOTIF));
            put(&NEW_MOUNTS, Verdict::Always(SECCOMP_RET_USER_NOTIF));
        }
        Heard::ByNobody => put(&NEW_MOUNTS, enosys),
    }
    for forbidden in [FORBIDDEN, architecture::FORBIDDEN] {
        put(&forbidden.iter().map(|(number, _)| *number).collect::<Vec<_>>(), Verdict::Always(refused));
    }
    put(&KEYS, enosys);
    put(&LEFT_BEHIND, enosys);
    put(&[libc::SYS_socket], Verdict::Socket);
    put(&[libc::SYS_socketpair], Verdict::SocketPair);
    put(&[libc::SYS_ioctl], Verdict::NotCommand(SYNC_INIT, libc::ENOTTY));
    // Whoever opens a file, to run it as well, waits until its lease is given up, for 45 s and again. As of a filesystem that has none.
    put(&[libc::SYS_fcntl], Verdict::NotCommand(libc::F_SETLEASE.cast_unsigned(), libc::EINVAL));
    if !io_uring {
        put(&IO_URING.map(|(number, _)| number), Verdict::Always(refused));
    }
    put(&[libc::SYS_capset], Verdict::Always(errno_action(0)));
    put(&[libc::SYS_unshare], Verdict::With(NEW_NAMESPACES | CLONE_NEWTIME, refused));
    put(&[libc::SYS_clone], Verdict::With(NEW_NAMESPACES, refused));
    // The limits of another process: it may be the mounter, whose uid is the same.
    put(&[libc::SYS_prlimit64], Verdict::With(u32::MAX, refused));
    table.sort_unstable_by_key(|(number, _)| *number);
    table
}

/// What a helper gets that made a call which is refused, and what is logged of it. `None`: it is of the new mount interface, or
/// unknown, and the answer is ENOSYS.
pub fn refusal(number: i64) -> Option<(Errno, String)> {
    let found = |list: &[(i64, &'static str)]| list.iter().find(|(listed, _)| *listed == number).map(|(_, name)| *name);
    let words = found(FORBIDDEN)
        .or_else(|| found(architecture::FORBIDDEN))
        .map(|name| format!("{name}(2), which no helper may make"))
        .or_else(|| {
            found(&IO_URING).map(|name| format!("{name}(2), which its type may be set to make (io_uring = true)"))
        })
        .or_else(|| {
            found(&SOME).map(|name| {
                format!("{name}(2) with what no helper may have: a new namespace, or another process's limits")
            })
        });
    words.map(|words| (Errno::PERM, words))
}

/// The answer to a call that is not performed; 0 is success.
pub fn errno_action(errno: i32) -> u32 {
    SECCOMP_RET_ERRNO | errno.cast_unsigned()
}

/// System call numbers are small: the conversion never cuts anything off.
pub fn call(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
