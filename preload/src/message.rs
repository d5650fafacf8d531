//! The messages between a preloaded helper and the mounter: one datagram a call, one answer.
//!
//! Pure, without allocation; this one file is compiled into both sides (the mounter's is `src/engine/preload/`).
//!
//! ```text
//! call     4 bytes  MAGIC
//!          4 bytes  operation: 1 mount, 2 unmount
//!          8 bytes  mount flags, as mount(2) takes them; 0 for unmount
//!          source NUL type NUL data NUL        each at most LONGEST with its NUL; all empty for unmount
//!          SCM_RIGHTS: where to answer, the target (O_PATH), and the /dev/fuse that `fd=` in the data names
//! answer   4 bytes  0 or an errno
//! ```
//!
//! Both sides come from one build and run on one machine: numbers are in its byte order.

use core::ffi::CStr;

/// Where the mounter listens: in each helper's own mount namespace, and nowhere else.
pub const SOCKET: &CStr = c"/run/hostmount/preload/socket";

/// Begins every call; the last byte is the format's version.
const MAGIC: [u8; 4] = *b"HMP\x01";

/// The longest string that mount(2) takes: a page.
pub const LONGEST: usize = 4096;

/// The bytes before the strings.
pub const HEADER: usize = 16;

/// The longest call.
pub const LIMIT: usize = HEADER + 3 * LONGEST;

/// The most descriptors that come with one.
pub const DESCRIPTORS: usize = 3;

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// mount(2).
    Mount = 1,
    /// umount2(2).
    Unmount = 2,
}

/// A call as it was received. The strings are the helper's and not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// The operation.
    pub operation: Operation,
    /// mount(2)'s flags.
    pub flags: u64,
    /// Its first argument.
    pub source: &'a CStr,
    /// Its third.
    pub fstype: &'a CStr,
    /// Its fifth.
    pub data: &'a CStr,
}

/// The first bytes of a call; the strings follow.
pub fn header(operation: Operation, flags: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&MAGIC);
    header[4..8].copy_from_slice(&(operation as u32).to_ne_bytes());
    header[8..].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// Reads a call; `None` for anything else.
pub fn parse(bytes: &[u8]) -> Option<Call<'_>> {
    let (magic, rest) = bytes.split_first_chunk()?;
    let (operation, rest) = rest.split_first_chunk()?;
    let (flags, strings) = rest.split_first_chunk()?;
    let operation = match u32::from_ne_bytes(*operation) {
        1 => Operation::Mount,
        2 => Operation::Unmount,
        _ => return None,
    };
    let (source, rest) = string(strings)?;
    let (fstype, rest) = string(rest)?;
    let (data, rest) = string(rest)?;
    let whole = *magic == MAGIC && rest.is_empty();
    whole.then_some(Call { operation, flags: u64::from_ne_bytes(*flags), source, fstype, data })
}

fn string(bytes: &[u8]) -> Option<(&CStr, &[u8])> {
    let string = CStr::from_bytes_until_nul(bytes).ok()?;
    let length = string.count_bytes() + 1;
    (length <= LONGEST).then_some((string, bytes.get(length..)?))
}
