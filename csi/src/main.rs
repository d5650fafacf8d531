//! `hostmount-csi`: see the library.

// They panic where nobody reads: `linux::standard`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use api::exit::chain;
use hostmount_csi::directories;
use hostmount_csi::serve::serve;
use hostmount_csi::settings::{self, Action};
use std::process::ExitCode;

fn main() -> ExitCode {
    let settings = match settings::read(std::env::args_os()) {
        Ok(Action::Serve(settings)) => settings,
        Ok(Action::MakeDirectories { owner, directories }) => {
            let Err(error) = directories::make(&directories, owner) else { return ExitCode::SUCCESS };
            linux::complain!("hostmount-csi: {}", chain(&error));
            return ExitCode::from(2);
        }
        Ok(Action::Show(text)) => {
            linux::standard::put(format_args!("{text}"));
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            linux::complain!("hostmount-csi: {}; see hostmount-csi --help", chain(&error));
            return ExitCode::from(1);
        }
    };
    // Where nobody reads the log any more there is no other place to say so: its complaint would be a panic.
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).log_internal_errors(false).init();
    match serve(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(event = "csi.failed", "{}", chain(&error));
            ExitCode::from(2)
        }
    }
}
