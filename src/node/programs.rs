//! hostmount's programs on the node: how they get there, and how they go again.
//!
//! Runs in the container or on the node, as root, on a thread that stands in the node's mount namespace (see
//! [`MountNamespace::visit`]): paths are the node's own, and what is asked of a filesystem is asked where kubelet will
//! run the program.
//!
//! Nothing is ever written into an installed file. A new version takes the old one's name by rename(2); the old one stays
//! with the processes that run it, and the kernel frees it when the last of them has exited.
//!
//! [`MountNamespace::visit`]: linux::mount_namespace::MountNamespace::visit

use rustix::fs::{FlockOperation, StatVfsMountFlags, flock, statvfs};
use shims::mark::is_ours;
use shims::served_types::FILE as TYPES;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The operator's program, which is the mounter's as well.
const OPERATORS: &str = "hostmount";
/// The program that kubelet runs, and beside it the names that it answers to: symbolic links to it.
const SHIM: &str = "hostmount-shim";
const NAMES: [&str; 2] = ["mount", "umount"];
/// The FlexVolume driver's directory and program.
const DRIVER: (&str, &str) = ("hostmount~fuse", "fuse");

/// Directories of the node's, each where it is wanted.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// For `hostmount`, `mount` and `umount`.
    pub programs: Option<PathBuf>,
    /// Kubelet's FlexVolume plugin directory, for the driver `hostmount~fuse`.
    pub plugins: Option<PathBuf>,
}

/// What is to be installed: the programs of one version.
#[derive(Debug)]
pub struct Programs {
    operators: Vec<u8>,
    shim: Vec<u8>,
    types: String,
}

/// Why something cannot be installed, or taken away.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Not a path that means the same everywhere.
    #[error("{path} is not an absolute path: it names a directory of the node's", path = path.display())]
    Relative {
        /// The directory.
        path: PathBuf,
    },
    /// Its filesystem is mounted noexec.
    #[error("nothing can be run from {path}: its filesystem is mounted noexec on the node; choose another directory, or \
             make it executable (mount --bind DIR DIR, mount -o remount,bind,exec DIR)", path = path.display())]
    NoExec {
        /// The directory.
        path: PathBuf,
    },
    /// Its filesystem is mounted read-only.
    #[error("nothing can be put into {path}: its filesystem is mounted read-only on the node; choose another directory",
            path = path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
    /// A process that is not root's could exchange what kubelet runs there.
    #[error("others than root may change {path}, and kubelet would run what is in {directory} as root; choose another \
             directory, or take their right away", path = path.display(), directory = directory.display())]
    Exposed {
        /// The directory, or one above it.
        path: PathBuf,
        /// The directory.
        directory: PathBuf,
    },
    /// A program that is not hostmount's.
    #[error("{path} is not hostmount's, and stays as it is; choose a directory that holds no other program",
            path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A trial of the new version failed, and nothing was replaced.
    #[error("the node cannot run {path}, which is therefore not put in place: {problem}; a security policy of the node's \
             may forbid it in this directory", path = path.display())]
    Trial {
        /// The program, under its unfinished name.
        path: PathBuf,
        /// The kernel's error, or the program's exit status.
        problem: String,
    },
    /// Anything else.
    #[error("cannot {step} {path}", path = path.display())]
    Step {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

type Result<T> = std::result::Result<T, ProgramError>;

fn step(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ProgramError {
    move |source| ProgramError::Step { step, path: path.to_owned(), source }
}

impl Programs {
    /// This very program and the shim beside it, with the types that the mounter serves.
    pub fn of_this_container(types: BTreeSet<String>) -> Result<Self> {
        let this = Path::new("/proc/self/exe");
        let beside = fs::read_link(this).map_err(step("look for", this))?.with_file_name(SHIM);
        Ok(Self {
            operators: fs::read(this).map_err(step("read", this))?,
            shim: fs::read(&beside).map_err(step("read", &beside))?,
            types: types.into_iter().map(|fstype| fstype + "\n").collect(),
        })
    }
}

impl Places {
    /// Whether there is anything to do.
    pub fn any(&self) -> bool {
        self.programs.is_some() || self.plugins.is_some()
    }

    /// Whether an earlier version is in every place.
    pub fn are_filled(&self) -> bool {
        let programs = self.programs.as_ref().is_none_or(|directory| directory.join(NAMES[0]).exists());
        programs && self.plugins.as_ref().is_none_or(|plugins| plugins.join(DRIVER.0).join(DRIVER.1).exists())
    }

    /// Installs `programs`. What is there already, byte for byte, is not touched. Returns what was put in place.
    pub fn install(&self, programs: &Programs) -> Result<Vec<PathBuf>> {
        let mut done = Vec::new();
        if let Some(directory) = &self.programs {
            install_programs(directory, programs, &mut done)?;
        }
        if let Some(plugins) = &self.plugins {
            install_driver(plugins, programs, &mut done)?;
        }
        Ok(done)
    }

    /// Why nothing can be run from one of the places, or others than root could change what is.
    pub fn usable(&self) -> Result<()> {
        [&self.programs, &self.plugins].into_iter().flatten().try_for_each(|directory| usable(directory))
    }

    /// Which files are missing, or have another content than `programs`.
    pub fn differ(&self, programs: &Programs) -> Vec<PathBuf> {
        let mut files = Vec::new();
        if let Some(directory) = &self.programs {
            files.push((directory.join(SHIM), programs.shim.as_slice(), 0o755));
            files.push((directory.join(OPERATORS), &programs.operators, 0o755));
            files.push((directory.join(TYPES), programs.types.as_bytes(), 0o644));
        }
        if let Some(plugins) = &self.plugins {
            files.push((plugins.join(DRIVER.0).join(DRIVER.1), &programs.shim, 0o755));
        }
        let names = self.programs.iter().flat_map(|directory| NAMES.map(|name| directory.join(name)));
        let links = names.filter(|name| !leads_to(name, SHIM));
        let differ = files.into_iter().filter(|(path, content, mode)| !has(path, content, *mode));
        differ.map(|(path, _, _)| path).chain(links).collect()
    }

    /// Takes away what [`Places::install`] has put there, and the directories if nothing else is in them. Returns what
    /// was taken away.
    pub fn uninstall(&self) -> Result<Vec<PathBuf>> {
        let mut done = Vec::new();
        if let Some(directory) = &self.programs {
            ours_or_none(&directory.join(OPERATORS))?;
            ours_or_none(&directory.join(SHIM))?;
            // The names first: none shall lead nowhere.
            for name in NAMES.iter().filter(|name| is_our_link(&directory.join(name))) {
                remove(&directory.join(name), &mut done)?;
            }
            for name in [SHIM, OPERATORS, TYPES] {
                remove(&directory.join(name), &mut done)?;
            }
            for name in NAMES.iter().chain(&[SHIM, OPERATORS, TYPES]) {
                remove(&unfinished(directory, name), &mut done)?;
            }
            remove_if_empty(directory, &mut done)?;
        }
        if let Some(plugins) = &self.plugins {
            let (driver, program) = DRIVER;
            for directory in [plugins.join(driver), unfinished(plugins, driver)] {
                ours_or_none(&directory.join(program))?;
                remove(&directory.join(program), &mut done)?;
                remove(&unfinished(&directory, program), &mut done)?;
                remove_if_empty(&directory, &mut done)?;
            }
        }
        Ok(done)
    }
}

/// The program of this name that is found first in `path`, and whether it is hostmount's.
pub fn is_in_path(name: &str, path: &str) -> Option<(PathBuf, bool)> {
    let found = std::env::split_paths(path).map(|directory| directory.join(name)).find(|file| file.is_file())?;
    let ours = is_ours(&found);
    Some((found, ours))
}

fn install_programs(directory: &Path, programs: &Programs, done: &mut Vec<PathBuf>) -> Result<()> {
    // In a directory of the node's own programs, the names would replace what they are to become.
    if let Some(name) = NAMES.iter().find(|name| !is_our_link(&directory.join(name)) && exists(&directory.join(name))) {
        return Err(ProgramError::Foreign { path: directory.join(name) });
    }
    usable(directory)?;
    let types = directory.join(TYPES);
    let files = [(directory.join(SHIM), &programs.shim), (directory.join(OPERATORS), &programs.operators)];
    let same = files.iter().all(|(path, content)| has(path, content, 0o755));
    let same = same && has(&types, programs.types.as_bytes(), 0o644);
    if same && NAMES.iter().all(|name| leads_to(&directory.join(name), SHIM)) {
        return Ok(());
    }
    let lock = prepare(directory)?;
    put(&types, |file| write(file, programs.types.as_bytes(), 0o644))?;
    for (path, content) in files {
        put(&path, |file| write(file, content, 0o755).and_then(|()| try_it(file)))?;
        done.push(path);
    }
    for name in NAMES.map(|name| directory.join(name)) {
        put(&name, |link| symlink(SHIM, link).map_err(step("make the symbolic link", link)))?;
    }
    lock.sync_all().map_err(step("write to disk the directory", directory))
}

/// The driver is a copy: the plugin directory may be on another filesystem than the program. Kubelet watches the
/// directory and skips names that begin with a dot, so the driver appears by rename, the program in it.
fn install_driver(plugins: &Path, programs: &Programs, done: &mut Vec<PathBuf>) -> Result<()> {
    usable(plugins)?;
    let driver = plugins.join(DRIVER.0);
    let program = driver.join(DRIVER.1);
    if has(&program, &programs.shim, 0o755) {
        return Ok(());
    }
    let lock = prepare(plugins)?;
    let put_into = |directory: &Path| {
        let put = put(&directory.join(DRIVER.1), |file| write(file, &programs.shim, 0o755).and_then(|()| try_it(file)));
        put.and_then(|()| sync(directory))
    };
    if driver.is_dir() {
        put_into(&driver)?;
    } else {
        let unfinished = unfinished(plugins, DRIVER.0);
        fs::create_dir_all(&unfinished).map_err(step("create", &unfinished))?;
        put_into(&unfinished)?;
        fs::rename(&unfinished, &driver).map_err(step("put in place", &driver))?;
    }
    lock.sync_all().map_err(step("write to disk the directory", plugins))?;
    done.push(program);
    Ok(())
}

/// Refuses a directory, made or not yet made, that nothing can be run from, or that others than root can put something into.
fn usable(directory: &Path) -> Result<()> {
    if !directory.is_absolute() {
        return Err(ProgramError::Relative { path: directory.to_owned() });
    }
    let nearest = nearest(directory);
    let real = fs::canonicalize(nearest).map_err(step("look at", nearest))?;
    for path in real.ancestors() {
        let there = fs::metadata(path).map_err(step("look at", path))?;
        // In a sticky directory every user can make files, but can exchange only their own.
        let exposed = there.mode() & 0o002 != 0 && (there.mode() & 0o1000 == 0 || nearest == directory && path == real);
        if exposed || there.uid() != 0 {
            return Err(ProgramError::Exposed { path: path.to_owned(), directory: directory.to_owned() });
        }
    }
    if mount_flags(directory)?.contains(StatVfsMountFlags::NOEXEC) {
        return Err(ProgramError::NoExec { path: directory.to_owned() });
    }
    Ok(())
}

/// Makes the directory and takes its lock: two that install at once would rename each other's unfinished files.
fn prepare(directory: &Path) -> Result<File> {
    if mount_flags(directory)?.contains(StatVfsMountFlags::RDONLY) {
        return Err(ProgramError::ReadOnly { path: directory.to_owned() });
    }
    fs::create_dir_all(directory).map_err(step("create", directory))?;
    let lock = File::open(directory).map_err(step("open", directory))?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|errno| step("lock", directory)(errno.into()))?;
    Ok(lock)
}

/// How the filesystem is mounted that `path` is on, or will be on when it is made.
fn mount_flags(path: &Path) -> Result<StatVfsMountFlags> {
    let there = nearest(path);
    Ok(statvfs(there).map_err(|errno| step("look at the filesystem of", there)(errno.into()))?.f_flag)
}

/// `path`, or what is there of the way to it.
fn nearest(path: &Path) -> &Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"))
}

fn unfinished(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!(".{name}.new"))
}

/// Makes a file under a name of its own first, and renames it when it is whole.
fn put(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = unfinished(path.parent().unwrap_or(Path::new("/")), &name);
    remove(&unfinished, &mut Vec::new())?;
    if let Err(error) = make(&unfinished) {
        // The first error explains more than one of tidying up would.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    fs::rename(&unfinished, path).map_err(step("put in place", path))
}

/// On disk before it gets its name: a power failure must not leave an empty program that kubelet runs for every mount.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let written = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).and_then(|mut file| {
        file.write_all(content)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    });
    written.map_err(step("write", path))
}

fn sync(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(step("write to disk the directory", directory))
}

/// Runs it, on the node: whatever forbids that shall be known before it is in kubelet's way.
fn try_it(program: &Path) -> Result<()> {
    let trial = |problem| ProgramError::Trial { path: program.to_owned(), problem };
    let tried = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let tried = tried.map_err(|error| trial(error.to_string()))?;
    tried.status.success().then_some(()).ok_or_else(|| trial(tried.status.to_string()))
}

fn has(path: &Path, content: &[u8], mode: u32) -> bool {
    let right = fs::symlink_metadata(path).is_ok_and(|file| {
        file.is_file() && file.permissions().mode() & 0o7777 == mode && file.len() == content.len() as u64
    });
    right && fs::read(path).is_ok_and(|there| there == content)
}

fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Versions before there was a shim had the names lead to the operator's program.
fn is_our_link(path: &Path) -> bool {
    leads_to(path, SHIM) || leads_to(path, OPERATORS)
}

fn leads_to(path: &Path, name: &str) -> bool {
    fs::read_link(path).is_ok_and(|to| to == Path::new(name))
}

fn ours_or_none(path: &Path) -> Result<()> {
    if exists(path) && !is_ours(path) { Err(ProgramError::Foreign { path: path.to_owned() }) } else { Ok(()) }
}

fn remove(path: &Path, done: &mut Vec<PathBuf>) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => done.push(path.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(step("remove", path)(error)),
    }
    Ok(())
}

fn remove_if_empty(directory: &Path, done: &mut Vec<PathBuf>) -> Result<()> {
    match fs::remove_dir(directory) {
        Ok(()) => done.push(directory.to_owned()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {}
        Err(error) => return Err(step("remove the directory", directory)(error)),
    }
    Ok(())
}
