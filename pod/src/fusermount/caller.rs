//! The process that has called fusermount3, at the other end of the socket that it names.
//!
//! Runs in the pod, with the caller's privilege. What libfuse, or another library, does at that end is in its lib/mount.c.

use crate::asking::{wait_for, words};
use linux::sys::descriptor::{close_all_but, duplicate};
use nix::sys::signal::SigSet;
use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, IoSlice};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, send, sendmsg};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::env;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// The environment variable with the number of its descriptor.
const VARIABLE: &str = "_FUSE_COMMFD";

/// How long the caller may take to be ready for its first request, with `--sync-init`.
const GETS_READY: Duration = Duration::from_secs(5 * 60);

/// Its socket.
pub(super) struct Caller(OwnedFd);

impl Caller {
    /// The caller of this process; `named` is the argument of `--comm-fd`. An error is in words.
    pub(super) fn find(named: Option<OsString>) -> Result<Self, String> {
        let named = named.or_else(|| env::var_os(VARIABLE)).ok_or("old style mounting not supported")?;
        let text = named.to_string_lossy();
        let number: i32 = text.trim_start().parse().map_err(|_| format!("invalid {VARIABLE}: {text}"))?;
        let failed = |errno: Errno| format!("fstat of comm fd {number} failed: {}", words(errno));
        let socket = duplicate(number).map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let stat = fstat(&socket).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
            return Err(format!("file descriptor {number} is not a socket, can't send fuse fd"));
        }
        Ok(Self(socket))
    }

    /// Sends it the descriptor, with one byte.
    pub(super) fn send(&self, descriptor: OwnedFd) -> Result<(), String> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor.as_fd()];
        // There is room for one.
        beside.push(SendAncillaryMessage::ScmRights(&descriptors));
        let send = || sendmsg(&self.0, &[IoSlice::new(&[0])], &mut beside, SendFlags::NOSIGNAL);
        match rustix::io::retry_on_intr(send) {
            Ok(_) => Ok(()),
            Err(errno) => Err(format!("sending file descriptor: {}", words(errno))),
        }
    }

    /// What comes after that with `--sync-init`: the caller sends a byte when it reads the descriptor, and waits for the result of
    /// the mount, an error number. Ours is mounted already.
    pub(super) fn wait_and_answer(&self) -> Result<(), String> {
        let failed = |errno| format!("error receiving signal: {}", words(errno));
        match wait_for(&self.0, GETS_READY) {
            Ok(()) => {}
            Err(Errno::TIMEDOUT) => {
                return Err(format!("timed out after {} seconds waiting for signal", GETS_READY.as_secs()));
            }
            Err(errno) => return Err(failed(errno)),
        }
        let mut byte = [0];
        match rustix::io::retry_on_intr(|| recv(&self.0, &mut byte, RecvFlags::empty())) {
            Ok((_, 1)) => {}
            Ok(_) => return Err("connection closed while waiting for signal".to_owned()),
            Err(errno) => return Err(failed(errno)),
        }
        let mounted = 0_i32.to_ne_bytes();
        send(&self.0, &mounted, SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(|errno| format!("failed to send mount status: {}", words(errno)))
    }

    /// Waits until the other end is closed by all who have it, away from the caller's session and its other descriptors.
    pub(super) fn wait_for_its_end(self) -> Result<(), String> {
        let failed = |errno: Errno| format!("cannot open /dev/null: {}", words(errno));
        let null = OpenOptions::new().read(true).write(true).open("/dev/null");
        let null = null.map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).and_then(|()| dup2_stderr(&null)).map_err(failed)?;
        drop(null);
        // A leader of a process group has a session already, or cannot leave it.
        let _ = rustix::process::setsid();
        // A signal for the caller's group is none for what tidies up after it.
        let _ = SigSet::all().thread_block();
        close_all_but(&self.0);
        let mut bytes = [0; 16];
        loop {
            match recv(&self.0, &mut bytes, RecvFlags::empty()) {
                Ok((_, 0)) => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                // Reset: closed with bytes unread.
                Err(_) => return Ok(()),
            }
        }
    }
}
