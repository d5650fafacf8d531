//! `hostmount-pod ready [PATH]`: whether a program serves the volume, for the start-up probe of a native sidecar.
//!
//! Runs in the pod, started by kubelet now and then.

use crate::asking::Volume;
use api::exit::Exit;
use api::program::{DEFAULT_DIRECTORY, DEFAULT_NAME};
use api::shown::shown_path;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the mounter may take to say so.
const PATIENCE: Duration = Duration::from_secs(5);

/// The exit status if nobody serves it.
const NOT_READY: u8 = 1;

/// Runs it with its arguments; 0 if the volume is served.
pub(crate) fn main(arguments: &[OsString]) -> u8 {
    let place = match arguments {
        [] => Path::new(DEFAULT_DIRECTORY).join(DEFAULT_NAME),
        [place] => PathBuf::from(place),
        _ => {
            linux::complain!("usage: hostmount-pod ready [PATH]");
            return Exit::Usage as u8;
        }
    };
    let words = match Volume::at(&place).and_then(|volume| volume.is_served(PATIENCE)) {
        Ok(true) => return 0,
        Ok(false) => format!("no program serves {} yet", shown_path(&place)),
        Err(error) => error.to_string(),
    };
    linux::complain!("hostmount-pod ready: {words}");
    NOT_READY
}
