//! One of the node's cgroup filesystems: version 2, or a hierarchy of version 1.
//!
//! Runs in the mounter; what is opened by a path, in the node's mount namespace.

use super::EndsWithContainer;
use linux::mount_table;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, open, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CgroupVersion {
    V1,
    V2,
}

/// One of the node's cgroup filesystems.
#[derive(Debug)]
pub(super) struct Hierarchy {
    pub(super) version: CgroupVersion,
    /// Its name in /proc/PID/cgroup: `memory`, `name=systemd`, or nothing for version 2.
    pub(super) name: String,
    /// The path in the same file of the cgroup that is the node's top.
    pub(super) root: PathBuf,
    /// The directory of that cgroup, and its path on the node.
    pub(super) top: OwnedFd,
    pub(super) path: PathBuf,
    /// Version 1: moves the thread that writes to it to the top.
    pub(super) entrance: Option<OwnedFd>,
}

/// The cgroup below which each helper has one of its own.
#[derive(Debug)]
pub(super) struct ParentCgroup {
    pub(super) version: CgroupVersion,
    pub(super) directory: OwnedFd,
    /// Whether limits of memory can be set.
    pub(super) counts_memory: bool,
    /// Whether its processes can be limited.
    pub(super) counts_processes: bool,
}

impl Hierarchy {
    /// Runs in the node's mount namespace.
    pub(super) fn open(found: Found) -> Result<Self, EndsWithContainer> {
        let Found { version, name, root, target } = found;
        let top = open_directory(CWD, &target).map_err(failed(&target))?;
        // Version 2: whether it can be written to is tried when the first cgroup is made.
        let entrance = match version {
            CgroupVersion::V1 => {
                let file = target.join("tasks");
                Some(open(&file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed(&file))?)
            }
            CgroupVersion::V2 => None,
        };
        Ok(Self { version, name, root, top, path: target, entrance })
    }

    pub(super) fn counts_memory(&self) -> bool {
        self.has("memory")
    }

    /// Whether it has a controller.
    pub(super) fn has(&self, wanted: &str) -> bool {
        match self.version {
            CgroupVersion::V1 => self.name.split(',').any(|controller| controller == wanted),
            CgroupVersion::V2 => read_file(self.top.as_fd(), Path::new("cgroup.controllers"))
                .is_ok_and(|controllers| controllers.split_whitespace().any(|controller| controller == wanted)),
        }
    }

    /// Version 1: makes our directory in a hierarchy that counts processes and nothing else of ours; helpers enter it instead
    /// of the top. Returns it.
    pub(super) fn make_entrance(&mut self, directory: &str) -> Result<OwnedFd, EndsWithContainer> {
        let directory = self.make_directory(directory)?;
        self.entrance = Some(open_to_write(directory.as_fd(), "tasks")?);
        Ok(directory)
    }

    fn make_directory(&self, directory: &str) -> Result<OwnedFd, EndsWithContainer> {
        let path = Path::new(directory);
        match mkdirat(&self.top, path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(path)(errno)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(&self.top, path, flags, Mode::empty()).map_err(failed(path))
    }

    pub(super) fn make_parent(&self, directory: &str) -> Result<ParentCgroup, EndsWithContainer> {
        let directory = self.make_directory(directory)?;
        let counts_memory = self.counts_memory();
        let mut counts_processes = self.has("pids");
        match self.version {
            // Linux before 5.11 counts for the cgroups above one only if told so, before there are any.
            CgroupVersion::V1 if counts_memory => _ = set(directory.as_fd(), "memory.use_hierarchy", "1"),
            CgroupVersion::V1 => {}
            CgroupVersion::V2 => {
                if counts_memory {
                    for above in [self.top.as_fd(), directory.as_fd()] {
                        set(above, "cgroup.subtree_control", "+memory")?;
                    }
                }
                // Volumes have cgroups without it, too.
                counts_processes &= set(self.top.as_fd(), "cgroup.subtree_control", "+pids").is_ok();
            }
        }
        Ok(ParentCgroup { version: self.version, directory, counts_memory, counts_processes })
    }
}

impl CgroupVersion {
    /// Memory, and no swap beyond it; when it is hit, all of a helper goes, where the kernel can do so.
    pub(super) fn limit(self, cgroup: BorrowedFd<'_>, bytes: u64) -> Result<(), EndsWithContainer> {
        let bytes = bytes.to_string();
        let (needed, where_known) = match self {
            Self::V1 => ("memory.limit_in_bytes", vec![("memory.memsw.limit_in_bytes", &*bytes)]),
            Self::V2 => ("memory.max", vec![("memory.swap.max", "0"), ("memory.oom.group", "1")]),
        };
        set(cgroup, needed, &bytes)?;
        for (file, value) in where_known {
            match set(cgroup, file, value) {
                // The kernel does not count swap, or is older than the file.
                Err(EndsWithContainer::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
        Ok(())
    }
}

/// A mount of a cgroup filesystem on the node.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    version: CgroupVersion,
    name: String,
    root: PathBuf,
    target: PathBuf,
}

/// The cgroup filesystems of a mount table, each hierarchy once.
pub(super) fn parse(table: &[u8]) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for line in table.split(|byte| *byte == b'\n') {
        let Some(mount) = mount_table::parse(line).pop() else { continue };
        let (version, name) = match mount.fstype.as_bytes() {
            b"cgroup2" => (CgroupVersion::V2, String::new()),
            b"cgroup" => {
                // What is not a filesystem's own option there is the hierarchy's name.
                let options = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
                let options = String::from_utf8_lossy(options).into_owned();
                let name = options.split(',').filter(|option| !OPTIONS.contains(option) && !is_agent(option));
                (CgroupVersion::V1, name.collect::<Vec<_>>().join(","))
            }
            _ => continue,
        };
        let this = Found { version, name, root: mount.root, target: mount.target };
        match found.iter_mut().find(|other| other.name == this.name) {
            // On top of the other.
            Some(other) if other.target == this.target => *other = this,
            Some(_) => {}
            None => found.push(this),
        }
    }
    found
}

/// What /proc/PID/mountinfo shows of a hierarchy of version 1 beside its controllers (kernel/cgroup/cgroup-v1.c).
const OPTIONS: [&str; 8] =
    ["rw", "ro", "noprefix", "xattr", "cpuset_v2_mode", "favordynmods", "clone_children", "seclabel"];

fn is_agent(option: &str) -> bool {
    option.starts_with("release_agent=")
}

pub(super) fn open_directory(at: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    openat(at, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

pub(super) fn open_to_write(directory: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, EndsWithContainer> {
    openat(directory, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed(Path::new(name)))
}

pub(super) fn set(directory: BorrowedFd<'_>, name: &str, value: &str) -> Result<(), EndsWithContainer> {
    let file = open_to_write(directory, name)?;
    rustix::io::write(file, value.as_bytes()).map(drop).map_err(failed(Path::new(name)))
}

pub(super) fn read_file(directory: BorrowedFd<'_>, path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = openat(directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    File::from(file).read_to_string(&mut text).map(|_| text)
}

pub(super) fn failed(path: &Path) -> impl FnOnce(Errno) -> EndsWithContainer {
    let path = path.to_owned();
    move |errno| EndsWithContainer::File { path, source: errno.into() }
}

impl ParentCgroup {
    /// Limits the memory of all helpers together. One of them is killed when it is hit.
    pub(super) fn limit_memory(&self, bytes: u64) -> Result<(), EndsWithContainer> {
        let file = if self.version == CgroupVersion::V1 { "memory.limit_in_bytes" } else { "memory.max" };
        set(self.directory.as_fd(), file, &bytes.to_string())
    }

    pub(super) fn is_in(&self, hierarchy: &Hierarchy) -> bool {
        self.version == hierarchy.version && (self.version == CgroupVersion::V2 || hierarchy.counts_memory())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_named_as_in_proc_pid_cgroup() {
        let table = b"32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 /m /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/lib/x,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
            42 31 0:29 /x /elsewhere rw - cgroup cgroup rw,cpu,cpuacct\n\
            43 32 0:29 /on/top /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n44 1 0:5 / /proc rw - proc proc rw\n";
        let found = parse(table);
        let names: Vec<_> = found.iter().map(|found| (found.version, found.name.as_str())).collect();
        assert_eq!(
            names,
            [(CgroupVersion::V1, "cpu,cpuacct"), (CgroupVersion::V1, "name=systemd"), (CgroupVersion::V2, "")]
        );
        assert_eq!(found[0].target, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!((&*found[0].root, &*found[1].root), (Path::new("/on/top"), Path::new("/m")));
    }
}
