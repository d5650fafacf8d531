//! Real containers on a test node, by runc, as `restricted` Pod Security has them: no capability, a user that is not root, a read-only
//! root, `no_new_privs`, no device but the usual ones, and podman's and CRI-O's default seccomp profile.
//!
//! Runs in the tests' process, as root. An image is a directory of the node, with programs of the real machine and what they load.

use super::TestNode;
use super::pod::Pod;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use testbed::machine::{Process, Room};

/// The profile, as Debian's podman has it.
pub const SECCOMP: &str = "/usr/share/containers/seccomp.json";

/// The user in it.
const USER: u32 = 1000;

/// A root for containers.
#[derive(Debug)]
pub struct Image {
    directory: String,
}

impl Image {
    /// One with busybox, as a shell and the usual commands, and these programs of the machine's, each with the path that it has there and
    /// the libraries that it needs.
    pub fn with(test: &TestNode, programs: &[&str]) -> Self {
        let directory = format!("/run/image-{}", fastrand::u32(..));
        test.node.sh_ok(&format!(
            "set -e; mkdir -p {directory}; cd {directory}
            mkdir -p bin dev proc sys data etc tmp home source run/hostmount opt/hostmount; chmod 1777 tmp; cp /usr/bin/busybox bin
            for name in sh cat sleep ls id grep stat mkdir rm mv; do ln -s busybox bin/$name; done
            echo 'user:x:{USER}:{USER}::/home:/bin/sh' >etc/passwd; echo 'user:x:{USER}:' >etc/group"
        ));
        let image = Self { directory };
        let mut files = BTreeSet::new();
        for program in programs {
            let path = which::which_in(program, Some(super::SEARCH), "/").unwrap();
            files.extend(libraries(&path));
            files.insert(path);
        }
        // libc loads it when a thread is ended.
        let libc = files.iter().find(|file| file.ends_with("libc.so.6"));
        files.extend(libc.map(|libc| libc.with_file_name("libgcc_s.so.1")));
        for file in files {
            image.put(test, &file.to_string_lossy(), fs::read(&file).unwrap());
        }
        image
    }

    /// Puts a program, or another file, into it.
    pub fn put(&self, test: &TestNode, path: &str, content: impl AsRef<[u8]> + Send) {
        let path = format!("{}{path}", self.directory);
        test.node.visit(|| fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap());
        test.node.program(&path, content);
    }
}

/// What ld.so would load for a program: nothing for a static one.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let said = Command::new("ldd").arg(program).output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    said.split_whitespace().filter(|word| word.starts_with('/')).map(|word| word.trim_end_matches(':').into()).collect()
}

/// A container as it is asked for.
#[derive(Debug, Clone, Default)]
pub struct Spec {
    /// Directories and files of the node's, and where they show.
    pub mounts: Vec<(String, String)>,
    /// Its environment, beside PATH.
    pub environment: Vec<String>,
    /// What is first in its PATH, if anything is.
    pub path: Option<String>,
    /// It is in the node's network.
    pub network: bool,
}

impl Spec {
    /// With one more of the node's directories.
    pub fn mount(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.mounts.push((from.into(), to.into()));
        self
    }

    /// In runc's words.
    fn config(&self, root: &str, cgroup: &str, arguments: &[&str]) -> Value {
        let binds = self.mounts.iter().map(|(from, to)| {
            json!({ "type": "bind", "source": from, "destination": to, "options": ["rbind", "rprivate", "rw"] })
        });
        let usual = [
            json!({ "type": "proc", "source": "proc", "destination": "/proc" }),
            json!({ "type": "tmpfs", "source": "tmpfs", "destination": "/dev", "options": ["nosuid", "mode=755"] }),
            json!({ "type": "tmpfs", "source": "tmpfs", "destination": "/tmp", "options": ["nosuid", "mode=1777"] }),
        ];
        let namespaces = ["mount", "pid", "ipc", "uts", "network"].into_iter();
        let namespaces: Vec<Value> =
            namespaces.filter(|name| !self.network || *name != "network").map(|name| json!({ "type": name })).collect();
        let path = format!(
            "PATH={}/usr/bin:/usr/sbin:/bin",
            self.path.iter().map(|first| format!("{first}:")).collect::<String>()
        );
        let environment = [path, "HOME=/home".to_owned()].into_iter().chain(self.environment.iter().cloned());
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": USER, "gid": USER }, "cwd": "/", "env": environment.collect::<Vec<_>>(),
                "noNewPrivileges": true, "args": arguments,
                "capabilities": { "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": [] },
            },
            "root": { "path": root, "readonly": true },
            "mounts": usual.into_iter().chain(binds).collect::<Vec<_>>(),
            "linux": { "cgroupsPath": cgroup, "namespaces": namespaces, "seccomp": default_seccomp() },
        })
    }
}

/// The profile for a container without capabilities, in runc's words.
fn default_seccomp() -> Value {
    let profile: Value = serde_json::from_slice(&fs::read(SECCOMP).unwrap()).unwrap();
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let has = |rule: &Value, of: &str, what: &str| {
        rule[of][what].as_array().map(|list| !list.is_empty() && (what == "caps" || list.contains(&json!(arch))))
    };
    let applies = |rule: &&Value| {
        has(rule, "includes", "caps") != Some(true)
            && has(rule, "includes", "arches") != Some(false)
            && has(rule, "excludes", "arches") != Some(true)
    };
    let rule = |rule: &Value| {
        let mut rule = rule.clone();
        let members = rule.as_object_mut().unwrap();
        members.retain(|name, value| ["names", "action", "args", "errnoRet"].contains(&&**name) && !value.is_null());
        rule
    };
    let rules: Vec<_> = profile["syscalls"].as_array().unwrap().iter().filter(applies).map(rule).collect();
    json!({
        "defaultAction": profile["defaultAction"], "defaultErrnoRet": profile["defaultErrnoRet"], "syscalls": rules,
        "architectures": [if arch == "amd64" { "SCMP_ARCH_X86_64" } else { "SCMP_ARCH_AARCH64" }],
    })
}

/// A container. Dropped, it is removed.
#[derive(Debug)]
pub struct Container<'a> {
    test: &'a TestNode,
    id: String,
}

impl<'a> Container<'a> {
    /// Starts one of the pod's.
    pub fn start(test: &'a TestNode, pod: &Pod, image: &Image, spec: &Spec, arguments: &[&str]) -> Self {
        let id = format!("hostmount-test-{}-{}", std::process::id(), fastrand::u32(..));
        let directory = format!("/run/{id}");
        let cgroup = format!("/kubepods/burstable/pod{}/{id}", pod.uid);
        let config = spec.config(&image.directory, &cgroup, arguments);
        test.node.visit(|| {
            fs::create_dir(&directory).unwrap();
            fs::write(format!("{directory}/config.json"), config.to_string()).unwrap();
        });
        let container = Self { test, id };
        container.runc(&format!(
            "run --detach --bundle {directory} {} </dev/null >{directory}/said 2>&1 || {{ cat {directory}/said; false; }}",
            container.id
        ));
        container
    }

    /// Tells its first process to end, as kubelet does.
    pub fn tell_to_end(&self) {
        self.runc(&format!("kill {} TERM", self.id));
    }

    /// Kills its first process, and with that all of them.
    pub fn kill(&self) {
        self.runc(&format!("kill {} KILL", self.id));
    }

    /// Waits until it has ended by itself; what its processes have said.
    #[track_caller]
    pub fn wait(&self) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.runc(&format!("state {}", self.id)).contains("\"stopped\"") {
            assert!(Instant::now() < deadline, "it goes on: {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.said()
    }

    /// What its processes have said so far.
    pub fn said(&self) -> String {
        self.test.node.sh_ok(&format!("cat /run/{}/said", self.id))
    }

    fn runc(&self, arguments: &str) -> String {
        self.test.node.sh_ok(&format!("runc --root /run/runc {arguments}"))
    }

    /// Runs a line of shell in it; what it says.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        self.runc(&format!("exec {} sh -c '{line}' 2>&1", self.id))
    }

    /// The same in the background.
    pub fn begin(&self, line: &str) -> Process {
        let mut command = Room::command("/bin/sh");
        command.args(["-c", &format!("exec runc --root /run/runc exec {} sh -c '{line}' 2>&1", self.id)]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        self.test.node.spawn(command)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let deleted = self.test.node.sh(&format!("runc --root /run/runc delete --force {}", self.id));
        if std::thread::panicking() {
            super::notes::note(format!("{} has said:\n{}", self.id, self.said()));
        } else {
            deleted.ok("runc delete");
        }
    }
}
