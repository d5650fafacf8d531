//! The placeholder of a volume: what shows at its target in its place, for pods with a user namespace (`hostUsers: false`).
//!
//! A container runtime maps the ids of each volume's mount for such a pod, and the kernel refuses that for a FUSE filesystem whose helper does
//! not allow it. The placeholder is a FUSE filesystem of our own that does. When a process of a pod first touches it, the request is
//! held, the volume's own filesystem takes the place of the placeholder's mounts in that pod ([`give_way`]), and the
//! request is answered with ESTALE: the kernel looks again, and finds that one. On the node the placeholder stays, as each
//! container that the pod starts later shows it again; who looks there gets what kubelet and runtimes need ([`looks`]).
//!
//! A process of its own (`hostmount serve-placeholder`, which the mounter starts), as it must outlive the mounter. It has a mount namespace of
//! its own, with the volume's filesystem in it and nothing else ([`room`]): by that a heal or a swap finds it, as it finds every
//! place where a volume shows. It is uid 0 with the capabilities in [`CAPABILITIES`], and ends when its filesystem is mounted nowhere
//! any more: with it goes its hold on the volume's.
//!
//! Pods are hostile. Of a request nothing is taken but its number, what is asked, and who asks; what is done in a pod's mount
//! namespace is done by descriptors, to mounts of this placeholder alone.

mod give_way;
mod line;
mod looks;
mod nodes;
mod requests;
mod room;
mod serve;
pub mod told;
mod users;
mod waits;

use caps::Capability;
use std::io;
use std::os::fd::OwnedFd;
use told::Told;

/// What it keeps: to make its mount namespace and to go to those of pods (CAP_SYS_ADMIN, CAP_SYS_CHROOT), to see which mount namespace
/// a process lives in (CAP_SYS_PTRACE), and to go to the pod's paths, and on the volume's as kubelet may.
pub const CAPABILITIES: [Capability; 5] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// Serves until the placeholder is mounted nowhere any more. `connection` is its descriptor of /dev/fuse; `volume` is the volume's own
/// filesystem, a detached mount.
pub fn run(told: Told, connection: OwnedFd, volume: OwnedFd) -> io::Result<()> {
    room::enter(&told.host_proc, volume)?;
    serve::serve(&Told { host_proc: room::PROC.into(), ..told }, connection)
}
