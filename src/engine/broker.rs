//! The one place that performs a privileged call for a helper, within that helper's grant.
//!
//! It looks at the call and at the node, and performs what [`judge`] decides.
//!
//! Runs in the mounter, on the volume's own thread, **inside the helper's mount namespace**: what it mounts, only the
//! helper and the mounter see.

use super::judge::{Call, Objection, Verdict, judge};
use super::mount_point::{MountPoint, Mounted};
use super::objections::Objections;
use crate::node::fuse_device::is_fuse_device;
use crate::policy::Grant;
use linux::mount_table::Device;
use linux::statx::identity;
use rustix::fd::AsRawFd;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tracing::{info, warn};

/// A helper's mount(2), as an engine caught it. The strings are the helper's and not to be trusted.
#[derive(Debug)]
pub struct MountCall {
    /// The first argument.
    pub source: CString,
    /// The second, resolved as the helper would resolve it.
    pub target: OwnedFd,
    /// The third.
    pub fstype: String,
    /// The fourth.
    pub flags: MountFlags,
    /// The fifth, up to its NUL.
    pub data: String,
    /// The descriptor that `fd=` in the data names, taken over from the helper.
    pub device: Option<OwnedFd>,
}

/// How far a helper has come with its grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It has not mounted yet.
    Waiting,
    /// It has mounted, with this device number.
    Mounted(Device),
    /// It has mounted and unmounted again: it gave up.
    Withdrawn,
}

/// Guards one grant. Dropped, it detaches the helper's copy if that is still there.
#[derive(Debug)]
pub struct Broker {
    grant: Grant,
    place: MountPoint,
    progress: Progress,
    mounted: Option<Mounted>,
    fuse: bool,
    objections: Objections,
}

impl Broker {
    /// A broker for one grant, which is for one place: the helper's mount point.
    pub fn new(grant: Grant, place: MountPoint) -> Self {
        let objections = Objections::default();
        Self { grant, place, progress: Progress::Waiting, mounted: None, fuse: false, objections }
    }

    /// How far the helper has come.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether what it has mounted is FUSE: its helper then answers every request.
    pub fn is_fuse(&self) -> bool {
        self.fuse
    }

    /// What it has mounted, until it is let go of.
    pub fn mounted(&self) -> Option<&Mounted> {
        self.mounted.as_ref()
    }

    /// The messages about calls refused so far, for the caller: one may be the reason why the helper failed.
    pub fn objections(&self) -> Vec<String> {
        self.objections.words()
    }

    /// Where those are kept that are none of its business.
    pub fn objections_mut(&mut self) -> &mut Objections {
        &mut self.objections
    }

    /// The same, for the engine that answers the helper's calls from here on.
    pub fn take_objections(&mut self) -> Objections {
        std::mem::take(&mut self.objections)
    }

    /// Performs a mount(2) of the helper's, or says why not.
    pub fn mount(&mut self, call: &MountCall) -> Result<(), Errno> {
        let done = self.try_mount(call);
        self.answer(done)
    }

    /// Refuses a mount(2) of a helper that has mounted before.
    pub fn mount_again(&mut self) -> Result<(), Errno> {
        self.answer(Err(Objection::Twice))
    }

    /// The helper gives its filesystem up, if it has one still.
    pub fn give_up(&mut self) -> Result<(), Errno> {
        match self.progress {
            Progress::Mounted(_) => self.let_go().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            Progress::Waiting | Progress::Withdrawn => Err(Errno::INVAL),
        }
    }

    /// Performs an umount2(2) of the helper's, or says why not. `target` is resolved as the helper would resolve it.
    pub fn unmount(&mut self, target: &OwnedFd) -> Result<(), Errno> {
        match self.progress {
            Progress::Mounted(ours) if identity(target.as_fd()).is_ok_and(|(device, _)| device == ours) => {
                self.give_up()
            }
            // Tidying up before or after: the kernel would say that nothing is mounted there.
            Progress::Waiting | Progress::Withdrawn if self.place.is(target.as_fd()) => Err(Errno::INVAL),
            _ => self.answer(Err(Objection::Elsewhere)),
        }
    }

    /// Ends the helper's own view of the filesystem: without another copy the filesystem ends.
    pub fn let_go(&mut self) -> io::Result<()> {
        self.detach(UnmountFlags::DETACH)
    }

    /// Ends the filesystem at once: every process that waits for an answer of the helper's gets an error instead.
    pub fn abort(&mut self) -> io::Result<()> {
        self.detach(UnmountFlags::DETACH | UnmountFlags::FORCE)
    }

    fn detach(&mut self, flags: UnmountFlags) -> io::Result<()> {
        if let Some(mounted) = &self.mounted {
            mounted.detach(flags)?;
            self.mounted = None;
            self.progress = Progress::Withdrawn;
        }
        Ok(())
    }

    fn answer(&mut self, done: Result<(), Objection>) -> Result<(), Errno> {
        done.map_err(|objection| {
            self.objections.add(api::exit::chain(&objection));
            objection.errno()
        })
    }

    fn try_mount(&mut self, call: &MountCall) -> Result<(), Objection> {
        let device = call.device.as_ref().filter(|device| is_fuse_device(device.as_fd()));
        let Verdict { fstype, flags, data, fuse } = judge(
            &self.grant,
            &Call {
                fstype: &call.fstype,
                flags: call.flags,
                data: &call.data,
                fuse_device: device.map(AsRawFd::as_raw_fd),
                at_mount_point: self.place.is(call.target.as_fd()),
                mounted_before: self.progress != Progress::Waiting,
            },
        )?;
        let mounted = self.place.mount(&call.source, &fstype, flags, data.as_c_str()).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Objection::Kernel { fstype: fstype.clone(), errno }
        })?;
        self.progress = Progress::Mounted(mounted.device);
        self.mounted = Some(mounted);
        self.fuse = fuse;
        info!(fstype, "mounted for the helper");
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Err(error) = self.let_go() {
            warn!("cannot detach the helper's copy of its mount: {error}");
        }
    }
}
