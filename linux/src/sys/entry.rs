//! How a program begins that does without the start of Rust's library, which brings a fifth of a megabyte of libc's with it.
//!
//! Runs in `hostmount-pod`, before anything else. What that start does for a program is done here: no descriptor that the
//! program opens is taken for its standard ones, and a closed pipe is an error with words, not a signal.

use rustix::fs::{Mode, OFlags, open};
use std::mem::forget;
use std::os::fd::AsRawFd;

/// Makes a function without arguments, which returns the exit status (an `u8`), this program's `main`. The program is
/// `#![no_main]`.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        const _: () = {
            #[unsafe(no_mangle)]
            extern "C" fn main() -> i32 {
                $crate::sys::entry::begin();
                i32::from($main())
            }
        };
    };
}

/// What comes before a program's own `main`.
pub fn begin() {
    // SAFETY: ignoring a signal installs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // Without a /dev/null there is nothing better to do than to go on.
    while let Ok(null) = open("/dev/null", OFlags::RDWR, Mode::empty()) {
        if null.as_raw_fd() > libc::STDERR_FILENO {
            break;
        }
        // A standard descriptor from now on.
        forget(null);
    }
}
