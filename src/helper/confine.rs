//! What a helper may not do, put on the thread that is about to start it.
//!
//! Capabilities, `no_new_privs` and seccomp filters belong to a thread and are inherited by what it starts
//! (capabilities(7), prctl(2), seccomp(2)). So a thread of the mounter's puts them on, starts the helper, and ends:
//! nothing has to be done between fork and exec, and every step has an ordinary error.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_no_new_privs, set_thread_groups,
};
use std::io;
use std::sync::OnceLock;

/// What can still be in the bounding set of any of this process's threads, if that was [limited](limit_helpers).
static BOUNDING: OnceLock<CapsHashSet> = OnceLock::new();

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The ambient or the bounding set could not be reduced.
    #[error("cannot reduce the {set} capability set to {kept}")]
    Capabilities {
        /// Which of the two.
        set: &'static str,
        /// To what.
        kept: String,
        /// The kernel's error.
        source: CapsError,
    },
    /// capset(2): the mounter has not got what a helper shall keep.
    #[error("cannot reduce the effective, permitted and inheritable capability sets to {kept}")]
    Sets {
        /// To what.
        kept: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// setgroups(2), or prctl(PR_SET_KEEPCAPS).
    #[error("cannot leave the mounter's groups and capabilities")]
    Account(#[source] io::Error),
    /// prctl(PR_SET_NO_NEW_PRIVS).
    #[error("cannot set no_new_privs")]
    NoNewPrivs(#[source] io::Error),
}

/// Takes from whatever this process executes what no helper may `keep`: a capability less to be taken from each helper. What the
/// process may do itself is not less. To be called before there are other threads, which inherit it.
pub fn limit_helpers(keep: &CapsHashSet) -> Result<(), CapsError> {
    let all = caps::runtime::thread_all_supported();
    all.difference(keep).try_for_each(|capability| caps::drop(None, CapSet::Bounding, *capability))?;
    let _ = BOUNDING.set(all.intersection(keep).copied().collect());
    Ok(())
}

/// Takes every privilege but the capabilities in `keep` from the calling thread, for ever. If what it starts `becomes` another
/// user, the thread itself has what that takes, but nothing that is executed gets it.
pub fn confine_this_thread(keep: &CapsHashSet, becomes: bool) -> Result<(), ConfineError> {
    set_thread_groups(&[]).map_err(|errno| ConfineError::Account(errno.into()))?;
    let mut own = keep.clone();
    if becomes {
        own.extend([Capability::CAP_SETUID, Capability::CAP_SETGID]);
    }
    if becomes && !keep.is_empty() {
        // Else a change from uid 0 takes all of them.
        set_keep_capabilities(true).map_err(|errno| ConfineError::Account(errno.into()))?;
    }
    let failed = |set, kept: &CapsHashSet| {
        let kept = names(kept);
        move |source| ConfineError::Capabilities { set, kept, source }
    };
    // What uid 0 starts gets what is both permitted and bounding; what others start gets what is ambient, which is raised when it
    // has become another user, and must be inheritable then (capabilities(7)).
    caps::clear(None, CapSet::Ambient).map_err(failed("ambient", &CapsHashSet::new()))?;
    // Before the others: it takes a capability (CAP_SETPCAP).
    let bounding = BOUNDING.get().cloned().unwrap_or_else(caps::runtime::thread_all_supported);
    let others = bounding.difference(keep);
    let dropped = others.copied().try_for_each(|capability| caps::drop(None, CapSet::Bounding, capability));
    dropped.map_err(failed("bounding", keep))?;
    let inheritable = if becomes { bits(keep) } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: bits(&own), permitted: bits(&own), inheritable };
    set_capabilities(None, sets).map_err(|errno| ConfineError::Sets { kept: names(&own), source: errno.into() })?;
    set_no_new_privs(true).map_err(|errno| ConfineError::NoNewPrivs(errno.into()))
}

fn bits(capabilities: &CapsHashSet) -> CapabilitySet {
    let bit = |capability: &Capability| CapabilitySet::from_bits_retain(1 << capability.index());
    capabilities.iter().map(bit).collect()
}

fn names(capabilities: &CapsHashSet) -> String {
    let mut names: Vec<_> = capabilities.iter().map(Capability::to_string).collect();
    names.sort();
    if names.is_empty() { "nothing".to_owned() } else { names.join(",") }
}
