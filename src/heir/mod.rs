//! The heir of a filesystem whose helper is gone: it answers for the files that are still open there, from the fresh one that has
//! taken its places, until the last of them is closed.
//!
//! A process of its own (`hostmount serve-open-files`, which the mounter starts), as a filesystem that hangs holds every process that asks it,
//! and as it outlives the mounter. It is uid 0 with the capabilities in [`CAPABILITIES`]; it has the old connection, the fresh filesystem's
//! root, and nothing else open.
//!
//! **A wrong byte is worse than an error.** A file is answered for only where it is certain which one it is in the fresh
//! filesystem ([`same_file`]); what else comes is answered as it is without an heir.

pub mod inherited;
mod locks;
mod open_files;
mod requests;
mod same_file;
mod serve;

use crate::node::fuse_requests::RESEND;
use caps::Capability;
use inherited::Inherited;
use linux::namespace::NamespaceId;
use serve::Heir;
use std::io;
use std::os::fd::OwnedFd;

/// What it keeps: to see what other processes have open (CAP_SYS_PTRACE) and mapped (CAP_CHECKPOINT_RESTORE), and to open what they have
/// opened, whoever may.
pub const CAPABILITIES: [Capability; 4] = [
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_CHECKPOINT_RESTORE,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// Serves until no file of the old filesystem is open any more. `connection` is a descriptor of the connection that the dead helper
/// had, which does not wait; `root` is the fresh filesystem's.
pub fn run(mut inherited: Inherited, connection: OwnedFd, root: OwnedFd) -> io::Result<()> {
    // Another heir may have opened files there that it serves itself.
    inherited.namespaces.insert(NamespaceId::of_this_threads_mounts()?);
    let files = open_files::find(&inherited);
    // The mounter has read the request that made it start an heir, and left it unanswered.
    rustix::io::write(&connection, &RESEND)?;
    Heir::new(inherited, connection, root).serve(&files)
}
