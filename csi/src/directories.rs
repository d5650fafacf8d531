//! The driver's directories below kubelet's: made, and given to the driver's user.
//!
//! Runs in the DaemonSet's init container, as root with CAP_CHOWN and CAP_FOWNER alone, and ends: an image needs no other program for it. The
//! directories above are root's; these belong to the driver, so none is followed if it is a link.

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, open};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A directory is not there, or not the driver's.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} the directory {directory}; it is the driver's, below kubelet's, where root can write", directory = directory.display())]
pub struct DirectoryError {
    step: &'static str,
    directory: PathBuf,
    source: io::Error,
}

/// Makes each that is not there; all of them are the user's and its group's, for others to look into.
pub fn make(directories: &[PathBuf], owner: u32) -> Result<(), DirectoryError> {
    directories.iter().try_for_each(|directory| make_one(directory, owner))
}

fn make_one(directory: &Path, owner: u32) -> Result<(), DirectoryError> {
    let failed = |step| move |source| DirectoryError { step, directory: directory.to_owned(), source };
    fs::create_dir_all(directory).map_err(failed("make"))?;
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = open(directory, flags, Mode::empty()).map_err(io::Error::from).map_err(failed("open"))?;
    let owner = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
    fchown(&opened, owner.0, owner.1).map_err(io::Error::from).map_err(failed("change the owner of"))?;
    fchmod(&opened, Mode::from_raw_mode(0o755)).map_err(io::Error::from).map_err(failed("change the mode of"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn it_is_there_and_no_link() {
        let base = std::env::temp_dir().join(format!("hostmount-csi-directories-{}", std::process::id()));
        let (directory, link) = (base.join("plugins/driver"), base.join("link"));
        // Anybody may give what is his to himself.
        let me = rustix::process::getuid().as_raw();
        for _ in 0..2 {
            make(std::slice::from_ref(&directory), me).unwrap();
            let made = fs::metadata(&directory).unwrap();
            assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (me, me, 0o755));
            fchmod(fs::File::open(&directory).unwrap(), Mode::from_raw_mode(0o700)).unwrap();
        }
        symlink(&directory, &link).unwrap();
        let error = make(&[link], me).unwrap_err();
        assert!(error.to_string().starts_with("cannot open the directory /"), "{error}");
        assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o7777, 0o700);
        fs::remove_dir_all(base).unwrap();
    }
}
