//! What a helper may not do, put on the thread that is about to start it.
//!
//! Capabilities, `no_new_privs` and seccomp filters belong to a thread and are inherited by what it starts
//! (capabilities(7), prctl(2), seccomp(2)). So a thread of the mounter's puts them on, starts the helper, and ends:
//! nothing has to be done between fork and exec, and every step has an ordinary error.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
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
    /// prctl(PR_SET_NO_NEW_PRIVS).
    #[error("cannot set no_new_privs")]
    NoNewPrivs(#[source] io::Error),
}

/// Takes every privilege but the capabilities in `keep` from the calling thread, for ever.
pub fn confine_this_thread(keep: &CapsHashSet) -> Result<(), ConfineError> {
    // The bounding set first: emptying it takes a capability (CAP_SETPCAP).
    for (set, name) in [
        (CapSet::Ambient, "ambient"),
        (CapSet::Bounding, "bounding"),
        (CapSet::Inheritable, "inheritable"),
        (CapSet::Effective, "effective"),
        (CapSet::Permitted, "permitted"),
    ] {
        reduce(set, keep).map_err(|source| ConfineError::Capabilities { set: name, kept: names(keep), source })?;
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
        // Not needed: what uid 0 starts gets what is both permitted and bounding (capabilities(7)).
        CapSet::Ambient => caps::clear(None, set),
        CapSet::Inheritable => caps::set(None, set, &CapsHashSet::new()),
        CapSet::Effective | CapSet::Permitted => caps::set(None, set, keep),
    }
}

fn names(capabilities: &CapsHashSet) -> String {
    let mut names: Vec<_> = capabilities.iter().map(Capability::to_string).collect();
    names.sort();
    if names.is_empty() { "nothing".to_owned() } else { names.join(",") }
}
