//! What a helper may not do, put on the thread that is about to start it.
//!
//! Capabilities, `no_new_privs` and seccomp filters belong to a thread and are inherited by what it starts
//! (capabilities(7), prctl(2), seccomp(2)). So a thread of the mounter's puts them on, starts the helper, and ends:
//! nothing has to be done between fork and exec, and every step has an ordinary error.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use rustix::thread::{set_keep_capabilities, set_thread_groups};
use std::io;

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// A capability set could not be reduced, or the mounter has not got what a helper shall keep.
    #[error("cannot reduce the {set} capability set to {kept}")]
    Capabilities {
        /// Which of the five.
        set: &'static str,
        /// To what.
        kept: String,
        /// The kernel's error.
        source: CapsError,
    },
    /// setgroups(2), or prctl(PR_SET_KEEPCAPS).
    #[error("cannot leave the mounter's groups and capabilities")]
    Account(#[source] io::Error),
    /// prctl(PR_SET_NO_NEW_PRIVS).
    #[error("cannot set no_new_privs")]
    NoNewPrivs(#[source] io::Error),
}

/// Takes every privilege but the capabilities in `keep` from the calling thread, for ever. If what it starts `becomes` another
/// user, the thread itself has what that takes, but nothing that is executed gets it.
pub fn confine_this_thread(keep: &CapsHashSet, becomes: bool) -> Result<(), ConfineError> {
    set_thread_groups(&[]).map_err(|errno| ConfineError::Account(errno.into()))?;
    let mut own = keep.clone();
    if becomes {
        own.extend([Capability::CAP_SETUID, Capability::CAP_SETGID]);
        // Else a change from uid 0 takes all of them.
        set_keep_capabilities(!keep.is_empty()).map_err(|errno| ConfineError::Account(errno.into()))?;
    }
    // What uid 0 starts gets what is both permitted and bounding; what others start gets what is ambient, which is raised when it
    // has become another user, and must be inheritable then (capabilities(7)).
    let (none, inherited) = (CapsHashSet::new(), if becomes { keep } else { &CapsHashSet::new() });
    // The bounding set first: emptying it takes a capability (CAP_SETPCAP).
    for (set, name, kept) in [
        (CapSet::Ambient, "ambient", &none),
        (CapSet::Bounding, "bounding", keep),
        (CapSet::Inheritable, "inheritable", inherited),
        (CapSet::Effective, "effective", &own),
        (CapSet::Permitted, "permitted", &own),
    ] {
        reduce(set, kept).map_err(|source| ConfineError::Capabilities { set: name, kept: names(kept), source })?;
    }
    rustix::thread::set_no_new_privs(true).map_err(|errno| ConfineError::NoNewPrivs(errno.into()))
}

fn reduce(set: CapSet, keep: &CapsHashSet) -> Result<(), CapsError> {
    match set {
        // Only what this kernel knows can be dropped.
        CapSet::Bounding => {
            let mut others = caps::runtime::thread_all_supported().into_iter().filter(|cap| !keep.contains(cap));
            others.try_for_each(|cap| caps::drop(None, set, cap))
        }
        CapSet::Ambient => caps::clear(None, set),
        CapSet::Inheritable | CapSet::Effective | CapSet::Permitted => caps::set(None, set, keep),
    }
}

fn names(capabilities: &CapsHashSet) -> String {
    let mut names: Vec<_> = capabilities.iter().map(Capability::to_string).collect();
    names.sort();
    if names.is_empty() { "nothing".to_owned() } else { names.join(",") }
}
