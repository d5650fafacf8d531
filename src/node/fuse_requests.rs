//! Requests of a FUSE connection whose helper is gone, as linux/fuse.h has them: no more of them than their beginning is
//! looked at, and no more than an error is answered.
//!
//! Pure. A pod has made the requests: none of its numbers is trusted but the one that an answer repeats.

use super::fuse_protocol::operation::*;
use linux::sys::fuse::HEAD;

/// `struct fuse_out_header`: its length, an error, and the number of the request.
pub type OutHeader = [u8; 16];

/// The kernel is to hand out once more what was read and not answered (FUSE_NOTIFY_RESEND, Linux 6.9; EINVAL before).
pub const RESEND: OutHeader = out_header(7, 0);

/// The number of a filesystem's root.
pub const ROOT: u64 = 1;

/// What is not answered.
pub(super) const WITHOUT_ANSWER: [u32; 3] = [FORGET, INTERRUPT, BATCH_FORGET];
/// What is asked with a file that was opened before.
const WITH_OPEN_FILE: [u32; 18] = [
    READ,
    WRITE,
    RELEASE,
    FSYNC,
    FLUSH,
    READDIR,
    RELEASEDIR,
    FSYNCDIR,
    GETLK,
    SETLK,
    SETLKW,
    IOCTL,
    POLL,
    FALLOCATE,
    READDIRPLUS,
    LSEEK,
    COPY_FILE_RANGE,
    COPY_FILE_RANGE_64,
];

/// The answer to the request that begins so; none if it is to have none.
///
/// After ESTALE the kernel walks the path once more from its beginning, and finds what is mounted there by then. A file that
/// was open has no path any more: there the answer is what a dead filesystem gives.
pub fn answer(head: &[u8; HEAD]) -> Option<OutHeader> {
    let operation = u32::from_ne_bytes(head[4..8].try_into().ok()?);
    let request = u64::from_ne_bytes(head[8..16].try_into().ok()?);
    if WITHOUT_ANSWER.contains(&operation) {
        return None;
    }
    let error = if is_with_open_file(operation) { libc::ENOTCONN } else { libc::ESTALE };
    Some(out_header(-error, request))
}

/// Whether an operation is about a file that was opened before.
pub fn is_with_open_file(operation: u32) -> bool {
    WITH_OPEN_FILE.contains(&operation)
}

/// Whether an heir may have another answer than an error.
pub fn may_need_heir(head: &[u8; HEAD]) -> bool {
    let operation = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]);
    [GETATTR, READ, WRITE, FSYNC, FLUSH, LSEEK].contains(&operation)
}

/// Another error in the place of that of an answer.
pub fn error_for(answer: &OutHeader, error: i32) -> OutHeader {
    let [_, _, _, _, _, _, _, _, request @ ..] = *answer;
    out_header(-error, u64::from_ne_bytes(request))
}

const fn out_header(error: i32, request: u64) -> OutHeader {
    let mut header = [0; size_of::<OutHeader>()];
    let (length, rest) = header.split_at_mut(4);
    let (code, number) = rest.split_at_mut(4);
    length.copy_from_slice(&16u32.to_ne_bytes());
    code.copy_from_slice(&error.to_ne_bytes());
    number.copy_from_slice(&request.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(operation: u32, request: u64) -> [u8; HEAD] {
        let mut head = [0xff; HEAD];
        head[4..8].copy_from_slice(&operation.to_ne_bytes());
        head[8..16].copy_from_slice(&request.to_ne_bytes());
        head
    }

    fn error(answer: OutHeader) -> i32 {
        i32::from_ne_bytes(answer[4..8].try_into().unwrap())
    }

    #[test]
    fn each_request_is_answered_with_its_number_and_an_error() {
        const SENT_AGAIN: u64 = 1 << 63;
        for (operation, expected) in [(1, libc::ESTALE), (14, libc::ESTALE), (15, libc::ENOTCONN), (9999, libc::ESTALE)]
        {
            let answer = answer(&head(operation, SENT_AGAIN | 42)).unwrap();
            assert_eq!(error(answer), -expected, "{operation}");
            assert_eq!(u32::from_ne_bytes(answer[..4].try_into().unwrap()), 16);
            assert_eq!(u64::from_ne_bytes(answer[8..].try_into().unwrap()), SENT_AGAIN | 42);
        }
        assert!(WITHOUT_ANSWER.iter().all(|operation| answer(&head(*operation, 1)).is_none()));
        assert_eq!(error(RESEND), 7);
    }
}
