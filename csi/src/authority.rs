//! Callers that name the socket's path as their `:authority`, as kubelets before 1.26 do, and gRPC's C core (Python's too) since
//! 1.57. That is no authority (RFC 3986), and the HTTP/2 library refuses it; over a unix socket it says nothing. So each caller's
//! authority is replaced by one that is: RFC 9113 (frames), RFC 7541 (HPACK).
//!
//! Pure, but for [`Caller`], which reads and writes its socket. Nothing is understood beyond what must be; what does not look as
//! expected is passed on as it is, for the library to judge.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;

/// The client's first bytes: "PRI * HTTP/2.0" and so on.
const PREFACE: usize = 24;
/// Length, type, flags, stream.
const FRAME_HEAD: usize = 9;
/// The longest payload that a client may send: the library does not allow more (SETTINGS_MAX_FRAME_SIZE).
const MAX_PAYLOAD: usize = 16384;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// The stream that another depends on, and a weight.
const PRIORITY_LENGTH: usize = 5;
/// The name `:authority` in HPACK's static table.
const AUTHORITY: usize = 1;
/// One byte: an entry of the caller's dynamic table is never longer than the caller has counted, so that none is evicted early.
const INSTEAD: &[u8] = b"l";

/// A caller's connection, in which each authority is one.
#[derive(Debug)]
pub struct Caller {
    stream: UnixStream,
    frames: Frames,
}

impl Caller {
    /// Takes over a connection of which nothing was read.
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, frames: Frames::default() }
    }
}

impl Connected for Caller {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Caller {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, frames } = self.get_mut();
        while frames.ready.is_empty() {
            let mut bytes = [0; 4096];
            let mut read = ReadBuf::new(&mut bytes);
            std::task::ready!(Pin::new(&mut *stream).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                frames.end();
                break;
            }
            frames.take_in(read.filled());
        }
        let length = buffer.remaining().min(frames.ready.len());
        buffer.put_slice(&frames.ready[..length]);
        frames.ready.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Caller {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// What a client sends, cut into frames as it comes.
#[derive(Debug)]
struct Frames {
    /// A frame's head, or a whole HEADERS frame, as far as it has come.
    partial: Vec<u8>,
    /// So many bytes are passed on as they are.
    passed: usize,
    /// What the library may read.
    ready: Vec<u8>,
}

impl Default for Frames {
    fn default() -> Self {
        Self { partial: Vec::new(), passed: PREFACE, ready: Vec::new() }
    }
}

impl Frames {
    fn take_in(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let wanted = if self.passed > 0 { self.passed } else { self.missing() };
            let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            if self.passed > 0 {
                self.passed -= now.len();
                self.ready.extend_from_slice(now);
                continue;
            }
            self.partial.extend_from_slice(now);
            if self.missing() == 0 {
                self.pass_on();
            }
        }
    }

    /// How many bytes are missing until it is known what becomes of the ones that are there.
    fn missing(&self) -> usize {
        let whole = match self.partial.get(..FRAME_HEAD) {
            Some(head) if head[3] == HEADERS && payload_length(head) <= MAX_PAYLOAD => {
                FRAME_HEAD + payload_length(head)
            }
            _ => FRAME_HEAD,
        };
        whole - self.partial.len()
    }

    fn pass_on(&mut self) {
        let frame = std::mem::take(&mut self.partial);
        let (head, payload) = frame.split_at(FRAME_HEAD);
        if head[3] == HEADERS && payload.len() == payload_length(head) {
            self.ready.extend(with_authority(head, payload).unwrap_or(frame));
        } else {
            self.passed = payload_length(head);
            self.ready.extend(frame);
        }
    }

    /// No more will come.
    fn end(&mut self) {
        self.ready.append(&mut self.partial);
    }
}

fn payload_length(head: &[u8]) -> usize {
    usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])
}

/// A HEADERS frame with another authority; nothing if it has none, or is not what it should be.
fn with_authority(head: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
    let flags = head[4];
    let padding = if flags & PADDED == 0 { 0 } else { usize::from(*payload.first()?) };
    let begin = usize::from(flags & PADDED != 0) + if flags & PRIORITY == 0 { 0 } else { PRIORITY_LENGTH };
    let end = payload.len().checked_sub(padding).filter(|end| *end >= begin)?;
    let value = authority(&payload[begin..end])?;
    let (before, after) = (&payload[..begin + value.start], &payload[begin + value.end..]);
    let length = before.len() + 1 + INSTEAD.len() + after.len();
    let mut frame = Vec::with_capacity(FRAME_HEAD + length);
    frame.extend_from_slice(&u32::try_from(length).ok()?.to_be_bytes()[1..]);
    frame.extend_from_slice(&head[3..]);
    frame.extend_from_slice(before);
    // Not Huffman's code, and so long.
    frame.push(u8::try_from(INSTEAD.len()).ok()?);
    frame.extend_from_slice(INSTEAD);
    frame.extend_from_slice(after);
    Some(frame)
}

/// Where the value of `:authority` is in a header block, with its length before it; nothing if there is none, or an empty one.
fn authority(block: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut at = 0;
    while let Some(&first) = block.get(at) {
        // RFC 7541, 6: an indexed field; a literal that is indexed; a new table size; a literal that is not.
        let prefix = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let name = integer(block, &mut at, prefix)?;
        if prefix == 7 || prefix == 5 {
            continue;
        }
        if name == 0 {
            string(block, &mut at)?;
        }
        let value = string(block, &mut at)?;
        if name == AUTHORITY {
            return Some(value).filter(|value| value.len() > 1);
        }
    }
    None
}

/// RFC 7541, 5.1.
fn integer(block: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(*block.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = *block.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// RFC 7541, 5.2: where a string is, with its length before it.
fn string(block: &[u8], at: &mut usize) -> Option<std::ops::Range<usize>> {
    let begin = *at;
    let length = integer(block, at, 7)?;
    *at = at.checked_add(length).filter(|end| *end <= block.len())?;
    Some(begin..*at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `:method: POST`, `:scheme: http`, a path that is indexed, and the rest.
    fn block(authority: &[u8]) -> Vec<u8> {
        let path = b"/csi.v1.Identity/Probe";
        let mut block = vec![0x83, 0x86, 0x44, u8::try_from(path.len()).unwrap()];
        block.extend(path);
        block.extend(authority);
        block.extend(b"\x40\x02te\x08trailers");
        block
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    fn through(bytes: &[u8], pieces: usize) -> Vec<u8> {
        let mut frames = Frames::default();
        bytes.chunks(pieces).for_each(|piece| frames.take_in(piece));
        frames.end();
        frames.ready
    }

    fn with_preface(frames: &[Vec<u8>]) -> Vec<u8> {
        [&[b'P'; PREFACE][..], &frames.concat()].concat()
    }

    #[test]
    fn a_path_becomes_an_authority() {
        let path = b"/var/lib/kubelet/plugins/hostmount.csi/csi.sock";
        let with = |kind: u8, length: u8, value: &[u8]| block(&[&[kind, length], value].concat());
        for kind in [0x41, 0x01, 0x11] {
            let (asked, given) = (with(kind, 47, path), with(kind, 1, INSTEAD));
            let padded = |block: &[u8]| [&[3], block, &[0; 3]].concat();
            let dependent = |block: &[u8]| [&[0, 0, 0, 0, 16][..], block].concat();
            for (flags, as_sent) in [
                (4, &|block: &[u8]| block.to_vec() as Vec<u8>),
                (4 | PADDED, &padded as &dyn Fn(&[u8]) -> Vec<u8>),
                (4 | PRIORITY, &dependent),
            ] as [(u8, &dyn Fn(&[u8]) -> Vec<u8>); 3]
            {
                let settings = frame(4, 0, &[0; 6]);
                let data = frame(0, 1, &[1; 5]);
                let sent = with_preface(&[settings.clone(), frame(HEADERS, flags, &as_sent(&asked)), data.clone()]);
                let expected = with_preface(&[settings, frame(HEADERS, flags, &as_sent(&given)), data]);
                for pieces in [1, 2, 7, 4096] {
                    assert_eq!(through(&sent, pieces), expected);
                }
            }
        }
        // Huffman's code.
        assert_eq!(authority(&with(0x41, 0x83, &[1, 2, 3])), Some(27..31));
    }

    #[test]
    fn what_has_none_stays_as_it_is() {
        for block in [
            block(&[]),
            block(&[0x41, 0]),
            block(&[0x81]),
            block(&[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff]),
            b"\x41\x09short".to_vec(),
        ] {
            let sent =
                with_preface(&[frame(HEADERS, 4, &block), frame(HEADERS, 4 | PADDED, &[200, 1]), frame(7, 0, &[0; 8])]);
            assert_eq!(through(&sent, 5), sent);
        }
    }

    proptest! {
        /// It does not matter how the bytes come, and none is lost or made up but the authority.
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600), pieces in 1usize..50, kind in prop::sample::select(vec![0u8, 1, 9])) {
            let sent = with_preface(&[frame(kind, 4, &bytes), bytes.clone()]);
            let given = through(&sent, pieces);
            prop_assert_eq!(&given, &through(&sent, sent.len()));
            prop_assert!(given.len() <= sent.len());
            prop_assert!(kind == HEADERS || bytes.contains(&HEADERS) || given == sent);
        }
    }
}
