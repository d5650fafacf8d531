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

/// Offsets in `struct seccomp_data`; the low half of the first argument, on little-endian machines.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARG0_LOW: u32 = 16;

/// Not in the libc crate yet (6.15 and later).
const SYS_OPEN_TREE_ATTR: i64 = 467;

/// Calls that the listener answers: mount(2) and umount2(2) by doing them within the grant, the new mount interface by
/// ENOSYS, upon which libmount and libfuse fall back to mount(2).
const STOPPED: [i64; 9] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_fsmount,
    libc::SYS_open_tree,
    SYS_OPEN_TREE_ATTR,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
];

/// The program for a helper, and for the thread that starts it.
///
/// Calls for an architecture other than the native one are answered ENOSYS, all of them: their numbers differ. A new
/// user namespace would give a helper capabilities of a kind (and the kernel a larger surface): `unshare` and `clone`
/// refuse it with EPERM.
///
/// capset(2) is answered with success and not performed. A helper that gives up capabilities has none; one that arms
/// itself for its mount(2), as mount.cifs does, needs none, since that is performed for it.
pub fn program() -> Vec<Instruction> {
    let mut program = vec![load(ARCH), jump(BPF_JEQ, NATIVE, 1, 0), answer_errno(libc::ENOSYS), load(NUMBER)];
    program.extend([jump(BPF_JGE, X32_BIT, 0, 1), answer_errno(libc::ENOSYS)]);
    for number in STOPPED {
        program.extend([jump(BPF_JEQ, call(number), 0, 1), answer(SECCOMP_RET_USER_NOTIF)]);
    }
    program.extend([jump(BPF_JEQ, call(libc::SYS_capset), 0, 1), answer_errno(0)]);
    // For the two calls with flags in their first argument: look at it; for all others: done.
    program.extend([
        jump(BPF_JEQ, call(libc::SYS_unshare), 2, 0),
        jump(BPF_JEQ, call(libc::SYS_clone), 1, 0),
        answer(SECCOMP_RET_ALLOW),
        load(ARG0_LOW),
        statement(BPF_ALU | BPF_AND | BPF_K, libc::CLONE_NEWUSER.cast_unsigned()),
        jump(BPF_JEQ, 0, 1, 0),
        answer_errno(libc::EPERM),
        answer(SECCOMP_RET_ALLOW),
    ]);
    program
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
    fn run_program(program: &[Instruction], arch: u32, number: u32, arg0: u64) -> u32 {
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
        run_program(&program(), arch, number, arg0)
    }

    fn native(number: i64, arg0: u64) -> u32 {
        run(NATIVE, call(number), arg0)
    }

    const ENOSYS: u32 = SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const EPERM: u32 = SECCOMP_RET_ERRNO | libc::EPERM as u32;

    #[test]
    fn mounts_are_stopped_and_the_rest_is_let_through() {
        for number in STOPPED {
            assert_eq!(native(number, 0), SECCOMP_RET_USER_NOTIF, "{number}");
        }
        for number in [libc::SYS_read, libc::SYS_openat, libc::SYS_execve, libc::SYS_exit_group] {
            assert_eq!(native(number, u64::MAX), SECCOMP_RET_ALLOW, "{number}");
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
    fn no_new_user_namespaces() {
        let new_user = libc::CLONE_NEWUSER as u64;
        assert_eq!(native(libc::SYS_clone, new_user | 17), EPERM);
        assert_eq!(native(libc::SYS_unshare, new_user), EPERM);
        assert_eq!(native(libc::SYS_clone, 17), SECCOMP_RET_ALLOW);
        assert_eq!(native(libc::SYS_unshare, libc::CLONE_FS as u64), SECCOMP_RET_ALLOW);
        let later = |number| run_program(&without_clone3(), NATIVE, call(number), 0);
        assert_eq!((later(libc::SYS_clone3), later(libc::SYS_clone)), (ENOSYS, SECCOMP_RET_ALLOW));
    }

    #[test]
    fn capset_succeeds_and_does_nothing() {
        assert_eq!(native(libc::SYS_capset, 0), SECCOMP_RET_ERRNO);
    }
}
