//! One request and its reply.
//!
//! Runs in the mounter, each on a thread of its own: an operation may take long, and moves the thread into its helper's
//! mount namespace.

use super::connection::Connection;
use super::door::MayAsk;
use super::in_time::{InTime, MESSAGE_TIME};
use super::operation::{bind, directory, heal, mount, replace, stats, unmount};
use super::peer::PeerError;
use super::pods::publish;
use super::volume::keep::keep_new;
use super::volume::{happened, usage, views};
use super::{Mounter, explain, replies};
use crate::observe::events;
use crate::observe::metrics::Operation;
use crate::policy::{is_seen, serves, show, source_without_secrets};
use api::about::About;
use api::directory::Directory;
use api::exit::{Exit, chain};
use api::message::{self, Call, Failure, MessageError, Reason, Reply};
use api::origin::Origin;
use api::pod::PodName;
use api::program::ProgramVolume;
use api::request::{Request, check_place};
use api::volume::VolumeView;
use serde::Serialize;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;
use tracing::{debug, info_span, warn};

/// Hears the request of a connection that was made at the door for callers from `origin`, and answers it.
pub(super) fn converse(mounter: &Mounter, stream: UnixStream, origin: Origin, may_ask: MayAsk) {
    let mut caller = match Connection::check(mounter, stream, origin, may_ask) {
        Ok(caller) => caller,
        Err((_, error @ PeerError::Ended)) => return debug!("{error}"),
        Err((stream, error)) => {
            warn!(event = events::REFUSED, "refused a caller: {}", chain(&error));
            return send(&stream, &Reply::<()>::Err(Failure::new(Exit::Usage, chain(&error))));
        }
    };
    match message::receive::<Call>(&mut InTime::new(caller.stream(), MESSAGE_TIME)) {
        Ok(call) => perform(mounter, call, caller),
        Err(MessageError::Closed) => {}
        Err(error) => {
            warn!(event = events::REFUSED, "{}", chain(&error));
            send(caller.stream(), &Reply::<()>::Err(Failure::new(Exit::Usage, chain(&error))));
        }
    }
}

/// No caller waits for a thread, and it would wait for this one: says on a connection that nothing is done for it.
pub(super) fn turn_away(stream: &UnixStream, error: &io::Error) {
    let message = format!("the mounter cannot start a thread for this request: {error}; try again later");
    let reply = Reply::<()>::Err(Failure::new(Exit::System, message));
    // A few words always fit a connection that nothing was written to.
    if let Err(error) = message::answer(&mut InTime::new(stream, MESSAGE_TIME), &reply) {
        warn!("cannot reply: {}", chain(&error));
    }
}

fn send<T: Serialize>(stream: &UnixStream, reply: &Reply<T>) {
    let sent = match message::answer(&mut InTime::new(stream, MESSAGE_TIME), reply) {
        // The caller shall know why it gets no answer.
        Err(error @ MessageError::TooLong { .. }) => {
            let failure = Failure::new(Exit::System, format!("the answer is too long: {}", chain(&error)));
            message::answer(&mut InTime::new(stream, MESSAGE_TIME), &Reply::<()>::Err(failure))
        }
        sent => sent,
    };
    match sent {
        Ok(()) => {}
        // The caller has gone; what it asked for has been undone or is done, and nobody is there to hear of it.
        Err(MessageError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => warn!("cannot reply: {}", chain(&error)),
    }
}

fn perform(mounter: &Mounter, call: Call, mut caller: Connection) {
    let lengths = match &call {
        Call::Mount(message::Mount { request, .. }) => request.check_lengths(),
        Call::Directory(Directory { request, path, .. }) => request.check_lengths().and_then(|()| check_place(path)),
        Call::Bind(message::Bind { source, target, .. }) => check_place(source).and_then(|()| check_place(target)),
        Call::Unmount { target, .. } | Call::Stats { target } | Call::Program(ProgramVolume { target, .. }) => {
            check_place(target)
        }
        _ => Ok(()),
    };
    if let Err(error) = lengths {
        warn!(event = events::REFUSED, "{error}");
        return send(caller.stream(), &Reply::<()>::Err(Failure::new(Exit::Usage, error.to_string())));
    }
    if let Err(error) = serves(caller.origin(), &call, &mounter.kubelet_dir) {
        warn!(event = events::REFUSED, "{error}");
        let failure = Failure::new(Exit::Usage, error.to_string()).because(Reason::Denied);
        return send(caller.stream(), &Reply::<()>::Err(failure));
    }
    let call = hear_pod(mounter, call);
    match call {
        Call::Mount(asked) => {
            let _span = span(&asked.request, asked.pod.as_ref()).entered();
            let began = Instant::now();
            let result = mount::mount(mounter, asked, &caller);
            mounter.metrics.count(Operation::mount, began, &result);
            let reply = result.map_err(replies::to_mount);
            if let Err(failure) = &reply {
                not_mounted(failure, began);
            }
            send(caller.stream(), &reply);
            keep_new(mounter);
        }
        Call::Unmount { target, remove_target } => {
            let _span = info_span!("volume", target).entered();
            let began = Instant::now();
            let reply = unmount::unmount(mounter, &target, remove_target).map_err(replies::to_unmount);
            mounter.metrics.count(Operation::unmount, began, &reply);
            if reply.is_ok() {
                publish::unpublished(mounter, Path::new(&target));
            }
            if let Err(Failure { message, .. }) = &reply {
                warn!("not unmounted: {message}");
            }
            send(caller.stream(), &reply);
        }
        Call::Heal { target } => {
            let _span = info_span!("volume", target).entered();
            let began = Instant::now();
            let result = heal::heal_for_caller(mounter, Path::new(&target)).transpose();
            result.iter().for_each(|result| mounter.metrics.count(Operation::heal, began, result));
            send(caller.stream(), &replies::to_replace(result.transpose()));
            keep_new(mounter);
        }
        Call::Swap { target, changes } => {
            let _span = info_span!("volume", target).entered();
            let (asked, began) = (replace::Asked { changes, origin: caller.origin() }, Instant::now());
            let result = replace::swap_for_caller(mounter, Path::new(&target), asked);
            mounter.metrics.count(Operation::swap, began, &result);
            send(caller.stream(), &replies::to_replace(result.map(Some)));
            keep_new(mounter);
        }
        Call::Status { target } => {
            let volume = views::detail(mounter, Path::new(&target)).map_err(|error| no_table(&error));
            send(caller.stream(), &volume.and_then(|volume| volume.ok_or_else(|| no_volume(&target))));
        }
        Call::Logs { target, after } => {
            let lines = views::lines(mounter, Path::new(&target), after);
            send(caller.stream(), &lines.ok_or_else(|| no_volume(&target)));
        }
        Call::Bind(asked) => {
            let pod = asked.pod.as_ref().map(PodName::path);
            let _span = info_span!("volume", target = asked.target, pod).entered();
            let began = Instant::now();
            let reply = bind::bind(mounter, &asked).map_err(replies::to_bind);
            mounter.metrics.count(Operation::bind, began, &reply);
            if let Err(Failure { message, exit, .. }) = &reply {
                warn!(event = events::NOT_MOUNTED, source = asked.source, code = *exit as u8, "not shown: {message}");
            }
            send(caller.stream(), &reply);
        }
        Call::Stats { target } => {
            send(caller.stream(), &stats::stats(mounter, &target).map_err(replies::to_stats));
        }
        Call::Directory(asked) => {
            let Request { target, fstype, .. } = &asked.request;
            let _span = info_span!("directory", target, fstype, path = asked.path).entered();
            let began = Instant::now();
            let reply = directory::work(mounter, asked, &caller).map_err(replies::to_directory);
            mounter.metrics.count(Operation::directory, began, &reply);
            if let Err(Failure { message, .. }) = &reply {
                warn!("nothing done with the directory: {message}");
            }
            send(caller.stream(), &reply);
        }
        Call::Program(asked) => {
            let _span = info_span!("volume", target = asked.target).entered();
            let began = Instant::now();
            let result = publish::publish(mounter, asked);
            let reply = result.map_err(replies::to_publish);
            match &reply {
                Err(Failure { reason: Reason::NotServed, message, .. }) => debug!("kubelet is told: {message}"),
                Err(failure) => not_mounted(failure, began),
                Ok(_) => {}
            }
            send(caller.stream(), &reply);
        }
        Call::List => {
            let seen = |volume: &VolumeView| is_seen(caller.origin(), Path::new(&volume.target), &mounter.kubelet_dir);
            let volumes = views::views(mounter).map(|volumes| volumes.into_iter().filter(seen).collect::<Vec<_>>());
            send(caller.stream(), &volumes.map_err(|error| no_table(&error)));
        }
        Call::Events { after } => send(caller.stream(), &Ok(happened::events(mounter, after))),
        Call::Top => send(caller.stream(), &usage::usage(mounter).map_err(|error| no_table(&error))),
        Call::CheckPolicy { origin, request } => {
            send(caller.stream(), &explain::would_mount(mounter, origin, request));
        }
        Call::Explain { origin, request } => {
            send(caller.stream(), &explain::explain(mounter, origin, request));
        }
        Call::Policy => {
            let told = mounter.configuration.told();
            send(caller.stream(), &Ok(show(&mounter.configuration.get(), &told)));
        }
        Call::About => {
            let configuration = mounter.configuration.told();
            send(caller.stream(), &Ok(About { configuration, ..mounter.about.clone() }));
        }
        Call::Metrics => {
            send(caller.stream(), &super::metrics_http::text(mounter).map_err(|error| no_table(&error)));
        }
    }
}

/// What marks log lines about a volume that is asked for.
fn span(request: &Request, pod: Option<&PodName>) -> tracing::Span {
    let Request { target, fstype, source, .. } = request;
    let (source, pod) = (source_without_secrets(source), pod.map(PodName::path));
    info_span!("volume", target, fstype, source, pod)
}

/// Says that a volume was not mounted.
fn not_mounted(failure: &Failure, began: Instant) {
    let Failure { exit, reason, message, .. } = failure;
    let (code, seconds) = (*exit as u8, began.elapsed().as_secs_f64());
    match reason {
        Reason::Denied => warn!(event = events::VOLUME_REFUSED, code, "refused: {message}"),
        _ => warn!(event = events::NOT_MOUNTED, code, seconds, "not mounted: {message}"),
    }
}

/// A pod's name in a request is remembered for those who look; what can be none is left out.
fn hear_pod(mounter: &Mounter, mut call: Call) -> Call {
    let (target, pod) = match &mut call {
        Call::Mount(asked) => (&asked.request.target, &mut asked.pod),
        Call::Bind(asked) => (&asked.target, &mut asked.pod),
        _ => return call,
    };
    *pod = pod.take().and_then(PodName::checked);
    if let Some(name) = pod {
        mounter.pod_names.hear(Path::new(target), &mounter.kubelet_dir, name);
    }
    call
}

fn no_volume(target: &str) -> Failure {
    Failure::new(Exit::Usage, format!("no volume of hostmount's is or was at {target}, or it ended too long ago"))
}

fn no_table(error: &io::Error) -> Failure {
    Failure::new(Exit::System, format!("cannot read the node's mount table: {error}"))
}
