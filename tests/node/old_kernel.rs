//! Older kernels: system calls, and flags of them, that programs under test do not find.
//!
//! Runs in the tests' process, as root. A seccomp filter belongs to a thread, and to whatever it starts: as the mounter
//! does with its helpers (`src/helper/confine.rs`).

use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use libc::{SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO};
use linux::sys::seccomp::{Instruction, restrict};
use std::thread;

/// Something that an older kernel lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    call: i64,
    /// Only with one of these flags, in this argument (EINVAL then, of a socket's option ENOPROTOOPT, else ENOSYS).
    flags: Option<(u32, u32)>,
}

const fn call(call: i64) -> Missing {
    Missing { call, flags: None }
}

/// 5.2.
pub const OPEN_TREE: Missing = call(libc::SYS_open_tree);
/// 5.2.
pub const MOVE_MOUNT: Missing = call(libc::SYS_move_mount);
/// 4.11; stands for its attribute for mount points, 5.8, as a filter cannot change what a call returns.
pub const STATX: Missing = call(libc::SYS_statx);
/// 5.6.
pub const OPENAT2: Missing = call(libc::SYS_openat2);
/// 5.6.
pub const PIDFD_GETFD: Missing = call(libc::SYS_pidfd_getfd);
/// 5.12.
pub const MOUNT_SETATTR: Missing = call(libc::SYS_mount_setattr);
/// 5.13, if it is built in at all.
pub const LANDLOCK: Missing = call(libc::SYS_landlock_create_ruleset);
/// Of every age; a container's profile may forbid it.
pub const SECCOMP: Missing = call(libc::SYS_seccomp);
/// The same.
pub const CAPSET: Missing = call(libc::SYS_capset);
/// SECCOMP_FILTER_FLAG_NEW_LISTENER, 5.0.
pub const USER_NOTIFICATION: Missing = Missing { call: libc::SYS_seccomp, flags: Some((1, 1 << 3)) };
/// SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 5.19.
pub const WAIT_KILLABLE: Missing = Missing { call: libc::SYS_seccomp, flags: Some((1, 1 << 5)) };
/// 5.3.
pub const CLONE3: Missing = call(libc::SYS_clone3);
/// 6.8.
pub const STATMOUNT: Missing = call(linux::sys::statmount::SYS_STATMOUNT);
/// MOVE_MOUNT_BENEATH, 6.5.
pub const BENEATH: Missing = Missing { call: libc::SYS_move_mount, flags: Some((4, 0x200)) };

/// SO_PEERPIDFD, 6.5: of the options that the mounter asks for the only one above 63.
pub const PEER_PIDFD: Missing = Missing { call: libc::SYS_getsockopt, flags: Some((2, 1 << 6)) };

/// Runs `work` on a thread that misses these things, as does everything that it starts.
pub fn without<T: Send>(missing: &[Missing], work: impl FnOnce() -> T + Send) -> T {
    let program = program(missing);
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            restrict(&program).unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn program(missing: &[Missing]) -> Vec<Instruction> {
    let mut program = Vec::new();
    for one in missing {
        let unknown = if one.call == libc::SYS_getsockopt { libc::ENOPROTOOPT } else { libc::EINVAL };
        let refusal = match one.flags {
            None => vec![answer(SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned())],
            Some((argument, mask)) => vec![
                // The low half of an argument of 64 bits.
                statement(BPF_LD | BPF_W | BPF_ABS, 16 + 8 * argument),
                statement(BPF_ALU | BPF_AND | BPF_K, mask),
                jump_if_equal(0, 1, 0),
                answer(SECCOMP_RET_ERRNO | unknown.cast_unsigned()),
            ],
        };
        program.push(statement(BPF_LD | BPF_W | BPF_ABS, 0));
        program.push(jump_if_equal(one.call.try_into().unwrap(), 0, refusal.len().try_into().unwrap()));
        program.extend(refusal);
    }
    program.push(answer(SECCOMP_RET_ALLOW));
    program
}

fn answer(action: u32) -> Instruction {
    statement(BPF_RET | BPF_K, action)
}

fn statement(code: u32, k: u32) -> Instruction {
    Instruction { code: code.try_into().unwrap(), jt: 0, jf: 0, k }
}

fn jump_if_equal(k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { jt, jf, ..statement(BPF_JMP | BPF_JEQ | BPF_K, k) }
}
