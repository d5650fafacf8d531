//! What the container must be able to do: each trial is the very thing that mounting does.
//!
//! Runs in the container, uid 0, privileged; it mounts in a mount namespace of a thread's own.

use super::finding::{Found, Trial};
use crate::config::Config;
use crate::config::user::{Readable, UidRange};
use crate::engine::preload::DEFAULT_OBJECT;
use crate::engine::seccomp::calls::Heard;
use crate::engine::seccomp::filter;
use crate::engine::{Choice, choose};
use crate::helper::account::Account;
use crate::helper::confine::confine_this_thread;
use crate::helper::domain::{Domain, enter_domain};
use crate::helper::namespace::{self, Needs};
use crate::helper::scratch::Scratch;
use crate::helper::world::{World, show_own_processes_only};
use crate::node::cgroup::Cgroups;
use crate::node::kernel;
use crate::node::tree::Tree;
use api::exit::chain;
use linux::mount_namespace::MountNamespace;
use linux::statx::device_at;
use linux::sys::seccomp::restrict;
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_no_new_privs, set_thread_res_gid, set_thread_res_uid};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::thread;

/// What no volume can be mounted without.
pub(super) fn needed(state: &Path, host_proc: &Path) -> Vec<Found> {
    vec![
        Found::needed(
            "/dev/fuse",
            "the kernel needs FUSE (modprobe fuse on the node), and the container the device: run it privileged",
            File::options().read(true).write(true).open("/dev/fuse").map(|_| "opens".into()).map_err(Into::into),
        ),
        Found::needed(
            "confinement",
            "run the container privileged",
            in_thread(|| {
                Ok(confine_this_thread(&Default::default(), true)
                    .map(|()| "a helper can be left without privileges".into())?)
            }),
        ),
        Found::needed(
            "engine",
            "run the container privileged, without a seccomp profile, or put the preload engine's shared object into it",
            choose(Choice::Auto, DEFAULT_OBJECT.into()).map(|method| method.to_string()).map_err(Into::into),
        ),
        Found::needed(
            "mounts",
            "the kernel must be Linux 5.8 or later and have FUSE (modprobe fuse on the node); run the container privileged",
            in_thread(|| graft(state)),
        ),
        Found::needed(
            "node",
            "start the container with the node's PID namespace (hostPID: true), or mount the node's /proc and name it \
             with --host-proc or HOSTPROCPATH",
            node(host_proc),
        ),
    ]
}

/// Walls around helpers, and their own lives: volumes work without.
pub(super) fn walls(host_proc: &Path, config: Option<&Config>) -> Vec<Found> {
    let landlock = match thread::spawn(enter_domain).join() {
        Ok(domain @ Domain::Whole) => Found::ok("landlock", domain.to_string()),
        Ok(domain) => Found::warning(
            "landlock",
            domain.to_string(),
            "nothing relies on it: capabilities, uids and the filter are in force all the same",
        ),
        Err(panic) => std::panic::resume_unwind(panic),
    };
    let hidden = in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        show_own_processes_only()?;
        Ok("helpers see none but their own".into())
    });
    let hidden =
        hidden.map_err(|why| format!("helpers see that others run, and how they were called: {}", chain(&*why)).into());
    vec![
        Found::useful(
            "outliving",
            "without it volumes end when the mounter's container does, and no memory_limit is in force: start the container \
             with the node's PID namespace (hostPID: true), privileged",
            in_thread(|| outlives(host_proc)),
        ),
        landlock,
        Found::useful(
            "uids",
            "name numbers that the container's user namespace has (/proc/self/uid_map): `[helpers] uids`; or give types `user = \"root\"`",
            in_thread(|| own_uids(config.map_or_else(UidRange::default, |config| config.uids.clone()))),
        ),
        Found::useful(
            "processes",
            "give the container a /proc of its own that can be mounted anew: run it privileged",
            hidden,
        ),
        Found::useful(
            "filter",
            "run the container privileged, without a seccomp profile: without it helpers may make calls that they do not need",
            in_thread(|| {
                set_no_new_privs(true)?;
                restrict(&filter::program(Heard::ByNobody, false))?;
                Ok("helpers are refused the calls that they do not need".into())
            }),
        ),
    ]
}

/// Runs a trial on a thread of its own, which may lose its privileges and its mount namespace: they end with it.
fn in_thread(trial: impl FnOnce() -> Trial + Send) -> Trial {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, trial)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Mounts a FUSE filesystem without a helper, copies its tree and attaches the copy, as for a volume.
fn graft(state: &Path) -> Trial {
    kernel::check()?;
    namespace::create_directories(state)?;
    let account = Account::root();
    let target = Path::new("/doctor/from");
    let needs = Needs {
        target,
        account: &account,
        sysfs: false,
        writable: &[],
        readable: Readable::All(Vec::new()),
        files: &[],
    };
    let (place, _) =
        namespace::prepare(state, &World::new(&namespace::syslog_socket(state))?, &Scratch::new()?, needs)?;
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let data = CString::new(format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    let mounted = place.mount(c"doctor", "fuse.doctor", flags, data.as_c_str())?;
    let tree = Tree::copy_at(mounted.as_fd())?;
    mounted.detach(UnmountFlags::empty())?;
    drop(mounted);
    tree.graft_at(place.path())?;
    let seen = device_at(place.path())?;
    unmount(place.path(), UnmountFlags::DETACH)?;
    seen.map(|_| "a FUSE filesystem can be mounted, copied and attached".to_owned())
        .ok_or_else(|| "nothing was attached".into())
}

fn node(host_proc: &Path) -> Trial {
    let node = MountNamespace::of_node(host_proc)?;
    if node.is_callers()? {
        return Err(format!("{} shows this container's own first process, not the node's", host_proc.display()).into());
    }
    node.visit(|| ())?;
    Ok("its mount namespace can be entered".into())
}

/// Whether helpers would outlive the container.
fn outlives(host_proc: &Path) -> Trial {
    // Not the mounter's own, which may be running.
    let (cgroups, ends_with_container) =
        Cgroups::find(&MountNamespace::of_node(host_proc)?, host_proc, "hostmount-doctor");
    cgroups.close();
    match ends_with_container {
        Some(why) => Err(why.into()),
        None => Ok(match cgroups.counted() {
            (true, true) => "helpers have cgroups of their own, where memory_limit and process_limit hold",
            (true, false) => "helpers have cgroups of their own, where memory_limit holds; [helpers] process_limit cannot be used here",
            (false, true) => "helpers have cgroups of their own, where process_limit holds; memory_limit cannot be used here",
            (false, false) => "helpers have cgroups of their own; neither memory_limit nor [helpers] process_limit can be used here",
        }
        .into()),
    }
}

/// Whether processes can have the first and the last uid of the range.
fn own_uids(range: UidRange) -> Trial {
    for number in [*range.numbers().start(), *range.numbers().end()] {
        let (uid, gid) = (Uid::from_raw(number), Gid::from_raw(number));
        set_thread_res_gid(gid, gid, gid)?;
        // The last one stays ours to set.
        set_thread_res_uid(uid, uid, Uid::ROOT)?;
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    }
    Ok(format!("each helper can have one of {range} for itself"))
}
