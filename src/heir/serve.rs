//! Answering what comes for the files that are open.
//!
//! One thread: what the fresh filesystem does not answer keeps all that wait here waiting, as it keeps all that ask it itself.

use super::inherited::Inherited;
use super::locks::is_locked;
use super::open_files::{OpenFile, OpenFiles};
use super::requests::{Asked, Request, attributes, sought, written};
use super::same_file::{Old, is_same};
use crate::config::open_files::OpenFiles as Mode;
use crate::node::target::open_in_filesystem;
use linux::processes::name_of;
use linux::statx;
use linux::sys::ask::Patience;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{self, OFlags, SeekFrom, fdatasync, fsync, seek};
use rustix::io::{Errno, fcntl_dupfd_cloexec, pread, pwrite};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Instant, SystemTime};

/// The room for a request: for the usual longest, which is 1 MiB; then for as much as a connection can be made to have (the
/// sysctl fs.fuse.max_pages_limit).
const ROOM: [usize; 2] = [(1 << 20) + 8192, (256 << 20) + 8192];
/// How many requests that the dead helper had are looked at before the first of them is answered.
const TOGETHER: usize = 64;

/// The heir.
pub(super) struct Heir {
    inherited: Inherited,
    connection: OwnedFd,
    root: OwnedFd,
    files: HashMap<u64, Served>,
    room: usize,
}

/// A file that is served.
struct Served {
    /// The fresh one.
    file: OwnedFd,
    /// The number that the kernel has for the old one.
    inode: u64,
    writable: bool,
}

/// Requests that have been read.
type Waiting = VecDeque<Vec<u8>>;

impl Heir {
    /// One without a file.
    pub(super) fn new(inherited: Inherited, connection: OwnedFd, root: OwnedFd) -> Self {
        Self { inherited, connection, root, files: HashMap::new(), room: ROOM[0] }
    }

    /// Takes what is certain of these, and serves it until the connection has ended.
    pub(super) fn serve(mut self, files: &OpenFiles) -> io::Result<()> {
        let Some(mut waiting) = self.had_by_the_dead()? else { return Ok(()) };
        self.inherit(files, &in_flight(&waiting));
        let until = Instant::now() + self.inherited.answers;
        loop {
            for bytes in waiting.drain(..) {
                let answer = Request::parse(&bytes).and_then(|request| self.answer(&request));
                // It fails if the caller was killed meanwhile.
                answer.into_iter().for_each(|answer| _ = rustix::io::write(&self.connection, &answer));
            }
            // What others have open, a directory or a file that is not certain, does not keep it.
            let patience = self.files.is_empty().then(|| until.saturating_duration_since(Instant::now()));
            let patience = patience.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
            match self.read(patience.as_ref())? {
                Some(bytes) if !bytes.is_empty() => waiting.push_back(bytes),
                _ => return Ok(()),
            }
        }
    }

    /// The requests that the dead helper had, which come first, or some of them: it may have carried them out. `None`: the
    /// connection has ended.
    fn had_by_the_dead(&mut self) -> io::Result<Option<Waiting>> {
        const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut waiting = Waiting::new();
        while waiting.len() < TOGETHER {
            let Some(bytes) = self.read(Some(&AT_ONCE))? else { return Ok(None) };
            if bytes.is_empty() {
                break;
            }
            let is_new = !Request::parse(&bytes).is_some_and(|request| request.is_resent());
            waiting.push_back(bytes);
            if is_new {
                break;
            }
        }
        Ok(Some(waiting))
    }

    /// Waits for a request, for so long; empty: there was none. `None`: the connection has ended.
    fn read(&mut self, patience: Option<&Timespec>) -> io::Result<Option<Vec<u8>>> {
        loop {
            let mut bytes = Vec::with_capacity(self.room);
            match rustix::io::read(&self.connection, rustix::buffer::spare_capacity(&mut bytes)) {
                Ok(_) => return Ok(Some(bytes)),
                Err(Errno::AGAIN) => {
                    if poll(&mut [PollFd::new(&self.connection, PollFlags::IN)], patience)? == 0 {
                        return Ok(Some(Vec::new()));
                    }
                }
                // It was taken back.
                Err(Errno::INTR | Errno::NOENT) => {}
                Err(Errno::INVAL) if self.room < ROOM[1] => self.room = ROOM[1],
                Err(Errno::NODEV) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn inherit(&mut self, files: &OpenFiles, in_flight: &HashMap<u64, u64>) {
        for (node, file) in files {
            let in_flight = in_flight.get(node).copied().unwrap_or_default();
            match self.certain(*node, file, in_flight) {
                Ok(Some(served)) => _ = self.files.insert(*node, served),
                // The fresh helper has died as well, or hangs: to ask it for each of many files takes too long.
                Err(error) if is_dead(&error) => return,
                Ok(None) | Err(_) => {}
            }
        }
    }

    /// The fresh filesystem's file, if it is certain which one it is.
    fn certain(&self, node: u64, old: &OpenFile, in_flight: u64) -> io::Result<Option<Served>> {
        let Inherited { device, host_proc, mode, .. } = &self.inherited;
        let Some(path) = old.path.as_ref().filter(|_| !is_locked(host_proc, *device, old.known.stx_ino)) else {
            return Ok(None);
        };
        let there = open_in_filesystem(self.root.as_fd(), path, Patience::USUAL)?;
        let writable = *mode == Mode::Write && old.written;
        let same = |fresh: &OwnedFd| -> io::Result<bool> {
            let old = Old { known: &old.known, node, written: old.written, in_flight };
            Ok(is_same(old, &statx::attributes(fresh.as_fd())?, *mode == Mode::Write, SystemTime::now()))
        };
        // Not opened before that is certain: to open a file may do something.
        if !same(&there)? {
            return Ok(None);
        }
        let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
        let file = fs::open(name_of(there.as_fd()), access | OFlags::CLOEXEC | OFlags::NOCTTY, fs::Mode::empty())?;
        let served = Served { file, inode: old.known.stx_ino, writable };
        Ok(same(&served.file)?.then_some(served))
    }

    fn answer(&self, request: &Request<'_>) -> Option<Vec<u8>> {
        let Some(served) = self.files.get(&request.node) else { return request.otherwise() };
        let done = match &request.asked {
            Asked::Nothing | Asked::Other => return request.otherwise(),
            Asked::Read { offset, size } => read(served, *offset, *size).map(|data| request.with(&data)),
            Asked::Write { offset, data, flags } => {
                let appends = flags & libc::O_APPEND.cast_unsigned() != 0;
                match self.may_write(served, request, *offset, appends) {
                    Ok(true) => write(served, *offset, data).map(|()| request.with(&written(data.len()))),
                    Ok(false) => return request.otherwise(),
                    Err(error) => Err(error),
                }
            }
            Asked::Attributes => {
                statx::attributes(served.file.as_fd()).map(|now| request.with(&attributes(&now, served.inode)))
            }
            Asked::Sync { contents: true } => fdatasync(&served.file).map(|()| request.with(&[])).map_err(Into::into),
            Asked::Sync { contents: false } => fsync(&served.file).map(|()| request.with(&[])).map_err(Into::into),
            Asked::Flush => flush(served).map(|()| request.with(&[])),
            Asked::Release => Ok(request.with(&[])),
            Asked::Seek { offset, data } => {
                let to = if *data { SeekFrom::Data(*offset) } else { SeekFrom::Hole(*offset) };
                seek(&served.file, to).map(|offset| request.with(&sought(offset))).map_err(Into::into)
            }
        };
        Some(done.unwrap_or_else(|error| request.error(&error)))
    }

    /// Whether a write goes where its process means it to: nobody has locked the old file, and what is appended is at the
    /// end of the fresh one.
    fn may_write(&self, served: &Served, request: &Request<'_>, offset: u64, appends: bool) -> io::Result<bool> {
        let Inherited { host_proc, device, .. } = &self.inherited;
        if !served.writable || is_locked(host_proc, *device, served.inode) {
            return Ok(false);
        }
        if !appends {
            return Ok(true);
        }
        let size = statx::attributes(served.file.as_fd())?.stx_size;
        // The dead helper may have written all of it, or a part.
        let most = if request.is_resent() { request.writes_to().unwrap_or(offset) } else { offset };
        Ok((offset..=most).contains(&size))
    }
}

/// Whether an error is that of a filesystem that does not answer any more.
fn is_dead(error: &io::Error) -> bool {
    let dead = [Errno::NOTCONN, Errno::CONNABORTED, Errno::STALE, Errno::TIMEDOUT];
    Errno::from_io_error(error).is_some_and(|errno| dead.contains(&errno))
}

/// Up to where files are written by these requests, if they were the dead helper's.
fn in_flight(waiting: &Waiting) -> HashMap<u64, u64> {
    let mut most = HashMap::new();
    for request in waiting.iter().filter_map(|bytes| Request::parse(bytes)).filter(Request::is_resent) {
        if let Some(end) = request.writes_to() {
            let known = most.entry(request.node).or_insert(end);
            *known = end.max(*known);
        }
    }
    most
}

/// Less than was asked for means the file's end.
fn read(served: &Served, offset: u64, size: usize) -> io::Result<Vec<u8>> {
    if size > ROOM[1] {
        return Err(Errno::INVAL.into());
    }
    let mut data = vec![0; size];
    let mut length = 0;
    while length < size {
        match pread(&served.file, &mut data[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    data.truncate(length);
    Ok(data)
}

fn write(served: &Served, offset: u64, data: &[u8]) -> io::Result<()> {
    let mut done = 0;
    while done < data.len() {
        match pwrite(&served.file, &data[done..], offset + done as u64) {
            Ok(0) => return Err(Errno::IO.into()),
            Ok(more) => done += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// A descriptor of the file is closed: the fresh filesystem hears of it, and may say what went wrong with writing.
fn flush(served: &Served) -> io::Result<()> {
    nix::unistd::close(fcntl_dupfd_cloexec(&served.file, 3)?).map_err(Into::into)
}
