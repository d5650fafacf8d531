//! Calling `fusermount3` as libfuse does, as a user without privilege: libfuse's own, or ours.
//!
//! Runs in the tests' process, as root; what is called does not.

use super::Done;
use super::pod_volume::PodVolume;
use rustix::fs::{FileType, fstat};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use testbed::machine::Room;

/// libfuse's own, which is set-uid root.
pub const REAL: &str = "/usr/bin/fusermount3";

/// Its caller's uid and gid: Debian's `daemon`.
pub const USER: u32 = 1;

/// What one of the two did.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its exit status.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
    /// A descriptor of /dev/fuse came, with one byte.
    pub sent: bool,
    /// The mount: its options, type and source, and its filesystem's options.
    pub mount: Option<String>,
}

/// `program` as its caller runs it, by the name `fusermount3`, with one end of a socket as its descriptor 0; the other end.
pub fn command(program: &str, arguments: &[&str]) -> (Command, UnixStream) {
    let (ours, its) = UnixStream::pair().unwrap();
    let mut command = Room::command(program);
    command.arg0("fusermount3").args(arguments).env("_FUSE_COMMFD", "0").uid(USER).gid(USER).current_dir("/run");
    command.stdin(OwnedFd::from(its)).stdout(Stdio::piped()).stderr(Stdio::piped());
    (command, ours)
}

/// What came through the caller's socket so far: a byte, and a descriptor of /dev/fuse.
pub fn receive(caller: &UnixStream, flags: RecvFlags) -> Option<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; 8];
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(caller, &mut [IoSliceMut::new(&mut bytes)], &mut beside, flags);
    if received.map_or(0, |received| received.bytes) == 0 {
        return None;
    }
    let mut descriptors = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = message {
            descriptors.extend(more);
        }
    }
    assert_eq!((bytes[0], descriptors.len()), (0, 1));
    let stat = fstat(&descriptors[0]).unwrap();
    assert!(FileType::from_raw_mode(stat.st_mode).is_char_device());
    assert_eq!((rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)), (10, 229));
    descriptors.pop()
}

/// Runs one of them to its end; its mount shows at `place`, and is taken away again.
pub fn run(test: &PodVolume, program: &str, place: &str, arguments: &[&str]) -> Outcome {
    let (command, caller) = command(program, arguments);
    let Done { code, stdout, stderr } = test.place.0.output(command).unwrap().into();
    let descriptor = receive(&caller, RecvFlags::DONTWAIT);
    let mount = test.place.mount_at(place).filter(|line| line.contains(" - fuse"));
    if mount.is_some() {
        test.place.sh_ok(&format!("umount --lazy {place}"));
    }
    let mount = mount.map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        let dash = fields.iter().position(|field| *field == "-").unwrap();
        format!("{} {}", fields[5], fields[dash + 1..].join(" "))
    });
    Outcome { code, stdout, stderr, sent: descriptor.is_some(), mount }
}
