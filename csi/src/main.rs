//! `hostmount-csi`: see the library.

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
            eprintln!("hostmount-csi: {}", chain(&error));
            return ExitCode::from(2);
        }
        Ok(Action::Show(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("hostmount-csi: {}; see hostmount-csi --help", chain(&error));
            return ExitCode::from(1);
        }
    };
    tracing_subscriber::fmt().json().with_writer(std::io::stderr).init();
    match serve(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(event = "csi.failed", "{}", chain(&error));
            ExitCode::from(2)
        }
    }
}
