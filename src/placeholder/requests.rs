//! Requests of a placeholder's connection, as linux/fuse.h has them, and the answers.
//!
//! Pure. Processes of pods have made the requests: what is in them is theirs to choose.

use crate::node::fuse_requests::{answer, error_for, is_with_open_file};
use linux::sys::ask::Space;
use linux::sys::fuse::HEAD;
use rustix::fs::Statx;

/// FUSE_PARALLEL_DIROPS, and FUSE_INIT_EXT: there are more flags, in the second word.
const FLAGS: u32 = 1 << 18 | 1 << 30;
/// FUSE_ALLOW_IDMAP (Linux 6.12), in the second word.
const MORE_FLAGS: u32 = 1 << 8;
/// How long the kernel may keep a name. A pod's names are never asked for here, and looking anew would take away what is mounted on it.
const NAME_SECONDS: u64 = 24 * 3600;

/// FATTR_MODE, and what the kernel says beside it: FATTR_FH, and that the time of the change is its own (FATTR_CTIME).
const MODE: u32 = 1;
const BESIDE_MODE: u32 = 1 << 6 | 1 << 10;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Init,
    /// The attributes of a file.
    Attributes,
    /// What is in a directory by this name.
    Lookup(Vec<u8>),
    /// To make a directory of this name and mode.
    MakeDirectory(Vec<u8>, u32),
    /// To open a directory.
    OpenDirectory,
    /// To change a file's mode to this, and nothing else.
    SetMode(u32),
    /// How much space there is.
    Space,
    /// The kernel forgets numbers: which, and how often it was told each.
    Forget(Vec<(u64, u64)>),
    /// Another request is not waited for any longer.
    Interrupt(u64),
    /// What a file has beside its contents, and what the kernel can ask otherwise.
    Attribute,
    /// What is in a directory that was opened.
    List,
    /// Something else with a file that was opened.
    OpenFile,
    /// Anything else by path.
    Other,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// Its number.
    pub(super) unique: u64,
    /// The file that it is about.
    pub(super) node: u64,
    /// The thread that asks, in the PID namespace of the placeholder's mounter; 0: none of it.
    pub(super) thread: i32,
    /// What is asked.
    pub(super) asked: Asked,
    /// The answer after which the kernel looks again.
    again: [u8; 16],
}

impl Request {
    /// `None`: it is shorter than a request can be.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, body) = bytes.split_first_chunk::<HEAD>()?;
        let (operation, unique, node) = (word(head, 4)?, long(head, 8)?, long(head, 16)?);
        let asked = match operation {
            1 => Asked::Lookup(name(body)),
            2 => Asked::Forget(vec![(node, long(body, 0)?)]),
            3 => Asked::Attributes,
            4 if word(body, 0)? & MODE != 0 && word(body, 0)? & !(MODE | BESIDE_MODE) == 0 => {
                Asked::SetMode(word(body, 68)?)
            }
            9 => Asked::MakeDirectory(name(body.get(8..)?), word(body, 0)?),
            17 => Asked::Space,
            22 | 23 | 52 => Asked::Attribute,
            26 => Asked::Init,
            27 => Asked::OpenDirectory,
            28 | 44 => Asked::List,
            36 => Asked::Interrupt(long(body, 0)?),
            42 => {
                let each = body.get(8..)?.chunks_exact(16).take(word(body, 0)? as usize);
                Asked::Forget(each.filter_map(|one| Some((long(one, 0)?, long(one, 8)?))).collect())
            }
            operation if is_with_open_file(operation) => Asked::OpenFile,
            _ => Asked::Other,
        };
        let again = answer(head).unwrap_or_default();
        Some(Self { unique, node, thread: word(head, 32)?.cast_signed(), asked, again })
    }

    /// The answer after which the kernel walks the path once more.
    pub(super) fn look_again(&self) -> Vec<u8> {
        self.again.into()
    }

    /// An error.
    pub(super) fn error(&self, errno: i32) -> Vec<u8> {
        error_for(&self.again, errno).into()
    }

    /// An answer with this in it.
    pub(super) fn with(&self, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
        [&length.to_ne_bytes(), &[0; 4], &self.unique.to_ne_bytes()[..], body].concat()
    }
}

/// `struct fuse_init_out`: version 7.31, and little else. Who may enter is decided by `default_permissions` at the mount, without which the
/// kernel maps no ids.
pub(super) fn init() -> [u8; 64] {
    let mut body = [0; 64];
    for (at, word) in [(0, 7), (4, 31), (12, FLAGS), (20, 4096), (32, MORE_FLAGS)] {
        body[at..at + 4].copy_from_slice(&u32::to_ne_bytes(word));
    }
    body
}

/// `struct fuse_attr_out`: they are asked for anew each time, so that no process goes to a directory here without a request.
pub(super) fn attributes(stat: &Statx, number: u64) -> Vec<u8> {
    [&[0; 16], &attribute(stat, number)[..]].concat()
}

/// `struct fuse_entry_out`.
pub(super) fn entry(stat: &Statx, number: u64) -> Vec<u8> {
    let head = [number, 0, NAME_SECONDS, 0, 0].map(u64::to_ne_bytes).concat();
    [head, attribute(stat, number).to_vec()].concat()
}

/// `struct fuse_attr`.
fn attribute(stat: &Statx, number: u64) -> [u8; 88] {
    let mut body = [0; 88];
    let times = [stat.stx_atime, stat.stx_mtime, stat.stx_ctime];
    let longs = [number, stat.stx_size, stat.stx_blocks].into_iter();
    let longs = longs.chain(times.map(|time| time.tv_sec.cast_unsigned()));
    let owner = [u32::from(stat.stx_mode), stat.stx_nlink, stat.stx_uid, stat.stx_gid, 0, stat.stx_blksize];
    let words = times.map(|time| time.tv_nsec).into_iter().chain(owner);
    let bytes = longs.flat_map(u64::to_ne_bytes).chain(words.flat_map(u32::to_ne_bytes));
    body.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    body
}

/// `struct fuse_statfs_out`.
pub(super) fn space(said: Space) -> Vec<u8> {
    let Space { block, blocks, free, available, files, files_free } = said;
    let longs = [blocks, free, available, files, files_free].map(u64::to_ne_bytes).concat();
    let block = u32::try_from(block).unwrap_or(4096);
    let words = [block, 255, block].map(u32::to_ne_bytes).concat();
    [longs, words, vec![0; 28]].concat()
}

/// A name, which ends with a zero.
fn name(body: &[u8]) -> Vec<u8> {
    body.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::fd::AsFd;

    fn request(operation: u32, body: &[u8]) -> Request {
        let mut bytes = vec![0; HEAD];
        bytes[4..8].copy_from_slice(&operation.to_ne_bytes());
        bytes[8..16].copy_from_slice(&42u64.to_ne_bytes());
        bytes[16..24].copy_from_slice(&7u64.to_ne_bytes());
        bytes[32..36].copy_from_slice(&123u32.to_ne_bytes());
        bytes.extend(body);
        Request::parse(&bytes).unwrap()
    }

    #[test]
    fn what_is_asked_and_by_whom() {
        let found = request(1, b"sub\0");
        assert_eq!((found.unique, found.node, found.thread), (42, 7, 123));
        assert_eq!(found.asked, Asked::Lookup(b"sub".into()));
        let mut make = [0o755u32.to_ne_bytes(), [0; 4]].concat();
        make.extend(b"new\0");
        assert_eq!(request(9, &make).asked, Asked::MakeDirectory(b"new".into(), 0o755));
        let longs = |longs: &[u64]| longs.iter().flat_map(|long| long.to_ne_bytes()).collect::<Vec<_>>();
        assert_eq!(request(2, &longs(&[3])).asked, Asked::Forget(vec![(7, 3)]));
        assert_eq!(request(42, &longs(&[2, 5, 1, 6, 2])).asked, Asked::Forget(vec![(5, 1), (6, 2)]));
        assert_eq!(request(36, &longs(&[9])).asked, Asked::Interrupt(9));
        let opened = [27, 28, 29].map(|operation| request(operation, &[]).asked);
        assert_eq!(opened, [Asked::OpenDirectory, Asked::List, Asked::OpenFile]);
        let set = |valid: u32| {
            let mut body = [0; 88];
            body[..4].copy_from_slice(&valid.to_ne_bytes());
            body[68..72].copy_from_slice(&0o750u32.to_ne_bytes());
            request(4, &body).asked
        };
        assert_eq!((set(1), set(1 | 1 << 6)), (Asked::SetMode(0o750), Asked::SetMode(0o750)));
        // With an owner, or an owner alone.
        assert_eq!((set(1 | 2), set(2), set(0)), (Asked::Other, Asked::Other, Asked::Other));
    }

    #[test]
    fn answers_have_the_length_that_the_kernel_expects() {
        let request = request(3, &[]);
        let stat = linux::statx::known(std::fs::File::open("/proc").unwrap().as_fd()).unwrap();
        let lengths = [(init().to_vec(), 64), (attributes(&stat, 1), 104), (entry(&stat, 2), 128)];
        for (body, length) in lengths.into_iter().chain([(space(Space::default()), 80)]) {
            let answer = request.with(&body);
            assert_eq!((body.len(), answer.len()), (length, length + 16));
            assert_eq!(u32::from_ne_bytes(answer[..4].try_into().unwrap()) as usize, length + 16);
        }
        let errno = |answer: Vec<u8>| i32::from_ne_bytes(answer[4..8].try_into().unwrap());
        assert_eq!((errno(request.look_again()), errno(request.error(libc::EIO))), (-libc::ESTALE, -libc::EIO));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(request) = Request::parse(&bytes) {
                prop_assert_eq!(request.unique.to_ne_bytes(), <[u8; 8]>::try_from(&bytes[8..16]).unwrap());
                prop_assert_eq!(request.error(libc::EIO).len(), 16);
            }
        }
    }
}
