//! A FUSE connection that no program serves, and that the mounter answers as far as it must: what comes by path waits for the next
//! program. Who only looks at the root and shows it elsewhere, as kubelet and container runtimes do, gets an answer.
//!
//! Runs in the mounter, on its main thread. A pod has made the requests: nothing of them is kept but their numbers, so many at most,
//! and nothing here waits. A process that waits can be killed: the kernel says that it was interrupted, and its request is answered then.

use super::fuse_device::{AT_ONCE, Answers, FuseDevice};
use super::fuse_protocol::operation::*;
use super::fuse_protocol::{self, Head, PARALLEL_DIROPS, init, long, space};
use super::fuse_reader::{Read, Reader};
use super::fuse_requests::{OutHeader, ROOT, answer, error_for, is_with_open_file};
use linux::sys::ask::Space;
use linux::sys::fuse::HEAD;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// How many requests wait at most; those that come then fail at once.
const MOST: usize = 4096;

/// What is to be done about a request.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is answered so.
    Answer(Vec<u8>),
    /// It waits; with this it is answered when there is another filesystem to look at.
    Wait(OutHeader),
    /// That one is not waited for any longer.
    Interrupted(u64),
    /// It has no answer.
    Nothing,
}

/// The connection.
///
/// Readable when requests have come, or when it has ended.
#[derive(Debug)]
pub struct Waiting {
    reader: Reader,
    held: FuseDevice,
    waiting: VecDeque<OutHeader>,
    /// Nothing waits any more: it fails at once.
    over: bool,
}

impl Waiting {
    /// Serves a connection from here on, as far as it must be, until there is a program for it again. An error: it has been ended.
    pub fn on(device: FuseDevice) -> io::Result<Self> {
        device.reader().map(|(reader, held)| Self { reader, held, waiting: VecDeque::new(), over: false })
    }

    /// Takes in what has come, or a part of it. `false`: the connection has ended, as it does when the filesystem is mounted nowhere.
    pub fn serve(&mut self) -> bool {
        for _ in 0..AT_ONCE {
            let verdict = match self.reader.read() {
                Read::Request { head, body } => judge(head, body),
                Read::Nothing => return true,
                Read::Again => continue,
                Read::Ended => return false,
            };
            match verdict {
                Verdict::Answer(answer) => self.reader.write(&answer),
                Verdict::Wait(answer) if self.over || self.waiting.len() >= MOST => {
                    self.reader.write(&error_for(&answer, libc::ENOTCONN));
                }
                Verdict::Wait(answer) => self.waiting.push_back(answer),
                Verdict::Interrupted(request) => self.interrupt(request),
                Verdict::Nothing => {}
            }
        }
        true
    }

    /// Which requests wait cannot be told apart from those that were answered meanwhile but by their numbers.
    fn interrupt(&mut self, request: u64) {
        let is_it = |answer: &OutHeader| answer[8..] == request.to_ne_bytes();
        if let Some(answer) = self.waiting.iter().position(is_it).and_then(|at| self.waiting.remove(at)) {
            self.reader.write(&error_for(&answer, libc::EINTR));
        }
    }

    /// From now on nothing waits: what does, and what comes, fails.
    pub fn give_up(&mut self) {
        self.over = true;
        for answer in std::mem::take(&mut self.waiting) {
            self.reader.write(&error_for(&answer, libc::ENOTCONN));
        }
    }

    /// Whether requests may wait.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Ends the connection: what waits fails.
    pub fn end(self) {
        self.held.end();
    }

    /// Another filesystem is in its places: what waits is answered so that the kernel looks there, and so is what comes.
    pub fn answers(mut self) -> Answers {
        for answer in std::mem::take(&mut self.waiting) {
            self.reader.write(&answer);
        }
        Answers::new(self.reader, self.held)
    }
}

impl AsFd for Waiting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

fn judge(head: &[u8; HEAD], body: &[u8]) -> Verdict {
    let Head { operation, unique, node, .. } = Head::of(head);
    let is_root = node == ROOT;
    let with = |body: &[u8]| Verdict::Answer(fuse_protocol::answer(unique, 0, body));
    match operation {
        // Not `default_permissions` at the mount either: then chdir(2) and access(2) ask here, and wait as well. A working directory
        // in here would stay here.
        INIT => with(&init(PARALLEL_DIROPS, 0)),
        INTERRUPT => Verdict::Interrupted(long(body, 0).unwrap_or_default()),
        GETATTR if is_root => with(&attributes()),
        // No room.
        STATFS if is_root => with(&space(Space { block: 4096, ..Space::default() })),
        // The kernel remembers that there are none, and asks otherwise.
        GETXATTR | LISTXATTR | STATX if is_root => match answer(head) {
            Some(answer) => Verdict::Answer(error_for(&answer, libc::ENOSYS).to_vec()),
            None => Verdict::Nothing,
        },
        _ => match answer(head) {
            // No program will ever know the file.
            Some(answer) if is_with_open_file(operation) => Verdict::Answer(answer.to_vec()),
            Some(answer) => Verdict::Wait(answer),
            None => Verdict::Nothing,
        },
    }
}

/// `struct fuse_attr_out`: a directory. The kernel may keep it: it never changes.
fn attributes() -> [u8; 104] {
    const SECONDS: u64 = 24 * 3600;
    let mut body = [0; 104];
    body[..8].copy_from_slice(&SECONDS.to_ne_bytes());
    // Behind 16 bytes of time: `struct fuse_attr`.
    body[16..24].copy_from_slice(&ROOT.to_ne_bytes());
    body[76..80].copy_from_slice(&(libc::S_IFDIR | 0o755).to_ne_bytes());
    body[80..84].copy_from_slice(&2u32.to_ne_bytes());
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SENT_AGAIN: u64 = 1 << 63;

    fn head(operation: u32, request: u64, node: u64) -> [u8; HEAD] {
        let mut head = [0xff; HEAD];
        head[4..8].copy_from_slice(&operation.to_ne_bytes());
        head[8..16].copy_from_slice(&request.to_ne_bytes());
        head[16..24].copy_from_slice(&node.to_ne_bytes());
        head
    }

    fn error_in(answer: &[u8]) -> i32 {
        i32::from_ne_bytes(answer[4..8].try_into().unwrap())
    }

    #[test]
    fn who_looks_at_the_root_is_answered_and_who_looks_further_waits() {
        for (operation, node, length) in [(INIT, 0, 80), (GETATTR, ROOT, 120), (STATFS, ROOT, 96)] {
            let Verdict::Answer(answer) = judge(&head(operation, SENT_AGAIN | 42, node), &[]) else {
                panic!("{operation}")
            };
            assert_eq!((answer.len(), error_in(&answer)), (length, 0), "{operation}");
            assert_eq!(u64::from_ne_bytes(answer[8..16].try_into().unwrap()), SENT_AGAIN | 42);
            assert_eq!(u32::from_ne_bytes(answer[..4].try_into().unwrap()) as usize, length);
        }
        let Verdict::Answer(none) = judge(&head(GETXATTR, 1, ROOT), &[]) else { panic!() };
        assert_eq!(error_in(&none), -libc::ENOSYS);
        // LOOKUP, OPENDIR, ACCESS, CREATE, and the attributes of anything else.
        for (operation, node) in [(1, ROOT), (27, ROOT), (34, ROOT), (35, ROOT), (GETATTR, 7)] {
            let Verdict::Wait(later) = judge(&head(operation, 5, node), &[]) else { panic!("{operation}") };
            assert_eq!(error_in(&later), -libc::ESTALE, "{operation}");
        }
        // FLUSH and RELEASE: a process that is killed must get through with them.
        for operation in [25, 18] {
            let Verdict::Answer(answer) = judge(&head(operation, 5, 7), &[]) else { panic!("{operation}") };
            assert_eq!(error_in(&answer), -libc::ENOTCONN, "{operation}");
        }
        assert_eq!(
            judge(&head(INTERRUPT, 9, 0), &(SENT_AGAIN | 5).to_ne_bytes()),
            Verdict::Interrupted(SENT_AGAIN | 5)
        );
        assert_eq!(judge(&head(2, 9, 7), &[0; 8]), Verdict::Nothing);
    }

    proptest! {
        #[test]
        fn no_request_does_any_harm(head in prop::array::uniform32(any::<u8>()), body in prop::collection::vec(any::<u8>(), 0..32)) {
            let mut whole = [0; HEAD];
            whole[..32].copy_from_slice(&head);
            if let Verdict::Answer(answer) = judge(&whole, &body) {
                prop_assert!(answer.len() >= 16 && answer[8..16] == whole[8..16]);
            }
        }
    }
}
