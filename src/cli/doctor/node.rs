//! What is on the node: kubelet as it runs, propagation of mounts, and dead mounts that nobody has.
//!
//! Runs in the container; it reads the node's /proc, and visits its mount namespace. Kubelet's own program is run there once, for its
//! version.

use super::finding::Found;
use crate::config::Config;
use crate::node::programs::is_in_path;
use api::volume::VolumeView;
use linux::mount_namespace::MountNamespace;
use linux::mount_table::Mount;
use linux::processes::{self, Process};
use linux::sys::ask::{Patience, answers_at, open};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, OFlags};
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long one dead or slow filesystem, or kubelet's program, may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many mounts are tried.
const TRIED: usize = 64;
/// How much of a file or an answer is read.
const LONGEST: u64 = 1 << 20;
/// Where kubelet looks for FlexVolume drivers if it is told nothing else.
const DEFAULT_PLUGINS: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";

/// Kubelet, as its process shows it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Kubelet {
    pid: i32,
    program: PathBuf,
    root: PathBuf,
    plugins: Option<PathBuf>,
    path: String,
}

impl Kubelet {
    /// The one that runs on the node: root's, and in the node's own mount namespace. A process of a pod may have any name and any arguments,
    /// and its program is about to be run.
    pub(super) fn find(host_proc: &Path, node: &MountNamespace) -> Option<Self> {
        let home = node.id().ok()?;
        let is_roots = |process: &Process| {
            let status = process.read("status").unwrap_or_default();
            let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
            !uids.is_empty() && uids.split_whitespace().all(|uid| uid == "0")
        };
        let is_nodes = |process: &Process| process.mount_namespace().is_ok_and(|id| id == home);
        let mut all = processes::all(host_proc).ok()?.into_iter();
        let process = all.find(|process| process.name() == "kubelet" && is_nodes(process) && is_roots(process))?;
        let line = process.read("cmdline").ok()?;
        let words: Vec<&str> = line.split_terminator('\0').collect();
        let path = process.read("environ").unwrap_or_default();
        let path = path.split('\0').find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default().to_owned();
        let program = words.iter().map(Path::new).find(|word| word.is_absolute() && word.ends_with("kubelet"));
        let program = program.map_or_else(|| fs::read_link(process.file("exe")).unwrap_or_default(), Path::to_owned);
        let config =
            flag(&words, "--config").and_then(|file| node.visit(|| read_some(Path::new(&file))).ok().flatten());
        let pid = process.pid().as_raw_nonzero().get();
        Some(Self { pid, program, path, ..Self::understood(&words, &config.unwrap_or_default()) })
    }

    /// From its arguments, and its configuration file.
    fn understood(words: &[&str], config: &str) -> Self {
        let root = flag(words, "--root-dir").unwrap_or_else(|| "/var/lib/kubelet".to_owned()).into();
        let of_file = || config.lines().find_map(|line| line.strip_prefix("volumePluginDir:"));
        let of_file = || of_file().map(|path| path.trim().trim_matches(['"', '\'']).to_owned());
        let plugins = flag(words, "--volume-plugin-dir").or_else(of_file).filter(|path| !path.is_empty());
        Self { root, plugins: plugins.map(PathBuf::from), ..Self::default() }
    }

    /// What it says of itself; asked on the node.
    fn version(&self, node: &MountNamespace) -> Option<String> {
        let ask = || said_by(Command::new(&self.program).arg("--version"));
        node.visit(ask).ok().flatten().map(|said| said.lines().next().unwrap_or_default().to_owned())
    }
}

fn flag(words: &[&str], name: &str) -> Option<String> {
    let at = words
        .iter()
        .position(|word| word.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))?;
    let value = words[at].strip_prefix(name)?.strip_prefix('=').or_else(|| words.get(at + 1).copied())?;
    Some(value.to_owned())
}

fn read_some(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// What a program writes, if it ends soon.
fn said_by(command: &mut Command) -> Option<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let mut output = child.stdout.take()?;
    let until = Instant::now() + PATIENCE;
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while text.len() < LONGEST as usize {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) if ready > 0 => {}
            Err(Errno::INTR) => continue,
            _ => break,
        }
        match output.read(&mut buffer) {
            Ok(length) if length > 0 => text.extend(&buffer[..length]),
            _ => break,
        }
    }
    let _ = child.kill();
    child.wait().ok()?;
    String::from_utf8(text).ok().filter(|text| !text.trim().is_empty())
}

/// Kubelet's version and settings, and what of hostmount it would find; `driver` is the plugin directory that the mounter puts its driver into.
pub(super) fn kubelet(
    found: Option<&Kubelet>,
    node: Option<&MountNamespace>,
    config: &Config,
    driver: Option<&Path>,
) -> Found {
    let (Some(kubelet), Some(node)) = (found, node) else {
        let advice = "start it; or give the container the node's PID namespace (hostPID: true), to see it";
        return Found::warning("kubelet", "no process of that name is seen in the node's own mount namespace", advice);
    };
    let version = kubelet.version(node).unwrap_or_else(|| "of unknown version".to_owned());
    let plugins = kubelet.plugins.as_deref().unwrap_or(Path::new(DEFAULT_PLUGINS));
    let mount = node.visit(|| is_in_path("mount", &kubelet.path)).ok().flatten();
    let mount = match mount {
        Some((path, true)) => format!("{} (hostmount's)", path.display()),
        Some((path, false)) => format!("{} (the node's own)", path.display()),
        None => "none in its PATH".to_owned(),
    };
    let (root, pid, shown_plugins) = (kubelet.root.display(), kubelet.pid, plugins.display());
    let words = format!(
        "{version}, process {pid}\nits directory: {root}\nits FlexVolume plugin directory: {shown_plugins}\nthe mount that it runs: {mount}"
    );
    let mut advice = Vec::new();
    if kubelet.root != config.kubelet_dir {
        advice.push(format!(
            "its directory is not that of the mounter, {}: write kubelet_dir = \"{root}\" in config.toml",
            config.kubelet_dir.display()
        ));
    }
    if let Some(driver) = driver.filter(|driver| !node.visit(|| is_same(driver, plugins)).unwrap_or(true)) {
        advice.push(format!(
            "it does not look into {driver}, where the mounter puts the FlexVolume driver: set volumePluginDir: {driver} in kubelet's \
             configuration, or --install-flexvolume={shown_plugins} in the mounter's arguments",
            driver = driver.display()
        ));
    }
    if advice.is_empty() { Found::ok("kubelet", words) } else { Found::warning("kubelet", words, advice.join("; ")) }
}

/// Whether two paths lead to one directory, if they lead anywhere.
fn is_same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    one == other || real(one) == real(other)
}

/// Whether mounts below kubelet's directory reach pods that run already.
pub(super) fn propagation(table: &[Mount], kubelet_dir: &Path) -> Found {
    let on = table.iter().filter(|mount| kubelet_dir.starts_with(&mount.target));
    // The last of the longest: it is on top.
    let Some(on) = on.max_by_key(|mount| mount.target.components().count()) else {
        return Found::warning("propagation", "the node's mount table cannot be read", "see the finding 'node'");
    };
    let target = on.target.display();
    match on.shared {
        Some(_) => Found::ok(
            "propagation",
            format!("what is mounted below {} is shared with pods (by {target})", kubelet_dir.display()),
        ),
        None => Found::warning(
            "propagation",
            format!(
                "{target}, which {} is on, is not shared: pods with mountPropagation do not see what is mounted later",
                kubelet_dir.display()
            ),
            "on the node: mount --make-rshared / (systemd does so at boot)",
        ),
    }
}

/// FUSE mounts below kubelet's directory that are dead, and no volume of the mounter's.
pub(super) fn orphans(
    table: &[Mount],
    node: Option<&MountNamespace>,
    volumes: &[VolumeView],
    kubelet_dir: &Path,
) -> Found {
    let known: HashSet<&str> = volumes.iter().map(|volume| volume.device.as_str()).collect();
    let foreign = table.iter().filter(|mount| mount.is_fuse() && mount.target.starts_with(kubelet_dir));
    let foreign: Vec<&Path> = foreign
        .filter(|mount| !known.contains(mount.device.to_string().as_str()))
        .map(|mount| mount.target.as_path())
        .collect();
    let is_dead = |target: &&&Path| {
        let patience = Patience { limit: PATIENCE, ..Patience::USUAL };
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let trial = open(CWD, target, flags, None, patience).and_then(|mount| answers_at(mount.as_fd(), patience));
        trial.err().is_some_and(|error| [libc::ENOTCONN, libc::ECONNABORTED].map(Some).contains(&error.raw_os_error()))
    };
    let dead = node.and_then(|node| {
        node.visit(|| {
            foreign.iter().take(TRIED).filter(is_dead).map(|target| target.display().to_string()).collect::<Vec<_>>()
        })
        .ok()
    });
    match dead {
        None => Found::warning("orphans", "the node cannot be visited", "see the finding 'node'"),
        Some(dead) if dead.is_empty() => {
            Found::ok("orphans", format!("no dead mount that nobody has; {} of others", foreign.len()))
        }
        Some(dead) => Found::warning(
            "orphans",
            format!("dead mounts that no mounter has: {}", dead.join(", ")),
            "unmount them on the node (umount TARGET): the pods that have them must be restarted",
        ),
    }
}

/// The node's mount table.
pub(super) fn table(host_proc: &Path) -> Vec<Mount> {
    Process::first(host_proc).mounts().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use linux::mount_table::parse;

    #[test]
    fn kubelets_settings_are_read_as_it_reads_them() {
        let config = "apiVersion: x\nvolumePluginDir: \"/opt/plugins/\"\nauthentication:\n  volumePluginDir: no\n";
        let of = |words: &[&str], config: &str| {
            let Kubelet { root, plugins, .. } = Kubelet::understood(words, config);
            (root, plugins)
        };
        assert_eq!(of(&["kubelet"], ""), ("/var/lib/kubelet".into(), None));
        assert_eq!(of(&["kubelet", "--root-dir", "/k"], config), ("/k".into(), Some("/opt/plugins/".into())));
        let words = ["kubelet", "--root-directory=/no", "--volume-plugin-dir=/p", "--root-dir=/k2"];
        assert_eq!(of(&words, config), ("/k2".into(), Some("/p".into())));
    }

    #[test]
    fn a_directory_that_is_not_shared_is_told() {
        let level = |table: &[u8]| propagation(&parse(table), Path::new("/k")).level;
        assert_eq!(level(b"1 0 0:1 / / rw shared:1 - ext4 x rw\n"), Level::Ok);
        assert_eq!(level(b"1 0 0:1 / / rw shared:1 - ext4 x rw\n2 1 0:2 / /k rw - ext4 y rw\n"), Level::Warning);
        assert_eq!(level(b"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /k rw shared:2 - ext4 y rw\n"), Level::Ok);
        assert_eq!(level(b""), Level::Warning);
    }

    #[test]
    fn what_a_program_says_is_waited_for_with_a_bound() {
        assert_eq!(said_by(Command::new("echo").arg("v1")), Some("v1\n".to_owned()));
        assert_eq!(said_by(&mut Command::new("/no/such")), None);
        assert_eq!(said_by(Command::new("sleep").arg("1000")), None);
    }
}
