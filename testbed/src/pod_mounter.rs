//! `pod-mounter DIRECTORY NAME=PLACE…`: what a pod's programs ask, answered as the mounter does, for one volume or several. For tests
//! of the programs' side alone.
//!
//! Runs as root, on a throw-away node. Each volume has its socket and its mount point, an empty directory, in DIRECTORY, and shows at
//! PLACE. Every call is a line on standard output: `NAME mount OPTIONS`, `NAME unmount LAZY`, `NAME ended CODE WORDS…`.

use api::exit::Exit;
use api::message::{self, Failure, Reason, Reply};
use api::mount_words;
use api::options::MountOptions;
use api::program::{Granted, ProgramCall, Served, socket};
use linux::statx::is_closed;
use linux::sys::ask::answers;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::IoSlice;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, UCred, sendmsg};
use serde::Serialize;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// How long a filesystem may take to answer before nobody serves it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs the program; `arguments` follow its name.
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(directory) = arguments.next().map(PathBuf::from) else { return ExitCode::FAILURE };
    let mut listeners = Vec::new();
    for volume in arguments {
        let Some((name, place)) = volume.to_str().and_then(|volume| volume.split_once('=')) else {
            return ExitCode::FAILURE;
        };
        let volume = Volume { name: name.to_owned(), place: place.into(), mounts: AtomicU64::default() };
        match volume.listen(&directory) {
            Ok(listener) => listeners.push((volume, listener)),
            Err(error) => {
                eprintln!("pod-mounter: {name}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("ready");
    thread::scope(|scope| {
        for (volume, listener) in &listeners {
            scope.spawn(move || listener.incoming().flatten().for_each(|caller| volume.serve(caller)));
        }
    });
    ExitCode::SUCCESS
}

struct Volume {
    name: String,
    place: PathBuf,
    /// How many there were: the number of the last one.
    mounts: AtomicU64,
}

impl Volume {
    fn listen(&self, directory: &Path) -> io::Result<UnixListener> {
        let mount_point = directory.join(&self.name);
        fs::create_dir_all(&mount_point)?;
        fs::create_dir_all(&self.place)?;
        let socket = socket(&mount_point).ok_or(io::ErrorKind::InvalidInput)?;
        let _ = fs::remove_file(&socket);
        // As the mounter's, it has its mode from the beginning.
        let before = rustix::process::umask(Mode::empty());
        let listener = UnixListener::bind(&socket);
        rustix::process::umask(before);
        let listener = listener?;
        Ok(listener)
    }

    fn serve(&self, mut caller: UnixStream) {
        let Ok(call) = message::receive::<ProgramCall>(&mut caller) else { return };
        let replied = match call {
            ProgramCall::Mount { options } => {
                self.say(format_args!("mount {options}"));
                let device = socket_peercred(&caller).map_err(io::Error::from);
                match device.and_then(|peer| self.mount(&options, peer)) {
                    Ok(device) => {
                        let filesystem = self.mounts.fetch_add(1, Ordering::Relaxed) + 1;
                        reply(&caller, &Reply::Ok(Granted { filesystem }), Some(device.as_fd()))
                    }
                    Err(error) => reply(&caller, &failed::<()>(&error, Reason::Other), None),
                }
            }
            ProgramCall::Unmount { lazy, filesystem } => {
                self.say(format_args!("unmount {lazy}"));
                let flags = if lazy { MntFlags::MNT_DETACH } else { MntFlags::empty() };
                let done = match filesystem.is_none_or(|number| number == self.mounts.load(Ordering::Relaxed)) {
                    true => umount2(&self.place, flags).map_err(io::Error::from),
                    false => Err(io::Error::from_raw_os_error(libc::EINVAL)),
                };
                reply(&caller, &done.or_else(|error| failed(&error, Reason::NotMounted)), None)
            }
            ProgramCall::Ready => reply(&caller, &Reply::Ok(Served { ready: self.is_served() }), None),
            ProgramCall::Ended { code, words } => {
                self.say(format_args!("ended {code} {}", words.join("|")));
                reply(&caller, &Reply::Ok(()), None)
            }
        };
        // A caller that has gone wants no reply.
        let _ = replied;
    }

    fn mount(&self, options: &MountOptions, peer: UCred) -> io::Result<File> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let (uid, gid) = (peer.uid.as_raw(), peer.gid.as_raw());
        let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let mut data = format!("fd={},rootmode=40000,user_id={uid},group_id={gid}", device.as_raw_fd());
        for option in options.iter() {
            let word = option.to_string();
            match mount_words::find(&word).filter(|(known, _)| known.flag != 0) {
                Some((known, set)) => flags.set(MsFlags::from_bits_retain(known.flag.into()), set),
                None if matches!(&*option.name, "fsname" | "subtype") => {}
                None => data = format!("{data},{word}"),
            }
        }
        let value = |name| options.value(name).map(|value| value.trim_matches('"'));
        let kind = value("subtype").map_or_else(|| "fuse".to_owned(), |subtype| format!("fuse.{subtype}"));
        let source = value("fsname").or(value("subtype")).unwrap_or("/dev/fuse");
        mount(Some(source), &self.place, Some(&*kind), flags, Some(&*data))?;
        Ok(device)
    }

    /// Where a user lets nobody else in, nothing can be seen: then it counts as not served.
    fn is_served(&self) -> bool {
        let Ok(place) = open(&self.place, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else { return false };
        if is_closed(place.as_fd()) {
            return false;
        }
        let mounted = linux::statx::device_at(&self.place).ok().flatten();
        let below = linux::statx::device_at(self.place.parent().unwrap_or(Path::new("/"))).ok().flatten();
        mounted.is_some() && mounted != below && answers(&self.place, PATIENCE).unwrap_or(false)
    }

    fn say(&self, words: std::fmt::Arguments<'_>) {
        println!("{} {words}", self.name);
    }
}

/// What the kernel says, as the mounter would have it.
fn failed<T>(error: &io::Error, if_nothing_is_there: Reason) -> Reply<T> {
    let reason = if error.raw_os_error() == Some(libc::EINVAL) { if_nothing_is_there } else { Reason::Other };
    let words = error.to_string();
    let words = words.split(" (os error").next().unwrap_or_default();
    Err(Failure::new(Exit::MountFailure, words).because(reason))
}

/// Sends a reply; the descriptor goes with its first byte.
fn reply<T: Serialize>(caller: &UnixStream, reply: &Reply<T>, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut bytes = Vec::new();
    message::answer(&mut bytes, reply).map_err(io::Error::other)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|descriptor| [descriptor]);
    if let Some(descriptors) = &descriptors {
        beside.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let sent = sendmsg(caller, &[IoSlice::new(&bytes[..1])], &mut beside, SendFlags::NOSIGNAL)?;
    let mut caller = caller;
    caller.write_all(&bytes[sent..])
}
