//! Requests of a placeholder's connection, as linux/fuse.h has them, and the answers.
//!
//! Pure. Processes of pods have made the requests: what is in them is theirs to choose.

use crate::node::fuse_protocol::operation::*;
use crate::node::fuse_protocol::{self, Head, PARALLEL_DIROPS, attribute, long, word};
use crate::node::fuse_requests::{answer, error_for, is_with_open_file};
use linux::sys::fuse::HEAD;
use rustix::fs::Statx;

/// FUSE_INIT_EXT: there are more flags, in the second word.
const INIT_EXT: u32 = 1 << 30;
/// FUSE_ALLOW_IDMAP (Linux 6.12), in the second word.
const ALLOW_IDMAP: u32 = 1 << 8;
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
    /// It has waited for the volume's program as long as it may.
    pub(super) waited: bool,
    /// The answer after which the kernel looks again.
    again: [u8; 16],
}

impl Request {
    /// `None`: it is shorter than a request can be.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, body) = bytes.split_first_chunk::<HEAD>()?;
        let Head { operation, unique, node, thread } = Head::of(head);
        let asked = match operation {
            LOOKUP => Asked::Lookup(name(body)),
            FORGET => Asked::Forget(vec![(node, long(body, 0)?)]),
            GETATTR => Asked::Attributes,
            SETATTR if word(body, 0)? & MODE != 0 && word(body, 0)? & !(MODE | BESIDE_MODE) == 0 => {
                Asked::SetMode(word(body, 68)?)
            }
            MKDIR => Asked::MakeDirectory(name(body.get(8..)?), word(body, 0)?),
            STATFS => Asked::Space,
            GETXATTR | LISTXATTR | STATX => Asked::Attribute,
            INIT => Asked::Init,
            OPENDIR => Asked::OpenDirectory,
            READDIR | READDIRPLUS => Asked::List,
            INTERRUPT => Asked::Interrupt(long(body, 0)?),
            BATCH_FORGET => {
                let each = body.get(8..)?.chunks_exact(16).take(word(body, 0)? as usize);
                Asked::Forget(each.filter_map(|one| Some((long(one, 0)?, long(one, 8)?))).collect())
            }
            operation if is_with_open_file(operation) => Asked::OpenFile,
            _ => Asked::Other,
        };
        let again = answer(head).unwrap_or_default();
        Some(Self { unique, node, thread, asked, waited: false, again })
    }

    /// The same when it has waited as long as it may.
    pub(super) fn after_waiting(self) -> Self {
        Self { waited: true, ..self }
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
        fuse_protocol::answer(self.unique, 0, body)
    }
}

/// `struct fuse_init_out`. Who may enter is decided by `default_permissions` at the mount, without which the kernel maps no ids.
pub(super) fn init() -> [u8; 64] {
    fuse_protocol::init(PARALLEL_DIROPS | INIT_EXT, ALLOW_IDMAP)
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

/// A name, which ends with a zero.
fn name(body: &[u8]) -> Vec<u8> {
    body.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::fuse_protocol::space;
    use linux::sys::ask::Space;
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
