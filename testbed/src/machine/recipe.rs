//! The recipe of a room, and making it: from a copy of the real mounts to a root that holds what the recipe names.
//!
//! Runs in the process that makes the machine, as root, on a thread in a new mount namespace of its own. What comes
//! from outside is gathered first as detached mounts; then the root is changed; then everything is put in place. So
//! each path inside the room is resolved inside the room, and no symlink in it can lead to the real disk.

use super::cgroups::Cgroups;
use super::{Error, SCRATCH, at, open_namespace, step};
use linux::statx::device_at;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chdir, pivot_root};
use rustix::fs::{CWD, FileType, fstat};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

/// What a room is made of. Every room has `/proc` (the machine's), `/sys` and a small `/dev`.
#[must_use]
pub struct Recipe {
    files: Option<PathBuf>,
    fuse: bool,
    read_only: bool,
    shared: bool,
    hidden: Vec<PathBuf>,
    writable: Vec<PathBuf>,
    shares: Vec<(String, PathBuf)>,
    binds: Vec<(PathBuf, PathBuf)>,
    from_node: Vec<(PathBuf, PathBuf, Propagation)>,
    setup: Option<Setup>,
}

type Setup = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Whether mounts made on the node later show in a directory that was taken from it; Kubernetes' words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// No: as a container runtime does when nothing is asked for (rprivate).
    None,
    /// Yes (rslave).
    HostToContainer,
}

impl Recipe {
    /// A root with nothing in it.
    pub fn empty() -> Self {
        Self {
            files: None,
            fuse: false,
            read_only: false,
            shared: false,
            hidden: Vec::new(),
            writable: Vec::new(),
            shares: Vec::new(),
            binds: Vec::new(),
            from_node: Vec::new(),
            setup: None,
        }
    }

    /// A root with all that is on the real root filesystem. What is changed there stays in memory.
    pub fn userland() -> Self {
        Self::files_of("/")
    }

    /// A root with all that is in a directory of the real machine. What is changed there stays in memory.
    pub fn files_of(directory: impl Into<PathBuf>) -> Self {
        Self { files: Some(directory.into()), ..Self::empty() }
    }

    /// Gives it `/dev/fuse`.
    pub fn fuse(mut self) -> Self {
        self.fuse = true;
        self
    }

    /// Makes the root read-only in the end. What is mounted below it is not touched.
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// Makes it a node as systemd sets it up: all mounts shared, the control filesystem of FUSE mounted.
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }

    /// Removes these files and directories, if they exist.
    pub fn without<P: Into<PathBuf>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.hidden.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Mounts an empty tmpfs at each of these paths.
    pub fn writable<P: Into<PathBuf>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.writable.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Shows at `path` the directory `name` of the machine: the same one in every room that asks for it.
    pub fn share(mut self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.shares.push((name.into(), path.into()));
        self
    }

    /// Shows at `path` the file or directory `real` of the real machine.
    pub fn bind(mut self, real: impl Into<PathBuf>, path: impl Into<PathBuf>) -> Self {
        self.binds.push((real.into(), path.into()));
        self
    }

    /// Shows at `path` what is at `node_path` on the node, with all that is mounted below it: a pod's volume.
    pub fn from_node(mut self, node_path: impl Into<PathBuf>, path: impl Into<PathBuf>, how: Propagation) -> Self {
        self.from_node.push((node_path.into(), path.into(), how));
        self
    }

    /// Runs `work` inside the room when everything is mounted and the root still writable. It sees nothing of the real
    /// machine: a file that it needs from there (a program to copy) it must hold open.
    pub fn setup(mut self, work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Self {
        self.setup = Some(Box::new(work));
        self
    }

    /// Shows the machine's cgroups in the place of the real ones.
    pub(super) fn cgroups(self, cgroups: &Cgroups) -> Self {
        cgroups.shown().fold(self, |recipe, (own, at)| recipe.bind(own, at))
    }

    /// Runs in the node's mount namespace.
    pub(super) fn copy_from_node(&mut self) -> Result<Vec<DetachedMount>, Error> {
        let copy = |(node_path, path, how): (PathBuf, PathBuf, _)| DetachedMount::copy(&node_path, path, how, true);
        self.from_node.drain(..).map(copy).collect()
    }

    /// Makes the room in a new mount namespace of the calling thread, and leaves the thread standing in it.
    pub(super) fn build(
        mut self,
        scratch: BorrowedFd<'_>,
        number: u32,
        from_node: Vec<DetachedMount>,
        proc: Option<DetachedMount>,
    ) -> Result<Built, Error> {
        unshare(CloneFlags::CLONE_FS).map_err(step("leave the process's root and working directory"))?;
        setns(scratch, CloneFlags::CLONE_NEWNS).map_err(step("enter the machine's scratch namespace"))?;
        unshare(CloneFlags::CLONE_NEWNS).map_err(step("make the room's mount namespace"))?;
        let built = Built {
            thread: File::open("/proc/thread-self").map_err(at("open", "/proc/thread-self"))?,
            namespace: open_namespace("/proc/thread-self/ns/mnt")?,
        };
        let root = self.mount_root(number)?;
        let devices = self.copy_devices()?;
        let mut mounts: Vec<DetachedMount> = proc.into_iter().collect();
        mounts.push(DetachedMount::copy("/sys", "/sys", Propagation::None, true)?);
        let first_volume = mounts.len();
        mounts.extend(self.copy_sources()?);
        mounts.extend(from_node);
        let volumes = mounts.split_off(first_volume);
        change_root(&root)?;
        self.furnish(devices, mounts, volumes)?;
        Ok(built)
    }

    /// Mounts the new root, still outside of it.
    fn mount_root(&self, number: u32) -> Result<PathBuf, Error> {
        let disk = Path::new(SCRATCH).join("room").join(number.to_string());
        let [root, upper, work] = ["root", "upper", "work"].map(|name| disk.join(name));
        for directory in [&root, &upper, &work] {
            make_directory(directory)?;
        }
        let (kind, data) = match &self.files {
            Some(files) => {
                let [lower, upper, work] = [files, &upper, &work].map(|path| path.display());
                ("overlay", format!("lowerdir={lower},upperdir={upper},workdir={work}"))
            }
            None => ("tmpfs", "mode=755".to_owned()),
        };
        mount(Some(kind), &root, Some(kind), MsFlags::empty(), Some(data.as_str()))
            .map_err(at("mount the room's root on", &root))?;
        Ok(root)
    }

    fn copy_devices(&self) -> Result<Vec<DetachedMount>, Error> {
        let always = ["null", "zero", "full", "random", "urandom", "tty"];
        let copy = |name| {
            let path = Path::new("/dev").join(name);
            DetachedMount::copy(&path, &path, Propagation::None, false)
        };
        always.into_iter().chain(self.fuse.then_some("fuse")).map(copy).collect()
    }

    fn copy_sources(&mut self) -> Result<Vec<DetachedMount>, Error> {
        for (name, path) in self.shares.drain(..) {
            let directory = Path::new(SCRATCH).join("share").join(name);
            make_directory(&directory)?;
            self.binds.push((directory, path));
        }
        let copy = |(source, path): (PathBuf, PathBuf)| DetachedMount::copy(&source, path, Propagation::None, true);
        self.binds.drain(..).map(copy).collect()
    }

    /// All that is done inside the new root.
    fn furnish(
        self,
        devices: Vec<DetachedMount>,
        system: Vec<DetachedMount>,
        volumes: Vec<DetachedMount>,
    ) -> Result<(), Error> {
        let none = None::<&str>;
        for path in &self.hidden {
            remove(path)?;
        }
        // PID 1 mounts the node's later.
        make_directory(Path::new("/proc"))?;
        mount_tmpfs(Path::new("/dev"))?;
        for mount in devices.into_iter().chain(system) {
            mount.attach()?;
        }
        for (name, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
            let link = Path::new("/dev").join(name);
            symlink(Path::new("/proc/self").join(target), &link).map_err(at("make the symlink", &link))?;
        }
        for path in &self.writable {
            mount_tmpfs(path)?;
        }
        for mount in volumes {
            mount.attach()?;
        }
        if let Some(setup) = self.setup {
            setup().map_err(step("set up the room"))?;
        }
        if self.read_only {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(none, "/", none, flags, none).map_err(at("make read-only", "/"))?;
        }
        if self.shared {
            mount_fusectl()?;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).map_err(at("make shared", "/"))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipe").field("files", &self.files).finish_non_exhaustive()
    }
}

/// A room that was made, and the thread that stands in it.
pub(super) struct Built {
    /// The thread's directory in the real /proc.
    pub(super) thread: File,
    pub(super) namespace: OwnedFd,
}

/// A copy of a mount, attached nowhere yet.
#[derive(Debug)]
pub(super) struct DetachedMount {
    fd: OwnedFd,
    path: PathBuf,
    propagation: Propagation,
}

impl DetachedMount {
    /// Copies what is at `source`, to be attached at `path`. Runs in the mount namespace of the source.
    pub(super) fn copy(
        source: impl AsRef<Path>,
        path: impl Into<PathBuf>,
        propagation: Propagation,
        recursive: bool,
    ) -> Result<Self, Error> {
        let source = source.as_ref();
        let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
        let fd = open_tree(CWD, source, flags).map_err(at("copy the mount at", source))?;
        Ok(Self { fd, path: path.into(), propagation })
    }

    fn attach(self) -> Result<(), Error> {
        let stat = fstat(&self.fd).map_err(at("look at what goes to", &self.path))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            make_directory(&self.path)?;
        } else {
            self.path.parent().map_or(Ok(()), make_directory)?;
            File::create(&self.path).map_err(at("create the mount point", &self.path))?;
        }
        move_mount(&self.fd, c"", CWD, &self.path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(at("attach a mount at", &self.path))?;
        // A copy is a peer of its source: mounts made here would propagate there.
        let kind = match self.propagation {
            Propagation::None => MsFlags::MS_PRIVATE,
            Propagation::HostToContainer => MsFlags::MS_SLAVE,
        };
        mount(None::<&str>, &self.path, None::<&str>, MsFlags::MS_REC | kind, None::<&str>)
            .map_err(at("set the propagation of", &self.path))
    }
}

/// Makes `root` the root of this mount namespace and detaches everything else that was mounted in it.
fn change_root(root: &Path) -> Result<(), Error> {
    chdir(root).map_err(at("change to", root))?;
    // The old root ends up on top of the new one, where it can be detached without a directory to put it in.
    pivot_root(".", ".").map_err(at("make a root of", root))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(at("detach the old root, under", root))?;
    chdir("/").map_err(at("change to", "/"))
}

/// It is mounted already if the real machine has it, as with systemd: /sys was copied with the mounts in it.
fn mount_fusectl() -> Result<(), Error> {
    let path = Path::new("/sys/fs/fuse/connections");
    if device_at(path).map_err(at("look at", path))?.is_some() {
        return Ok(());
    }
    mount(Some("fusectl"), path, Some("fusectl"), MsFlags::empty(), None::<&str>).map_err(at("mount fusectl on", path))
}

fn mount_tmpfs(path: &Path) -> Result<(), Error> {
    make_directory(path)?;
    let for_everybody = path.components().next_back() == Some(Component::Normal("tmp".as_ref()));
    let mode = if for_everybody { "mode=1777" } else { "mode=755" };
    mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(mode)).map_err(at("mount a tmpfs on", path))
}

fn make_directory(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(at("create the directory", path))
}

fn remove(path: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(at("remove", path))
}
