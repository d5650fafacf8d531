//! The world that helpers live in: the container as it is, but for what uid 0 could change or reach there. Its own filesystem and
//! the system's are read-only, and `/dev` has what every program needs and FUSE. What an administrator has mounted
//! elsewhere in the container, a volume to be served for one, stays as it is.
//!
//! Runs in the mounter, with CAP_SYS_ADMIN and CAP_MKNOD. It is made once, in a mount namespace that no process lives in: each
//! helper's own is a copy of it, which costs no mount more than a copy of the container's.

use api::mount_words;
use linux::mount_namespace::{MountNamespace, NamespaceError};
use linux::mount_table::Mount;
use linux::processes::{OWN, Process, name_of};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, FileType, Mode, OFlags, chmod, makedev, mknodat, open};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount, unmount,
};
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use tracing::warn;

/// What mount tables show as the source of a helper's own tmpfs.
pub const SOURCE: &str = "hostmount";

/// What is mounted here, and below, is as read-only as the root: the kernel's settings, and programs and their settings.
const SYSTEM: [&str; 10] = ["/proc", "/sys", "/etc", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// What of /proc acts on the node (as runc has it): read-only, where it is there.
const PROC_READ_ONLY: [&str; 7] =
    ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi", "/proc/scsi"];

/// What of /proc tells about others' doings, or is written to: empty.
const PROC_EMPTY: [&str; 8] = [
    "/proc/kcore",
    "/proc/kmsg",
    "/proc/keys",
    "/proc/key-users",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/latency_stats",
    "/proc/mtrr",
];

const OWN_PROCESSES: &CStr = c"hidepid=ptraceable";

const SYS: &str = "/sys";

/// Of a filesystem that nothing runs from.
const HARMLESS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// fusermount3's settings.
const FUSE_CONF: &str = "/etc/fuse.conf";

/// The devices of `/dev`: name, major, minor.
const DEVICES: [(&str, u32, u32); 7] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
    ("fuse", 10, 229),
];

/// Links of `/dev`. Shared memory is in the helper's own `/tmp`: one mount less for each.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("shm", "/tmp"),
];

/// A mount namespace without a process.
#[derive(Debug)]
pub struct World {
    namespace: MountNamespace,
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// At a path.
    #[error("preparing what helpers see of the container: cannot {step} {path}", path = path.display())]
    At {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A namespace of our own.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
}

impl World {
    /// Makes it, from what the calling thread sees; each helper's own socket for syslog(3) is at `syslog` in its namespace. What is mounted in the container later comes in as it is.
    pub fn new(syslog: &Path) -> Result<Self, WorldError> {
        let namespace = thread::scope(|scope| {
            let thread = thread::Builder::new().name("world".into()).spawn_scoped(scope, || make(syslog));
            match thread.map_err(NamespaceError::Thread)?.join() {
                Ok(made) => made,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        Ok(Self { namespace })
    }

    /// Moves the **calling thread** into a copy of its own, which shows /sys, read-only, or an empty directory in its place.
    pub fn enter_copy(&self, sysfs: bool) -> Result<(), WorldError> {
        self.namespace.enter()?;
        become_slave()?;
        if sysfs {
            let sys = Path::new(SYS);
            unmount(sys, UnmountFlags::DETACH).map_err(failed("uncover", sys))?;
        }
        Ok(())
    }
}

/// Moves the calling thread into a copy of its mount namespace. What is unmounted in the original goes there as well; nothing
/// goes the other way.
fn become_slave() -> Result<(), WorldError> {
    let root = Path::new("/");
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed("unshare", root))?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change(root, slave).map_err(failed("make a slave of", root))
}

/// Runs on a thread of its own, which ends here.
fn make(syslog: &Path) -> Result<MountNamespace, WorldError> {
    let root = Path::new("/");
    become_slave()?;
    let this_thread = Process::at(Path::new(OWN), rustix::thread::gettid());
    let table = this_thread.mounts().map_err(failed("read the mount table of", root))?;
    make_devices(syslog)?;
    if let Err(error) = show_own_processes_only() {
        warn!("helpers see that other processes run: /proc cannot be mounted for them: {error}");
    }
    for path in PROC_READ_ONLY {
        let path = Path::new(path);
        if shadow(path, path)? {
            mount_remount(path, HARMLESS | MountFlags::BIND | MountFlags::RDONLY, c"")
                .map_err(failed("make read-only", path))?;
        }
    }
    for path in PROC_EMPTY {
        shadow(Path::new("/dev/null"), Path::new(path))?;
    }
    for mount in table.iter().filter(|mount| is_system(&mount.target)) {
        match mount_remount(&mount.target, MountFlags::BIND | MountFlags::RDONLY | restrictions(mount), c"") {
            // Something else is mounted above it: it cannot be reached.
            Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) if mount.target != root => {}
            done => done.map_err(failed("make read-only", &mount.target))?,
        }
    }
    // On top of it, read-only as it is by now: a type whose program needs it has it uncovered again.
    let sys = Path::new(SYS);
    mount(SOURCE, sys, c"tmpfs", HARMLESS | MountFlags::RDONLY, c"size=4k,mode=0755").map_err(failed("cover", sys))?;
    Ok(MountNamespace::of_this_thread()?)
}

/// Shows `source` at `path`, if there is something.
fn shadow(source: &Path, path: &Path) -> Result<bool, WorldError> {
    match mount_bind(source, path) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(failed("bind over", path)(errno)),
    }
}

/// Whether a mount there is one of the system's. Below /proc only what is none of a process's own.
fn is_system(target: &Path) -> bool {
    let here = |path: &&str| target.starts_with(path);
    target == Path::new("/")
        || SYSTEM.iter().any(here) && target != Path::new("/proc") && !PROC_READ_ONLY.iter().any(here)
}

/// What a mount is not allowed, and shall not be afterwards. Without a word on access times they stay as they are.
fn restrictions(mount: &Mount) -> MountFlags {
    const ACCESS_TIMES: u64 = libc::MOUNT_ATTR__ATIME | libc::MOUNT_ATTR_NODIRATIME;
    let words = mount.options.split(',').filter_map(mount_words::find);
    let kept = words.filter(|(known, set)| *set && known.attribute & !ACCESS_TIMES != 0);
    kept.map(|(known, _)| MountFlags::from_bits_retain(known.flag)).collect()
}

/// Covers the container's `/dev`: no disks, no memory, no terminals.
fn make_devices(syslog: &Path) -> Result<(), WorldError> {
    let dev = Path::new("/dev");
    // The container's own devices, for where none can be made.
    let others = DEVICES.map(|(name, ..)| open(dev.join(name), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok());
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount(SOURCE, dev, c"tmpfs", flags, c"size=64k,mode=0755").map_err(failed("mount a tmpfs on", dev))?;
    for ((name, major, minor), other) in DEVICES.into_iter().zip(others) {
        let path = dev.join(name);
        let mode = Mode::from_raw_mode(0o666);
        match mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor)) {
            // Whatever our umask is.
            Ok(()) => chmod(&path, mode).map_err(failed("change the mode of", &path))?,
            Err(errno) => bind_device(other, &path).map_err(|_| failed("make the device", &path)(errno))?,
        }
    }
    let links = LINKS.map(|(name, leads_to)| (name, Path::new(leads_to)));
    for (name, leads_to) in links.into_iter().chain([("log", syslog)]) {
        let path = dev.join(name);
        symlink(leads_to, &path).map_err(failed("make the link", &path))?;
    }
    let_fusermount_allow_other()?;
    mount_remount(dev, MountFlags::BIND | MountFlags::RDONLY | flags, c"").map_err(failed("make read-only", dev))
}

/// A /proc in which a process sees only those that it could trace, so that what others are called with, and that they are there,
/// is not seen. A helper of a uid of its own sees its own processes; one that is root does so where the kernel has Landlock; the
/// mounter, whose threads stand here as well, sees all. Runs in a mount namespace of the calling thread's own.
pub fn show_own_processes_only() -> io::Result<()> {
    Ok(mount(c"proc", "/proc", c"proc", HARMLESS, OWN_PROCESSES)?)
}

/// fusermount3 passes `allow_other` on for users other than root only where this file says so. Whether a volume has it is its
/// grant's to say. An image that lacks the file has no fusermount3, or its helpers fail with its message.
fn let_fusermount_allow_other() -> Result<(), WorldError> {
    let (path, mine) = (Path::new(FUSE_CONF), Path::new("/dev/fuse.conf"));
    let said = match fs::read_to_string(path) {
        Ok(said) => said,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("read", path)(error)),
    };
    fs::write(mine, format!("{said}\nuser_allow_other\n")).map_err(failed("write", mine))?;
    mount_bind(mine, path).map_err(failed("bind over", path))?;
    // What is bound stays.
    fs::remove_file(mine).map_err(failed("remove", mine))?;
    mount_remount(path, HARMLESS | MountFlags::BIND | MountFlags::RDONLY, c"").map_err(failed("make read-only", path))
}

fn bind_device(device: Option<OwnedFd>, path: &Path) -> io::Result<()> {
    let device = device.ok_or(io::ErrorKind::NotFound)?;
    File::create(path)?;
    Ok(mount_bind(name_of(device.as_fd()), path)?)
}

fn failed<E: Into<io::Error>>(step: &'static str, path: &Path) -> impl FnOnce(E) -> WorldError + use<E> {
    let path = path.to_owned();
    move |source| WorldError::At { step, path, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_systems() {
        for path in
            ["/", "/sys", "/sys/fs/cgroup/memory", "/etc/hosts", "/usr/sbin/mount.memfs", "/lib/x", "/proc/meminfo"]
        {
            assert!(is_system(Path::new(path)), "{path}");
        }
        for path in ["/proc", "/proc/sys/fs/binfmt_misc", "/data", "/libexec", "/tmp", "/run/hostmount", "/srv/export"]
        {
            assert!(!is_system(Path::new(path)), "{path}");
        }
    }
}
