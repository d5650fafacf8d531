//! `hostmount serve-placeholder`: becomes a placeholder's process (`crate::placeholder`). Only the mounter starts it: standard input is the
//! descriptor of /dev/fuse, standard output the volume's own filesystem.

use crate::placeholder::run;
use crate::placeholder::told::Told;
use api::exit::Exit;
use rustix::io::fcntl_dupfd_cloexec;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;

/// Runs it.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    let Some(told) = Told::parse(arguments) else {
        linux::complain!("hostmount: only the mounter calls it so.");
        return Exit::Usage.into();
    };
    let ours = |standard: BorrowedFd<'_>| fcntl_dupfd_cloexec(standard, 3).map_err(io::Error::from);
    let served = ours(io::stdin().as_fd()).and_then(|connection| {
        let volume = ours(io::stdout().as_fd())?;
        let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
        // Held by them as well, neither would ever end.
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        drop(null);
        run(told, connection, volume)
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            linux::complain!("hostmount: cannot serve the placeholder of a volume: {error}.");
            Exit::System.into()
        }
    }
}
