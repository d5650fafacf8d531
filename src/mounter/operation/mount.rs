//! One volume from request to graft, in a straight line.
//!
//! Runs in the mounter, on a thread of the request's own; the node's namespace is only ever visited.

use super::bring_up::{BringUpError, FreshFilesystem, Purpose, bring_up};
use super::place::{Place, PlaceError, mounts_of, open_place, take_away};
use super::placeholder::{Behind, PlaceholderError, filesystem_at, for_users_of_pods, is_for_pods};
use super::tokens;
use crate::config::Config;
use crate::mounter::Mounter;
use crate::mounter::connection::Connection;
use crate::mounter::target_locks::TargetBusy;
use crate::mounter::volume::{History, Volume};
use crate::node::target::{Target, open_in_filesystem};
use crate::node::tree::Tree;
use crate::observe::events;
use crate::observe::metrics::Step;
use crate::policy::{Denied, authorize, authorize_place};
use crate::policy::{Grant, GrantedTypes, Plan, PlanError};
use api::message::{Mount, Mounted};
use api::origin::Origin;
use api::request::Request;
use linux::mount_namespace::NamespaceError;
use linux::mount_table::Mount as TableMount;
use linux::statx::is_directory;
use linux::sys::ask::Patience;
use rustix::mount::MountFlags;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use tracing::info;

/// Why a volume is not on the node. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The request makes no sense.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The request is not to be had from where it came.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Another operation at this target is not finished yet.
    #[error(transparent)]
    Busy(#[from] TargetBusy),
    /// The node's namespace.
    #[error(transparent)]
    Node(#[from] NamespaceError),
    /// The place on the node.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// As mount(8) says it.
    #[error("{source_name} already mounted on {target}")]
    AlreadyMounted {
        /// What is mounted.
        source_name: String,
        /// Where.
        target: String,
    },
    /// Something else is there, and the caller did not want to cover it.
    #[error("something else is mounted on {target}, or the same with other options; unmount it first")]
    Occupied {
        /// Where.
        target: String,
    },
    /// No filesystem that answers.
    #[error(transparent)]
    BringUp(#[from] BringUpError),
    /// The filesystem answered, and shows no owners but its own.
    #[error(
        "this filesystem does not allow X-mount.idmap (FUSE does from Linux 6.12 on, and if the helper asks for it); use the \
         helper's own options for owners, like uid=, gid=, umask=, idmap= or map="
    )]
    NoIdMap(#[source] io::Error),
    /// The filesystem answered, and has no such directory.
    #[error(
        "cannot open the directory that X-mount.subdir names: it must be in the filesystem, and no symbolic link is followed to it"
    )]
    Subdir(#[source] io::Error),
    /// The filesystem answered, and pods with a user namespace cannot have it.
    #[error(transparent)]
    Placeholder(#[from] PlaceholderError),
    /// The filesystem answered, and the kernel did not attach it.
    #[error("cannot attach the filesystem at the target")]
    Graft(#[source] io::Error),
}

/// Mounts a volume on the node, for the process at the other end of `caller`.
pub fn mount(mounter: &Mounter, asked: Mount, caller: &Connection) -> Result<Mounted, MountError> {
    let within = asked.ready_within.map(Duration::from_secs);
    let history = History { origin: Some(caller.origin()), pod: asked.pod, ..History::default() };
    let config = mounter.configuration.get();
    let plan = Plan::new(&config, caller.origin(), asked.request)?;
    if let Err(denied) = permit(mounter, &config, caller.origin(), &plan) {
        // What was granted is not judged again, by whatever rules there are now: kubelet repeats its calls.
        return if asked.unless_mounted && is_there(mounter, &plan) { Ok(already()) } else { Err(denied.into()) };
    }
    let _place = mounter.places.take(&plan.target)?;
    let Place { target, made } = open_place(mounter, &plan.target, asked.make_target)?;
    let mounted = match what_is_there(mounter, &plan, &target) {
        There::Nothing => mount_at(mounter, plan, target, caller, (within, history)),
        There::Same { access: true } if asked.unless_mounted => {
            renew_tokens(mounter, &plan, &target);
            Ok(already())
        }
        There::Same { .. } if !asked.unless_mounted => Err(already_mounted(&plan)),
        There::Other if !asked.unless_mounted => {
            // On top of it, as with mount(8).
            mount_at(mounter, plan, target, caller, (within, history))
        }
        There::Same { .. } | There::Other => Err(MountError::Occupied { target: plan.request.target }),
    };
    match mounted {
        Err(MountError::AlreadyMounted { .. }) if asked.unless_mounted => Ok(already()),
        Err(error) => {
            take_away(mounter, made);
            Err(error)
        }
        mounted => mounted,
    }
}

/// Understands a request from `origin`, if it may be had.
pub fn admit(mounter: &Mounter, origin: Origin, request: Request) -> Result<Plan, MountError> {
    let config = mounter.configuration.get();
    let plan = Plan::new(&config, origin, request)?;
    permit(mounter, &config, origin, &plan)?;
    Ok(plan)
}

/// Whether callers from `origin` may have what is planned.
pub fn permit(mounter: &Mounter, config: &Config, origin: Origin, plan: &Plan) -> Result<(), Denied> {
    authorize(origin, plan, config)?;
    authorize_place(&plan.target, &mounter.own_paths)
}

/// Whether the very volume is at its target already; then its helper has the request's tokens.
fn is_there(mounter: &Mounter, plan: &Plan) -> bool {
    let Ok(Place { target, .. }) = open_place(mounter, &plan.target, false) else { return false };
    let there = what_is_there(mounter, plan, &target) == There::Same { access: true };
    if there {
        renew_tokens(mounter, plan, &target);
    }
    there
}

fn renew_tokens(mounter: &Mounter, plan: &Plan, target: &Target) {
    if let Some(device) = target.mounted {
        tokens::renew(mounter, plan, filesystem_at(mounter, &plan.target, device));
    }
}

/// What is at a target already.
#[derive(Debug, PartialEq, Eq)]
enum There {
    Nothing,
    /// A volume with the same type and source.
    Same {
        /// And as writable, or not.
        access: bool,
    },
    Other,
}

fn what_is_there(mounter: &Mounter, plan: &Plan, target: &Target) -> There {
    let Some(device) = target.mounted else { return There::Nothing };
    match mounter.registry.of(filesystem_at(mounter, &plan.target, device)).map(|volume| volume.plan) {
        Some(Plan { request, grant, subdir, .. })
            if request.fstype == plan.request.fstype
                && request.source == plan.request.source
                && subdir == plan.subdir =>
        {
            let read_only = |grant: &Grant| grant.flags.contains(MountFlags::RDONLY);
            There::Same { access: read_only(&grant) == read_only(&plan.grant) }
        }
        Some(_) => There::Other,
        // One that the kernel serves by itself is known by the mount table alone.
        None => match mounts_of(mounter, device) {
            Ok(mounts) => the_kernels(&mounts, plan),
            Err(_) => There::Other,
        },
    }
}

/// What is at a plan's target, if it is a filesystem of the kernel's own.
fn the_kernels(mounts: &[TableMount], plan: &Plan) -> There {
    let Some(mount) = mounts.iter().rfind(|mount| mount.target == plan.target) else { return There::Other };
    let fstype = mount.fstype.to_string_lossy();
    let same = GrantedTypes::is_kernels(&fstype)
        && plan.grant.types.contains(&fstype)
        && mount.source.as_encoded_bytes() == plan.request.source.as_bytes();
    let read_only = mount.options.split(',').any(|word| word == "ro");
    if same { There::Same { access: read_only == plan.grant.flags.contains(MountFlags::RDONLY) } } else { There::Other }
}

/// Brings the filesystem up and shows it at the target.
fn mount_at(
    mounter: &Mounter,
    plan: Plan,
    target: Target,
    caller: &Connection,
    (within, history): (Option<Duration>, History),
) -> Result<Mounted, MountError> {
    let began = Instant::now();
    let _lock = mounter.target_locks.take(&plan.target)?;
    let fresh = bring_up(mounter, &plan, Purpose::Caller(caller), within)?;
    // The kernel refuses to mount a filesystem on itself, and mount(8) reports that. One of the kernel's own (NFS) is the
    // same whenever its export is mounted; a helper's is new each time.
    if target.mounted == Some(fresh.identity.device) {
        fresh.discard();
        return Err(already_mounted(&plan));
    }
    let grafting = Instant::now();
    if let Err(error) = graft(mounter, &fresh, &plan, target) {
        fresh.discard();
        return Err(error);
    }
    mounter.metrics.step(Step::graft, grafting.elapsed());
    let volume = Volume::new(plan, fresh.program.clone(), fresh.identity, fresh.processes());
    let volume = Volume { history, ..volume };
    let released = fresh.release(&mounter.state);
    let seconds = began.elapsed().as_secs_f64();
    info!(event = events::MOUNTED, device = %volume.identity.device, seconds, "mounted on the node");
    if volume.identity.connection.is_some() {
        mounter.registry.add(volume, released.serving);
    } else {
        info!(
            event = events::SERVED_BY_KERNEL,
            "the kernel serves it by itself: its helper is finished, and the node's mount table alone knows it"
        );
    }
    Ok(Mounted { output: released.words, already: false })
}

/// Attaches the filesystem on the node, or the directory of it that is to be shown: all of that at once.
fn graft(mounter: &Mounter, fresh: &FreshFilesystem, plan: &Plan, target: Target) -> Result<(), MountError> {
    let root = fresh.root().map_err(MountError::Graft)?;
    let subdir = plan.subdir.as_deref();
    let failed = |error| if subdir.is_some() { MountError::Subdir(error) } else { MountError::Graft(error) };
    let tree = tree_at(root, subdir, mounter.patience()).map_err(failed)?;
    fresh.ids().map_or(Ok(()), |ids| tree.map_ids(ids)).map_err(MountError::NoIdMap)?;
    let tree = if plan.host_users || !is_for_pods(mounter, &plan.target) {
        tree
    } else {
        let read_only = plan.grant.flags.contains(MountFlags::RDONLY);
        for_users_of_pods(mounter, tree, Behind { volume: &plan.target, target: &plan.target, read_only })?
    };
    // The target's descriptor goes with the visit: held any longer, it would keep the node's directory busy.
    mounter.node.visit_on_this_thread(move || tree.graft(&target))?.map_err(MountError::Graft)
}

/// What is to be shown of a filesystem: all of it, or a directory.
pub fn tree_at(root: BorrowedFd<'_>, subdir: Option<&Path>, patience: Patience<'_>) -> io::Result<Tree> {
    let Some(subdir) = subdir else { return Tree::copy_at(root) };
    let directory = open_in_filesystem(root, subdir, patience)?;
    if !is_directory(directory.as_fd())? {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Tree::copy_at(directory.as_fd())
}

fn already() -> Mounted {
    Mounted { output: Vec::new(), already: true }
}

fn already_mounted(plan: &Plan) -> MountError {
    MountError::AlreadyMounted { source_name: plan.source_shown(), target: plan.request.target.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::options::MountOptions;
    use linux::mount_table;

    /// Kubelet stages such a volume again after its own restart.
    #[test]
    fn a_filesystem_of_the_kernels_is_known_by_its_mount() {
        let there = |fstype: &str, source: &str, options: &str| {
            let (options, switches, secrets) =
                (MountOptions::parse(options).unwrap(), Default::default(), Default::default());
            let (fstype, source, target) = (fstype.to_owned(), source.to_owned(), "/t".to_owned());
            let request = Request { fstype, source, target, options, switches, secrets };
            let plan = Plan::new(&Config::default(), Origin::Operator, request).unwrap();
            let table = b"36 35 0:98 / /t rw,nosuid - nfs4 host:/x rw,vers=4.2\n";
            the_kernels(&mount_table::parse(table), &plan)
        };
        assert_eq!(there("nfs", "host:/x", ""), There::Same { access: true });
        assert_eq!(there("nfs4", "host:/x", "ro"), There::Same { access: false });
        assert_eq!(there("nfs", "host:/y", ""), There::Other);
        assert_eq!(there("cifs", "host:/x", ""), There::Other);
        assert_eq!(there("bindfs", "host:/x", ""), There::Other);
    }
}
