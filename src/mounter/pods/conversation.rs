//! One call of a program's, or of what stands by it, and its reply.
//!
//! Runs in the mounter, each on a thread of its own. The process at the other end is a pod's, and asks for nothing but its pod's own
//! volume: nothing that it says, or does not say, costs more than a thread for a few seconds.

use super::entry::Next;
use super::fresh::{Fresh, FreshError};
use super::holders::holders;
use super::look::look;
use super::mount_options::{Asked, BadOption};
use super::put::{PutError, When, put};
use super::task::Conversation;
use super::{PodVolume, PodVolumeId};
use crate::engine::judge::Objection;
use crate::mounter::Mounter;
use crate::mounter::in_time::{InTime, MESSAGE_TIME};
use crate::mounter::operation::ready::start_probe;
use crate::mounter::peer::{PeerError, check_pod};
use crate::observe::events;
use api::exit::{Exit, chain};
use api::message::{self, Failure, MessageError, Reason, Reply};
use api::options::MountOptions;
use api::program::{Granted, ProgramCall, Served};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;
use std::fs::File;
use std::io::{self, IoSlice, PipeReader, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::PoisonError;
use std::thread;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// Why a program gets no filesystem, or its filesystem is not shown.
#[derive(Debug, thiserror::Error)]
enum MountError {
    #[error(transparent)]
    Option(#[from] BadOption),
    #[error(transparent)]
    Fresh(#[from] FreshError),
    #[error("the volume is no more")]
    NoVolume,
    #[error("cannot give the program its descriptor")]
    Give(#[source] MessageError),
    #[error("a program asked for the volume's filesystem, and did not answer the kernel within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("a program asked for the volume's filesystem, and does not serve it")]
    Died(#[source] io::Error),
    #[error("another program has asked for the volume's filesystem since, or it was unmounted")]
    NotTheLast,
    #[error("the mounter is being stopped")]
    Stopping,
    #[error("cannot wait for the program")]
    Wait(#[source] io::Error),
    #[error(transparent)]
    Put(#[from] PutError),
}

/// Why a program's filesystem shows still, or did not show.
#[derive(Debug, thiserror::Error)]
enum UnmountError {
    #[error("nothing is mounted: no program serves the volume, or another one than the one that is to be unmounted")]
    NotMounted,
    #[error(transparent)]
    Fresh(#[from] FreshError),
    #[error(transparent)]
    Put(#[from] PutError),
}

/// Hears the call of a connection, and answers it.
pub(super) fn converse(mounter: &Mounter, conversation: &Conversation) {
    let (id, stream) = (conversation.id, &conversation.stream);
    let Some(volume) = mounter.pods.volume(id) else { return };
    let _span = volume.span().entered();
    let users = match check_pod(stream, &volume.pod, &mounter.host_proc) {
        // A volume for the node's users is shown as it is, which no other may enter then.
        Ok(users) => users.filter(|_| !volume.host_users),
        Err(error @ PeerError::Ended) => return debug!("{error}"),
        Err(error) => {
            mounter.pods.log(id, || warn!(event = events::REFUSED, "refused a program: {}", chain(&error)));
            return send::<()>(stream, &Err(Failure::new(Exit::Usage, chain(&error)).because(Reason::Denied)));
        }
    };
    // Accepted sockets are not as their listener is.
    match message::receive::<ProgramCall>(&mut InTime::new(stream, MESSAGE_TIME)) {
        Ok(call) => perform(mounter, id, &volume, (call, users), stream),
        Err(MessageError::Closed) => {}
        Err(error) => {
            mounter.pods.log(id, || warn!(event = events::REFUSED, "{}", chain(&error)));
            send::<()>(stream, &Err(Failure::new(Exit::Usage, chain(&error))));
        }
    }
}

/// Does what a program asks, which lives in a user namespace of its pod's, if it does.
fn perform(
    mounter: &Mounter,
    id: PodVolumeId,
    volume: &PodVolume,
    (call, users): (ProgramCall, Option<File>),
    stream: &UnixStream,
) {
    match call {
        ProgramCall::Mount { options } => match mount(mounter, id, volume, (&options, users), stream) {
            Ok(()) => {}
            Err(error @ (MountError::Option(_) | MountError::Fresh(_) | MountError::NoVolume)) => {
                let exit = match error {
                    MountError::Option(_) | MountError::Fresh(FreshError::Objection(Objection::Kernel { .. })) => {
                        Exit::Usage
                    }
                    _ => Exit::System,
                };
                let message = chain(&error);
                mounter
                    .pods
                    .log(id, || warn!(event = events::PROGRAM_NOT_READY, "a program gets no filesystem: {message}"));
                send::<()>(stream, &Err(Failure::new(exit, message)));
            }
            Err(error @ (MountError::NotTheLast | MountError::Stopping | MountError::Put(PutError::NotWanted))) => {
                mounter.pods.log(id, || info!(event = events::PROGRAM_NOT_READY, "{error}"));
            }
            Err(error) => {
                let message = chain(&error);
                mounter.pods.log(id, || warn!(event = events::PROGRAM_NOT_READY, "{message}"));
                mounter.pods.has_said(id, vec![message]);
            }
        },
        ProgramCall::Unmount { filesystem, .. } => {
            let done = unmount(mounter, id, volume, filesystem);
            send(
                stream,
                &done.map_err(|error| match error {
                    UnmountError::NotMounted => {
                        Failure::new(Exit::MountFailure, error.to_string()).because(Reason::NotMounted)
                    }
                    error => Failure::new(Exit::System, chain(&error)),
                }),
            );
        }
        ProgramCall::Ready => send(stream, &Ok(Served { ready: mounter.pods.is_served(id) })),
        ProgramCall::Ended { code, words } => {
            let ended = format!("the program has ended, {}", how(code));
            mounter.pods.has_said(id, words.into_iter().chain([ended]).collect());
            for line in mounter.pods.words(id) {
                mounter.pods.log(id, || info!(event = events::HELPER_LINE, helper = line, "the program says"));
            }
            mounter.pods.log(id, || warn!(event = events::PROGRAM_ENDED, code, "the volume's program has ended"));
            look(mounter, id);
            send(stream, &Ok(()));
        }
    }
}

/// An exit code as a shell has it, in words.
fn how(code: i32) -> String {
    match code - 128 {
        signal @ 1..=64 => format!("killed by signal {signal}"),
        _ => format!("exit code {code}"),
    }
}

/// Mounts a fresh filesystem, gives the program its descriptor, and shows it at the volume's places when the program answers.
fn mount(
    mounter: &Mounter,
    id: PodVolumeId,
    volume: &PodVolume,
    (options, users): (&MountOptions, Option<File>),
    stream: &UnixStream,
) -> Result<(), MountError> {
    let asked = Asked::with(options)?;
    let fresh = Fresh::mount(mounter, &asked, volume.read_only, users)?;
    let not_wanted = match mounter.pods.ask(id, fresh.identity) {
        Ok(Some(not_wanted)) => not_wanted,
        none => {
            fresh.discard();
            return Err(none.err().map_or(MountError::NoVolume, MountError::Wait));
        }
    };
    let answered = give(stream, &fresh).map_err(MountError::Give);
    if let Err(error) = answered.and_then(|()| wait_until_it_answers(mounter, &fresh, &not_wanted)) {
        fresh.discard();
        return Err(error);
    }
    let holders = match holders(&volume.pod, &fresh.device) {
        Ok(holders) if !holders.is_empty() => holders,
        found => {
            fresh.discard();
            return Err(found
                .err()
                .map_or_else(|| MountError::Died(io::ErrorKind::BrokenPipe.into()), MountError::Wait));
        }
    };
    Ok(put(mounter, id, fresh, Next::Program(holders), When::AskedLast)?)
}

/// Answers, and with the first byte goes the descriptor.
fn give(stream: &UnixStream, fresh: &Fresh) -> Result<(), MessageError> {
    let mut bytes = Vec::new();
    // Without a number it cannot be named.
    message::answer(&mut bytes, &Ok(Granted { filesystem: fresh.identity.connection.unwrap_or_default() }))?;
    stream.set_write_timeout(Some(MESSAGE_TIME)).map_err(MessageError::Io)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [fresh.device.file()];
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = sendmsg(stream, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL);
    let sent = sent.map_err(|errno| MessageError::Io(errno.into()))?;
    let rest = bytes.get(sent..).unwrap_or_default();
    InTime::new(stream, MESSAGE_TIME).write_all(rest).map_err(MessageError::Io)
}

/// Waits until the program has answered the kernel's INIT, and a question about the root. Until then nobody can tell whether it lives:
/// the descriptor may be on its way from fusermount3 to it. One that was started anew asks anew, and then this one is `not_wanted`.
fn wait_until_it_answers(mounter: &Mounter, fresh: &Fresh, not_wanted: &PipeReader) -> Result<(), MountError> {
    let allowed = mounter.configuration.get().program_timeout;
    thread::scope(|scope| {
        let users = fresh.users.as_ref().map(AsFd::as_fd);
        let probe = start_probe(scope, fresh.root(), users).map_err(MountError::Wait)?;
        let until = Instant::now() + allowed;
        let done = loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(limit) = Timespec::try_from(left) else { break Err(MountError::TimedOut(allowed)) };
            let mut fds = [
                PollFd::new(&probe.done, PollFlags::IN),
                PollFd::new(not_wanted, PollFlags::IN),
                PollFd::new(&mounter.stopping, PollFlags::IN),
            ];
            match poll(&mut fds, Some(&limit)) {
                Ok(0) => break Err(MountError::TimedOut(allowed)),
                Err(Errno::INTR) => continue,
                Err(errno) => break Err(MountError::Wait(errno.into())),
                Ok(_) => {}
            }
            let [answered, not_wanted, stopping] = fds.map(|fd| !fd.revents().is_empty());
            if answered {
                break Ok(());
            } else if not_wanted {
                break Err(MountError::NotTheLast);
            } else if stopping {
                break Err(MountError::Stopping);
            }
        };
        if done.is_err()
            && let Err(error) = mounter.connections.abort(fresh.identity)
        {
            // The probe waits as long as that.
            warn!("cannot end the filesystem of a program that does not answer: {error}");
        }
        let answered = probe.answer().map_err(MountError::Died);
        done.and(answered)
    })
}

/// The program's filesystem shows no longer: calls wait for the next one. What is open there stays open, as with `umount -l`. One that
/// is named and does not show yet, as its program has not answered, is not waited for any longer.
fn unmount(
    mounter: &Mounter,
    id: PodVolumeId,
    volume: &PodVolume,
    filesystem: Option<u64>,
) -> Result<(), UnmountError> {
    let given_up = filesystem.is_some_and(|connection| mounter.pods.give_up(id, connection));
    if given_up && let Some(turn) = mounter.pods.turn(id) {
        // It may be on its way to the volume's places just now: then it is unmounted from there.
        drop(turn.lock().unwrap_or_else(PoisonError::into_inner));
    }
    if !mounter.pods.is_served_by(id, filesystem) {
        return if given_up { Ok(()) } else { Err(UnmountError::NotMounted) };
    }
    let fresh = Fresh::waiting(mounter, volume.read_only)?;
    match put(mounter, id, fresh, Next::Nobody, When::ServedBy(filesystem)) {
        Err(PutError::NotWanted | PutError::NoVolume) => Err(UnmountError::NotMounted),
        done => Ok(done?),
    }
}

fn send<T: Serialize>(stream: &UnixStream, reply: &Reply<T>) {
    match message::answer(&mut InTime::new(stream, MESSAGE_TIME), reply) {
        Ok(()) => {}
        Err(MessageError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => warn!("cannot reply: {}", chain(&error)),
    }
}
