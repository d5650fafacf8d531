//! What standard output is: how wide, and whether colours are wanted there.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::tcgetwinsize;
use std::env;
use std::io::{IsTerminal, stdout};

/// Where a table goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terminal {
    /// How many columns it has. None: lines may be as long as they are.
    pub width: Option<usize>,
    /// Whether it shows colours, and the user wants them (<https://no-color.org>).
    pub colour: bool,
}

impl Terminal {
    /// Standard output.
    pub fn of_output() -> Self {
        if !stdout().is_terminal() {
            return Self::default();
        }
        let width = tcgetwinsize(stdout()).ok().map(|size| usize::from(size.ws_col)).filter(|width| *width > 0);
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let colour = set("NO_COLOR").is_none() && set("TERM").is_some_and(|name| name != "dumb");
        Self { width, colour }
    }

    /// Whether it is one.
    pub fn is_there(self) -> bool {
        self.width.is_some()
    }
}

/// How many lines it shows, if it is a terminal.
pub fn lines() -> Option<usize> {
    let size = tcgetwinsize(stdout()).ok().filter(|_| stdout().is_terminal())?;
    Some(usize::from(size.ws_row)).filter(|lines| *lines > 0)
}

/// Waits for so many seconds, or until nobody reads standard output any more; returns whether somebody does.
pub fn wait_while_read(seconds: u64) -> bool {
    let output = stdout();
    let timeout = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
    // What is reported without being asked for: an error, of a pipe without a reader.
    let gone = poll(&mut [PollFd::new(&output, PollFlags::empty())], Some(&timeout));
    matches!(gone, Ok(0) | Err(Errno::INTR))
}
