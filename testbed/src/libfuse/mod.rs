//! `libfuse [-f] SOURCE TARGET`: a daemon that mounts with the calls of libfuse 3.19, in their order (lib/mount_fsmount.c,
//! lib/fuse_daemonize.c), and serves the filesystem of [`memfs`](crate::memfs). What it does not do is fusermount3.
//!
//! Runs as a helper does. It goes to the background first, unless `-f` is there, and mounts there:
//!
//! 1. the device is asked for a synchronous INIT. If it can be had, a thread reads the device from now on, as the kernel asks
//!    while it creates the filesystem;
//! 2. fsopen, fsconfig for each option, fsconfig to create it, fsmount, move_mount;
//! 3. if one of these fails, the thread is stopped, and mount(2) is called with a device that is opened anew.

mod sys;

use crate::memfs::{Session, let_go_of_the_caller, start};
use linux::sys::fork::{Role, fork_into_background};
use nix::mount::{MsFlags, mount};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{getgid, getuid};
use std::ffi::{CString, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

const USAGE: &str = "usage: libfuse [-f] SOURCE TARGET";

/// What the background process sends when its filesystem answers.
const READY: u8 = 0;

/// Runs the program; `arguments` follow its name, options among them are let be.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (options, places): (Vec<_>, Vec<_>) = arguments.partition(|word| word.as_encoded_bytes().starts_with(b"-"));
    let Ok([source, target]) = <[OsString; 2]>::try_from(places) else {
        eprintln!("{USAGE}");
        return ExitCode::from(1);
    };
    let volume = Volume { source, target: target.into() };
    let done = if options.iter().any(|word| word == "-f") { volume.serve(None) } else { volume.serve_in_background() };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("libfuse: {error}");
            ExitCode::from(1)
        }
    }
}

struct Volume {
    source: OsString,
    target: PathBuf,
}

impl Volume {
    fn serve_in_background(&self) -> io::Result<()> {
        match fork_into_background()? {
            Role::Background(foreground) => self.serve(Some(foreground)),
            Role::Foreground(mut background) => {
                let mut word = [1];
                background.read_exact(&mut word)?;
                if word == [READY] { Ok(()) } else { Err(io::Error::other("the background process failed")) }
            }
        }
    }

    /// Mounts, tells the foreground that it has, if there is one, and answers requests until the filesystem is no more.
    fn serve(&self, foreground: Option<PipeWriter>) -> io::Result<()> {
        let session = match self.mount_by_the_new_interface() {
            Ok(session) => session,
            Err(errno) => {
                eprintln!("libfuse: the new mount interface is not to be had ({errno}): mount(2) is called");
                self.mount_by_the_old_one()?
            }
        };
        if let Some(mut foreground) = foreground {
            foreground.write_all(&[READY])?;
            let_go_of_the_caller()?;
        }
        session.run()
    }

    fn mount_by_the_new_interface(&self) -> Result<Session, Errno> {
        let device = open_device()?;
        if let Err(errno) = sys::ask_for_a_synchronous_init(&device) {
            eprintln!("libfuse: a synchronous INIT is not to be had ({errno})");
            self.mount_new(&device)?;
            return start(device).map_err(|_| Errno::IO);
        }
        thread::scope(|scope| {
            let (stopped, stop) = io::pipe().map_err(|_| Errno::MFILE)?;
            let device = &device;
            let reader = scope.spawn(move || answer_the_init(device, stopped));
            let mounted = self.mount_new(device);
            drop(stop);
            let session = reader.join().map_err(|_| Errno::IO)?;
            mounted?;
            session?.ok_or(Errno::IO)
        })
    }

    fn mount_new(&self, device: &OwnedFd) -> Result<(), Errno> {
        let filesystem = sys::open_filesystem(c"fuse")?;
        let set = |key: &str, value: Option<&str>| {
            let [key, value] = [Some(key), value].map(|text| text.map(CString::new).transpose());
            let (key, value) = (key.map_err(|_| Errno::INVAL)?, value.map_err(|_| Errno::INVAL)?);
            let command = if value.is_some() { sys::Command::SetString } else { sys::Command::SetFlag };
            sys::configure(&filesystem, command, key.as_deref(), value.as_deref())
        };
        set("subtype", Some("libfuse"))?;
        set("source", self.source.to_str())?;
        set("default_permissions", None)?;
        set("fd", Some(&device.as_raw_fd().to_string()))?;
        set("rootmode", Some("40000"))?;
        set("user_id", Some(&getuid().to_string()))?;
        set("group_id", Some(&getgid().to_string()))?;
        sys::configure(&filesystem, sys::Command::Create, None, None)?;
        let mount = sys::mount_detached(&filesystem)?;
        drop(filesystem);
        sys::attach(&mount, &sys::c_path(&self.target)?)
    }

    fn mount_by_the_old_one(&self) -> io::Result<Session> {
        let device = open_device()?;
        let data = format!(
            "default_permissions,fd={},rootmode=40000,user_id={},group_id={}",
            device.as_raw_fd(),
            getuid(),
            getgid()
        );
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some(&*self.source), Path::new(&self.target), Some("fuse.libfuse"), flags, Some(data.as_str()))?;
        start(device)
    }
}

fn open_device() -> Result<OwnedFd, Errno> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    device.map(OwnedFd::from).map_err(|error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Waits for the INIT and answers it; no session if it is `stopped` before that.
fn answer_the_init(device: &OwnedFd, stopped: PipeReader) -> Result<Option<Session>, Errno> {
    // Of a device that a synchronous INIT was asked for, poll(2) itself waits until it is mounted.
    let mut waiting = [PollFd::new(device, PollFlags::IN), PollFd::new(&stopped, PollFlags::IN)];
    poll(&mut waiting, None)?;
    if !waiting[0].revents().contains(PollFlags::IN) {
        return Ok(None);
    }
    let device = File::from(device.as_fd().try_clone_to_owned().map_err(|_| Errno::MFILE)?);
    start(device.into()).map(Some).map_err(|_| Errno::IO)
}
