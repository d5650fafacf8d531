//! Messages to the preload engine's socket, as no shared object of ours sends them. With the other engine it is not there.

use super::{Attempts, Outcome, Tried, got};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::fs::{File, rename};
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

const SOCKET: &str = "/run/hostmount/preload/socket";

/// What is sent: the strings, the target, and what goes as the device.
struct Message<'a> {
    operation: u32,
    flags: u64,
    strings: [&'a str; 3],
    target: &'a str,
    device: Option<&'a str>,
}

const FUSE: [&str; 3] = ["hostile", "fuse.bindfs", "fd=3,rootmode=40000,user_id=0,group_id=0"];

/// The mounter's answer to a message with these bytes and descriptors: the first is where it answers.
fn ask(bytes: &[u8], others: &[BorrowedFd<'_>], with_answer: bool) -> Tried {
    let socket = UnixDatagram::unbound()?;
    socket.connect(SOCKET)?;
    let (mut here, there) = UnixStream::pair()?;
    here.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut descriptors = vec![];
    if with_answer {
        descriptors.push(there.as_fd());
    }
    descriptors.extend(others);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Outcome::Nothing);
    }
    sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
    drop(there);
    let mut answer = [0; 4];
    if !with_answer {
        return Err(Outcome::Nothing);
    }
    here.read_exact(&mut answer).map_err(|_| Outcome::Nothing)?;
    match i32::from_ne_bytes(answer) {
        0 => Ok(()),
        errno => Err(Errno::from_raw_os_error(errno).into()),
    }
}

fn send(message: &Message<'_>) -> Tried {
    let mut bytes = Vec::from(*b"HMP\x01");
    bytes.extend(message.operation.to_ne_bytes());
    bytes.extend(message.flags.to_ne_bytes());
    for string in message.strings {
        bytes.extend(string.as_bytes());
        bytes.push(0);
    }
    let target = File::open(message.target)?;
    let device = message.device.map(|path| File::options().read(true).write(true).open(path)).transpose()?;
    let descriptors: Vec<_> = [Some(target.as_fd()), device.as_ref().map(AsFd::as_fd)].into_iter().flatten().collect();
    ask(&bytes, &descriptors, true)
}

pub(super) fn list(attempts: &mut Attempts) {
    const LIES: &str = "a filesystem beyond its grant";
    let fuse = Message { operation: 1, flags: 0, strings: FUSE, target: "/etc", device: Some("/dev/fuse") };
    let messages = [
        ("FUSE over /etc", Message { ..fuse }),
        ("FUSE over the root of PID 1", Message { target: "/proc/1/root", ..fuse }),
        ("tmpfs", Message { strings: ["none", "tmpfs", ""], ..fuse }),
        ("ext4", Message { strings: ["/dev/sda", "ext4", ""], ..fuse }),
        ("a bind mount", Message { flags: 0x1000, strings: ["/", "none", ""], ..fuse }),
        ("a remount", Message { flags: 0x20, ..fuse }),
        ("flags of more than 32 bits", Message { flags: 1 << 40, ..fuse }),
        ("a device that is none", Message { device: Some("/dev/zero"), ..fuse }),
        ("no device", Message { device: None, ..fuse }),
        ("an fd= in quotes", Message { strings: ["x", "fuse.bindfs", "fd=3,subtype=\"a,fd=4,b\""], ..fuse }),
        ("to unmount /", Message { operation: 2, strings: ["", "", ""], target: "/", ..fuse }),
        ("to unmount /dev", Message { operation: 2, strings: ["", "", ""], target: "/dev", ..fuse }),
        ("another operation", Message { operation: 3, ..fuse }),
    ];
    for (name, message) in messages {
        attempts.add(format!("ask the preload engine: {name}"), LIES, move |_| send(&message));
    }
    attempts.add("ask the preload engine: noise", LIES, |_| ask(&[0xa5; 300], &[], true));
    attempts.add("ask the preload engine: nothing", LIES, |_| ask(&[], &[], true));
    attempts.add("ask the preload engine: more than fits", LIES, |_| ask(&[b'a'; 20_000], &[], true));
    attempts.add("ask the preload engine: without where to answer", LIES, |_| ask(b"HMP\x01", &[], false));
    attempts.add("ask the preload engine: a strange place to answer", LIES, |_| {
        let file = File::open("/dev/null")?;
        ask(b"HMP\x01", &[file.as_fd(), file.as_fd(), file.as_fd(), file.as_fd()], true)
    });
    attempts.add("put a socket of its own there", "its own calls, answered by itself", |_| {
        let away = "/run/hostmount/preload/away";
        rename(SOCKET, away)?;
        let bound = UnixDatagram::bind(SOCKET).is_ok();
        rename(away, SOCKET)?;
        got(bound)
    });
}
