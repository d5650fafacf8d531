//! Which system calls of a helper are stopped: a classic BPF program.
//!
//! Pure. The program looks at the architecture first: system call numbers mean nothing without it.

use super::architecture::{NATIVE, X32_BIT};
use super::calls::{Heard, INTERNET, PROTOCOLS, TYPES, Verdict, call, errno_action, table};
use libc::SECCOMP_RET_ALLOW;
use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use linux::sys::seccomp::Instruction;

/// What socket(2) takes as a type; its other bits are SOCK_CLOEXEC and the like.
const TYPE_MASK: u32 = 0xf;

/// Offsets in `struct seccomp_data`; the low halves of the first three arguments, on little-endian machines.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARG0_LOW: u32 = 16;
const ARG1_LOW: u32 = 24;
const ARG2_LOW: u32 = 32;

/// The program for a helper, and for the thread that starts it.
///
/// Calls for an architecture other than the native one are answered ENOSYS, all of them: their numbers differ. A new
/// user namespace would give a helper capabilities of a kind (and the kernel a larger surface): `unshare` and `clone`
/// refuse it with EPERM.
///
/// capset(2) is answered with success and not performed. A helper that gives up capabilities has none; one that arms
/// itself for its mount(2), as mount.cifs does, needs none, since that is performed for it.
pub fn program(heard: Heard, io_uring: bool) -> Vec<Instruction> {
    let mut program = vec![load(ARCH), jump(BPF_JEQ, NATIVE, 1, 0), answer_errno(libc::ENOSYS), load(NUMBER)];
    program.extend([jump(BPF_JGE, X32_BIT, 0, 1), answer_errno(libc::ENOSYS)]);
    program.extend(search(&table(heard, io_uring)));
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
            Self::Always(action) => vec![answer(action)],
            Self::With(bits, action) => vec![
                load(ARG0_LOW),
                statement(BPF_ALU | BPF_AND | BPF_K, bits),
                jump(BPF_JEQ, 0, 1, 0),
                answer(action),
                answer(SECCOMP_RET_ALLOW),
            ],
            Self::Socket => {
                let of_the_internet = [
                    vec![load(ARG1_LOW), statement(BPF_ALU | BPF_AND | BPF_K, TYPE_MASK)],
                    one_of(&TYPES, vec![answer_errno(libc::ESOCKTNOSUPPORT)]),
                    vec![load(ARG2_LOW)],
                    one_of(&PROTOCOLS, vec![answer_errno(libc::EPROTONOSUPPORT)]),
                    vec![answer(SECCOMP_RET_ALLOW)],
                ]
                .concat();
                let netlink = [vec![load(ARG2_LOW)], only(libc::NETLINK_ROUTE, libc::EAFNOSUPPORT)].concat();
                [
                    vec![load(ARG0_LOW)],
                    none_of(&INTERNET, of_the_internet),
                    none_of(&[libc::AF_NETLINK], netlink),
                    only(libc::AF_UNIX, libc::EAFNOSUPPORT),
                ]
                .concat()
            }
            Self::SocketPair => [vec![load(ARG0_LOW)], only(libc::AF_UNIX, libc::EAFNOSUPPORT)].concat(),
            Self::NotCommand(command, errno) => {
                vec![load(ARG1_LOW), jump(BPF_JEQ, command, 0, 1), answer_errno(errno), answer(SECCOMP_RET_ALLOW)]
            }
        }
    }
}

/// This error, unless what is loaded is this: then the call is performed.
fn only(this: i32, errno: i32) -> Vec<Instruction> {
    [one_of(&[this], vec![answer_errno(errno)]), vec![answer(SECCOMP_RET_ALLOW)]].concat()
}

/// `otherwise`, unless what is loaded is one of these: then what follows is executed.
fn one_of(these: &[i32], otherwise: Vec<Instruction>) -> Vec<Instruction> {
    let past = these.len() + otherwise.len();
    let tests = these
        .iter()
        .enumerate()
        .map(|(at, this)| jump(BPF_JEQ, this.cast_unsigned(), u8::try_from(past - at - 1).unwrap_or(u8::MAX), 0));
    tests.chain(otherwise).collect()
}

/// `otherwise`, if what is loaded is one of these: else what follows is executed.
fn none_of(these: &[i32], otherwise: Vec<Instruction>) -> Vec<Instruction> {
    let leave = jump(BPF_JGE, 0, distance(&otherwise), distance(&otherwise));
    [one_of(these, vec![leave]), otherwise].concat()
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

fn load(offset: u32) -> Instruction {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn answer(action: u32) -> Instruction {
    statement(BPF_RET | BPF_K, action)
}

fn answer_errno(errno: i32) -> Instruction {
    answer(errno_action(errno))
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
    use crate::engine::seccomp::calls::{CLONE_NEWTIME, MOUNTS, NEW_MOUNTS, refusal};
    use libc::{SECCOMP_RET_ERRNO, SECCOMP_RET_USER_NOTIF};

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
        run_program(&program(Heard::ByListener, false), arch, number, [arg0, 0, 0])
    }

    fn native(number: i64, arg0: u64) -> u32 {
        run(NATIVE, call(number), arg0)
    }

    const ENOSYS: u32 = SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const REFUSED: u32 = SECCOMP_RET_USER_NOTIF;

    /// What the table says, read from the top.
    fn expected(table: &[(u32, Verdict)], number: u32, arg0: u64) -> u32 {
        match table.iter().find(|(listed, _)| *listed == number).map(|(_, verdict)| *verdict) {
            None => SECCOMP_RET_ALLOW,
            Some(Verdict::Always(action)) => action,
            Some(Verdict::With(bits, action)) if arg0 as u32 & bits != 0 => action,
            Some(Verdict::With(..)) => SECCOMP_RET_ALLOW,
            Some(Verdict::Socket) if [1, 16].contains(&(arg0 as u32)) => SECCOMP_RET_ALLOW,
            Some(Verdict::Socket) if [2, 10].contains(&(arg0 as u32)) => {
                SECCOMP_RET_ERRNO | libc::ESOCKTNOSUPPORT.cast_unsigned()
            }
            Some(Verdict::SocketPair) if arg0 as u32 == 1 => SECCOMP_RET_ALLOW,
            Some(Verdict::NotCommand(..)) => SECCOMP_RET_ALLOW,
            Some(Verdict::Socket | Verdict::SocketPair) => SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT.cast_unsigned(),
        }
    }

    #[test]
    fn the_search_finds_what_the_table_says() {
        for heard in [Heard::ByListener, Heard::ByNobody] {
            for io_uring in [false, true] {
                let (program, table) = (program(heard, io_uring), table(heard, io_uring));
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
            assert_eq!(native(number, 0), REFUSED, "{number}");
        }
        assert_eq!(native(libc::SYS_keyctl, 0), ENOSYS);
        assert_eq!(native(libc::SYS_name_to_handle_at, 0), SECCOMP_RET_ALLOW);
        assert_eq!((native(libc::SYS_prlimit64, 0), native(libc::SYS_prlimit64, 1)), (SECCOMP_RET_ALLOW, REFUSED));
    }

    #[test]
    fn without_a_listener_the_kernel_refuses_the_same_calls() {
        let eperm = errno_action(libc::EPERM);
        let (heard, unheard) = (table(Heard::ByListener, false), table(Heard::ByNobody, false));
        for (number, verdict) in heard {
            let other = unheard.iter().find(|(listed, _)| *listed == number).map(|(_, verdict)| *verdict);
            let mount = MOUNTS.into_iter().chain(NEW_MOUNTS).any(|listed| call(listed) == number);
            match verdict {
                Verdict::Always(REFUSED) if !mount => {
                    assert_eq!(other, Some(Verdict::Always(eperm)), "{number}");
                    assert!(refusal(number.into()).is_some(), "{number}");
                }
                Verdict::With(bits, REFUSED) => {
                    assert_eq!(other, Some(Verdict::With(bits, eperm)), "{number}");
                    assert!(refusal(number.into()).is_some(), "{number}");
                }
                verdict if !mount => assert_eq!(other, Some(verdict), "{number}"),
                _ => assert_eq!(refusal(number.into()), None, "{number}"),
            }
        }
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
    fn no_leases() {
        for heard in [Heard::ByListener, Heard::ByNobody] {
            let program = program(heard, true);
            let fcntl = |command: i32| run_program(&program, NATIVE, call(libc::SYS_fcntl), [3, command as u64, 1]);
            assert_eq!(fcntl(libc::F_SETLEASE), SECCOMP_RET_ERRNO | libc::EINVAL.cast_unsigned());
            assert_eq!([libc::F_GETFL, libc::F_SETLK, libc::F_DUPFD].map(fcntl), [SECCOMP_RET_ALLOW; 3]);
        }
    }

    #[test]
    fn no_new_namespaces() {
        for new in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWCGROUP] {
            let new = u64::from(new.cast_unsigned());
            assert_eq!(native(libc::SYS_clone, new | 17), REFUSED);
            assert_eq!(native(libc::SYS_unshare, new), REFUSED);
        }
        assert_eq!(native(libc::SYS_unshare, CLONE_NEWTIME.into()), REFUSED);
        assert_eq!(native(libc::SYS_clone, 17), SECCOMP_RET_ALLOW);
        assert_eq!(native(libc::SYS_unshare, libc::CLONE_FS as u64), SECCOMP_RET_ALLOW);
        let later = |number| run_program(&without_clone3(), NATIVE, call(number), [0; 3]);
        assert_eq!((later(libc::SYS_clone3), later(libc::SYS_clone)), (ENOSYS, SECCOMP_RET_ALLOW));
    }

    #[test]
    fn of_netlink_only_routes() {
        let program = program(Heard::ByListener, false);
        let socket = |family: i32, protocol: u64| {
            run_program(&program, NATIVE, call(libc::SYS_socket), [family as u64, libc::SOCK_STREAM as u64, protocol])
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
    fn of_the_internet_only_what_everybody_speaks() {
        let program = program(Heard::ByListener, false);
        let errno = |errno: i32| SECCOMP_RET_ERRNO | errno.cast_unsigned();
        for family in INTERNET {
            let socket = |kind: i32, protocol: i32| {
                let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
                run_program(&program, NATIVE, call(libc::SYS_socket), [family as u64, kind as u64, protocol as u64])
            };
            for (kind, protocol) in [(1, 0), (2, 0), (1, 6), (2, 17), (2, 1), (2, 58), (3, 1), (1, 262)] {
                assert_eq!(socket(kind, protocol), SECCOMP_RET_ALLOW, "{kind} {protocol}");
            }
            // SCTP and DCCP by their types; SCTP, UDP-Lite, DCCP, L2TP, and all raw ones by their numbers.
            assert_eq!([5, 6, 10, 0].map(|kind| socket(kind, 0)), [errno(libc::ESOCKTNOSUPPORT); 4]);
            let protocols = [(1, 132), (2, 136), (1, 33), (2, 115), (3, 255)];
            assert_eq!(protocols.map(|(kind, protocol)| socket(kind, protocol)), [errno(libc::EPROTONOSUPPORT); 5]);
        }
        let pair = |family: i32| run_program(&program, NATIVE, call(libc::SYS_socketpair), [family as u64, 1, 0]);
        assert_eq!([libc::AF_UNIX, libc::AF_TIPC].map(pair), [SECCOMP_RET_ALLOW, errno(libc::EAFNOSUPPORT)]);
    }

    #[test]
    fn a_synchronous_init_is_not_to_be_had() {
        for heard in [Heard::ByListener, Heard::ByNobody] {
            let program = program(heard, false);
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
