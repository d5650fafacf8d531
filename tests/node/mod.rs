//! The test node: an immutable node and, beside it, the container with the mounter; machines of this test alone.
//!
//! Runs in the tests' process, as root. What a room's commands see is a copy in memory of the real root filesystem.
#![allow(unreachable_pub, reason = "a test program has no outside")]

pub mod background;
pub mod by_path;
pub mod cgroups;
pub mod container;
pub mod counted;
pub mod failures;
pub mod fault;
pub mod filesystems;
pub mod fusermount3;
pub mod gluster;
pub mod job;
pub mod manifest;
pub mod mapped_container;
pub mod moosefs;
pub mod mounter;
pub mod notes;
pub mod old_kernel;
pub mod open_files;
pub mod pod;
pub mod pod_volume;
pub mod preloaded;
pub mod programs;
pub mod servers;
pub mod setting;
pub mod sshd;
pub mod two_pods;

use mounter::Mounter;
use notes::note;
use programs::{TESTBED, show_programs, target_directory};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use testbed::machine::{Machine, Network, Process, Propagation, Recipe, Room};

/// Where the node has it, with its other names beside it.
pub const NODE_BIN: &str = "/opt/hostmount/bin";

/// Where the container and the CSI driver's share a directory.
pub const CSI_DOOR: &str = "/run/csi-door";

/// The address that a [`gluster`] or [`sshd`] server of the node's network listens on.
pub const SERVER_ADDRESS: &str = "10.77.0.1";

/// Podman as it runs on a node. crun refuses the hybrid cgroups that some machines have.
pub const PODMAN: &str = "podman --runtime runc --cgroup-manager cgroupfs --events-backend none";

/// What the packages with FUSE helpers bring, by the first letters of its name. The node has none of it.
const HELPERS: &[&str] = &[
    "mount.fuse",
    "mount.glusterfs",
    "mount.sshfs",
    "mount.memfs",
    "mount.nfs",
    "mount.cifs",
    "umount.fuse",
    "fusermount",
    "gluster",
    "gf_attach",
    "sshfs",
    "bindfs",
    "squashfuse",
    "s3fs",
    "goofys",
    "rclone",
    "mergerfs",
    "gocryptfs",
    "fuse-overlayfs",
    "archivemount",
    "fuseiso",
    "fuse-zip",
    "fuse2fs",
    "unionfs",
    "encfs",
    "cryfs",
    "mount.davfs",
    "umount.davfs",
    "mount.moosefs",
    "mfsmount",
];

/// Processes of a machine: PID and command line.
pub type Processes = BTreeMap<u32, String>;

/// A node on which nothing can be installed, and its mounter's container.
///
/// The order of the fields is the order of their end: the machine last.
#[derive(Debug)]
pub struct TestNode {
    /// The container: userland with the helpers, /dev/fuse, the programs in /usr/local/bin.
    pub container: Place,
    /// The node: userland without a helper, on a read-only root; the programs in [`NODE_BIN`].
    pub node: Place,
    /// The network of both, for servers to join.
    pub network: Network,
    machine: Machine,
}

impl TestNode {
    /// Starts one. The mounter does not run yet.
    pub fn start() -> Self {
        Self::start_in(&Network::new().unwrap())
    }

    /// Starts one in a network that others may share.
    pub fn start_in(network: &Network) -> Self {
        Self::start_sharing(network, &[])
    }

    /// Starts one whose container shares these directories with other rooms: what they are known by, and where they are.
    pub fn start_sharing(network: &Network, shared: &[(&str, &str)]) -> Self {
        let recipe = show_programs(Recipe::userland(), NODE_BIN)
            .without(helpers())
            .read_only()
            .shared()
            .writable(["/var/lib/kubelet", "/run", "/tmp", "/mnt", "/opt/hostmount"])
            .share("socket", "/run/hostmount")
            .setup(|| {
                symlink("hostmount-shim", format!("{NODE_BIN}/mount"))?;
                symlink("hostmount-shim", format!("{NODE_BIN}/umount"))
            });
        let machine = Machine::start(network, recipe).unwrap();
        let container = show_programs(Recipe::userland(), "/usr/local/bin")
            .fuse()
            .writable(["/run", "/tmp"])
            .share("socket", "/run/hostmount")
            .share("csi", CSI_DOOR)
            .bind(&*TESTBED, "/usr/sbin/mount.memfs");
        let container = shared.iter().fold(container, |recipe, (name, path)| recipe.share(*name, *path));
        let container = Place(machine.room(container).unwrap());
        let node = Place(machine.node().clone());
        Self { container, node, network: network.clone(), machine }
    }

    /// Writes the mounter's configuration.
    pub fn configure(&self, text: &str) {
        self.container.visit(|| {
            fs::create_dir_all("/etc/hostmount").unwrap();
            fs::write("/etc/hostmount/config.toml", text).unwrap();
        });
    }

    /// A pod: a room that shows directories of the node, as a container runtime would bind them.
    pub fn pod(&self, volumes: &[(&str, &str)], how: Propagation) -> Place {
        let recipe = Recipe::userland().without(helpers()).read_only().writable(["/tmp"]);
        let with = |recipe: Recipe, (from, to): &(&str, &str)| recipe.from_node(*from, *to, how);
        Place(self.machine.room(volumes.iter().fold(recipe, with)).unwrap())
    }

    /// Another room of the machine.
    pub fn room(&self, recipe: Recipe) -> Place {
        Place(self.machine.room(recipe).unwrap())
    }

    /// Starts `hostmount serve` in the container; returns when its socket takes connections.
    pub fn start_mounter(&self, extra_args: &[&str], env: &[(&str, &str)]) -> Mounter {
        Mounter::start(&self.container, extra_args, env)
    }

    /// Runs `hostmount mount` on the node, as an operator does.
    pub fn mount<S: AsRef<OsStr>>(&self, args: &[S]) -> Done {
        let mount = std::iter::once(OsStr::new("mount"));
        self.node.run(format!("{NODE_BIN}/hostmount"), &mount.chain(args.iter().map(AsRef::as_ref)).collect::<Vec<_>>())
    }

    /// Runs our `mount` on the node, as kubelet does.
    pub fn kubelets_mount<S: AsRef<OsStr>>(&self, args: &[S]) -> Done {
        self.node.run(format!("{NODE_BIN}/mount"), args)
    }

    /// Runs our `umount` on the node.
    pub fn umount<S: AsRef<OsStr>>(&self, args: &[S]) -> Done {
        self.node.run(format!("{NODE_BIN}/umount"), args)
    }

    /// [`Place::processes`] of the node.
    pub fn processes(&self) -> Processes {
        self.node.processes()
    }

    /// The PIDs of the processes that have `word` in their command line.
    pub fn pids_of(&self, word: &str) -> Vec<u32> {
        self.processes().into_iter().filter(|(_, line)| line.contains(word)).map(|(pid, _)| pid).collect()
    }

    /// [`Place::wait_for_processes`] of the node.
    #[track_caller]
    pub fn wait_for_processes(&self, word: &str, count: usize) {
        self.node.wait_for_processes(word, count);
    }

    /// The open descriptors of a process of the machine, by its PID in there: number and what it leads to.
    pub fn descriptors(&self, pid: u32) -> BTreeMap<u32, PathBuf> {
        self.node.visit(|| {
            let entry = |entry: std::io::Result<fs::DirEntry>| {
                let entry = entry.unwrap();
                let number = entry.file_name().to_str()?.parse().ok()?;
                Some((number, fs::read_link(entry.path()).ok()?))
            };
            fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(entry).collect()
        })
    }
}

/// A room, with functions for tests. A failure of the test machinery itself panics.
#[derive(Debug, Clone)]
pub struct Place(pub Room);

impl Place {
    /// Runs a line of shell.
    pub fn sh(&self, line: &str) -> Done {
        self.run("/bin/sh", &["-c", line])
    }

    /// Runs a line of shell that is expected to work, and returns what it printed.
    #[track_caller]
    pub fn sh_ok(&self, line: &str) -> String {
        self.sh(line).ok(line)
    }

    /// Runs a program.
    pub fn run<S: AsRef<OsStr>>(&self, program: impl AsRef<OsStr>, args: &[S]) -> Done {
        let mut command = Room::command(program);
        command.args(args);
        self.0.output(command).unwrap().into()
    }

    /// Starts a program; dropped, it is killed.
    pub fn spawn(&self, command: Command) -> Process {
        self.0.spawn(command).unwrap()
    }

    /// Every process of the machine, as its own /proc shows it: PID and command line (or name, where it has none).
    pub fn processes(&self) -> Processes {
        self.visit(|| {
            let mut found = BTreeMap::new();
            for entry in fs::read_dir("/proc").unwrap() {
                let entry = entry.unwrap();
                let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
                // A process may end while we look: then it is not there.
                let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
                let Ok(name) = fs::read_to_string(entry.path().join("comm")) else { continue };
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                found.insert(pid, if pid == 1 || line.is_empty() { name } else { line }.trim().to_owned());
            }
            found
        })
    }

    /// Waits until so many processes have `word` in their command line. One that has exited is listed until it is
    /// collected, a moment later.
    #[track_caller]
    pub fn wait_for_processes(&self, word: &str, count: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.processes().values().filter(|line| line.contains(word)).count() != count {
            assert!(Instant::now() < deadline, "not {count} of {word}: {:?}", self.processes());
            std::thread::yield_now();
        }
    }

    /// A process that does nothing until it is dropped: a pod's mounts show in the node's /proc while one of its runs.
    pub fn live(&self) -> Process {
        let mut command = Room::command("sleep");
        command.arg("infinity").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.spawn(command)
    }

    /// Runs `work` among the room's files.
    pub fn visit<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.visit(work).unwrap()
    }

    /// Writes a program, in the place of whatever is at `path`.
    pub fn program(&self, path: &str, content: impl AsRef<[u8]> + Send) {
        self.visit(|| {
            let new = format!("{path}.new");
            fs::write(&new, content).unwrap();
            fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
            fs::rename(new, path).unwrap();
        });
    }

    /// Writes a helper for a type, of these lines of shell; `$1` is the source, `$2` the mount point.
    pub fn helper(&self, fstype: &str, lines: &str) {
        self.program(&format!("/usr/sbin/mount.{fstype}"), format!("#!/bin/sh\n{lines}\n"));
    }

    /// Hides SELinux from its programs: Debian's policy does not know the labels that its podman gives to containers.
    pub fn hide_selinux(&self) {
        // Wherever it is mounted: what stands for an image may have it too.
        self.sh_ok(
            "findmnt --raw --noheadings --output TARGET --types selinuxfs | tac | xargs --no-run-if-empty -n 1 umount",
        );
    }

    /// The lines of the room's mount table.
    pub fn mountinfo(&self) -> Vec<String> {
        // The machine's /proc does not know our threads: a process of the machine must look.
        self.sh_ok("cat /proc/self/mountinfo").lines().map(str::to_owned).collect()
    }

    /// The lines of FUSE filesystems.
    pub fn fuse_mounts(&self) -> Vec<String> {
        self.mountinfo().into_iter().filter(|line| is_fuse(line)).collect()
    }

    /// The line for the topmost mount at exactly `path`, if there is one.
    pub fn mount_at(&self, path: &str) -> Option<String> {
        self.mountinfo().into_iter().rfind(|line| line.split(' ').nth(4) == Some(path))
    }
}

/// A command that has exited.
#[derive(Debug)]
pub struct Done {
    /// The exit code, or None if a signal killed it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Done {
    /// Panics unless it exited with 0; returns what it printed.
    #[track_caller]
    pub fn ok(self, what: &str) -> String {
        assert_eq!(self.code, Some(0), "{what}: {}{}", self.stdout, self.stderr);
        self.stdout
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Whether this line of a mount table is a FUSE filesystem's. fusectl, which machines with systemd show below /sys, is none.
pub fn is_fuse(line: &str) -> bool {
    line.contains(" - fuse ") || line.contains(" - fuse.")
}

/// The fields of a mount that a replacement must keep: root, target, options, and what kind of propagation it has.
pub fn kept(line: &str) -> Vec<String> {
    let fields: Vec<&str> = line.split(' ').collect();
    let kinds = fields[6..].iter().take_while(|field| **field != "-").map(|field| field.split(':').next().unwrap());
    fields[3..6].iter().copied().chain(kinds).map(str::to_owned).collect()
}

/// Configuration that opens types to callers from an origin, with all their sources and options.
pub fn opened(origin: &str, types: &[&str]) -> String {
    let section = |name: &&str| format!("[policy.{origin}.filesystem.{name}]\nsources = [\"**\"]\noptions = [\"*\"]\n");
    types.iter().map(section).collect()
}

/// `hostmount mount` on the node, as an operator runs it; its arguments follow.
pub fn operators_mount() -> Command {
    let mut command = Room::command(format!("{NODE_BIN}/hostmount"));
    command.arg("mount");
    command
}

/// A source of chance whose seed is noted; `HOSTMOUNT_SEED` repeats a run.
pub fn chance() -> fastrand::Rng {
    let given = std::env::var("HOSTMOUNT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    note(format!("HOSTMOUNT_SEED={seed}"));
    fastrand::Rng::with_seed(seed)
}

/// Why no test node can be started here.
pub fn obstacle() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    (!Path::new("/dev/fuse").exists()).then(|| "no /dev/fuse".to_owned())
}

/// The first of these programs that is not here, in words. One with a slash in its name is [`fetched`].
pub fn missing(programs: &[&str]) -> Option<String> {
    let is_here = |program: &&&str| match program.contains('/') {
        true => fetched(program).exists(),
        false => which::which_in(program, Some(SEARCH), "/").is_ok(),
    };
    programs.iter().find(|program| !is_here(program)).map(|program| format!("no {program}"))
}

/// Where something is, or would be, that `make packages` has fetched into cargo's target directory.
pub fn fetched(path: &str) -> PathBuf {
    target_directory().join(path)
}

const SEARCH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The helpers that this machine has, to be hidden from a node.
pub fn helpers() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in SEARCH.split(':') {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if HELPERS.iter().any(|helper| name.starts_with(helper)) {
                found.push(entry.path());
            }
        }
    }
    found
}
