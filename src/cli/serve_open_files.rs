//! `hostmount serve-open-files`: becomes an heir (`crate::heir`). Only the mounter starts it: standard input is the connection of the
//! filesystem whose helper is gone, standard output the root of the fresh one.

use crate::heir::inherited::Inherited;
use crate::heir::run;
use api::exit::Exit;
use rustix::io::fcntl_dupfd_cloexec;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;

/// Runs it.
pub(super) fn main(arguments: &[OsString]) -> ExitCode {
    let Some(inherited) = Inherited::parse(arguments) else {
        linux::complain!("hostmount: only the mounter calls it so.");
        return Exit::Usage.into();
    };
    let ours = |standard: std::os::fd::BorrowedFd<'_>| fcntl_dupfd_cloexec(standard, 3).map_err(io::Error::from);
    let served =
        ours(io::stdin().as_fd()).and_then(|connection| run(inherited, connection, ours(io::stdout().as_fd())?));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            linux::complain!("hostmount: cannot serve files that are open: {error}.");
            Exit::System.into()
        }
    }
}
