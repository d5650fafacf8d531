//! A connection on which everything must be over in time: a timeout of each read alone would let a byte now and then keep it
//! for ever.
//!
//! Runs in the mounter, on the thread of a request.

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a whole message may take, to us or from us.
pub(super) const MESSAGE_TIME: Duration = Duration::from_secs(5);

/// A stream that can be read and written up to a moment.
#[derive(Debug)]
pub(super) struct InTime<'a> {
    stream: &'a UnixStream,
    until: Instant,
}

impl<'a> InTime<'a> {
    /// From now on for so long.
    pub(super) fn new(stream: &'a UnixStream, allowed: Duration) -> Self {
        Self { stream, until: Instant::now() + allowed }
    }

    /// What is left of the time; an error if nothing is.
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for InTime<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left()?;
        // As a rule it is there already.
        match recv(self.stream, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((length, _)) => return Ok(length),
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.stream.set_read_timeout(left)?;
        self.stream.read(buffer)
    }
}

impl Write for InTime<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left()?;
        // As a rule there is room for it.
        match send(self.stream, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(length) => return Ok(length),
            Err(Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
        self.stream.set_write_timeout(left)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::message::{Call, MessageError, receive, send};
    use std::thread;

    /// Both would take a few hundred times as long if each byte were given this anew.
    const SHORT: Duration = Duration::from_millis(300);

    #[test]
    fn a_byte_now_and_then_is_no_message() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut bytes = Vec::new();
        send(&mut bytes, &Call::List).unwrap();
        let slow = thread::spawn(move || {
            for byte in bytes {
                thread::sleep(SHORT / 4);
                if (&theirs).write_all(&[byte]).is_err() {
                    return;
                }
            }
        });
        assert!(matches!(receive::<Call>(&mut InTime::new(&ours, SHORT)), Err(MessageError::TimedOut)));
        drop(ours);
        slow.join().unwrap();
    }

    #[test]
    fn who_does_not_read_is_not_waited_for() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let slow = thread::spawn(move || {
            let mut byte = [0; 4096];
            while (&theirs).read(&mut byte).is_ok_and(|length| length > 0) {
                thread::sleep(SHORT / 4);
            }
        });
        let answer = "x".repeat(1 << 20);
        assert!(matches!(send(&mut InTime::new(&ours, SHORT), &answer), Err(MessageError::TimedOut)));
        drop(ours);
        slow.join().unwrap();
    }
}
