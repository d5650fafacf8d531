//! Writing to standard output and standard error, where a reader may have gone: `hostmount doctor | head`.
//!
//! Runs in every program but the mounter, which logs. `println!` would panic there. SIGPIPE stays ignored, as the Rust library
//! has it: a socket of the mounter's that is closed must be an error with words, and no end of the process.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, StdoutLock, Write};
use std::process::exit;

/// The exit status when standard output cannot take what was asked for: mount(8)'s for an error of the system.
const NOT_WRITTEN: i32 = 2;

/// Writes to standard output. If its reader has gone the text is lost, and that is all; a disk that is full ends the process
/// with status 2, after a line on standard error.
pub fn put(text: Arguments<'_>) {
    written(|output| output.write_fmt(text));
}

/// The same for what is no text.
pub fn put_bytes(bytes: &[u8]) {
    written(|output| output.write_all(bytes));
}

fn written(write: impl FnOnce(&mut StdoutLock<'_>) -> io::Result<()>) {
    let mut output = io::stdout().lock();
    match write(&mut output).and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            complain(format_args!("cannot write to standard output: {error}\n"));
            exit(NOT_WRITTEN);
        }
        _ => {}
    }
}

/// Writes to standard error. If that fails there is no other place to say so.
pub fn complain(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// As `println!`, by [`put`](crate::standard::put).
#[macro_export]
macro_rules! say {
    ($($line:tt)*) => { $crate::standard::put(format_args!("{}\n", format_args!($($line)*))) };
}

/// As `eprintln!`, by [`complain`](crate::standard::complain).
#[macro_export]
macro_rules! complain {
    ($($line:tt)*) => { $crate::standard::complain(format_args!("{}\n", format_args!($($line)*))) };
}
