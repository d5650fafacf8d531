//! A FUSE filesystem that was just mounted, which no process sees but the calling thread.
//!
//! Runs in the mounter, on the thread of an operation, which [`Fresh::mount`] moves into a mount namespace of its own for the rest of
//! its life: there, as in a helper's, it can be mounted and given the options of other mounts before anybody meets it.

use super::mount_options::Asked;
use crate::engine::judge::{Call, Objection, Verdict, judge};
use crate::engine::mount_point::{MountPoint, Mounted};
use crate::helper::namespace;
use crate::mounter::Mounter;
use crate::node::connections::Identity;
use crate::node::fuse_device::FuseDevice;
use crate::policy::grant_of_program;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use tracing::warn;

/// The filesystem, as its mounter has it: it ends with this, unless it shows elsewhere by then.
#[derive(Debug)]
pub(super) struct Fresh {
    /// Which one it is.
    pub(super) identity: Identity,
    /// Its connection's.
    pub(super) device: FuseDevice,
    /// The user namespace that it is of, if that is a pod's.
    pub(super) users: Option<File>,
    mounted: Mounted,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum FreshError {
    /// What is asked for.
    #[error(transparent)]
    Objection(#[from] Objection),
    /// A step of ours.
    #[error("cannot {0}")]
    Step(&'static str, #[source] io::Error),
}

impl Fresh {
    /// One that no program serves yet: for the mounter itself.
    pub(super) fn waiting(mounter: &Mounter, read_only: bool) -> Result<Self, FreshError> {
        let asked = Asked {
            source: "hostmount".to_owned(),
            fstype: "fuse.waiting".to_owned(),
            flags: MountFlags::empty(),
            data: "rootmode=40000".to_owned(),
        };
        Self::mount(mounter, &asked, read_only, None)
    }

    /// One for a program, as it is asked for. With `users` its owners are those of that user namespace, and nobody outside of it may enter.
    pub(super) fn mount(
        mounter: &Mounter,
        asked: &Asked,
        read_only: bool,
        users: Option<File>,
    ) -> Result<Self, FreshError> {
        let failed = |step| move |error: io::Error| FreshError::Step(step, error);
        let device = open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| FreshError::Step("open /dev/fuse", errno.into()))?;
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)
            .map_err(|errno| FreshError::Step("make a mount namespace", errno.into()))?;
        let place = namespace::mount_point(&mounter.state, Path::new("/"));
        let place = MountPoint::at(&place).map_err(failed("open the directory to mount at"))?;
        let Verdict { fstype, flags, data, .. } = judge(
            &grant_of_program(read_only, &mounter.configuration.get()),
            &Call {
                fstype: &asked.fstype,
                flags: asked.flags,
                data: &asked.data,
                fuse_device: Some(device.as_raw_fd()),
                at_mount_point: true,
                mounted_before: false,
            },
        )?;
        let source = CString::new(&*asked.source).map_err(|_| Objection::Nul("source"))?;
        let (device, mounted) = match &users {
            None => place.mount(&source, &fstype, flags, &data).map(|mounted| (device, mounted)),
            Some(users) => place.mount_for(users.as_fd(), (&source, &fstype), flags, &data, device.as_fd()),
        }
        .map_err(failed("mount the filesystem"))?;
        let identity = mounter.connections.identify(mounted.device);
        Ok(Self { identity, device: FuseDevice::new(device, identity, &mounter.connections), users, mounted })
    }

    /// Its root, in the calling thread's mount namespace.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.mounted.as_fd()
    }

    /// It shows elsewhere: what is left of it here is the descriptor of its connection.
    pub(super) fn release(self) -> FuseDevice {
        // It would go with the thread's mount namespace; so it is gone when the caller hears that all is done.
        if let Err(error) = self.mounted.detach(UnmountFlags::DETACH) {
            warn!("cannot let go of our own copy of a filesystem; it goes with this thread: {error}");
        }
        self.device
    }

    /// Ends it: whoever waits for it gets an error.
    pub(super) fn discard(self) {
        self.release().end();
    }
}
