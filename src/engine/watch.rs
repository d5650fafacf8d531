//! Noticing the end of a helper by its processes: a descriptor for each, and a search for others when the last one exits.
//!
//! Runs in the mounter. For helpers that have no listener: those of the `preload` engine, and those that an earlier mounter
//! started.

use super::EngineEvent;
use super::helper_processes::HelperProcesses;
use linux::mount_namespace::MountNamespace;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tracing::warn;

/// Marks events of a descriptor that is not a process's; those of processes carry numbers from 1.
const OTHER: u64 = 0;

/// The processes of one helper. Its descriptor is readable when something has happened.
#[derive(Debug)]
pub struct Watch {
    /// An epoll descriptor over the processes.
    events: OwnedFd,
    processes: HelperProcesses,
    /// A descriptor of each process that is known, by the number that its events carry.
    known: HashMap<u64, OwnedFd>,
    last_number: u64,
    /// Their mount namespace: as long as it is held, the kernel gives its number to no other.
    _namespace: MountNamespace,
}

impl Watch {
    /// A watch over those of `processes` that are to be taken in. The calling thread is in their mount namespace.
    pub fn new(processes: HelperProcesses) -> io::Result<Self> {
        Self::holding(MountNamespace::of_this_thread().map_err(io::Error::other)?, processes)
    }

    fn holding(namespace: MountNamespace, processes: HelperProcesses) -> io::Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { events, processes, known: HashMap::new(), last_number: 0, _namespace: namespace })
    }

    /// A watch over all `processes` that there are now; none if there are none.
    pub fn over(processes: HelperProcesses) -> io::Result<Option<Self>> {
        let found = processes.list()?;
        let Some(namespace) = found.iter().find_map(|(process, _)| processes.open_namespace(process)) else {
            return Ok(None);
        };
        let mut watch = Self::holding(namespace, processes)?;
        found.into_iter().try_for_each(|(_, process)| watch.take_in(process))?;
        Ok(Some(watch))
    }

    /// Takes in a process of the helper's.
    pub fn take_in(&mut self, process: OwnedFd) -> io::Result<()> {
        self.last_number += 1;
        let number = epoll::EventData::new_u64(self.last_number);
        epoll::add(&self.events, &process, number, epoll::EventFlags::IN)?;
        self.known.insert(self.last_number, process);
        Ok(())
    }

    /// Takes in a descriptor of another kind: [`handle_event`](Self::handle_event) reports when it is readable.
    pub fn take_in_other(&mut self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::add(&self.events, fd, epoll::EventData::new_u64(OTHER), epoll::EventFlags::IN)?)
    }

    /// Kills the helper.
    pub fn kill(&self) {
        if let Err(error) = self.processes.kill() {
            warn!("cannot kill a helper: {error}");
        }
    }

    /// Handles what has happened. `None`: the other descriptor is readable, which comes first.
    pub fn handle_event(&mut self) -> io::Result<Option<EngineEvent>> {
        let mut events = Vec::with_capacity(16);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        epoll::wait(&self.events, spare_capacity(&mut events), Some(&now))?;
        let numbers: Vec<u64> = events.iter().map(|event| event.data.u64()).collect();
        // What the helper asked for before it ended comes first.
        if numbers.contains(&OTHER) {
            return Ok(None);
        }
        let event = if numbers.is_empty() { EngineEvent::Call } else { EngineEvent::ProcessEnded };
        for number in numbers {
            // The last descriptor is kept: it stays readable, so that the end is reported again to a later caller.
            if self.known.len() == 1 {
                let others = self.processes.list()?;
                if others.is_empty() {
                    return Ok(Some(EngineEvent::HelperGone));
                }
                others.into_iter().try_for_each(|(_, process)| self.take_in(process))?;
            }
            if let Some(process) = self.known.remove(&number) {
                // Not closing alone: a copy in a process just being forked would keep the events coming.
                epoll::delete(&self.events, &process)?;
            }
        }
        Ok(Some(event))
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
