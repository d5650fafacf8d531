//! Answering a placeholder's requests.
//!
//! The main thread reads, and never waits for anything else. Two others carry out what may take long: one finds out who asks, and gives way;
//! one asks the volume's filesystem. What waits for either can be killed: the kernel says that it was interrupted, and it is answered.

use super::give_way::{Asker, asker, give_way};
use super::line::Line;
use super::looks;
use super::nodes::Nodes;
use super::requests::{self, Asked, Request};
use super::told::Told;
use super::users::Users;
use super::waits::Waits;
use crate::observe::ration::Ration;
use api::exit::chain;
use linux::processes::Process;
use rustix::io::Errno;
use rustix::process::Pid;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Room for a request: the kernel wants no less than 8192 bytes, and nobody writes here.
const ROOM: usize = 64 << 10;

/// What the threads share.
struct Server {
    told: Told,
    connection: OwnedFd,
    nodes: Mutex<Nodes>,
    users: Users,
    /// For the thread that finds out who asks.
    all: Line,
    /// For the thread that asks the volume's filesystem.
    looks: Line,
    /// For the volume's program.
    waits: Waits,
    /// What it says of what went wrong: pods can cause that.
    words: Mutex<Ration>,
}

/// How many lines it says a minute.
const WORDS: u64 = 20;

/// Serves until the connection has ended. The other threads end with the process.
pub(super) fn serve(told: &Told, connection: OwnedFd) -> io::Result<()> {
    let server = Server {
        told: told.clone(),
        connection,
        nodes: Mutex::default(),
        users: Users::of_pod(told),
        all: Line::default(),
        looks: Line::default(),
        waits: Waits::new()?,
        words: Mutex::new(Ration::new("lines", WORDS)),
    };
    let server: &'static Server = Box::leak(Box::new(server));
    thread::Builder::new().name("gives-way".into()).spawn(|| {
        loop {
            server.judge(server.all.next());
        }
    })?;
    thread::Builder::new().name("looks".into()).spawn(|| {
        loop {
            let request = server.looks.next();
            server.write(&looks::answer(&request, &server.nodes, &server.users));
        }
    })?;
    thread::Builder::new().name("waits".into()).spawn(|| {
        loop {
            server.waits.next().into_iter().for_each(|request| server.line_up(request));
        }
    })?;
    let mut room = vec![0; ROOM];
    loop {
        match rustix::io::read(&server.connection, &mut room) {
            Ok(length) => Request::parse(&room[..length]).into_iter().for_each(|request| server.take(request)),
            Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => {}
            // It is mounted nowhere any more, or was ended.
            Err(Errno::NODEV) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

impl Server {
    /// Answers at once, or has it done.
    fn take(&self, request: Request) {
        match &request.asked {
            Asked::Init => self.write(&request.with(&requests::init())),
            Asked::Forget(numbers) => {
                let mut nodes = looks::locked(&self.nodes);
                numbers.iter().for_each(|(number, told)| nodes.forget(*number, *told));
            }
            Asked::Interrupt(unique) => {
                let called_off = [&self.all, &self.looks].into_iter().find_map(|line| line.call_off(*unique));
                let called_off = called_off.or_else(|| self.waits.call_off(*unique));
                called_off.into_iter().for_each(|request| self.write(&request.error(libc::EINTR)));
            }
            // The kernel remembers that there are none, and asks otherwise.
            Asked::Attribute => self.write(&request.error(libc::ENOSYS)),
            Asked::List => self.write(&request.error(libc::EOPNOTSUPP)),
            // A directory is closed, or written to the disk.
            Asked::OpenFile => self.write(&request.with(&[])),
            // While it gives way, for the thread that does.
            Asked::Attributes if self.is_own(request.thread) => {
                self.write(&looks::answer(&request, &self.nodes, &self.users))
            }
            _ => self.line_up(request),
        }
    }

    /// Has it found out who asks.
    fn line_up(&self, request: Request) {
        let added = self.all.add(request);
        added.err().into_iter().for_each(|request| self.write(&request.error(libc::EBUSY)));
    }

    /// Whether a process asks that this one has started, or one of its threads.
    fn is_own(&self, thread: i32) -> bool {
        let own = std::process::id();
        let status = Pid::from_raw(thread).map(|thread| Process::at(&self.told.host_proc, thread).read("status"));
        let Some(Ok(status)) = status else { return false };
        let is_own = |line: &str| {
            line.split_once(':')
                .is_some_and(|(name, number)| ["Tgid", "PPid"].contains(&name) && number.trim().parse() == Ok(own))
        };
        status.lines().any(is_own)
    }

    /// Gives way, if a container's process asks.
    fn judge(&self, request: Request) {
        match asker(&self.told, request.thread) {
            Asker::Looks => {
                let added = self.looks.add(request);
                added.err().into_iter().for_each(|request| self.write(&request.error(libc::EBUSY)));
            }
            Asker::Elsewhere => self.write(&request.look_again()),
            Asker::Container(_) if Waits::must_wait(&request) => {
                let not_added = self.waits.add(request).err();
                not_added.into_iter().for_each(|request| self.line_up(request.after_waiting()));
            }
            Asker::Container(mounts) => match give_way(mounts) {
                Ok(()) => self.write(&request.look_again()),
                Err(error) => {
                    let say = || {
                        linux::complain!(
                            "cannot show the volume in the container of process {}: {}",
                            request.thread,
                            chain(&error)
                        );
                    };
                    // Nothing is left half-done by a thread that panics while it holds it.
                    self.words.lock().unwrap_or_else(PoisonError::into_inner).log(say);
                    self.write(&request.error(libc::EIO));
                }
            },
        }
    }

    /// It fails if who asks was killed meanwhile, which is nobody's loss.
    fn write(&self, answer: &[u8]) {
        let _ = rustix::io::write(&self.connection, answer);
    }
}
