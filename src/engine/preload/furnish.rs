//! What a helper's mount namespace must show so that the shared object is loaded and finds us.
//!
//! Runs in the mounter, with CAP_SYS_ADMIN: once at the start in its own namespace, then for each helper on the volume's
//! own thread, inside the helper's.

use super::message::SOCKET;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Names what the dynamic linker loads into every program (ld.so(8)).
const PRELOADED: &str = "/etc/ld.so.preload";

/// The engine cannot be used, or not for this helper.
#[derive(Debug, thiserror::Error)]
pub enum FurnishError {
    /// The shared object is not there.
    #[error("cannot open the shared object {path}; say where it is with --preload", path = path.display())]
    Object {
        /// Where it should be.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// There is no file that a helper's own list can be bound over.
    #[error("{PRELOADED} is not there and cannot be created; an empty file in the image will do")]
    List(#[source] io::Error),
    /// A step in the helper's mount namespace.
    #[error("preparing the helper's mount namespace: cannot {step} {path}", path = path.display())]
    Step {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

/// Where the mounter listens.
pub fn socket() -> &'static Path {
    Path::new(OsStr::from_bytes(SOCKET.to_bytes()))
}

/// Whether helpers can be furnished: the dynamic linker only warns of what it cannot load, and every mount would fail.
pub fn check(object: &Path) -> Result<(), FurnishError> {
    File::open(object).map_err(|source| FurnishError::Object { path: object.to_owned(), source })?;
    create_list()
}

/// Furnishes the calling thread's mount namespace, which only a helper lives in.
pub fn furnish(object: &Path) -> Result<(), FurnishError> {
    let step = |step, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| FurnishError::Step { step, path, source }
    };
    let directory = socket().parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(step("create", directory))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(c"hostmount-preload", directory, c"tmpfs", flags, c"size=64k,mode=0755")
        .map_err(|e| step("mount a tmpfs on", directory)(e.into()))?;
    mount_change(directory, MountPropagationFlags::PRIVATE).map_err(|e| step("make private", directory)(e.into()))?;
    // It may be that one of the helper's writable directories is above it.
    create_list()?;
    // What the container has in there is loaded as well.
    let others = fs::read(PRELOADED).map_err(step("read", Path::new(PRELOADED)))?;
    let list = directory.join("objects");
    fs::write(&list, [object.as_os_str().as_bytes(), b"\n", &others].concat()).map_err(step("write", &list))?;
    mount_bind(&list, PRELOADED)
        .map_err(|e| step("bind the list of shared objects over", Path::new(PRELOADED))(e.into()))
}

fn create_list() -> Result<(), FurnishError> {
    let opened = File::open(PRELOADED).or_else(|_| OpenOptions::new().append(true).create(true).open(PRELOADED));
    opened.map(drop).map_err(FurnishError::List)
}
