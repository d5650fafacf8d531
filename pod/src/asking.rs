//! The client of a program in a pod: one connection to its volume's socket, one call, one reply, and with the reply to a mount a
//! descriptor.
//!
//! Anybody in the pod may have put anything at the socket's path. So each call has a time in which all of it must be done, a
//! reply is no longer than [`MAX_REPLY`], and descriptors that nobody asked for are closed.

use api::message::{self, Failure, MessageError, Reply};
use api::options::MountOptions;
use api::program::{Granted, ProgramCall, Served, socket};
use api::shown::{shown, shown_path};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, recvmsg, socket_with,
};
use serde::de::DeserializeOwned;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a whole call may take: the mounter does what is asked at once, and waits for no filesystem.
const CALLS_TIME: Duration = Duration::from_secs(30);

/// How long the mounter may take to hear that a program has ended: its container waits for that.
const ENDS_TIME: Duration = Duration::from_secs(5);

/// How long after its socket is there a mounter may begin to listen.
const LISTENING: Duration = Duration::from_millis(200);

/// The longest reply that is read, in bytes: room for an error's words.
const MAX_REPLY: u64 = 64 << 10;

/// Where a program's volume is asked for: at the socket beside its mount point.
#[derive(Debug)]
pub(crate) struct Volume {
    socket: PathBuf,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The root of a filesystem has nothing beside it.
    #[error("{} is no place for a volume: it has no directory with a socket", shown_path(.0))]
    NoPlace(PathBuf),
    /// ENOENT.
    #[error(
        "there is no socket {}: mount at the directory of that name beside the socket that hostmount has put into an \
         emptyDir of this pod (its volume's attributes name both), and see that this container mounts that emptyDir",
        shown_path(.0)
    )]
    NoSocket(PathBuf),
    /// ECONNREFUSED, EACCES and the like.
    #[error(
        "cannot connect to {}: {error}; check that hostmount's mounter runs on this node, and that this user may write \
         to the socket",
        shown_path(socket), error = words(*error)
    )]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What connect(2) said.
        error: Errno,
    },
    /// The connection failed, or what came was no reply.
    #[error("the call to the mounter at {} failed: {}", shown_path(socket), api::exit::chain(source))]
    Call {
        /// The socket.
        socket: PathBuf,
        /// What went wrong.
        source: MessageError,
    },
    /// It was granted, but no descriptor came.
    #[error("the mounter at {} has sent no descriptor", shown_path(.0))]
    NoDescriptor(PathBuf),
    /// What ends the wait has come.
    #[error("interrupted")]
    Interrupted,
    /// The mounter's reply: it was not done.
    #[error("{}", shown(&.0.message))]
    Failed(Failure),
}

/// What an error number means, without the number.
pub(crate) fn words(errno: Errno) -> String {
    let text = io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

impl Volume {
    /// The volume that a program mounts at this place.
    pub(crate) fn at(mount_point: &Path) -> Result<Self, AskError> {
        let place = || AskError::NoPlace(mount_point.to_owned());
        Ok(Self { socket: socket(mount_point).ok_or_else(place)? })
    }

    /// Asks for a fresh filesystem: its number, and its descriptor of /dev/fuse. Waits for the socket for so long, but no longer than until `stop`
    /// can be read.
    pub(crate) fn mount(
        &self,
        options: &MountOptions,
        patience: Duration,
        stop: Option<BorrowedFd<'_>>,
    ) -> Result<(Granted, OwnedFd), AskError> {
        let stream = self.connect_within(patience, stop)?;
        let (granted, descriptor) = self.call(stream, &ProgramCall::Mount { options: options.clone() }, CALLS_TIME)?;
        Ok((granted, descriptor.ok_or_else(|| AskError::NoDescriptor(self.socket.clone()))?))
    }

    /// Asks for the filesystem to be shown no longer: for this one alone, if one is named.
    pub(crate) fn unmount(&self, lazy: bool, granted: Option<Granted>) -> Result<(), AskError> {
        let filesystem = granted.map(|granted| granted.filesystem);
        self.ask(&ProgramCall::Unmount { lazy, filesystem }, CALLS_TIME)
    }

    /// Whether a program serves the volume, if that is known in time.
    pub(crate) fn is_served(&self, time: Duration) -> Result<bool, AskError> {
        self.ask(&ProgramCall::Ready, time).map(|served: Served| served.ready)
    }

    /// Says that the program has ended, and its last words.
    pub(crate) fn has_ended(&self, code: i32, words: Vec<String>) -> Result<(), AskError> {
        self.ask(&ProgramCall::Ended { code, words }, ENDS_TIME)
    }

    fn ask<T: DeserializeOwned>(&self, call: &ProgramCall, time: Duration) -> Result<T, AskError> {
        let stream = self.connect(time).map_err(|errno| self.not_connected(errno))?;
        self.call(stream, call, time).map(|(reply, _)| reply)
    }

    fn call<T: DeserializeOwned>(
        &self,
        mut stream: UnixStream,
        call: &ProgramCall,
        time: Duration,
    ) -> Result<(T, Option<OwnedFd>), AskError> {
        let failed = |source| AskError::Call { socket: self.socket.clone(), source };
        // A mounter that refuses the caller may have replied and closed already: its reply says more than our EPIPE.
        let sent = message::send(&mut stream, call);
        let mut reply = Replying { stream, deadline: Instant::now() + time, descriptor: None };
        match message::receive_answer::<T>(&mut (&mut reply).take(MAX_REPLY)) {
            Ok(Reply::Ok(answer)) => Ok((answer, reply.descriptor)),
            Ok(Reply::Err(failure)) => Err(AskError::Failed(failure)),
            Err(source) => Err(failed(sent.err().unwrap_or(source))),
        }
    }

    /// As [`connect`](Self::connect); while nothing listens it waits for a change beside the socket.
    fn connect_within(&self, patience: Duration, stop: Option<BorrowedFd<'_>>) -> Result<UnixStream, AskError> {
        let deadline = Instant::now() + patience;
        let mut watch = None;
        loop {
            let errno = match self.connect(CALLS_TIME) {
                Ok(stream) => return Ok(stream),
                Err(errno @ (Errno::NOENT | Errno::CONNREFUSED)) => errno,
                Err(errno) => return Err(self.not_connected(errno)),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.not_connected(errno));
            }
            match &watch {
                // What came before the watch was there is seen by one more try.
                None => watch = Some(self.watch().map_err(|_| self.not_connected(errno))?),
                Some(watch) => {
                    // That its owner listens, a moment after the socket is there, no event tells.
                    let watched = [Some(watch.as_fd()), stop];
                    if wait_for_any(watched.into_iter().flatten(), left.min(LISTENING)).is_ok() {
                        let mut events = [0; 4096];
                        // What it says does not matter.
                        let _ = rustix::io::read(watch, &mut events);
                    }
                    if stop.is_some_and(|stop| wait_for(stop, Duration::ZERO).is_ok()) {
                        return Err(AskError::Interrupted);
                    }
                }
            }
        }
    }

    /// A descriptor that can be read once something has appeared, or been replaced, beside the socket.
    fn watch(&self) -> Result<OwnedFd, Errno> {
        let watch = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let directory = self.socket.parent().ok_or(Errno::NOENT)?;
        add_watch(&watch, directory, WatchFlags::CREATE | WatchFlags::MOVED_TO)?;
        Ok(watch)
    }

    fn connect(&self, time: Duration) -> Result<UnixStream, Errno> {
        let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // A listener that takes no connection is waited for as long as one that sends no reply.
        set_socket_timeout(&stream, Timeout::Send, Some(time))?;
        connect(&stream, &SocketAddrUnix::new(&*self.socket)?)?;
        Ok(UnixStream::from(stream))
    }

    fn not_connected(&self, error: Errno) -> AskError {
        let socket = self.socket.clone();
        if error == Errno::NOENT { AskError::NoSocket(socket) } else { AskError::Connect { socket, error } }
    }
}

/// A reply that comes in, until the deadline, and the first descriptor that comes with it.
struct Replying {
    stream: UnixStream,
    deadline: Instant,
    descriptor: Option<OwnedFd>,
}

impl Read for Replying {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        wait_for(&self.stream, self.deadline.saturating_duration_since(Instant::now()))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(&self.stream, &mut [IoSliceMut::new(bytes)], &mut beside, flags)?;
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                for descriptor in descriptors {
                    self.descriptor.get_or_insert(descriptor);
                }
            }
        }
        Ok(received.bytes)
    }
}

/// Waits until it can be read; TIMEDOUT if it cannot in time.
pub(crate) fn wait_for(what: impl AsFd, time: Duration) -> Result<(), Errno> {
    wait_for_any([what.as_fd()], time)
}

fn wait_for_any<'a>(what: impl IntoIterator<Item = BorrowedFd<'a>>, time: Duration) -> Result<(), Errno> {
    let deadline = Instant::now() + time;
    let waiting = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
    let mut waiting: Vec<_> = what.into_iter().map(waiting).collect();
    loop {
        let left = timespec(deadline.saturating_duration_since(Instant::now()));
        match poll(&mut waiting, Some(&left)) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// As poll(2) takes it.
pub(crate) fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: time.subsec_nanos().into() }
}
