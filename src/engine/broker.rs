//! The one place that performs a privileged call for a helper, within that helper's grant.
//!
//! Runs in the mounter, on the volume's own thread, **inside the helper's mount namespace**: what it mounts, only the
//! helper and the mounter see.

use super::mount_point::MountPoint;
use crate::policy::Grant;
use api::options::{MountOptions, OptionsError};
use api::request::is_fuse;
use linux::mount_table::Device;
use linux::statx::{character_device, device_at, identity};
use rustix::fd::AsRawFd;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use tracing::{info, warn};

/// `/dev/fuse`: character device 10:229 (Documentation/admin-guide/devices.txt).
const FUSE_DEVICE: Device = Device { major: 10, minor: 229 };
/// Flags that shape one new mount. Everything else (bind, move, remount, propagation) acts on existing ones.
const SHAPING: MountFlags = MountFlags::RDONLY
    .union(MountFlags::NOSUID)
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC)
    .union(MountFlags::SYNCHRONOUS)
    .union(MountFlags::DIRSYNC)
    .union(MountFlags::NOATIME)
    .union(MountFlags::NODIRATIME)
    .union(MountFlags::RELATIME)
    .union(MountFlags::STRICTATIME)
    .union(MountFlags::LAZYTIME)
    .union(MountFlags::PERMIT_MANDATORY_FILE_LOCKING)
    .union(MountFlags::SILENT);

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
    fuse: bool,
    objections: Vec<String>,
}

/// Why a call is not performed. Its words go to the log and to the caller, its errno to the helper.
#[derive(Debug, thiserror::Error)]
pub enum Objection {
    /// One mount a grant.
    #[error("a second mount of the same helper is not granted")]
    Twice,
    /// Flags that do not shape one new mount.
    #[error("mount flags {0:#x} are not granted: they act on existing mounts")]
    Flags(u32),
    /// A foreign type.
    #[error("a filesystem of type '{0}' is not granted")]
    Type(String),
    /// Somewhere else.
    #[error("mounting or unmounting anywhere but at its own mount point is not granted")]
    Elsewhere,
    /// FUSE without a descriptor, or with one that is something else.
    #[error("the mount data's 'fd=' does not name an open /dev/fuse")]
    NotFuse,
    /// Unbalanced quotes in the data.
    #[error("its mount data is malformed")]
    Data(#[source] OptionsError),
    /// The kernel's answer.
    #[error("the kernel refused to mount a filesystem of type '{fstype}'{hint}", hint = hint(.fstype, *.errno))]
    Kernel {
        /// The type.
        fstype: String,
        /// Its answer.
        #[source]
        errno: Errno,
    },
}

fn hint(fstype: &str, errno: Errno) -> &'static str {
    match errno {
        Errno::NODEV if fstype.starts_with("fuse") => " (this node's kernel has no FUSE: modprobe fuse)",
        Errno::NODEV => " (this node's kernel does not have it)",
        _ => "",
    }
}

impl Objection {
    /// What the helper gets to see.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Twice => Errno::BUSY,
            Self::Flags(_) | Self::Type(_) | Self::Elsewhere => Errno::PERM,
            Self::NotFuse | Self::Data(_) => Errno::INVAL,
            Self::Kernel { errno, .. } => *errno,
        }
    }
}

impl Broker {
    /// A broker for one grant, which is for one place: the helper's mount point.
    pub fn new(grant: Grant, place: MountPoint) -> Self {
        Self { grant, place, progress: Progress::Waiting, fuse: false, objections: Vec::new() }
    }

    /// How far the helper has come.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Whether what it has mounted is FUSE: its helper then answers every request.
    pub fn is_fuse(&self) -> bool {
        self.fuse
    }

    /// The helper's mount point, which the grant is for.
    pub fn place(&self) -> &MountPoint {
        &self.place
    }

    /// What was refused so far, in words for the caller: it may be the reason why the helper failed.
    pub fn objections(&self) -> &[String] {
        &self.objections
    }

    /// Performs a mount(2) of the helper's, or says why not.
    pub fn mount(&mut self, call: &MountCall) -> Result<(), Errno> {
        let done = self.try_mount(call);
        self.answer(done)
    }

    /// Performs an umount2(2) of the helper's, or says why not. `target` is resolved as the helper would resolve it.
    pub fn unmount(&mut self, target: &OwnedFd) -> Result<(), Errno> {
        match self.progress {
            Progress::Mounted(ours) if identity(target.as_fd()).is_ok_and(|(device, _)| device == ours) => {
                self.let_go().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
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

    /// Ends the filesystem at once: whoever waits for an answer of the helper's gets an error instead.
    pub fn abort(&mut self) -> io::Result<()> {
        self.detach(UnmountFlags::DETACH | UnmountFlags::FORCE)
    }

    fn detach(&mut self, flags: UnmountFlags) -> io::Result<()> {
        if let Progress::Mounted(_) = self.progress {
            unmount(self.place.path(), flags | UnmountFlags::NOFOLLOW)?;
            self.progress = Progress::Withdrawn;
        }
        Ok(())
    }

    fn answer(&mut self, done: Result<(), Objection>) -> Result<(), Errno> {
        done.map_err(|objection| {
            let words = api::exit::chain(&objection);
            warn!("refused a call of the helper's: {words}");
            self.objections.push(format!("hostmount refused a call of it: {words}"));
            objection.errno()
        })
    }

    fn try_mount(&mut self, call: &MountCall) -> Result<(), Objection> {
        if self.progress != Progress::Waiting {
            return Err(Objection::Twice);
        }
        let foreign = call.flags.difference(SHAPING);
        if !foreign.is_empty() {
            return Err(Objection::Flags(foreign.bits()));
        }
        if !self.grant.types.contains(&call.fstype) {
            return Err(Objection::Type(call.fstype.clone()));
        }
        if !self.place.is(call.target.as_fd()) {
            return Err(Objection::Elsewhere);
        }
        let fuse = is_fuse(&call.fstype);
        let data = if fuse { self.fuse_data(call)? } else { call.data.clone() };
        let data = CString::new(data).map_err(|_| Objection::Data(OptionsError::NoName))?;
        let path = self.place.path();
        let kernel = |errno| Objection::Kernel { fstype: call.fstype.clone(), errno };
        mount(&call.source, path, &call.fstype, call.flags | self.grant.flags, data.as_c_str()).map_err(kernel)?;
        let device = device_at(path).ok().flatten();
        self.progress = Progress::Mounted(device.ok_or_else(|| kernel(Errno::STALE))?);
        self.fuse = fuse;
        info!(fstype = call.fstype, "mounted for the helper");
        Ok(())
    }

    /// The helper's mount data, with our descriptor in the place of its own and with `allow_other` as granted.
    fn fuse_data(&self, call: &MountCall) -> Result<String, Objection> {
        let device = call.device.as_ref().ok_or(Objection::NotFuse)?;
        if character_device(device.as_fd()).ok().flatten() != Some(FUSE_DEVICE) {
            return Err(Objection::NotFuse);
        }
        let mut options = MountOptions::parse(&call.data).map_err(Objection::Data)?;
        options.retain(|option| option.name != "fd" && option.name != "allow_other");
        options.push_value("fd", device.as_raw_fd());
        if self.grant.allow_other {
            options.push_flag("allow_other");
        }
        Ok(options.to_string())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Err(error) = self.let_go() {
            warn!("cannot detach the helper's copy of its mount: {error}");
        }
    }
}
