//! The demo, step by step, with a line for each step and the time it took.
//!
//! Runs in the demo's process, as root, outside of the machine; commands run inside it.

use crate::machine::{self, Machine, Network, Process, Propagation, Recipe, Room};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::time::Instant;

/// A pod's volume, where kubelet would want it.
const TARGET: &str = "/var/lib/kubelet/pods/demo/volumes/hostmount~fuse/data";
/// What statfs(2) calls any FUSE filesystem.
const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;
/// The directory of the node's that the mounter installs its static binary in.
const BIN: &str = "/opt/hostmount/bin";
/// Where the container has the programs, and its helper.
const CONTAINER_BIN: &str = "/usr/local/bin/hostmount";
const CONTAINER_SHIM: &str = "/usr/local/bin/hostmount-shim";
const HELPER: &str = "/usr/sbin/mount.memfs";
/// Kubelet may have what an administrator has opened: hostmount does not know this type.
const OPENED: &str = "[policy.kubelet.filesystem.memfs]\nsources = [\"demo\"]\noptions = [\"size\", \"mode\"]\n";

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Only root can make machines.
    #[error("it needs root: try it with sudo")]
    NotRoot,
    /// The kernel has no FUSE, or not yet.
    #[error("there is no /dev/fuse; load the module: modprobe fuse")]
    NoFuse,
    /// A program is missing beside this one.
    #[error("{0} is not built; use `make demo`")]
    NotBuilt(&'static str),
    /// The node has no libc.
    #[error("this build is not static and could not run on a node without a libc; use `make demo`")]
    NotStatic,
    /// Making the machine, or entering it.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// A step with files.
    #[error("{step} failed")]
    Files {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program of hostmount's.
    #[error("`{command}` failed: {words}")]
    Command {
        /// Its command line.
        command: String,
        /// Its output.
        words: String,
    },
    /// The mounter, with its log.
    #[error("the mounter exited; its log:\n{0}")]
    MounterEnded(String),
    /// A check of the demo failed.
    #[error("{0}")]
    Unexpected(String),
}

fn files(step: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |source| DemoError::Files { step, source }
}

/// Shows each step when it is done, with the time it took.
struct Timeline {
    last: Instant,
}

impl Timeline {
    fn step(&mut self, who: &str, what: &str) {
        println!("{:>8.1} ms  {who:<9}  {what}", self.last.elapsed().as_secs_f64() * 1e3);
        self.last = Instant::now();
    }

    fn show(&mut self, text: &str) {
        for line in text.lines() {
            println!("{:>24}{line}", "");
        }
        self.last = Instant::now();
    }
}

/// Shows the demo. Nothing of it is left afterwards, also on an error.
pub fn show() -> Result<(), DemoError> {
    check()?;
    let before = fs::read("/proc/self/mountinfo").map_err(files("reading this machine's mount table"))?;
    println!("\nAn immutable node, a container beside it, and one volume.\n");
    let mut time = Timeline { last: Instant::now() };

    let network = Network::new()?;
    let machine = Machine::start(&network, node_recipe())?;
    let node = machine.node();
    time.step("node", "a throw-away node: its own processes, mounts and network, a read-only root");
    let refused = node.visit(|| fs::write("/usr/installed", ""))?.err();
    let refused = refused.ok_or_else(|| DemoError::Unexpected("the node's root can be written to".to_owned()))?;
    let helpers = node.visit(|| Path::new("/dev/fuse").exists() || Path::new(HELPER).exists())?;
    time.show(&format!("installing something on it: {refused}"));
    time.show(&format!("a helper or /dev/fuse on it: {}", if helpers { "yes" } else { "none" }));

    let container = machine.room(container_recipe(Programs::find()?))?;
    run(&container, CONTAINER_BIN, &["install", "--to", BIN])?;
    time.step("container", "has the helper mount.memfs; installs the static program `mount` on the node");
    let mut mounter = Mounter::start(&container)?;
    time.step("container", "the mounter listens");

    let mount = format!("{BIN}/mount");
    run(node, &mount, &["-t", "memfs", "-o", "size=16m,mode=1777", "demo", TARGET])?;
    time.step("node", &format!("mount -t memfs demo {TARGET}"));
    time.show(&run(node, &format!("{BIN}/hostmount"), &["list"])?);
    time.show(&helper_status(&container)?);

    node.visit(|| fs::write(format!("{TARGET}/hello"), "written on the node\n"))?.map_err(files("writing"))?;
    let read = node.visit(|| fs::read_to_string(format!("{TARGET}/hello")))?.map_err(files("reading"))?;
    time.step("node", &format!("wrote a file, and read it back: {}", read.trim()));

    let pod = machine.room(Recipe::empty().from_node(TARGET, "/data", Propagation::None))?;
    let (text, owner) = pod.visit(write_as_user)?.map_err(files("reading and writing in the pod"))?;
    time.step("pod", &format!("started with the volume at /data; reads: {}", text.trim()));
    time.show(&format!("and writes a file of its own, owned by uid {owner}"));

    time.show("where the filesystem is visible:");
    for (who, room, path) in [("node", node, TARGET), ("pod", &pod, "/data"), ("container", &container, TARGET)] {
        time.show(&format!("  {who:<10} {}", sees(room, path)?));
    }

    run(node, &format!("{BIN}/umount"), &[TARGET])?;
    time.step("node", "umount: the pod goes on using it, as with any mount");
    time.show(&format!("  {:<10} {}\n  {:<10} {}", "node", sees(node, TARGET)?, "pod", sees(&pod, "/data")?));
    drop(pod);
    mounter.wait_for("volume.unmounted")?;
    time.step("pod", "ended: its copy was the last, so the helper has exited by itself and the volume is forgotten");

    drop(mounter);
    drop(container);
    drop(machine);
    time.step("", "everything is gone again");
    let after = fs::read("/proc/self/mountinfo").map_err(files("reading this machine's mount table"))?;
    if before != after {
        return Err(DemoError::Unexpected("this machine's own mount table has changed meanwhile".to_owned()));
    }
    time.show("this machine's own mount table never changed\n");
    Ok(())
}

fn check() -> Result<(), DemoError> {
    if !nix::unistd::geteuid().is_root() {
        return Err(DemoError::NotRoot);
    }
    if !Path::new("/dev/fuse").exists() {
        return Err(DemoError::NoFuse);
    }
    if !cfg!(target_feature = "crt-static") {
        return Err(DemoError::NotStatic);
    }
    Ok(())
}

/// The programs that are shown, which cargo has put beside this one.
struct Programs {
    testbed: PathBuf,
    hostmount: PathBuf,
    shim: PathBuf,
}

impl Programs {
    fn find() -> Result<Self, DemoError> {
        let testbed = std::env::current_exe().map_err(files("finding this program's own file"))?;
        let beside = |name: &'static str| {
            let program = testbed.with_file_name(name);
            if program.exists() { Ok(program) } else { Err(DemoError::NotBuilt(name)) }
        };
        Ok(Self { hostmount: beside("hostmount")?, shim: beside("hostmount-shim")?, testbed })
    }
}

/// The node has no program, until the mounter installs hostmount's in a directory.
fn node_recipe() -> Recipe {
    Recipe::empty()
        .writable(["/var/lib/kubelet", "/run", "/tmp"])
        .share("socket", "/run/hostmount")
        .share("bin", BIN)
        .setup(|| {
            fs::create_dir_all(TARGET)?;
            fs::create_dir_all("/usr")
        })
        .shared()
        .read_only()
}

fn container_recipe(programs: Programs) -> Recipe {
    Recipe::empty()
        .fuse()
        .writable(["/run", "/tmp"])
        .share("socket", "/run/hostmount")
        .share("bin", BIN)
        .bind(programs.hostmount, CONTAINER_BIN)
        .bind(programs.shim, CONTAINER_SHIM)
        .bind(programs.testbed, HELPER)
        .setup(|| {
            fs::create_dir_all("/etc/hostmount")?;
            fs::write("/etc/hostmount/config.toml", OPENED)
        })
}

fn run(room: &Room, program: &str, arguments: &[&str]) -> Result<String, DemoError> {
    let mut command = Room::command(program);
    command.args(arguments);
    let output = room.output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DemoError::Command { command: format!("{program} {}", arguments.join(" ")), words })
}

/// Reads the node's file and writes one as an ordinary user would own it.
fn write_as_user() -> io::Result<(String, u32)> {
    let text = fs::read_to_string("/data/hello")?;
    fs::write("/data/from-the-pod", "written in a pod\n")?;
    chown("/data/from-the-pod", Some(1000), Some(1000))?;
    Ok((text, fs::metadata("/data/from-the-pod")?.uid()))
}

/// What is at `path` in the room, by the type of the filesystem there.
fn sees(room: &Room, path: &str) -> Result<String, DemoError> {
    Ok(match room.visit(|| rustix::fs::statfs(path))? {
        Ok(stat) if stat.f_type == FUSE_SUPER_MAGIC => format!("the volume at {path}"),
        Ok(_) => format!("an empty directory at {path}"),
        Err(_) => format!("nothing: there is no {path} in it"),
    })
}

/// The helper's status from the kernel: no capability, although it has mounted.
fn helper_status(container: &Room) -> Result<String, DemoError> {
    let look = || {
        for entry in fs::read_dir("/proc")?.flatten() {
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if comm.trim() == "mount.memfs" {
                let status = fs::read_to_string(entry.path().join("status"))?;
                let keep = |line: &&str| {
                    ["CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:"].iter().any(|key| line.starts_with(key))
                };
                let facts: Vec<_> = status.lines().filter(keep).map(|line| line.replace('\t', " ")).collect();
                return Ok(facts.join("  "));
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "no process mount.memfs"))
    };
    let facts = container.visit(look)?.map_err(files("looking at the helper"))?;
    Ok(format!("the helper: {facts}"))
}

/// The mounter, and its log.
struct Mounter {
    process: Process,
    log: BufReader<ChildStderr>,
    said: String,
}

impl Mounter {
    fn start(container: &Room) -> Result<Self, DemoError> {
        let mut command: Command = Room::command(CONTAINER_BIN);
        command.arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = container.spawn(command)?;
        let log = process.stderr.take().ok_or_else(|| DemoError::Unexpected("the mounter has no log".to_owned()))?;
        let mut mounter = Self { process, log: BufReader::new(log), said: String::new() };
        mounter.wait_for("mounter.ready")?;
        Ok(mounter)
    }

    /// Reads its log up to this event.
    fn wait_for(&mut self, event: &str) -> Result<(), DemoError> {
        let field = format!("\"event\":\"{event}\"");
        loop {
            let mut line = String::new();
            let length = self.log.read_line(&mut line).map_err(files("reading the mounter's log"))?;
            self.said.push_str(&line);
            if line.contains(&field) {
                return Ok(());
            }
            if length == 0 {
                let _ = self.process.wait();
                return Err(DemoError::MounterEnded(self.said.clone()));
            }
        }
    }
}
