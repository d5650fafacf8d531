//! `pod-program SOCKET CALL [ARGUMENT…]`: a **fake** FUSE program of a pod, which asks the mounter for its filesystem by itself, as
//! `fusermount3` and `hostmount-pod start` do for real ones. What it serves is the filesystem in memory.
//!
//! Runs in a pod of a test's, as any user without any capability. The calls: `serve [OPTIONS]` until it is no more; `background [OPTIONS]`
//! the same in a process of its own, which outlives this one; `hold`, to have the descriptor and never read it; `regret`, to unmount what it has got, twice; `unmount`; `ready`, whose
//! exit code says whether a program serves; `ended CODE WORDS…`; `silence`, to say nothing at all; `flood THREADS PATH`, to look at a path
//! again and again, each thread with its number for `{}`.

use crate::memfs;
use api::exit::chain;
use api::message::{MessageError, Reply, receive_answer, send};
use api::options::MountOptions;
use api::program::{Granted, ProgramCall, Served};
use linux::sys::fork::{Role, fork_into_background};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde::de::DeserializeOwned;
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// Runs the program; `args` follow its name.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<String> = args.map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pod-program: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<ExitCode, Box<dyn Error>> {
    let [socket, call, rest @ ..] = words else { return Err("usage: pod-program SOCKET CALL [ARGUMENT…]".into()) };
    let stream = UnixStream::connect(socket)?;
    match (*call, rest) {
        ("serve", options) => {
            let all = options.join(",");
            // Its own option: a directory that its filesystem has from the beginning.
            let (with, options): (Vec<&str>, _) = all.split(',').partition(|option| option.starts_with("with="));
            let (_, device) = mount(&stream, &options)?;
            let session = memfs::start_for_all(device, with.first().and_then(|option| option.strip_prefix("with=")))?;
            say("serving")?;
            session.run()?;
        }
        ("background", options) => {
            let (_, device) = mount(&stream, options)?;
            match fork_into_background()? {
                Role::Background(foreground) => {
                    drop(foreground);
                    memfs::start_for_all(device, None)?.run()?;
                }
                Role::Foreground(_) => say("in the background")?,
            }
        }
        ("hold", options) => {
            let _mounted = mount(&stream, options)?;
            say("holding")?;
            wait_for_the_end()?;
        }
        ("regret", options) => {
            let (Granted { filesystem }, _device) = mount(&stream, options)?;
            let unmount = ProgramCall::Unmount { lazy: true, filesystem: Some(filesystem) };
            ask::<()>(&UnixStream::connect(socket)?, &unmount)?;
            match ask::<()>(&UnixStream::connect(socket)?, &unmount) {
                Ok(()) => return Err("it was unmounted twice".into()),
                Err(error) => say(&error.to_string())?,
            }
        }
        ("unmount", _) => ask::<()>(&stream, &ProgramCall::Unmount { lazy: false, filesystem: None })?,
        ("ready", _) => {
            let Served { ready } = ask(&stream, &ProgramCall::Ready)?;
            return Ok(if ready { ExitCode::SUCCESS } else { ExitCode::from(2) });
        }
        ("ended", [code, words @ ..]) => {
            let (code, words) = (code.parse()?, words.iter().map(|word| (*word).to_owned()).collect());
            ask::<()>(&stream, &ProgramCall::Ended { code, words })?;
        }
        ("flood", [threads, path]) => {
            drop(stream);
            let threads: u32 = threads.parse()?;
            say("flooding")?;
            std::thread::scope(|scope| {
                for number in 0..threads {
                    let path = path.replace("{}", &number.to_string());
                    scope.spawn(move || {
                        loop {
                            // Whatever comes of it.
                            let _ = std::fs::metadata(&path);
                        }
                    });
                }
            });
        }
        ("silence", _) => {
            say("silent")?;
            // Until the mounter has had enough.
            let _ = (&stream).read(&mut [0])?;
        }
        _ => return Err(format!("unknown call {call}").into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Tells the test how far it is.
fn say(word: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{word}")?;
    io::stdout().flush()
}

fn wait_for_the_end() -> io::Result<()> {
    // Nobody writes there: it ends with the test, or by a signal.
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

fn ask<T: DeserializeOwned>(mut stream: &UnixStream, call: &ProgramCall) -> Result<T, Box<dyn Error>> {
    // A mounter that refuses may have answered and closed already: its answer says more than EPIPE.
    let sent = send(&mut stream, call);
    understood(receive_answer(&mut stream).map_err(|error| sent.err().unwrap_or(error)))
}

fn understood<T>(answer: Result<Reply<T>, MessageError>) -> Result<T, Box<dyn Error>> {
    answer?.map_err(|failure| failure.message.into())
}

/// Asks for the filesystem: its descriptor comes with the first byte of the reply.
fn mount(mut stream: &UnixStream, options: &[&str]) -> Result<(Granted, OwnedFd), Box<dyn Error>> {
    let options = MountOptions::parse(&options.join(","))?;
    // As above.
    let _ = send(&mut stream, &ProgramCall::Mount { options });
    let mut bytes = vec![0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let device = control.drain().find_map(|part| match part {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    bytes.truncate(received.bytes);
    let granted = understood(receive_answer(&mut bytes.as_slice().chain(stream)))?;
    Ok((granted, device.ok_or("the reply came without a descriptor")?))
}
