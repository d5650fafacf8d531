//! The movement that mounting, healing and swapping share: launch a helper, and wait until its filesystem answers.
//!
//! Runs in the mounter, on a thread of its own, which [`namespace::prepare`] moves into a mount namespace that it shares
//! with the helper alone, for the rest of its life.

use super::Mounter;
use super::caller::Caller;
use super::ready::{NotReady, Watched, until_ready};
use super::turns::TargetBusy;
use crate::config::filesystem::MemoryLimit;
use crate::config::handover::SecretsError;
use crate::engine::broker::{Broker, Grant, Progress};
use crate::engine::helper_processes::HelperProcesses;
use crate::helper::arguments::{self, arguments};
use crate::helper::find::{self, NoHelper};
use crate::helper::launch::{Helper, LaunchError, Serving, Start, launch};
use crate::helper::namespace::{self, PrepareError, files_directory, in_words_of_the_node};
use crate::helper::output::HelperOutput;
use crate::node::cgroup::Placement;
use crate::node::connections::Identity;
use crate::node::log_file::{self, LogFileError};
use crate::node::target::TargetError;
use crate::policy::{Admitted, Refusal};
use api::exit::chain;
use api::options::MountOptions;
use linux::mount_namespace::NamespaceError;
use linux::sys::user_namespace::new_user_namespace;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use tracing::warn;

/// Why a volume is not on the node. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The request's words.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The request's secrets.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The request's options.
    #[error(transparent)]
    Lost(#[from] arguments::Lost),
    /// No program for the type.
    #[error(transparent)]
    NoHelper(#[from] NoHelper),
    /// The node's namespace.
    #[error(transparent)]
    Node(#[from] NamespaceError),
    /// The place on the node.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// As mount(8) says it.
    #[error("{source_name} already mounted on {target}")]
    AlreadyMounted {
        /// What is mounted.
        source_name: String,
        /// Where.
        target: String,
    },
    /// Another request for this target is not through yet.
    #[error(transparent)]
    Busy(#[from] TargetBusy),
    /// The helper's namespace.
    #[error(transparent)]
    Place(#[from] PrepareError),
    /// A log file on the node that kubelet named.
    #[error("the option log-file={path} names a file on the node", path = path.display())]
    LogFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: LogFileError,
    },
    /// The helper does not run.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The helper ran, and no filesystem came of it.
    #[error("{helper} could not mount {source_name}")]
    Helper {
        /// The program.
        helper: String,
        /// What it should have mounted.
        source_name: String,
        /// What happened.
        #[source]
        reason: NotReady,
        /// What it said.
        output: Vec<String>,
        /// What was refused to it.
        objections: Vec<String>,
    },
    /// No user namespace for the ids.
    #[error("cannot make the mapping of X-mount.idmap")]
    IdMap(#[source] io::Error),
    /// The filesystem stood, and shows no owners but its own.
    #[error(
        "this filesystem does not allow X-mount.idmap (FUSE does from Linux 6.12 on, and if the helper asks for it); use the \
         helper's own options for owners, like uid=, gid=, umask=, idmap= or map="
    )]
    NoIdMap(#[source] io::Error),
    /// The filesystem stood, and the kernel did not attach it.
    #[error("cannot attach the filesystem at the target")]
    Graft(#[source] io::Error),
}

/// A filesystem that answers, seen by its helper and by the calling thread only. It must [stand](Self::stand) or
/// [fall](Self::fall).
#[derive(Debug)]
pub struct Raised {
    /// Which one it is.
    pub identity: Identity,
    /// The helper's program.
    pub program: String,
    helper: Helper,
    broker: Broker,
    ids: Option<OwnedFd>,
}

/// What is left of a helper when its volume stands.
#[derive(Debug)]
pub struct Standing {
    /// To be held on to.
    pub serving: Serving,
    /// What it said so far, in words of the node.
    pub words: Vec<String>,
}

/// Launches the helper for a request and waits until its filesystem answers. `caller` may go away meanwhile, which ends
/// it. On an error nothing is left of it.
pub fn raise(mounter: &Mounter, admitted: &Admitted, caller: Option<&Caller>) -> Result<Raised, MountError> {
    let settings = mounter.config.filesystem(&admitted.request);
    let files = files_directory(&mounter.state);
    let ids = admitted.idmap.as_ref().map(|map| new_user_namespace(&map.users, &map.groups));
    let ids = ids.transpose().map_err(MountError::IdMap)?;
    let handover = settings.hand_over(&admitted.request.secrets, &files)?;
    let program = find::helper(&admitted.request.fstype, settings.command.as_ref())?;
    // From here on this thread is in the helper's mount namespace.
    let place =
        namespace::prepare(&mounter.state, &admitted.target, &mounter.scratch, &settings.writable, &handover.files)?;
    let mut request = admitted.request.clone();
    settings.point_to_files(&mut request.options, &files);
    show_log_file(mounter, &mut request.options)?;
    let arguments = arguments(&program.style, &program.name(), &request, place.path(), &files)?;
    let placement = placement(mounter, &admitted.target, caller, settings.memory_limit);
    let start = Start { program: &program, arguments, settings: &settings, handover, placement };
    let mut helper = launch(&mounter.method, &mounter.reaper, start)?;
    let grant = Grant { family: admitted.family, place, flags: admitted.flags, allow_other: admitted.allow_other };
    let mut broker = Broker::new(grant);
    let allowed = mounter.config.ready_timeout(&settings);
    let watched = Watched { mounter, caller: caller.map(AsFd::as_fd), allowed };
    let ready = until_ready(&mut helper, &mut broker, watched);
    let reason = match (ready, broker.progress()) {
        (Ok(()), Progress::Mounted(device)) => {
            let identity = mounter.connections.identify(device);
            return Ok(Raised { identity, program: program.name(), helper, broker, ids });
        }
        (Ok(()), _) => NotReady::Withdrawn,
        (Err(reason), _) => reason,
    };
    let mut objections = broker.objections().to_vec();
    if objections.is_empty() && broker.progress() == Progress::Waiting {
        objections.extend(helper.missed_call_hint().map(str::to_owned));
    }
    objections.extend(helper.ran_out_of_memory());
    let lines = end(helper, broker).lines();
    let output = in_words_of_the_node(&mounter.state, &lines);
    mounter.registry.remember_failed(admitted, program.name(), lines);
    let source_name = admitted.request.source.clone();
    Err(MountError::Helper { helper: program.name(), source_name, reason, output, objections })
}

/// Where the helper will be among the node's cgroups. A volume that has to do without one works all the same.
fn placement<'a>(
    mounter: &'a Mounter,
    target: &Path,
    caller: Option<&Caller>,
    limit: Option<MemoryLimit>,
) -> Placement<'a> {
    if let Some(limit) = limit.filter(|_| !mounter.cgroups.can_limit()) {
        warn!("the memory_limit of {limit} is not in force: the node's cgroups cannot be used for it");
    }
    let caller = caller.and_then(Caller::process);
    mounter.cgroups.placement(target, caller, limit.map(MemoryLimit::bytes)).unwrap_or_else(|error| {
        warn!("the helper has no cgroup of its own, and no limit; it ends with the container: {}", chain(&error));
        Placement::default()
    })
}

/// A log file that kubelet names is the node's, and the helper shall write to it.
fn show_log_file(mounter: &Mounter, options: &mut MountOptions) -> Result<(), MountError> {
    let kubelet_dir = &mounter.config.kubelet_dir;
    let Some(named) = options.value(log_file::OPTION).map(PathBuf::from) else { return Ok(()) };
    if !log_file::is_on_node(&named, kubelet_dir) {
        return Ok(());
    }
    let tree = mounter.node.visit(|| log_file::open(&named, kubelet_dir))?;
    let shown =
        namespace::show_log_file(&mounter.state, tree.map_err(|source| MountError::LogFile { path: named, source })?)?;
    options.retain(|option| option.name != log_file::OPTION);
    options.push_value(log_file::OPTION, shown.display());
    Ok(())
}

impl Raised {
    /// Everything the helper started.
    pub fn family(&self) -> HelperProcesses {
        self.helper.processes().clone()
    }

    /// The user namespace that maps its ids, if they are to be mapped.
    pub fn ids(&self) -> Option<BorrowedFd<'_>> {
        self.ids.as_ref().map(AsFd::as_fd)
    }

    /// Where the calling thread sees the filesystem.
    pub fn path(&self) -> &Path {
        self.broker.place().path()
    }

    /// The filesystem shows elsewhere now: lets go of the helper's own copy, so that its end there is its end.
    pub fn stand(mut self, state: &Path) -> Standing {
        if let Err(error) = self.broker.let_go() {
            warn!("cannot let go of the helper's own copy; `umount` on the node will not end the helper: {error}");
        }
        // Its exit may have been heard of before its last words.
        self.helper.output.drain();
        let words = in_words_of_the_node(state, &self.helper.output.lines());
        Standing { serving: self.helper.release(), words }
    }

    /// Ends it, and everything the helper started.
    pub fn fall(self) {
        end(self.helper, self.broker);
    }
}

fn end(helper: Helper, broker: Broker) -> HelperOutput {
    // The filesystem first: a helper that waits for its own filesystem could not end before it.
    drop(broker);
    helper.end()
}
