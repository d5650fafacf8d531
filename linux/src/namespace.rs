//! Which namespace it is: the one way in which namespaces are distinguished.
//!
//! Runs in every program.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A namespace of any kind, by the device and inode number of its file below `/proc/PID/ns` (namespaces(7)).
///
/// The kernel uses the numbers again once a namespace is gone. They are its own for as long as a process lives in it or
/// a descriptor holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NamespaceId {
    /// The device number of the kernel's filesystem of namespaces.
    pub device: u64,
    /// The namespace's number there.
    pub inode: u64,
}

impl NamespaceId {
    /// The namespace behind a link below `/proc/PID/ns`.
    pub fn at(link: &Path) -> io::Result<Self> {
        let file = fs::metadata(link)?;
        Ok(Self { device: file.dev(), inode: file.ino() })
    }

    /// The namespace that a descriptor holds.
    pub fn of(namespace: impl AsFd) -> io::Result<Self> {
        let file = rustix::fs::fstat(namespace)?;
        Ok(Self { device: file.st_dev, inode: file.st_ino })
    }

    /// The mount namespace that the calling thread lives in.
    pub fn of_this_threads_mounts() -> io::Result<Self> {
        Self::at(Path::new("/proc/thread-self/ns/mnt"))
    }
}
