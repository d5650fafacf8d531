//! Files of the container, of the node, and of others. They are opened, and not written.

use super::sys::{address, call, text};
use super::{Attempts, Outcome, Tried, got};
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

pub(super) fn open_for_writing(path: &Path) -> Tried {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW;
    let file = File::options().write(true).custom_flags(flags).open(path)?;
    // What is covered with /dev/null takes everything.
    got(!file.metadata()?.file_type().is_char_device())
}

/// One byte at least.
pub(super) fn read(path: &str) -> Tried {
    let count = File::open(path)?.read(&mut [0; 64])?;
    got(count > 0)
}

/// The first file below `directory` that opens for writing, is got. What the last refusal said, if none is.
pub(super) fn any_writable(directory: &Path, depth: usize) -> Tried {
    let mut last = Err(Outcome::Nothing);
    for entry in fs::read_dir(directory)?.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let path = entry.path();
        let tried = match kind {
            // Of a process: it opens for everybody, and is written by that process alone.
            _ if path.ends_with("attr") => continue,
            _ if kind.is_dir() && depth > 0 => any_writable(&path, depth - 1),
            _ if kind.is_file() => open_for_writing(&path),
            _ => continue,
        };
        if tried.is_ok() {
            println!("hostile: {}", path.display());
            return tried;
        }
        if tried != Err(Outcome::Nothing) {
            last = tried;
        }
    }
    last
}

pub(super) fn list(attempts: &mut Attempts) {
    const NODE: &str = "the node as a whole";
    const LATER: &str = "code in whatever runs this next";
    const SECRETS: &str = "others' secrets";
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/kernel/hotplug",
        "/proc/sys/kernel/sysrq",
        "/proc/sys/kernel/usermodehelper/bset",
        "/proc/sys/kernel/yama/ptrace_scope",
        "/proc/sys/fs/suid_dumpable",
        "/proc/sys/fs/binfmt_misc/register",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity",
        "/proc/mtrr",
        "/proc/acpi/wakeup",
        "/proc/scsi/scsi",
        "/proc/1/mem",
        "/sys/power/state",
        "/sys/power/disk",
        "/sys/kernel/uevent_helper",
        "/sys/kernel/profiling",
        "/sys/kernel/kexec_crash_size",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/kernel/mm/ksm/run",
        "/sys/kernel/debug/sleep_time",
        "/sys/module/fuse/parameters/max_user_bgreq",
        "/sys/bus/pci/rescan",
        "/sys/firmware/efi/efivars/BootOrder",
        "/sys/fs/selinux/enforce",
        "/sys/fs/cgroup/cgroup.procs",
        "/sys/fs/cgroup/cgroup.subtree_control",
        "/sys/fs/cgroup/memory/cgroup.procs",
        "/sys/fs/cgroup/memory/release_agent",
        "/sys/fs/cgroup/pids/cgroup.procs",
    ] {
        attempts.add(format!("write {path}"), NODE, move |_| open_for_writing(Path::new(path)));
    }
    for (path, text) in [
        ("uid_map", "0 0 1"),
        ("gid_map", "0 0 1"),
        ("setgroups", "allow"),
        ("oom_score_adj", "-1000"),
        ("loginuid", "0"),
    ] {
        attempts.add(format!("write its own /proc/self/{path}"), "privilege", move |_| {
            Ok(fs::write(format!("/proc/self/{path}"), text)?)
        });
    }
    for directory in ["/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/sys", "/sys/fs/cgroup", "/sys/fs/fuse"] {
        attempts.add(format!("write any file below {directory}"), NODE, move |_| any_writable(Path::new(directory), 8));
    }
    attempts.add("make a cgroup", "to leave its limits", |_| {
        let tree = Path::new("/sys/fs/cgroup");
        let below = fs::read_dir(tree)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        let mut last = Err(Outcome::Nothing);
        for parent in below.chain([tree.to_owned()]) {
            let made = fs::create_dir(parent.join("evil"));
            if made.is_ok() {
                let _ = fs::remove_dir(parent.join("evil"));
                return Ok(());
            }
            last = Ok(made?);
        }
        last
    });
    for path in [
        "/usr/local/bin/hostmount",
        "/usr/sbin/mount.fuse.hostile",
        "/usr/sbin/hostile",
        "/bin/sh",
        "/usr/bin/bindfs",
        "/usr/bin/fusermount3",
        "/etc/passwd",
        "/etc/shadow",
        "/etc/group",
        "/etc/fuse.conf",
        "/etc/resolv.conf",
        "/etc/hosts",
        "/etc/ld.so.cache",
        "/etc/ld.so.preload",
        "/lib64/ld-linux-x86-64.so.2",
        "/usr/local/lib/hostmount/libhostmount_preload.so",
        "/etc/hostmount/config.toml",
    ] {
        attempts.add(format!("write {path}"), LATER, move |_| open_for_writing(Path::new(path)));
    }
    for directory in
        ["/", "/usr/sbin", "/usr/local/bin", "/etc", "/etc/hostmount", "/root", "/var/lib", "/opt", "/srv", "/home"]
    {
        attempts.add(format!("leave a file in {directory}"), LATER, move |_| {
            let path = Path::new(directory).join("evil");
            File::create_new(&path)?;
            Ok(fs::remove_file(&path)?)
        });
    }
    for (name, run) in [
        ("leave a link in /", (|| symlink("/", "/evil")) as fn() -> std::io::Result<()>),
        ("rename a program", || fs::rename("/usr/sbin/hostile", "/usr/sbin/evil")),
        ("remove a program", || fs::remove_file("/usr/sbin/hostile")),
        ("open a program to all", || fs::set_permissions("/usr/sbin/hostile", Permissions::from_mode(0o777))),
        ("open the container's root to all", || fs::set_permissions("/", Permissions::from_mode(0o777))),
        ("link a program into its scratch", || fs::hard_link("/usr/sbin/hostile", "/tmp/evil")),
        ("replace /etc", || fs::rename("/etc", "/etc.evil")),
        ("make a directory in /", || fs::create_dir("/evil")),
    ] {
        attempts.add(name, LATER, move |_| Ok(run()?));
    }
    attempts.call(
        "give a program to itself",
        LATER,
        libc::SYS_fchownat,
        &[libc::AT_FDCWD as u64, text(c"/usr/sbin/hostile"), 65534, 65534, 0],
    );
    attempts.add("put capabilities on a program", "privilege", |_| {
        // struct vfs_cap_data, version 2: CAP_SYS_ADMIN.
        let capabilities: [u32; 5] = [0x0200_0001, 1 << 21, 0, 0, 0];
        fs::write("/tmp/evil-program", "")?;
        let of = [text(c"/tmp/evil-program"), text(c"security.capability"), address(&capabilities), 20, 0];
        Ok(call(libc::SYS_setxattr, &of).map(|_| ())?)
    });
    attempts.add("keep a set-uid program for others", "its uid for others", |_| {
        let path = "/tmp/evil-suid";
        fs::write(path, "")?;
        fs::set_permissions(path, Permissions::from_mode(0o4755))?;
        // It counts where set-uid programs do.
        let flags = rustix::fs::statvfs("/tmp")?.f_flag;
        got(!flags.contains(rustix::fs::StatVfsMountFlags::NOSUID))
    });
    for path in
        ["/run/hostmount/lock", "/run/hostmount/hostmount.sock", "/run/hostmount/volumes", "/run/hostmount/cgroups"]
    {
        attempts
            .add(format!("find {path}"), "what the mounter knows", move |_| Ok(fs::symlink_metadata(path).map(drop)?));
    }
    attempts.add("find anything in the state directory but its own", "what the mounter knows", |_| {
        const OWN: [&str; 7] = ["mnt", "files", "preload", "passwd", "group", "home", "readable"];
        let others = fs::read_dir("/run/hostmount")?.flatten();
        got(others.filter(|entry| !OWN.iter().any(|own| entry.file_name() == *own)).count() > 0)
    });
    attempts
        .add("find another helper's files", SECRETS, |_| got(fs::read_dir("/run/hostmount/files")?.next().is_some()));
    attempts.add("put a link in the place of its /dev/log", "a socket of the next mounter's elsewhere", |_| {
        let socket = fs::canonicalize("/dev/log")?;
        fs::remove_file(&socket)?;
        Ok(std::os::unix::fs::symlink("/etc/passwd", socket)?)
    });
    attempts.add("change its own files", SECRETS, |_| Ok(fs::write("/run/hostmount/files/evil", "")?));
    attempts.add("find another helper's mount point", "others' filesystems", |around| {
        let own = &around.mount_point;
        fn look(directory: &Path, own: &str) -> bool {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).any(|path| {
                // These are its own.
                let known = path.ends_with(".log") || path.ends_with(".syslog");
                let others = !own.starts_with(&*path.to_string_lossy()) && !known;
                others || (path.to_str() != Some(own) && look(&path, own))
            })
        }
        got(look(Path::new("/run/hostmount/mnt"), own))
    });
    for (path, gives) in [
        ("/etc/shadow", "hashes of passwords, if the image has any"),
        ("/root/.ssh/id_ed25519", SECRETS),
        ("/proc/kcore", "the node's memory"),
        ("/proc/kmsg", "the kernel's log"),
        ("/proc/keys", "names of others' keys"),
        ("/proc/timer_list", "what others do"),
        ("/proc/sched_debug", "what others do"),
        ("/proc/1/environ", SECRETS),
        ("/proc/kallsyms", "where the kernel is"),
        ("/sys/kernel/debug/tracing/trace", "what others do"),
        ("/sys/firmware/dmi/tables/DMI", "what machine it is"),
        ("/proc/self/mountinfo", "what is mounted for it"),
        ("/var/lib/kubelet/config.yaml", SECRETS),
        ("/var/run/secrets/kubernetes.io/serviceaccount/token", "the mounter's rights in the cluster"),
    ] {
        let kernel_addresses = path == "/proc/kallsyms";
        attempts.add(format!("read {path}"), gives, move |_| {
            if kernel_addresses {
                // Without the privilege they are all zero.
                let text = fs::read_to_string(path)?;
                return got(text.lines().any(|line| !line.starts_with("0000000000000000")));
            }
            read(path)
        });
    }
    for (name, path, lease) in [
        ("lock a file of the container", "/usr/sbin/hostile", libc::F_RDLCK),
        ("lock a file of the container that nobody has open", "/etc/debian_version", libc::F_WRLCK),
    ] {
        attempts.add(name, "to keep others waiting who open it", move |_| {
            let file = File::open(path)?;
            Ok(call(libc::SYS_fcntl, &[file.as_raw_fd() as u64, libc::F_SETLEASE as u64, lease as u64]).map(|_| ())?)
        });
    }
}
