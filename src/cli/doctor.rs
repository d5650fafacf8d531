//! `hostmount doctor`: tries what mounting needs, and prints what to do about each failure.
//!
//! Runs in the container, beside the mounter and like it: uid 0, privileged. It mounts in a mount namespace of a
//! thread's own; on the node it changes nothing. `--probe` runs anywhere and only asks the mounter.

use crate::config::Config;
use crate::config::user::{Readable, UidRange};
use crate::engine::preload::DEFAULT_OBJECT;
use crate::engine::seccomp::calls::Heard;
use crate::engine::seccomp::filter;
use crate::engine::{Choice, choose};
use crate::helper::account::Account;
use crate::helper::confine::confine_this_thread;
use crate::helper::domain::{Domain, enter_domain};
use crate::helper::find;
use crate::helper::namespace::{self, Needs};
use crate::helper::scratch::Scratch;
use crate::helper::world::{World, show_own_processes_only};
use crate::node::cgroup::Cgroups;
use crate::node::kernel;
use crate::node::tree::Tree;
use api::client::{Client, host_proc};
use api::exit::{Exit, chain};
use api::origin::Origin;
use api::shown::shown_lines;
use linux::mount_namespace::MountNamespace;
use linux::statx::device_at;
use linux::sys::seccomp::restrict;
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_no_new_privs, set_thread_res_gid, set_thread_res_uid};
use std::error::Error;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

/// Its command line.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print nothing, and try only whether the mounter answers: for a pod's probe
    #[arg(long)]
    probe: bool,
    /// Configuration file [default: as for `serve`]
    #[arg(long)]
    config: Option<PathBuf>,
    /// Directory of the mounter's state
    #[arg(long, default_value = "/run/hostmount")]
    state: PathBuf,
    /// The node's proc filesystem [default: $HOSTPROCPATH/proc]
    #[arg(long)]
    host_proc: Option<PathBuf>,
}

/// The result of one trial: what works, or what is wrong.
type Finding = Result<String, Box<dyn Error + Send + Sync>>;

/// Runs `hostmount doctor`. It succeeds when volumes could be mounted.
pub(super) fn main(arguments: &Arguments) -> ExitCode {
    if arguments.probe {
        return if mounter().is_ok() { ExitCode::SUCCESS } else { Exit::MountFailure.into() };
    }
    let config = Config::load(arguments.config.as_deref());
    let host_proc = arguments.host_proc.clone().unwrap_or_else(host_proc);
    let needed = [
        show(
            "configuration",
            "correct the file",
            config.as_ref().map(|_| "is valid".into()).map_err(|e| chain(e).into()),
        ),
        show(
            "/dev/fuse",
            "the kernel needs FUSE (modprobe fuse on the node), and the container the device: run it privileged",
            File::options().read(true).write(true).open("/dev/fuse").map(|_| "opens".into()).map_err(Into::into),
        ),
        show(
            "confinement",
            "run the container privileged",
            in_thread(|| {
                Ok(confine_this_thread(&Default::default(), true)
                    .map(|()| "a helper can be left without privileges".into())?)
            }),
        ),
        show(
            "engine",
            "run the container privileged, without a seccomp profile, or put the preload engine's shared object into it",
            choose(Choice::Auto, DEFAULT_OBJECT.into()).map(|method| method.to_string()).map_err(Into::into),
        ),
        show(
            "mounts",
            "the kernel must be Linux 5.8 or later and have FUSE (modprobe fuse on the node); run the container privileged",
            in_thread(|| graft(&arguments.state)),
        ),
        show(
            "node",
            "start the container with the node's PID namespace (hostPID: true), or mount the node's /proc and name it \
             with --host-proc or HOSTPROCPATH",
            node(&host_proc),
        ),
        show(
            "types",
            "add FUSE programs to the container's image",
            types(config.as_ref().unwrap_or(&Config::default())),
        ),
    ];
    // Volumes work without it.
    show(
        "outliving",
        "without it volumes end when the mounter's container does, and no memory_limit is in force: start the container \
         with the node's PID namespace (hostPID: true), privileged",
        in_thread(|| outlives(&host_proc)),
    );
    // A second wall, which there is or is not.
    match thread::spawn(enter_domain).join() {
        Ok(Domain::Nothing) => linux::say!("note  landlock: {}", Domain::Nothing),
        Ok(domain) => linux::say!("ok    landlock: {domain}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
    show(
        "uids",
        "name numbers that the container's user namespace has (/proc/self/uid_map): `[helpers] uids`; or give types `user = \"root\"`",
        in_thread(|| own_uids(config.as_ref().map_or_else(|_| UidRange::default(), |config| config.uids.clone()))),
    );
    let hidden = in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        show_own_processes_only()?;
        Ok("helpers see none but their own".into())
    });
    match hidden {
        Ok(hidden) => linux::say!("ok    processes: {hidden}"),
        Err(why) => linux::say!(
            "note  processes: helpers see that others run, and how they were called: {}",
            shown_lines(&chain(&*why))
        ),
    }
    show(
        "filter",
        "run the container privileged, without a seccomp profile: without it helpers may make calls that they do not need",
        in_thread(|| {
            set_no_new_privs(true)?;
            restrict(&filter::program(Heard::ByNobody, false))?;
            Ok("helpers are refused the calls that they do not need".into())
        }),
    );
    // The mounter need not run: an image can be tried before it serves.
    show(
        "mounter",
        "start `hostmount serve`",
        mounter().map(|volumes| {
            format!("answers; it has {volumes} {volume}", volume = if volumes == 1 { "volume" } else { "volumes" })
        }),
    );
    if needed.iter().all(|good| *good) { ExitCode::SUCCESS } else { Exit::System.into() }
}

/// Prints one finding, and returns whether it is a success.
fn show(what: &str, advice: &str, finding: Finding) -> bool {
    match &finding {
        Ok(seen) => linux::say!("ok    {what}: {}", shown_lines(seen)),
        Err(error) => linux::say!("FAIL  {what}: {}\n      {advice}", shown_lines(&chain(error.as_ref()))),
    }
    finding.is_ok()
}

/// Runs a trial on a thread of its own, which may lose its privileges and its mount namespace: they end with it.
fn in_thread(trial: impl FnOnce() -> Finding + Send) -> Finding {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, trial)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Mounts a FUSE filesystem without a helper, copies its tree and attaches the copy, as for a volume.
fn graft(state: &Path) -> Finding {
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

fn node(host_proc: &Path) -> Finding {
    let node = MountNamespace::of_node(host_proc)?;
    if node.is_callers()? {
        return Err(format!("{} shows this container's own first process, not the node's", host_proc.display()).into());
    }
    node.visit(|| ())?;
    Ok("its mount namespace can be entered".into())
}

/// Whether helpers would outlive the container.
fn outlives(host_proc: &Path) -> Finding {
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
fn own_uids(range: UidRange) -> Finding {
    for number in [*range.numbers().start(), *range.numbers().end()] {
        let (uid, gid) = (Uid::from_raw(number), Gid::from_raw(number));
        set_thread_res_gid(gid, gid, gid)?;
        // The last one stays ours to set.
        set_thread_res_uid(uid, uid, Uid::ROOT)?;
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    }
    Ok(format!("each helper can have one of {range} for itself"))
}

fn types(config: &Config) -> Finding {
    let configured: Vec<&str> = config.types_with_command().collect();
    let mut lines = String::new();
    for fstype in find::types().iter().map(String::as_str).filter(|fstype| !configured.contains(fstype)) {
        let program = find::helper(fstype, "", config.settings_of(fstype))?;
        lines.push_str(&format!("\n      {fstype:<24}{}", program.path.display()));
    }
    for fstype in configured {
        match find::helper(fstype, "", config.settings_of(fstype)) {
            Ok(program) => lines.push_str(&format!("\n      {fstype:<24}{} (configured)", program.path.display())),
            Err(error) => lines.push_str(&format!("\n      {fstype:<24}not served: {error}")),
        }
    }
    if lines.is_empty() {
        Err("there is no helper in this container".into())
    } else {
        Ok(lines.trim_start_matches('\n').trim_start().to_owned())
    }
}

/// Whether the mounter answers, and how many volumes it has.
fn mounter() -> Result<usize, Box<dyn Error + Send + Sync>> {
    Client::from_environment(Origin::Operator)
        .list()
        .map(|volumes| volumes.len())
        .map_err(|error| error.into_failure().message.into())
}
