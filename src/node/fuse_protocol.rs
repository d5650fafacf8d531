//! Requests and answers of a FUSE connection, as linux/fuse.h has them: what is read and written here by more than one.
//!
//! Pure. The kernel has made the requests for processes of pods: what is in them is theirs to choose but for their lengths.

use linux::sys::ask::Space;
use linux::sys::fuse::HEAD;
use rustix::fs::Statx;

/// What is asked: `enum fuse_opcode`, without its FUSE_.
pub mod operation {
    #![expect(missing_docs, reason = "linux/fuse.h has them")]

    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const MKDIR: u32 = 9;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const ACCESS: u32 = 34;
    pub const INTERRUPT: u32 = 36;
    pub const IOCTL: u32 = 39;
    pub const POLL: u32 = 40;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const STATX: u32 = 52;
    pub const COPY_FILE_RANGE_64: u32 = 53;
}

/// `struct fuse_in_header`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What is asked.
    pub operation: u32,
    /// The request's number, which its answer repeats.
    pub unique: u64,
    /// The file that it is about.
    pub node: u64,
    /// The thread that asks, in the PID namespace of the process that mounted; 0: none of it.
    pub thread: i32,
}

impl Head {
    /// Reads it.
    pub fn of(head: &[u8; HEAD]) -> Self {
        let word = |at| word(head, at).unwrap_or_default();
        let long = |at| long(head, at).unwrap_or_default();
        Self { operation: word(4), unique: long(8), node: long(16), thread: word(32).cast_signed() }
    }
}

/// The number of 32 bits at a place of a request; none if it is shorter.
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// The same with 64 bits.
pub fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

/// An answer: `struct fuse_out_header`, with an errno or 0, and what follows it.
pub fn answer(unique: u64, errno: i32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    [&length.to_ne_bytes(), &(-errno).to_ne_bytes(), &unique.to_ne_bytes()[..], body].concat()
}

/// `struct fuse_attr`: the attributes of a file, under the number that the kernel has for it.
pub fn attribute(stat: &Statx, number: u64) -> [u8; 88] {
    let times = [stat.stx_atime, stat.stx_mtime, stat.stx_ctime];
    let longs = [number, stat.stx_size, stat.stx_blocks].into_iter();
    let longs = longs.chain(times.map(|time| time.tv_sec.cast_unsigned()));
    let device = libc::makedev(stat.stx_rdev_major, stat.stx_rdev_minor) as u32;
    let owner = [u32::from(stat.stx_mode), stat.stx_nlink, stat.stx_uid, stat.stx_gid, device, stat.stx_blksize];
    let words = times.map(|time| time.tv_nsec).into_iter().chain(owner);
    let bytes = longs.flat_map(u64::to_ne_bytes).chain(words.flat_map(u32::to_ne_bytes));
    let mut body = [0; 88];
    body.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    body
}

/// FUSE_PARALLEL_DIROPS, a flag of [`init`]: without it the kernel lets one process look in a directory at a time, and those that wait for
/// their turn cannot be killed.
pub const PARALLEL_DIROPS: u32 = 1 << 18;

/// `struct fuse_init_out`: version 7.31, and little else than these flags, the second of which count with FUSE_INIT_EXT alone.
pub fn init(flags: u32, more_flags: u32) -> [u8; 64] {
    let mut body = [0; 64];
    // The longest write is one page.
    for (at, word) in [(0, 7), (4, 31), (12, flags), (20, 4096), (32, more_flags)] {
        body[at..at + 4].copy_from_slice(&u32::to_ne_bytes(word));
    }
    body
}

/// `struct fuse_statfs_out`.
pub fn space(said: Space) -> Vec<u8> {
    let Space { block, blocks, free, available, files, files_free } = said;
    let longs = [blocks, free, available, files, files_free].map(u64::to_ne_bytes).concat();
    let block = u32::try_from(block).unwrap_or(4096);
    let words = [block, 255, block].map(u32::to_ne_bytes).concat();
    [longs, words, vec![0; 28]].concat()
}
