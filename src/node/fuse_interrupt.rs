//! Answering the requests of threads that were killed, and no others, while the helper stands still: "interrupted". The kernel aborts whole
//! connections only; this takes nothing from anybody else.
//!
//! Runs in the mounter. It is the one place where requests are read of a helper that lives, so what was read is given back to the
//! helper (RESEND) before that goes on. A request that it has had already it gets a second time then, as the kernel takes no answer to the first any
//! more: nothing may be on its way that must not be done twice. Who calls this looks at that before; what comes up all the same fails
//! with EIO, as a wrong byte would be worse.
//!
//! What the kernel tells the helper without waiting for an answer (FORGET) is lost to it if it comes in that moment: the helper keeps
//! a little memory for longer.

use super::fuse_device::FuseDevice;
use super::fuse_protocol::operation::*;
use super::fuse_protocol::{Head, answer, word};
use super::fuse_reader::{Read, Reader};
use super::fuse_requests::WITHOUT_ANSWER;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::HashSet;
use std::io;

/// How many requests may wait: more are not looked at.
pub const MOST: u64 = 4096;
/// How many are read at most. What the helper had comes first.
const READ_AT_MOST: usize = 4 * MOST as usize;

/// The highest bit of the number of a request that is handed out again.
const RESENT: u64 = 1 << 63;
/// FUSE_WRITE_CACHE: no thread waits with its own data, it comes from the page cache.
const FROM_CACHE: u32 = 1;

/// A connection of a helper's that lives, some of whose requests are answered here.
#[derive(Debug)]
pub struct Interrupter {
    reader: Reader,
    device: FuseDevice,
}

/// What is done about a request.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It is answered with an error, or with 0.
    Answer(i32),
    /// The helper is to answer it.
    Leave,
}

impl Interrupter {
    /// One for the connection of `device`.
    pub fn of(device: FuseDevice) -> io::Result<Self> {
        Ok(Self { reader: Reader::of(device.file())?, device })
    }

    /// Answers what these threads wait for, which were killed, and gives all the rest back. To be called while the helper stands still.
    /// How many were answered.
    pub fn answer(&mut self, killed: &HashSet<i32>) -> io::Result<usize> {
        // What is there now it has not had.
        let mut unseen = HashSet::new();
        self.read_all(|head, _| {
            unseen.insert(head.unique & !RESENT);
            Verdict::Leave
        })?;
        self.device.resend()?;
        let answered = self.read_all(|head, body| {
            let seen = head.unique & RESENT != 0 && !unseen.contains(&(head.unique & !RESENT));
            judge(head, body, seen, killed)
        })?;
        self.device.resend()?;
        Ok(answered)
    }

    fn read_all(&mut self, mut judge: impl FnMut(&Head, &[u8]) -> Verdict) -> io::Result<usize> {
        let mut answered = 0;
        for _ in 0..READ_AT_MOST {
            let reply = match self.reader.read() {
                Read::Request { head, body } => {
                    let head = Head::of(head);
                    match judge(&head, body) {
                        Verdict::Answer(errno) => answer(head.unique, errno, &[]),
                        Verdict::Leave => continue,
                    }
                }
                Read::Again => continue,
                Read::Nothing => break,
                Read::Ended => return Err(io::ErrorKind::NotConnected.into()),
            };
            self.reader.write(&reply);
            answered += 1;
        }
        Ok(answered)
    }

    /// Whether the helper, which goes on by now, has read all that has come since.
    pub fn is_read(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.reader, PollFlags::IN)], Some(&at_once)).is_ok_and(|ready| ready == 0)
    }
}

fn judge(head: &Head, body: &[u8], seen: bool, killed: &HashSet<i32>) -> Verdict {
    let is_killed = killed.contains(&head.thread);
    match head.operation {
        operation if WITHOUT_ANSWER.contains(&operation) => Verdict::Leave,
        // What was written and is stored later on belongs to the file, not to who wrote it.
        WRITE if word(body, 20).is_none_or(|flags| flags & FROM_CACHE != 0) => Verdict::Leave,
        // By it the helper lets go of the process's locks: it must have had it.
        FLUSH if is_killed && !seen => Verdict::Leave,
        _ if is_killed => Verdict::Answer(libc::EINTR),
        _ if !seen => Verdict::Leave,
        // Nobody waits for the answer, and the helper would let go of what is another's by then.
        RELEASE | RELEASEDIR => Verdict::Answer(0),
        _ if may_be_repeated(head.operation, body) => Verdict::Leave,
        _ => Verdict::Answer(libc::EIO),
    }
}

/// Whether it comes to the same if the helper does it twice.
fn may_be_repeated(operation: u32, body: &[u8]) -> bool {
    let without = |flags: i32, at| word(body, at).is_some_and(|word| word & flags.cast_unsigned() == 0);
    match operation {
        LOOKUP | GETATTR | STATX | READLINK | READ | STATFS | FSYNC | FSYNCDIR | GETXATTR | LISTXATTR | FLUSH
        | OPENDIR | READDIR | READDIRPLUS | ACCESS | GETLK | LSEEK => true,
        OPEN => without(libc::O_TRUNC | libc::O_CREAT, 0),
        WRITE => without(libc::O_APPEND, 32),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KILLED: i32 = 7;

    fn verdict(operation: u32, thread: i32, body: &[u8], seen: bool) -> Verdict {
        let head = Head { operation, unique: 4, node: 1, thread };
        judge(&head, body, seen, &HashSet::from([KILLED]))
    }

    /// `struct fuse_write_in`, with its own flags and the file's.
    fn write(how: u32, flags: i32) -> [u8; 40] {
        let mut body = [0; 40];
        body[20..24].copy_from_slice(&how.to_ne_bytes());
        body[32..36].copy_from_slice(&flags.to_ne_bytes());
        body
    }

    #[test]
    fn killed_threads_are_answered_and_others_are_not() {
        let interrupted = Verdict::Answer(libc::EINTR);
        for operation in [LOOKUP, READ, MKDIR, SETLKW] {
            assert_eq!(
                [true, false].map(|seen| verdict(operation, KILLED, &[0; 40], seen)),
                [(); 2].map(|()| Verdict::Answer(libc::EINTR))
            );
            assert_eq!(verdict(operation, 8, &[0; 40], false), Verdict::Leave);
        }
        // Its locks go with it.
        assert_eq!(
            (verdict(FLUSH, KILLED, &[], false), verdict(FLUSH, KILLED, &[], true)),
            (Verdict::Leave, interrupted)
        );
        for (operation, seen, expected) in [
            (FORGET, true, Verdict::Leave),
            (RELEASE, false, Verdict::Leave),
            (RELEASE, true, Verdict::Answer(0)),
            (RELEASEDIR, true, Verdict::Answer(0)),
            (READ, true, Verdict::Leave),
            (MKDIR, true, Verdict::Answer(libc::EIO)),
            (9999, true, Verdict::Answer(libc::EIO)),
        ] {
            assert_eq!(verdict(operation, 0, &[], seen), expected, "{operation} {seen}");
        }
    }

    #[test]
    fn what_was_written_is_not_lost_and_nothing_is_appended_twice() {
        assert_eq!(verdict(WRITE, KILLED, &write(0, 0), true), Verdict::Answer(libc::EINTR));
        assert_eq!(verdict(WRITE, KILLED, &write(FROM_CACHE, 0), true), Verdict::Leave);
        assert_eq!(verdict(WRITE, 8, &write(0, libc::O_WRONLY), true), Verdict::Leave);
        assert_eq!(verdict(WRITE, 8, &write(0, libc::O_APPEND), true), Verdict::Answer(libc::EIO));
        let open = |flags: i32| verdict(OPEN, 8, &[flags.to_ne_bytes(), [0; 4]].concat(), true);
        assert_eq!((open(libc::O_RDWR), open(libc::O_TRUNC)), (Verdict::Leave, Verdict::Answer(libc::EIO)));
    }

    proptest! {
        /// Whatever a request says: one that the helper has not had, of a thread that lives, is the helper's.
        #[test]
        fn what_the_helper_has_not_had_stays_its_own(operation: u32, body in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(verdict(operation, 8, &body, false), Verdict::Leave);
        }
    }
}
