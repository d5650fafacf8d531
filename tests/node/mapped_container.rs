//! Containers of pods with a user namespace (`hostUsers: false`), by crun, which maps the ids of each volume's mount as kubelet asks for it
//! (`uidMappings` of a mount): runc has that from 1.2 on, and Debian 12's is older.
//!
//! Runs in the tests' process, as root.

use super::TestNode;
use super::cgroups::enter;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// What its first process says.
const STARTED: &str = "started";

/// Where root of the container is on the node.
pub const FIRST_ID: u32 = 300_000;

/// What a container has beside its mounts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside<'a> {
    /// Another container of the same pod, whose user namespace it lives in, as container runtimes have it.
    pub pod: Option<&'a MappedContainer<'a>>,
    /// The pod's cgroup.
    pub cgroup: Option<&'a str>,
    /// Programs of ours, by their names in there. They find the node's libraries.
    pub programs: &'a [(&'a str, &'a Path)],
}

/// A container. Dropped, it is removed.
#[derive(Debug)]
pub struct MappedContainer<'a> {
    test: &'a TestNode,
    id: String,
    /// Lines of shell that begin what is run in it.
    before: String,
}

impl<'a> MappedContainer<'a> {
    /// Starts one with directories of the node's, each with the place where it shows, and `cwd` as its working directory.
    pub fn start(test: &'a TestNode, mounts: &[(&str, &str)], cwd: &str) -> Self {
        let (container, said) = Self::try_start(test, mounts, cwd);
        assert_eq!(said, None);
        container
    }

    /// The same; what crun says if it cannot.
    pub fn try_start(test: &'a TestNode, mounts: &[(&str, &str)], cwd: &str) -> (Self, Option<String>) {
        Self::try_start_beside(test, mounts, cwd, Beside::default())
    }

    /// One of a pod's.
    pub fn start_beside(test: &'a TestNode, mounts: &[(&str, &str)], beside: Beside<'_>) -> Self {
        let (container, said) = Self::try_start_beside(test, mounts, "/", beside);
        assert_eq!(said, None);
        container
    }

    fn try_start_beside(
        test: &'a TestNode,
        mounts: &[(&str, &str)],
        cwd: &str,
        beside: Beside<'_>,
    ) -> (Self, Option<String>) {
        let id = format!("hostmount-test-{}-{}", std::process::id(), fastrand::u32(..));
        let directory = format!("/run/{id}");
        test.node.sh_ok(&format!(
            "set -e; mkdir -p {directory}/rootfs; chmod 755 /run {directory}; cd {directory}/rootfs
            mkdir bin dev proc data sub; cp /usr/bin/busybox bin
            for name in sh cat sleep touch rm stat ls mkdir timeout; do ln -s busybox bin/$name; done"
        ));
        for (name, program) in beside.programs {
            test.node.program(&format!("{directory}/rootfs/bin/{name}"), fs::read(program).unwrap());
        }
        if !beside.programs.is_empty() {
            test.node
                .sh_ok(&format!("cd {directory}/rootfs && mkdir -p usr run/hostmount && ln -s usr/lib usr/lib64 ."));
        }
        let users = beside.pod.map(|other| format!("/proc/{}/ns/user", other.pid()));
        let config = config(mounts, cwd, users, !beside.programs.is_empty()).to_string();
        test.node.visit(|| fs::write(format!("{directory}/config.json"), config).unwrap());
        let before = beside.cgroup.map(|name| enter(name, "$$")).unwrap_or_default();
        let container = Self { test, id, before };
        // It refuses a machine with cgroups of both versions: it is shown the second alone.
        let done = test.node.sh(&format!(
            "{before}
            unshare --mount --propagation slave sh -c '[ $(stat -f -c %T /sys/fs/cgroup) = cgroup2fs ] ||
                {{ umount --recursive /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; }}
            exec {CRUN} run --detach --bundle {directory} {}' </dev/null >{directory}/said 2>&1",
            container.id,
            before = container.before,
        ));
        let said = || test.node.sh_ok(&format!("cat {directory}/said"));
        if done.code != Some(0) {
            let said = said();
            return (container, Some(said));
        }
        // Until its program runs, crun refuses to start another there.
        let deadline = Instant::now() + Duration::from_secs(30);
        while said() != STARTED {
            assert!(Instant::now() < deadline, "it does not start: {}", said());
            std::thread::yield_now();
        }
        (container, None)
    }

    /// Runs a line of shell in it, as one of its users; what it says.
    #[track_caller]
    pub fn sh_as(&self, user: u32, line: &str) -> String {
        self.test.node.sh_ok(&format!("{CRUN} exec --user {user}:{user} {} sh -c '{line}' 2>&1", self.id))
    }

    /// Runs a program in it in the background, as its root.
    pub fn start_program(&self, line: &str) {
        let before = &self.before;
        let detached = format!("{CRUN} exec --detach {} sh -c 'exec {line}' </dev/null >/dev/null 2>&1", self.id);
        self.test.node.sh_ok(&format!("{before}\n{detached}"));
    }

    /// Its first process.
    fn pid(&self) -> u64 {
        let state = self.test.node.sh_ok(&format!("{CRUN} state {}", self.id));
        serde_json::from_str::<Value>(&state).unwrap()["pid"].as_u64().unwrap()
    }

    /// The same as its root.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        self.sh_as(0, line)
    }

    /// The type and the options of what is mounted at a place in it.
    pub fn mounted_at(&self, place: &str) -> (String, String) {
        let table = self.sh("cat /proc/self/mountinfo");
        let mut lines = table.lines().filter(|line| line.split(' ').nth(4) == Some(place));
        let line = lines.next_back().unwrap_or_else(|| panic!("nothing at {place}: {table}"));
        let (mount, filesystem) = line.split_once(" - ").unwrap();
        (filesystem.split(' ').next().unwrap().to_owned(), mount.split(' ').nth(5).unwrap().to_owned())
    }
}

const CRUN: &str = "crun --root /run/crun --cgroup-manager disabled";

fn config(mounts: &[(&str, &str)], cwd: &str, users: Option<String>, libraries: bool) -> Value {
    let mapping = json!([{ "containerID": 0, "hostID": FIRST_ID, "size": 65_536 }]);
    let bind = |(from, to): &(&str, &str)| {
        json!({
            "type": "bind", "source": from, "destination": to, "options": ["rbind", "rprivate", "rw"],
            "uidMappings": mapping, "gidMappings": mapping,
        })
    };
    let usual = [
        json!({ "type": "proc", "source": "proc", "destination": "/proc" }),
        json!({ "type": "tmpfs", "source": "tmpfs", "destination": "/dev", "options": ["nosuid", "mode=755"] }),
    ];
    let libraries = libraries.then(
        || json!({ "type": "bind", "source": "/usr", "destination": "/usr", "options": ["rbind", "rprivate", "ro"] }),
    );
    let mut namespaces: Vec<Value> =
        ["mount", "pid", "ipc", "uts", "network"].map(|name| json!({ "type": name })).to_vec();
    // One that is there has its mapping.
    let mapped = users.is_none().then_some(&mapping);
    namespaces.push(match users {
        Some(path) => json!({ "type": "user", "path": path }),
        None => json!({ "type": "user" }),
    });
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": 0, "gid": 0 }, "cwd": cwd, "env": ["PATH=/bin"], "noNewPrivileges": true,
            "args": ["/bin/sh", "-c", format!("echo -n {STARTED}; exec sleep infinity")],
        },
        "root": { "path": "rootfs" },
        "mounts": usual.into_iter().chain(libraries).chain(mounts.iter().map(bind)).collect::<Vec<_>>(),
        "linux": { "uidMappings": mapped, "gidMappings": mapped, "namespaces": namespaces },
    })
}

impl Drop for MappedContainer<'_> {
    fn drop(&mut self) {
        let deleted = self.test.node.sh(&format!("{CRUN} delete --force {}", self.id));
        if !std::thread::panicking() {
            deleted.ok("crun delete");
        }
    }
}
