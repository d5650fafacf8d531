//! Which system calls of a helper are stopped: a classic BPF program.
//!
//! Pure. The program looks at the architecture first: system call numbers mean nothing without it.

use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, SECCOMP_RET_USER_NOTIF};
use linux::sys::seccomp::Instruction;

#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7; // AUDIT_ARCH_AARCH64

/// System calls with this bit are x32's, which share x86_64's architecture number.
const X32_BIT: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`; the low halves of the first and the third argument, on little-endian machines.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARG0_LOW: u32 = 16;
const ARG1_LOW: u32 = 24;
const ARG2_LOW: u32 = 32;

/// Not in the libc crate yet (6.15 and later).
const SYS_OPEN_TREE_ATTR: i64 = 467;

/// What the mounter does for a helper, within its grant.
const MOUNTS: [i64; 2] = [libc::SYS_mount, libc::SYS_umount2];

/// The new mount interface: ENOSYS, upon which libmount and libfuse fall back to mount(2).
const NEW_MOUNTS: [i64; 7] = [
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
const SYNC_INIT: u32 = 0xe503;

/// What no helper needs: most of it takes a capability that it has not got either, the rest reaches other processes of its
/// uid, or parts of the kernel in which faults are found again and again.
const FORBIDDEN: &[i64] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_process_madvise,
    libc::SYS_setns,
    // Surface.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // Past all paths. With CAP_DAC_READ_SEARCH, which a type may be set to keep, it opens any file of a filesystem.
    libc::SYS_open_by_handle_at,
    // The node as a whole.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    SYS_QUOTACTL_FD,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Not in the libc crate for every architecture (5.14 and later).
const SYS_QUOTACTL_FD: i64 = 443;

/// Keyrings outlive processes and are shared by a uid. As on a kernel without them: mount.ceph then hands its secret to
/// mount(2) instead, and goes no such way after EPERM.
const KEYS: [i64; 3] = [libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl];

/// What these make stays when the helper is gone, and is the whole container's. As on a kernel without them.
const LEFT_BEHIND: [i64; 4] = [libc::SYS_shmget, libc::SYS_msgget, libc::SYS_semget, libc::SYS_mq_open];

/// The families of sockets that helpers speak with their servers and among themselves. Of netlink only what tells addresses and
/// routes, as getaddrinfo(3) asks it. Others lead to the hypervisor (vsock), or to rarely used parts of the kernel (AF_ALG, TIPC).
const FAMILIES: [i32; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];

/// EPERM, as the sysctl `kernel.io_uring_disabled` answers: programs know it.
const IO_URING: [i64; 3] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Namespaces of any kind, for `unshare`; `clone` has its exit signal where CLONE_NEWTIME is.
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP)
    .cast_unsigned();
const CLONE_NEWTIME: u32 = 0x80;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The listener answers it.
    Stop,
    /// It is answered with this error, or with success for 0, and not performed.
    Answer(i32),
    /// EPERM if its first argument has any of these bits, else it is performed.
    Without(u32),
    /// EAFNOSUPPORT unless its first argument is one of [`FAMILIES`], or netlink's and its third NETLINK_ROUTE.
    Socket,
    /// ENOTTY if its second argument is this, else it is performed.
    NotCommand(u32),
}

/// Who sees to a helper's mount(2) and umount2(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountCalls {
    /// The filter's listener, and it logs what else was tried of the mount interfaces.
    Stopped,
    /// Nobody: the kernel refuses them. The `preload` engine's object does not make them.
    LeftAlone,
}

/// Every call that is not simply let through.
fn table(mount_calls: MountCalls, io_uring: bool) -> Vec<(u32, Verdict)> {
    let eperm = Verdict::Answer(libc::EPERM);
    let enosys = Verdict::Answer(libc::ENOSYS);
    let mut table = Vec::new();
    let mut put = |calls: &[i64], verdict| table.extend(calls.iter().map(|number| (call(*number), verdict)));
    match mount_calls {
        MountCalls::Stopped => {
            put(&MOUNTS, Verdict::Stop);
            put(&NEW_MOUNTS, Verdict::Stop);
        }
        MountCalls::LeftAlone => put(&NEW_MOUNTS, enosys),
    }
    put(FORBIDDEN, eperm);
    put(&KEYS, enosys);
    put(&LEFT_BEHIND, enosys);
    put(&[libc::SYS_socket], Verdict::Socket);
    put(&[libc::SYS_ioctl], Verdict::NotCommand(SYNC_INIT));
    if !io_uring {
        put(&IO_URING, eperm);
    }
    put(&[libc::SYS_capset], Verdict::Answer(0));
    put(&[libc::SYS_unshare], Verdict::Without(NEW_NAMESPACES | CLONE_NEWTIME));
    put(&[libc::SYS_clone], Verdict::Without(NEW_NAMESPACES));
    // The limits of another process: it may be the mounter, whose uid is the same.
    put(&[libc::SYS_prlimit64], Verdict::Without(u32::MAX));
    table.sort_unstable_by_key(|(number, _)| *number);
    table
}

/// The program for a helper, and for the thread that starts it.
///
/// Calls for an architecture other than the native one are answered ENOSYS, all of them: their numbers differ. A new
/// user namespace would give a helper capabilities of a kind (and the kernel a larger surface): `unshare` and `clone`
/// refuse it with EPERM.
///
/// capset(2) is answered with success and not performed. A helper that gives up capabilities has none; one that arms
/// itself for its mount(2), as mount.cifs does, needs none, since that is performed for it.
pub fn program(mount_calls: MountCalls, io_uring: bool) -> Vec<Instruction> {
    let mut program = vec![load(ARCH), jump(BPF_JEQ, NATIVE, 1, 0), answer_errno(libc::ENOSYS), load(NUMBER)];
    program.extend([jump(BPF_JGE, X32_BIT, 0, 1), answer_errno(libc::ENOSYS)]);
    program.extend(search(&table(mount_calls, io_uring)));
    program
}

/// A binary search for the number in a sorted table: a call costs some ten instructions, wherever it is.
fn search(table: &[(u32, Verdict)]) -> Vec<Instruction> {
    /// So many are compared one after the other.
    const FEW: usize = 3;
    if table.len() <= FEW {
        let mut program = Vec::new();
        for (number, verdict) in table {
            let verdict = verdict.instructions();
            program.push(jump(BPF_JEQ, *number, 0, distance(&verdict)));
            program.extend(verdict);
        }
        program.push(answer(SECCOMP_RET_ALLOW));
        return program;
    }
    let (lower, upper) = table.split_at(table.len() / 2);
    let below = search(lower);
    let mut program = vec![jump(BPF_JGE, upper[0].0, distance(&below), 0)];
    program.extend(below);
    program.extend(search(upper));
    program
}

/// How far it is past these. A test goes through all calls: more than a jump's 255 would not pass.
fn distance(instructions: &[Instruction]) -> u8 {
    u8::try_from(instructions.len()).unwrap_or(u8::MAX)
}

impl Verdict {
    /// The number is known: what is left to do.
    fn instructions(self) -> Vec<Instruction> {
        match self {
            Self::Stop => vec![answer(SECCOMP_RET_USER_NOTIF)],
            Self::Answer(errno) => vec![answer_errno(errno)],
            Self::Without(bits) => vec![
                load(ARG0_LOW),
                statement(BPF_ALU | BPF_AND | BPF_K, bits),
                jump(BPF_JEQ, 0, 1, 0),
                answer_errno(libc::EPERM),
                answer(SECCOMP_RET_ALLOW),
            ],
            Self::Socket => {
                let number = |constant: i32| constant.cast_unsigned();
                let mut program = vec![load(ARG0_LOW)];
                // Each leads to the last instruction.
                let far = (4_u8..7).rev();
                program.extend(FAMILIES.iter().zip(far).map(|(family, far)| jump(BPF_JEQ, number(*family), far, 0)));
                program.extend([
                    jump(BPF_JEQ, number(libc::AF_NETLINK), 0, 2),
                    load(ARG2_LOW),
                    jump(BPF_JEQ, number(libc::NETLINK_ROUTE), 1, 0),
                    answer_errno(libc::EAFNOSUPPORT),
                    answer(SECCOMP_RET_ALLOW),
                ]);
                program
            }
            Self::NotCommand(command) => vec![
                load(ARG1_LOW),
                jump(BPF_JEQ, command, 0, 1),
                answer_errno(libc::ENOTTY),
                answer(SECCOMP_RET_ALLOW),
            ],
        }
    }
}

/// A further program for the helper alone, installed just before its exec: `clone3`, whose flags a filter cannot see, is
/// answered ENOSYS, and libc falls back to `clone`.
pub fn without_clone3() -> Vec<Instruction> {
    // Of other architectures there are no calls any more.
    vec![
        load(NUMBER),
        jump(BPF_JEQ, call(libc::SYS_clone3), 0, 1),
        answer_errno(libc::ENOSYS),
        answer(SECCOMP_RET_ALLOW),
    ]
}

/// System call numbers are small: the conversion never cuts anything off.
fn call(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn load(offset: u32) -> Instruction {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn answer(action: u32) -> Instruction {
    statement(BPF_RET | BPF_K, action)
}

fn answer_errno(errno: i32) -> Instruction {
    answer(SECCOMP_RET_ERRNO | errno.cast_unsigned())
}

fn statement(code: u32, k: u32) -> Instruction {
    Instruction { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(condition: u32, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: (BPF_JMP | condition | BPF_K) as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would, for one call.
    fn run_program(program: &[Instruction], arch: u32, number: u32, [arg0, arg1, arg2]: [u64; 3]) -> u32 {
        let (mut at, mut a) = (0, 0u32);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { jt } else { jf });
            match u32::from(code) {
                c if c == BPF_LD | BPF_W | BPF_ABS => {
                    a = match k {
                        NUMBER => number,
                        ARCH => arch,
                        ARG0_LOW => (arg0 & 0xffff_ffff) as u32,
                        ARG1_LOW => (arg1 & 0xffff_ffff) as u32,
                        ARG2_LOW => (arg2 & 0xffff_ffff) as u32,
                        _ => panic!("loads {k}"),
                    };
                }
                c if c == BPF_ALU | BPF_AND | BPF_K => a &= k,
                c if c == BPF_JMP | BPF_JEQ | BPF_K => at += jump(a == k),
                c if c == BPF_JMP | BPF_JGE | BPF_K => at += jump(a >= k),
                c if c == BPF_RET | BPF_K => return k,
                c => panic!("instruction {c:#x}"),
            }
        }
    }

    fn run(arch: u32, number: u32, arg0: u64) -> u32 {
        run_program(&program(MountCalls::Stopped, false), arch, number, [arg0, 0, 0])
    }

    fn native(number: i64, arg0: u64) -> u32 {
        run(NATIVE, call(number), arg0)
    }

    const ENOSYS: u32 = SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const EPERM: u32 = SECCOMP_RET_ERRNO | libc::EPERM as u32;

    /// What the table says, read from the top.
    fn expected(table: &[(u32, Verdict)], number: u32, arg0: u64) -> u32 {
        match table.iter().find(|(listed, _)| *listed == number).map(|(_, verdict)| *verdict) {
            None => SECCOMP_RET_ALLOW,
            Some(Verdict::Stop) => SECCOMP_RET_USER_NOTIF,
            Some(Verdict::Answer(errno)) => SECCOMP_RET_ERRNO | errno.cast_unsigned(),
            Some(Verdict::Without(bits)) if arg0 as u32 & bits != 0 => EPERM,
            Some(Verdict::Without(_)) => SECCOMP_RET_ALLOW,
            Some(Verdict::Socket) if [1, 2, 10, 16].contains(&(arg0 as u32)) => SECCOMP_RET_ALLOW,
            Some(Verdict::NotCommand(_)) => SECCOMP_RET_ALLOW,
            Some(Verdict::Socket) => SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT.cast_unsigned(),
        }
    }

    #[test]
    fn the_search_finds_what_the_table_says() {
        for mount_calls in [MountCalls::Stopped, MountCalls::LeftAlone] {
            for io_uring in [false, true] {
                let (program, table) = (program(mount_calls, io_uring), table(mount_calls, io_uring));
                assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0), "a call is listed twice");
                for (number, arg0) in
                    (0..1000).flat_map(|number| [0, 1, 2, 10, 16, 17, 38, 1 << 28, u64::MAX].map(|arg0| (number, arg0)))
                {
                    let verdict = run_program(&program, NATIVE, number, [arg0, 0, 0]);
                    assert_eq!(verdict, expected(&table, number, arg0), "{number}({arg0:#x})");
                }
                assert_eq!(run_program(&program, NATIVE, X32_BIT - 1, [0; 3]), SECCOMP_RET_ALLOW);
            }
        }
    }

    #[test]
    fn mounts_are_stopped_and_the_rest_is_let_through() {
        for number in MOUNTS.into_iter().chain(NEW_MOUNTS) {
            assert_eq!(native(number, 0), SECCOMP_RET_USER_NOTIF, "{number}");
        }
        for number in [libc::SYS_read, libc::SYS_openat, libc::SYS_execve, libc::SYS_exit_group] {
            assert_eq!(native(number, u64::MAX), SECCOMP_RET_ALLOW, "{number}");
        }
    }

    #[test]
    fn what_no_helper_needs_is_refused() {
        for number in [libc::SYS_ptrace, libc::SYS_setns, libc::SYS_bpf, libc::SYS_io_uring_setup, libc::SYS_reboot] {
            assert_eq!(native(number, 0), EPERM, "{number}");
        }
        assert_eq!(native(libc::SYS_keyctl, 0), ENOSYS);
        assert_eq!(native(libc::SYS_name_to_handle_at, 0), SECCOMP_RET_ALLOW);
        assert_eq!((native(libc::SYS_prlimit64, 0), native(libc::SYS_prlimit64, 1)), (SECCOMP_RET_ALLOW, EPERM));
    }

    #[test]
    fn other_architectures_get_nothing() {
        let i386 = 0x4000_0003;
        for number in [0, 3, 21, 22, 52, 165] {
            assert_eq!(run(i386, number, 0), ENOSYS);
            assert_eq!(run(NATIVE, number | X32_BIT, 0), ENOSYS);
        }
    }

    #[test]
    fn no_new_namespaces() {
        for new in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWCGROUP] {
            let new = u64::from(new.cast_unsigned());
            assert_eq!(native(libc::SYS_clone, new | 17), EPERM);
            assert_eq!(native(libc::SYS_unshare, new), EPERM);
        }
        assert_eq!(native(libc::SYS_unshare, CLONE_NEWTIME.into()), EPERM);
        assert_eq!(native(libc::SYS_clone, 17), SECCOMP_RET_ALLOW);
        assert_eq!(native(libc::SYS_unshare, libc::CLONE_FS as u64), SECCOMP_RET_ALLOW);
        let later = |number| run_program(&without_clone3(), NATIVE, call(number), [0; 3]);
        assert_eq!((later(libc::SYS_clone3), later(libc::SYS_clone)), (ENOSYS, SECCOMP_RET_ALLOW));
    }

    #[test]
    fn of_netlink_only_routes() {
        let program = program(MountCalls::Stopped, false);
        let socket = |family: i32, protocol: u64| {
            run_program(&program, NATIVE, call(libc::SYS_socket), [family as u64, 0, protocol])
        };
        let refused = SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT.cast_unsigned();
        assert_eq!(socket(libc::AF_NETLINK, libc::NETLINK_ROUTE as u64), SECCOMP_RET_ALLOW);
        assert_eq!(socket(libc::AF_INET6, libc::IPPROTO_TCP as u64), SECCOMP_RET_ALLOW);
        for protocol in [libc::NETLINK_AUDIT, libc::NETLINK_KOBJECT_UEVENT, libc::NETLINK_NETFILTER] {
            assert_eq!(socket(libc::AF_NETLINK, protocol as u64), refused, "{protocol}");
        }
        assert_eq!((socket(libc::AF_VSOCK, 0), socket(libc::AF_ALG, 0)), (refused, refused));
    }

    #[test]
    fn a_synchronous_init_is_not_to_be_had() {
        for mount_calls in [MountCalls::Stopped, MountCalls::LeftAlone] {
            let program = program(mount_calls, false);
            let ioctl = |command: u64| run_program(&program, NATIVE, call(libc::SYS_ioctl), [0, command, 0]);
            // The kernel takes the lower half of the command alone.
            assert_eq!(
                [0xe503, 0xffff_ffff_0000_e503].map(ioctl),
                [SECCOMP_RET_ERRNO | libc::ENOTTY.cast_unsigned(); 2]
            );
            // FUSE_DEV_IOC_CLONE, TCGETS.
            assert_eq!([0x8004_e500, 0x5401].map(ioctl), [SECCOMP_RET_ALLOW; 2]);
        }
    }

    #[test]
    fn capset_succeeds_and_does_nothing() {
        assert_eq!(native(libc::SYS_capset, 0), SECCOMP_RET_ERRNO);
    }
}
