//! What comes from many nodes from now on, in the order in which it comes.
//!
//! Runs on a thread for each node, and the main thread, which writes. When nobody reads any more all are ended.

use crate::ask::{Trouble, complain};
use crate::cluster::{ClusterError, Mounter, Where};
use crate::run::{Bounds, Lines, run};
use show::terminal::wait_while_read;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// How many nodes may be followed at once: each is a process here, and a stream through the API server.
pub(crate) const MOST: usize = 100;
/// How many lines may wait to be written.
const WAITING: usize = 256;
/// How often it is asked whether somebody reads.
const LOOK: Duration = Duration::from_secs(1);

/// A node to follow, and what `hostmount` is called with there.
pub(crate) type Followed = (Mounter, Vec<String>);

/// Hands out the lines that come, each with its node, until all nodes have ended or nobody reads. Returns whether all have ended well.
pub(crate) fn follow(
    place: &Where,
    followed: Vec<Followed>,
    mut line: impl FnMut(&Mounter, &str),
) -> Result<bool, ClusterError> {
    if followed.len() > MOST {
        return Err(ClusterError::TooMany(followed.len(), MOST));
    }
    let cannot = |error| ClusterError::Run(crate::run::RunError::Read(error));
    let (stop, stopper) = io::pipe().map_err(cannot)?;
    let (sender, receiver) = sync_channel(WAITING);
    let mut well = true;
    thread::scope(|scope| {
        for (mounter, words) in &followed {
            let (sender, stop) = (sender.clone(), stop.as_fd());
            scope.spawn(move || {
                let words: Vec<_> = words.iter().map(String::as_str).collect();
                let mut lines = Lines::default();
                let bounds = Bounds { time: None, silence: false, output: None, stop: Some(stop) };
                // Nobody receives any more: it is stopped in a moment.
                let send = |piece: &[u8]| lines.take(piece, |line| drop(sender.send((mounter, Ok(line.to_owned())))));
                let ended = match run(&mut place.hostmount(mounter, &words), bounds, send) {
                    Ok(done) if done.code == Some(0) => Ok(()),
                    Ok(done) => Err(Trouble::of(done)),
                    Err(error) => Err(error.into()),
                };
                if let Err(trouble) = ended {
                    let _ = sender.send((mounter, Err(trouble)));
                }
            });
        }
        drop(sender);
        loop {
            match receiver.recv_timeout(LOOK) {
                Ok((mounter, Ok(text))) => line(mounter, &text),
                Ok((mounter, Err(trouble))) => {
                    complain(mounter, &trouble);
                    well = false;
                }
                Err(RecvTimeoutError::Timeout) if wait_while_read(0) => {}
                Err(_) => break,
            }
        }
        // All threads see it at once.
        drop((stopper, receiver));
    });
    Ok(well)
}
