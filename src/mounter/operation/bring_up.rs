//! The movement that mounting, healing and swapping share: launch a helper, and wait until its filesystem answers.
//!
//! Runs in the mounter, on a thread of its own, which [`namespace::prepare`] moves into a mount namespace that it shares
//! with the helper alone, for the rest of its life.

use super::ready::{NotReady, Watched, until_ready};
use crate::config::handover::SecretsError;
use crate::config::settings::MemoryLimit;
use crate::engine::broker::{Broker, Progress};
use crate::engine::helper_processes::HelperProcesses;
use crate::helper::account::{Account, mounters_home};
use crate::helper::arguments::{self, arguments};
use crate::helper::cause::{telling_line, waits_for};
use crate::helper::find::{self, NoHelper};
use crate::helper::launch::{Helper, LaunchError, Serving, Start, launch};
use crate::helper::log_files;
use crate::helper::namespace::{self, Needs, PrepareError, files_directory, in_words_of_the_node};
use crate::helper::output::{HelperOutput, aside, texts};
use crate::helper::uids::NoUidLeft;
use crate::mounter::Mounter;
use crate::mounter::connection::Connection;
use crate::node::cgroup::{Placement, Resident};
use crate::node::connections::Identity;
use crate::node::log_file::{self, LogFileError};
use crate::observe::metrics::Step;
use crate::policy::{Plan, words_without_secrets_of};
use api::exit::chain;
use api::request::Request;
use linux::mount_namespace::NamespaceError;
use linux::sys::user_namespace::new_user_namespace;
use rustix::process::Pid;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracing::warn;

/// Why there is no filesystem that answers. Nothing is left of the helper then.
#[derive(Debug, thiserror::Error)]
pub enum BringUpError {
    /// The request's secrets.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// The request's options.
    #[error(transparent)]
    Option(#[from] arguments::OptionNotTaken),
    /// No program for the type.
    #[error(transparent)]
    NoHelper(#[from] NoHelper),
    /// No uid for the helper.
    #[error(transparent)]
    NoUid(#[from] NoUidLeft),
    /// The node's namespace.
    #[error(transparent)]
    Node(#[from] NamespaceError),
    /// The helper's namespace.
    #[error(transparent)]
    Namespace(#[from] PrepareError),
    /// A log file on the node that kubelet named.
    #[error("the option log-file={path} names a file on the node", path = path.display())]
    LogFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: LogFileError,
    },
    /// No user namespace for the ids.
    #[error("cannot make the mapping of X-mount.idmap")]
    IdMap(#[source] io::Error),
    /// The helper does not run.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The helper ran, and no filesystem came of it.
    #[error("{what}")]
    Helper {
        /// Which program could not mount what, and why as far as can be known: in its own words, or by what it waits for.
        what: String,
        /// What happened.
        #[source]
        reason: NotReady,
        /// What it wrote.
        output: Vec<String>,
        /// What was refused to it.
        objections: Vec<String>,
    },
}

/// A filesystem that answers, seen by its helper and by the calling thread only: to be shown and then
/// [released](Self::release), or [discarded](Self::discard).
#[derive(Debug)]
pub struct FreshFilesystem {
    /// Which one it is.
    pub identity: Identity,
    /// The helper's program.
    pub program: String,
    helper: Helper,
    broker: Broker,
    ids: Option<OwnedFd>,
}

/// What is left of a helper when its volume is on the node.
#[derive(Debug)]
pub struct Released {
    /// To be held on to.
    pub serving: Serving,
    /// What it wrote so far, in words of the node.
    pub words: Vec<String>,
}

/// What a filesystem is brought up for. When that is no more, the helper is killed.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// A caller waits for it.
    Caller(&'a Connection),
    /// A volume is to be given it, for as long as it is there: until this is readable, or hung up.
    Volume(BorrowedFd<'a>),
}

impl Purpose<'_> {
    fn end(&self) -> BorrowedFd<'_> {
        match self {
            Self::Caller(caller) => caller.as_fd(),
            Self::Volume(gone) => *gone,
        }
    }

    fn process(&self) -> Option<Pid> {
        match self {
            Self::Caller(caller) => caller.process(),
            Self::Volume(_) => None,
        }
    }
}

/// Launches the helper for a plan and waits until its filesystem answers, and not longer than there is a `purpose`. On an error nothing
/// is left of it.
pub fn bring_up(
    mounter: &Mounter,
    plan: &Plan,
    purpose: Purpose<'_>,
    within: Option<Duration>,
) -> Result<FreshFilesystem, BringUpError> {
    let began = Instant::now();
    let settings = &plan.settings;
    let files = files_directory(&mounter.state);
    let ids = plan.idmap.as_ref().map(|map| new_user_namespace(&map.users, &map.groups));
    let ids = ids.transpose().map_err(BringUpError::IdMap)?;
    let handover = settings.handover.hand_over(&plan.request.secrets, &files)?;
    let program = find::helper(&plan.request.fstype, &plan.request.source, settings)?;
    let account = Account::of(mounter.configuration.get().user(&plan.request), &mounter.uids)?;
    let needs = Needs {
        target: &plan.target,
        account: &account,
        sysfs: settings.sysfs,
        writable: &settings.writable,
        readable: mounter.configuration.get().readable(&plan.request, &mounters_home()),
        files: &handover.files,
    };
    // From here on this thread is in the helper's mount namespace.
    let (place, shown) = namespace::prepare(&mounter.state, &mounter.world, &mounter.scratch, needs)?;
    let mut request = plan.request.clone();
    settings.handover.point_to_files(&mut request.options, &files);
    show_log_file(mounter, &mut request, &account)?;
    let arguments = arguments(&program.style, &program.name(), &request, place.path(), &files)?;
    let placement = placement(mounter, &plan.target, purpose.process(), settings.memory_limit);
    let start = Start {
        state: &mounter.state,
        source: &plan.request.source,
        program: &program,
        arguments,
        settings,
        account: (&account, shown),
        handover,
        placement,
    };
    let prepared = Instant::now();
    let mut helper = launch(&mounter.method, &mounter.reaper, start)?;
    let launched = Instant::now();
    let mut broker = Broker::new(plan.grant, place);
    let allowed = within.map_or(settings.ready_timeout, |within| within.min(settings.ready_timeout));
    let watched = Watched { mounter, purpose: purpose.end(), allowed };
    let ready = until_ready(&mut helper, &mut broker, watched);
    let reason = match (ready, broker.progress()) {
        (Ok(mounted), Progress::Mounted(device)) => {
            let metrics = &mounter.metrics;
            metrics.step(Step::prepare, prepared - began);
            metrics.step(Step::launch, launched - prepared);
            metrics.step(Step::helper, mounted.begun.saturating_duration_since(launched));
            metrics.step(Step::intercept, mounted.done.saturating_duration_since(mounted.begun));
            metrics.step(Step::answer, mounted.done.elapsed());
            let identity = mounter.connections.identify(device);
            return Ok(FreshFilesystem { identity, program: program.name(), helper, broker, ids });
        }
        (Ok(_), _) => NotReady::Withdrawn,
        (Err(reason), _) => reason,
    };
    Err(failed(mounter, plan, program.name(), &account, (helper, broker), reason))
}

/// Kills a helper that is not ready, and gathers all that may explain why.
fn failed(
    mounter: &Mounter,
    plan: &Plan,
    program: String,
    account: &Account<'_>,
    (mut helper, broker): (Helper, Broker),
    reason: NotReady,
) -> BringUpError {
    let mut waits = None;
    if reason.is_its_own() {
        helper.hear_out();
    } else {
        waits = waits_for(helper.processes()).or_else(|| reason.waited_for().map(str::to_owned));
    }
    let refused = broker.objections();
    let mut objections = refused.clone();
    if objections.is_empty() && broker.progress() == Progress::Waiting {
        objections.extend(helper.missed_call_hint().map(str::to_owned));
    }
    objections.extend(helper.ran_out_of_memory());
    let mut words = end(helper, broker).lines();
    let in_files = log_files::last_errors().into_iter();
    words.extend(in_files.map(|line| aside(words_without_secrets_of(&plan.request.source, &line))));
    let lines = texts(words.clone());
    if !account.is_root() && lines.iter().any(|line| speaks_of_permission(line)) {
        objections.push(
            "if that is about a file of the container: the helper does not run as root; files that only root may read are named in its type's \
             `readable`, and what it shall write to must be its own (docs/ownership.md)"
                .to_owned(),
        );
    }
    let output = in_words_of_the_node(&mounter.state, &lines);
    words.extend(refused.into_iter().chain(waits.clone()).map(aside));
    mounter.registry.keep_failed(plan, program.clone(), words);
    let cause = waits.or_else(|| telling_line(&output));
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    let what = format!("{program} could not mount {}{cause}", plan.source_shown());
    BringUpError::Helper { what, reason, output, objections }
}

fn speaks_of_permission(line: &str) -> bool {
    // With the ways to log in that are left, it is what a server of SSH says.
    let line = line.to_lowercase().replace("permission denied (", "");
    ["permission", "not permitted", "not readable", "unreadable", "eacces"].iter().any(|word| line.contains(word))
}

/// Where the helper will be among the node's cgroups. A volume that has to do without one works all the same.
fn placement<'a>(
    mounter: &'a Mounter,
    target: &Path,
    caller: Option<Pid>,
    limit: Option<MemoryLimit>,
) -> Placement<'a> {
    if let Some(limit) = limit.filter(|_| !mounter.cgroups.can_limit()) {
        warn!("the memory_limit of {limit} is not in force: the node's cgroups cannot be used for it");
    }
    mounter.cgroups.placement(Resident::Helper, target, caller, limit.map(MemoryLimit::bytes)).unwrap_or_else(|error| {
        warn!("the helper has no cgroup of its own, and no limit; it ends with the container: {}", chain(&error));
        Placement::default()
    })
}

/// A log file that kubelet names is the node's, and the helper shall write to it.
fn show_log_file(mounter: &Mounter, request: &mut Request, account: &Account<'_>) -> Result<(), BringUpError> {
    let kubelet_dir = &mounter.kubelet_dir;
    let options = &mut request.options;
    let Some(named) = options.value(log_file::OPTION).map(PathBuf::from) else { return Ok(()) };
    if !log_file::is_on_node(&request.fstype, &named, kubelet_dir) {
        return Ok(());
    }
    let tree = mounter.node.visit(|| log_file::open(&named, kubelet_dir, (account.uid, account.gid)))?;
    let tree = tree.map_err(|source| BringUpError::LogFile { path: named, source })?;
    let shown = namespace::show_log_file(&mounter.state, tree)?;
    options.retain(|option| option.name != log_file::OPTION);
    options.push_value(log_file::OPTION, shown.display());
    Ok(())
}

impl FreshFilesystem {
    /// Everything the helper started.
    pub fn processes(&self) -> HelperProcesses {
        self.helper.processes().clone()
    }

    /// The user namespace that maps its ids, if they are to be mapped.
    pub fn ids(&self) -> Option<BorrowedFd<'_>> {
        self.ids.as_ref().map(AsFd::as_fd)
    }

    /// Its root, in the calling thread's mount namespace.
    pub fn root(&self) -> io::Result<BorrowedFd<'_>> {
        self.broker.mounted().map(AsFd::as_fd).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The filesystem shows elsewhere now: lets go of the helper's own copy, so that its end there is its end.
    pub fn release(mut self, state: &Path) -> Released {
        if let Err(error) = self.broker.let_go() {
            warn!("cannot let go of the helper's own copy; `umount` on the node will not end the helper: {error}");
        }
        self.helper.engine.take_in(self.broker.take_objections());
        // Its exit may have been noticed before its last words.
        self.helper.output.drain();
        let words = in_words_of_the_node(state, &texts(self.helper.output.lines()));
        Released { serving: self.helper.release(), words }
    }

    /// Ends it, and everything the helper started.
    pub fn discard(self) {
        end(self.helper, self.broker);
    }
}

fn end(helper: Helper, mut broker: Broker) -> HelperOutput {
    // The filesystem first: a helper that waits for its own filesystem could not end before it, nor could whoever asked it.
    if broker.is_fuse()
        && let Err(error) = broker.abort()
    {
        warn!("cannot end the helper's filesystem: {error}");
    }
    drop(broker);
    helper.end()
}
