//! A room: one mount namespace of a machine, with a root of its own, and the processes started in it.
//!
//! Runs in the process that made the machine, as root.

use super::{Error, Life, Network, at, on_new_thread, step};
use nix::sched::{CloneFlags, setns, unshare};
use std::ffi::OsStr;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Output};
use std::sync::{Arc, Weak};

/// The node of a machine, a container beside it, or a pod on it. Clones are the same room.
#[derive(Debug, Clone)]
pub struct Room {
    mnt: Arc<OwnedFd>,
    pid: Arc<OwnedFd>,
    network: Network,
    // Weak: a room that outlives its machine keeps no process running.
    life: Weak<Life>,
}

impl Room {
    pub(super) fn new(mnt: OwnedFd, pid: OwnedFd, network: Network, life: Weak<Life>) -> Self {
        Self { mnt: mnt.into(), pid: pid.into(), network, life }
    }

    /// Another room of the same machine.
    pub(super) fn beside(&self, mnt: OwnedFd) -> Self {
        Self { mnt: mnt.into(), ..self.clone() }
    }

    /// A command with the environment of a machine that has just started, and nothing of this process's.
    pub fn command(program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", "/root");
        command
    }

    /// Starts `command` in this room.
    pub fn spawn(&self, mut command: Command) -> Result<Process, Error> {
        let life = self.life.upgrade().ok_or(Error::Ended)?;
        let child = on_new_thread(|| {
            self.enter(&life, &mut command)?;
            command.spawn().map_err(at("start", command.get_program()))
        })?;
        Ok(Process { child, _life: life })
    }

    /// Runs `command` in this room to its end, and until every process has closed its output.
    pub fn output(&self, mut command: Command) -> Result<Output, Error> {
        let life = self.life.upgrade().ok_or(Error::Ended)?;
        on_new_thread(|| {
            self.enter(&life, &mut command)?;
            command.output().map_err(at("run", command.get_program()))
        })
    }

    /// Runs `work` on a thread in this room's mount namespace (and in no other namespace of it: same network, same
    /// PIDs).
    ///
    /// Descriptors opened there stay valid here. Threads started there share the room.
    pub fn visit<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_new_thread(|| {
            self.enter_files()?;
            Ok(work())
        })
    }

    /// The room's mount namespace.
    pub fn mount_namespace(&self) -> BorrowedFd<'_> {
        self.mnt.as_fd()
    }

    /// Prepares the calling thread and `command`, which it is about to start.
    fn enter(&self, life: &Life, command: &mut Command) -> Result<(), Error> {
        life.cgroups.start_in(command)?;
        setns(&self.network, CloneFlags::CLONE_NEWNET).map_err(step("enter the room's network namespace"))?;
        // For children only: a process's own PID never changes.
        setns(&self.pid, CloneFlags::CLONE_NEWPID).map_err(step("enter the machine's PID namespace"))?;
        self.enter_files()
    }

    fn enter_files(&self) -> Result<(), Error> {
        // setns(2) refuses a thread that shares its root and working directory with others.
        unshare(CloneFlags::CLONE_FS).map_err(step("leave the process's root and working directory"))?;
        setns(&self.mnt, CloneFlags::CLONE_NEWNS).map_err(step("enter the room's mount namespace"))
    }
}

/// A process started in a room, used as a [`Child`]. Dropped, it is killed and waited for.
///
/// Only this process can reap it, and until then its machine cannot end: therefore it keeps a reference to the machine.
#[derive(Debug)]
pub struct Process {
    child: Child,
    _life: Arc<Life>,
}

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has exited and was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
