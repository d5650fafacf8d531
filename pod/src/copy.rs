//! `hostmount-pod copy DIR`: puts this program and its names into a directory that containers share, for an init container.
//!
//! Runs in the pod, before its programs. Each name is a file of its own (a hard link where there can be one), so that a volume
//! mount can show one of them alone. A name that is there already is replaced at once, and never seen half.

use api::exit::Exit;
use api::shown::shown_path;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The program's names; the first is its own.
const NAMES: [&str; 3] = ["hostmount-pod", "fusermount3", "fusermount"];

/// Runs it with its arguments.
pub(crate) fn main(arguments: &[OsString]) -> u8 {
    let [directory] = arguments else {
        linux::complain!("usage: hostmount-pod copy DIRECTORY");
        return Exit::Usage as u8;
    };
    let directory = Path::new(directory);
    match NAMES.into_iter().try_for_each(|name| put(directory, name)) {
        Ok(()) => 0,
        Err(error) => {
            linux::complain!("hostmount-pod copy: cannot put it into {}: {error}", shown_path(directory));
            Exit::System as u8
        }
    }
}

fn put(directory: &Path, name: &str) -> io::Result<()> {
    let new = directory.join(format!(".{name}.new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let first = directory.join(NAMES[0]);
    if name == NAMES[0] || fs::hard_link(&first, &new).is_err() {
        fs::copy("/proc/self/exe", &new)?;
        fs::set_permissions(&new, Permissions::from_mode(0o755))?;
    }
    let named = fs::rename(&new, directory.join(name));
    // A second name of one file is not renamed to the first.
    let _ = fs::remove_file(&new);
    named
}
