//! How a program begins that does without the start of Rust's library, which brings a fifth of a megabyte of libc's with it.
//!
//! Runs in `hostmount-pod` and `hostmount-shim`, before anything else. What that start does for a program is done here: no descriptor that the
//! program opens is taken for its standard ones, and a closed pipe is an error with words, not a signal.

use nix::unistd::execv;
use rustix::fs::{Mode, OFlags, open};
use std::ffi::{CStr, CString, OsStr, OsString, c_char};
use std::io;
use std::mem::forget;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Makes a function of the program's arguments, its name among them, which returns the exit status (an `u8`), this program's
/// `main`. The program is `#![no_main]`.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        const _: () = {
            #[unsafe(no_mangle)]
            extern "C" fn main(count: i32, words: *const *const std::ffi::c_char) -> i32 {
                $crate::sys::entry::begin();
                // SAFETY: this is `main`, as libc calls it.
                let arguments = unsafe { $crate::sys::entry::arguments(count, words) };
                i32::from($main(arguments))
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

/// The arguments of `main`. (The standard library has them only where libc passes them to its initializers: not with musl.)
///
/// # Safety
///
/// They are those that `main` was called with.
pub unsafe fn arguments(count: i32, words: *const *const c_char) -> Vec<OsString> {
    let length = usize::try_from(count).unwrap_or_default();
    // SAFETY: there are so many words, and they stay as they are.
    let words = unsafe { std::slice::from_raw_parts(words, length) };
    let word = |word: &*const c_char| {
        // SAFETY: it is a C string, which lives as long as the process.
        let word = unsafe { CStr::from_ptr(*word) };
        OsStr::from_bytes(word.to_bytes()).to_owned()
    };
    words.iter().map(word).collect()
}

/// Makes this process another program, called `name`, with the same environment and descriptors. Returns only if that fails.
pub fn become_program(file: &Path, name: &str, arguments: &[OsString]) -> io::Error {
    let c_string = |string: &OsStr| CString::new(string.as_bytes());
    let words = [OsStr::new(name)].into_iter().chain(arguments.iter().map(OsString::as_os_str));
    let (Ok(file), Ok(words)) = (c_string(file.as_os_str()), words.map(c_string).collect::<Result<Vec<_>, _>>()) else {
        return io::ErrorKind::InvalidInput.into();
    };
    // Ignored since the start, and that would be inherited.
    // SAFETY: the default action installs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let Err(errno) = execv(&file, &words);
    // SAFETY: as in `begin`.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    errno.into()
}
