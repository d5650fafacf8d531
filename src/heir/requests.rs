//! Requests of a FUSE connection that are about open files, as linux/fuse.h has them, and their answers.
//!
//! Pure. The kernel has made the requests for processes of pods: what is in them is theirs to choose but for their lengths.

use crate::node::fuse_protocol::operation::*;
use crate::node::fuse_protocol::{Head, answer, attribute, long, word};
use crate::node::fuse_requests;
use linux::sys::fuse::HEAD;
use rustix::fs::Statx;

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    /// READ.
    Read { offset: u64, size: usize },
    /// WRITE, of a file that was opened with these flags.
    Write { offset: u64, data: &'a [u8], flags: u32 },
    /// GETATTR.
    Attributes,
    /// FSYNC, of the contents alone or of the attributes too.
    Sync { contents: bool },
    /// FLUSH: a descriptor is closed.
    Flush,
    /// RELEASE: the last one is.
    Release,
    /// LSEEK, for data or for a hole.
    Seek { offset: u64, data: bool },
    /// FORGET and the like: it has no answer.
    Nothing,
    /// What has the same answer whatever file it is about.
    Other,
}

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// Its number.
    pub(super) unique: u64,
    /// The file that it is about.
    pub(super) node: u64,
    /// What is asked.
    pub(super) asked: Asked<'a>,
    /// The answer if that is not to be had.
    otherwise: Option<[u8; 16]>,
}

/// The highest bit of the number of a request that was handed out before (FUSE_UNIQUE_RESEND).
const RESENT: u64 = 1 << 63;

impl<'a> Request<'a> {
    /// `None`: it is shorter than a request can be.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (head, body) = bytes.split_first_chunk::<HEAD>()?;
        let Head { operation, unique, node, .. } = Head::of(head);
        let asked = match operation {
            FORGET | INTERRUPT | BATCH_FORGET => Asked::Nothing,
            GETATTR => Asked::Attributes,
            READ => Asked::Read { offset: long(body, 8)?, size: word(body, 16)? as usize },
            WRITE => {
                let (size, flags) = (word(body, 16)? as usize, word(body, 32)?);
                Asked::Write { offset: long(body, 8)?, data: body.get(40..)?.get(..size)?, flags }
            }
            RELEASE => Asked::Release,
            FSYNC => Asked::Sync { contents: word(body, 8)? & 1 != 0 },
            FLUSH => Asked::Flush,
            LSEEK => match word(body, 16)?.cast_signed() {
                libc::SEEK_DATA => Asked::Seek { offset: long(body, 8)?, data: true },
                libc::SEEK_HOLE => Asked::Seek { offset: long(body, 8)?, data: false },
                _ => Asked::Other,
            },
            _ => Asked::Other,
        };
        Some(Self { unique, node, asked, otherwise: fuse_requests::answer(head) })
    }

    /// Whether it was handed out to the dead helper, which may have done what it asks.
    pub(super) fn is_resent(&self) -> bool {
        self.unique & RESENT != 0
    }

    /// Up to where it writes, if it does.
    pub(super) fn writes_to(&self) -> Option<u64> {
        match &self.asked {
            Asked::Write { offset, data, .. } => offset.checked_add(data.len() as u64),
            _ => None,
        }
    }

    /// The answer where there is no heir for its file.
    pub(super) fn otherwise(&self) -> Option<Vec<u8>> {
        self.otherwise.map(Vec::from)
    }

    /// An answer with this in it.
    pub(super) fn with(&self, body: &[u8]) -> Vec<u8> {
        answer(self.unique, 0, body)
    }

    /// An error, as the fresh filesystem has given it.
    pub(super) fn error(&self, error: &std::io::Error) -> Vec<u8> {
        answer(self.unique, error.raw_os_error().unwrap_or(libc::EIO), &[])
    }
}

/// `struct fuse_write_out`.
pub(super) fn written(length: usize) -> [u8; 8] {
    let mut body = [0; 8];
    body[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    body
}

/// `struct fuse_lseek_out`.
pub(super) fn sought(offset: u64) -> [u8; 8] {
    offset.to_ne_bytes()
}

/// `struct fuse_attr_out`, good for a second: those of the fresh file, under the number that the kernel has for the old one.
pub(super) fn attributes(now: &Statx, inode: u64) -> Vec<u8> {
    [&1u64.to_ne_bytes(), &[0; 8], &attribute(now, inode)[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(operation: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        bytes[4..8].copy_from_slice(&operation.to_ne_bytes());
        bytes[8..16].copy_from_slice(&(RESENT | 42).to_ne_bytes());
        bytes[16..24].copy_from_slice(&7u64.to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn what_is_asked() {
        let numbers = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_ne_bytes()).collect::<Vec<_>>();
        let asked = |operation, body: &[u8], check: &dyn Fn(Asked<'_>)| {
            let bytes = request(operation, body);
            let request = Request::parse(&bytes).unwrap();
            assert!(request.is_resent() && request.unique == RESENT | 42 && request.node == 7);
            check(request.asked);
        };
        // A handle, an offset, a size.
        asked(15, &numbers(&[1, 4096, 100, 0, 0]), &|asked| assert_eq!(asked, Asked::Read { offset: 4096, size: 100 }));
        let mut write = numbers(&[1, 10, 3, 0, 0o2001]);
        write.extend(b"abc and more");
        asked(16, &write, &|asked| assert_eq!(asked, Asked::Write { offset: 10, data: b"abc", flags: 0o2001 }));
        asked(20, &numbers(&[1, 1]), &|asked| assert_eq!(asked, Asked::Sync { contents: true }));
        asked(46, &numbers(&[1, 5, 4]), &|asked| assert_eq!(asked, Asked::Seek { offset: 5, data: false }));
        asked(46, &numbers(&[1, 5, 0]), &|asked| assert_eq!(asked, Asked::Other));
        assert!(Request::parse(&request(16, &write[..41])).is_none() && Request::parse(&[0; HEAD - 1]).is_none());
        assert!(Request::parse(&request(2, &[])).unwrap().otherwise().is_none());
    }

    #[test]
    fn answers_repeat_the_number_and_their_length() {
        let bytes = request(15, &[0; 40]);
        let request = Request::parse(&bytes).unwrap();
        let check = |answer: Vec<u8>, length: usize, error: i32| {
            assert_eq!((answer.len(), u32::from_ne_bytes(answer[..4].try_into().unwrap()) as usize), (length, length));
            assert_eq!(i32::from_ne_bytes(answer[4..8].try_into().unwrap()), -error);
            assert_eq!(u64::from_ne_bytes(answer[8..16].try_into().unwrap()), RESENT | 42);
        };
        check(request.with(b"data"), 20, 0);
        check(request.error(&std::io::Error::from_raw_os_error(libc::ENOSPC)), 16, libc::ENOSPC);
        check(request.otherwise().unwrap(), 16, libc::ENOTCONN);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(request) = Request::parse(&bytes) {
                prop_assert_eq!(request.unique.to_ne_bytes(), <[u8; 8]>::try_from(&bytes[8..16]).unwrap());
                if let Some(answer) = request.otherwise() {
                    prop_assert_eq!(&answer[8..16], &bytes[8..16]);
                }
                let _ = request.writes_to();
            }
        }
    }
}
