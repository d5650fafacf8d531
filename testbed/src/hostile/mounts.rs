//! More mounts than the one that is granted, and other ones.

use super::sys::{address, call, clone, text};
use super::{Around, Attempts, Outcome, Tried};
use libc::{MS_BIND, MS_MOVE, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT, MS_SHARED, c_ulong};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::AsRawFd;

const ANY: &str = "files of the node or the container where nobody expects them";
const WRITABLE: &str = "write what is read-only for it";

/// Where a mount is tried.
#[derive(Clone, Copy)]
enum At {
    /// Its own mount point.
    Own,
    Path(&'static CStr),
}

fn mount(around: &Around, source: &CStr, at: At, fstype: &CStr, flags: c_ulong, data: &CStr) -> Tried {
    let own = CString::new(around.mount_point.clone()).map_err(|_| Outcome::Nothing)?;
    let target = match at {
        At::Own => &*own,
        At::Path(path) => path,
    };
    call(libc::SYS_mount, &[text(source), text(target), text(fstype), flags, text(data)])?;
    Ok(())
}

/// mount(2) with FUSE's data, in which `{fd}` stands for a descriptor of `device`.
fn fuse(around: &Around, device: &str, at: At, fstype: &CStr, flags: c_ulong, data: &str) -> Tried {
    let device = File::options().read(true).write(true).open(device)?;
    let data = data.replace("{fd}", &device.as_raw_fd().to_string());
    let data = CString::new(data).map_err(|_| Outcome::Nothing)?;
    mount(around, c"hostile", at, fstype, flags, &data)
}

pub(super) fn list(attempts: &mut Attempts) {
    for (fstype, gives) in [
        (c"tmpfs", "memory without a bound, and a place to hide in"),
        (c"proc", "a /proc that nothing is covered in"),
        (c"sysfs", "the kernel's settings, writable"),
        (c"devtmpfs", "every device of the node"),
        (c"cgroup2", "limits and lives of all pods"),
        (c"cgroup", "limits and lives of all pods"),
        (c"overlay", "files of the container under others"),
        (c"mqueue", "message queues of others"),
        (c"debugfs", "the kernel's inside"),
        (c"tracefs", "the kernel's inside"),
        (c"bpf", "the node's BPF programs"),
        (c"fusectl", "to abort others' filesystems"),
        (c"binfmt_misc", "an interpreter for others' programs"),
        (c"securityfs", "the security modules' settings"),
    ] {
        let name = fstype.to_string_lossy();
        attempts.add(format!("mount {name} at its mount point"), gives, move |around| {
            mount(around, c"none", At::Own, fstype, 0, c"")
        });
    }
    for (name, source, at, flags, gives) in [
        ("bind / at its mount point", c"/", At::Own, MS_BIND, ANY),
        ("bind / recursively at its mount point", c"/", At::Own, MS_BIND | MS_REC, ANY),
        ("bind the root of PID 1", c"/proc/1/root", At::Own, MS_BIND, ANY),
        ("bind /proc/sys over /tmp", c"/proc/sys", At::Path(c"/tmp"), MS_BIND, WRITABLE),
        ("move its mount point's filesystem", c"/run/hostmount/mnt", At::Path(c"/tmp"), MS_MOVE, ANY),
        ("remount / for writing", c"none", At::Path(c"/"), MS_REMOUNT, WRITABLE),
        ("remount its own view of / for writing", c"none", At::Path(c"/"), MS_REMOUNT | MS_BIND, WRITABLE),
        ("remount /proc/sys for writing", c"none", At::Path(c"/proc/sys"), MS_REMOUNT | MS_BIND, WRITABLE),
        ("remount /sys for writing", c"none", At::Path(c"/sys"), MS_REMOUNT | MS_BIND, WRITABLE),
        ("remount /dev with devices", c"none", At::Path(c"/dev"), MS_REMOUNT | MS_BIND, WRITABLE),
        ("make / shared", c"none", At::Path(c"/"), MS_SHARED | MS_REC, "its mounts on the node"),
        ("make / private", c"none", At::Path(c"/"), MS_PRIVATE | MS_REC, "mounts that never go away"),
    ] {
        attempts.add(name, gives, move |around| mount(around, source, at, c"none", flags, c""));
    }
    const DATA: &str = "fd={fd},rootmode=40000,user_id=0,group_id=0";
    const LIES: &str = "a filesystem beyond its grant";
    for (name, device, at, fstype, flags, data) in [
        ("FUSE over /etc", "/dev/fuse", At::Path(c"/etc"), c"fuse.bindfs", 0, DATA),
        ("FUSE over /", "/dev/fuse", At::Path(c"/"), c"fuse.bindfs", 0, DATA),
        ("FUSE above its mount point", "/dev/fuse", At::Path(c"/run/hostmount/mnt"), c"fuse.bindfs", 0, DATA),
        ("FUSE over its files", "/dev/fuse", At::Path(c"/run/hostmount/files"), c"fuse.bindfs", 0, DATA),
        ("FUSE on a block device", "/dev/fuse", At::Own, c"fuseblk", 0, DATA),
        ("a type that only begins like FUSE", "/dev/fuse", At::Own, c"fusefs", 0, DATA),
        ("FUSE with another device", "/dev/zero", At::Own, c"fuse.bindfs", 0, DATA),
        ("FUSE with its own output", "/proc/self/fd/1", At::Own, c"fuse.bindfs", 0, DATA),
        ("FUSE with no descriptor", "/dev/fuse", At::Own, c"fuse.bindfs", 0, "rootmode=40000,user_id=0,group_id=0"),
        ("FUSE with a descriptor that is not open", "/dev/fuse", At::Own, c"fuse.bindfs", 0, "fd=999,rootmode=40000"),
        (
            "FUSE with a descriptor of the mounter's number",
            "/dev/fuse",
            At::Own,
            c"fuse.bindfs",
            0,
            "fd=-1,rootmode=40000",
        ),
        ("FUSE with a second fd= in quotes", "/dev/fuse", At::Own, c"fuse.bindfs", 0, "fd={fd},subtype=\"a,fd=3,b\""),
        (
            "FUSE with allow_other in quotes",
            "/dev/fuse",
            At::Own,
            c"fuse.bindfs",
            0,
            "fd={fd},subtype=\"a,allow_other,b\"",
        ),
        ("FUSE with a quote that is never closed", "/dev/fuse", At::Own, c"fuse.bindfs", 0, "fd={fd},subtype=\"a"),
        ("FUSE with a value that has no name", "/dev/fuse", At::Own, c"fuse.bindfs", 0, "fd={fd},=x"),
        ("FUSE as a remount", "/dev/fuse", At::Own, c"fuse.bindfs", MS_REMOUNT, DATA),
        ("FUSE and a bind mount", "/dev/fuse", At::Own, c"fuse.bindfs", MS_BIND | MS_RDONLY, DATA),
        ("FUSE with flags of the kernel's own", "/dev/fuse", At::Own, c"fuse.bindfs", 1 << 29 | MS_NOSUID, DATA),
    ] {
        attempts.add(name, LIES, move |around| fuse(around, device, at, fstype, flags, data));
    }
    attempts.add("FUSE with data of more than a page", LIES, |around| {
        let data = format!("fd={{fd}},{}", "x".repeat(8192));
        fuse(around, "/dev/fuse", At::Own, c"fuse.bindfs", 0, &data)
    });
    for path in
        [c"/", c"/dev", c"/proc", c"/proc/sys", c"/sys", c"/run", c"/run/hostmount", c"/run/hostmount/mnt", c"/tmp"]
    {
        let name = path.to_string_lossy();
        attempts.call(format!("unmount {name}"), "what it covers", libc::SYS_umount2, &[text(path), 2]);
    }
    new_mounts(attempts);
    namespaces(attempts);
}

/// The mount interface of Linux 5.2 and later.
fn new_mounts(attempts: &mut Attempts) {
    const AT_FDCWD: u64 = libc::AT_FDCWD as u64;
    const AROUND: &str = "mounts that no broker sees";
    for fstype in [c"tmpfs", c"fuse", c"proc", c"overlay"] {
        attempts.call(format!("fsopen {}", fstype.to_string_lossy()), AROUND, libc::SYS_fsopen, &[text(fstype)]);
    }
    for path in [c"/", c"/proc/1/root", c"/run/hostmount/mnt"] {
        let name = path.to_string_lossy();
        attempts.call(format!("open_tree of {name}"), AROUND, libc::SYS_open_tree, &[AT_FDCWD, text(path), 1]);
    }
    attempts.call("open_tree_attr of /", AROUND, 467, &[AT_FDCWD, text(c"/"), 1, 0, 0]);
    attempts.call("fspick /", WRITABLE, libc::SYS_fspick, &[AT_FDCWD, text(c"/"), 0]);
    attempts.add("fsconfig of a file", AROUND, |_| {
        let file = File::open("/dev/null")?;
        Ok(call(libc::SYS_fsconfig, &[file.as_raw_fd() as u64, 6]).map(|_| ())?)
    });
    attempts.call("fsmount", AROUND, libc::SYS_fsmount, &[0, 0, 0]);
    attempts.call(
        "move_mount of its scratch",
        AROUND,
        libc::SYS_move_mount,
        &[AT_FDCWD, text(c"/tmp"), AT_FDCWD, text(c"/etc"), 0],
    );
    // struct mount_attr: set, clear, propagation, userns_fd.
    let clear_read_only: &'static [u64; 4] = &[0, 1, 0, 0];
    for path in [c"/", c"/proc/sys", c"/usr"] {
        let arguments = [AT_FDCWD, text(path), 0, address(clear_read_only), 32];
        attempts.call(
            format!("mount_setattr of {}", path.to_string_lossy()),
            WRITABLE,
            libc::SYS_mount_setattr,
            &arguments,
        );
    }
    let shared: &'static [u64; 4] = &[0, 0, 1 << 20, 0];
    let arguments = [AT_FDCWD, text(c"/"), 0x8000, address(shared), 32];
    attempts.call("mount_setattr to share /", "its mounts on the node", libc::SYS_mount_setattr, &arguments);
}

/// Out of its mount namespace, and into others.
fn namespaces(attempts: &mut Attempts) {
    const CAPABILITIES: &str = "capabilities of a kind";
    const OUT: &str = "what the node or another container sees";
    let kinds = [
        ("user", libc::CLONE_NEWUSER),
        ("mount", libc::CLONE_NEWNS),
        ("PID", libc::CLONE_NEWPID),
        ("network", libc::CLONE_NEWNET),
        ("IPC", libc::CLONE_NEWIPC),
        ("UTS", libc::CLONE_NEWUTS),
        ("cgroup", libc::CLONE_NEWCGROUP),
        ("time", 0x80),
    ];
    for (kind, flag) in kinds {
        attempts.call(format!("unshare a {kind} namespace"), CAPABILITIES, libc::SYS_unshare, &[flag as u64]);
        if flag != 0x80 {
            attempts.add(format!("clone into a {kind} namespace"), CAPABILITIES, move |_| Ok(clone(flag)?));
        }
    }
    // struct clone_args, with CLONE_NEWUSER.
    let new_user: &'static [u64; 11] = &[libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    attempts.call("clone3 into a user namespace", CAPABILITIES, libc::SYS_clone3, &[address(new_user), 88]);
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"] {
        attempts.add(format!("setns to the {kind} namespace of PID 1"), OUT, move |_| {
            let namespace = File::open(format!("/proc/1/ns/{kind}"))?;
            Ok(call(libc::SYS_setns, &[namespace.as_raw_fd() as u64, 0]).map(|_| ())?)
        });
    }
    attempts.add("setns to the mounter by its pidfd", OUT, |around| {
        let process = call(libc::SYS_pidfd_open, &[around.mounter.into(), 0])?;
        Ok(call(libc::SYS_setns, &[process.cast_unsigned(), libc::CLONE_NEWNS as u64]).map(|_| ())?)
    });
    attempts.add("setns to its own IPC namespace", OUT, |_| {
        let namespace = File::open("/proc/self/ns/ipc")?;
        Ok(call(libc::SYS_setns, &[namespace.as_raw_fd() as u64, 0]).map(|_| ())?)
    });
    attempts.call(
        "chroot to /tmp",
        "paths that lead elsewhere for whoever reads them",
        libc::SYS_chroot,
        &[text(c"/tmp")],
    );
    attempts.call("pivot_root to /tmp", OUT, libc::SYS_pivot_root, &[text(c"/tmp"), text(c"/tmp")]);
}
