//! Whom a volume's filesystem answers: if it is served by a program of a pod with a user namespace, the processes of that and nobody else.
//!
//! Who looks on the node is none of them. So it is asked as root of the pod's user namespace, whose processes tell which one that is.

use super::told::Told;
use crate::node::pod_cgroup::is_of_pod;
use linux::processes;
use linux::sys::ask::Patience;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// The pod, and its user namespace, as it was found last.
#[derive(Debug)]
pub(super) struct Users {
    host_proc: PathBuf,
    pod: Option<String>,
    found: Mutex<Option<Arc<File>>>,
}

impl Users {
    /// That of the pod whose volume this is, which its place tells.
    pub(super) fn of_pod(told: &Told) -> Self {
        let pod = told.view.iter().next().and_then(|uid| uid.to_str()).map(str::to_owned);
        Self { host_proc: told.host_proc.clone(), pod, found: Mutex::default() }
    }

    /// The user namespace, as it was found last.
    pub(super) fn known(&self) -> Option<Arc<File>> {
        // Nothing is left half-done by a thread that panics while it holds it.
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same, looked for anew: a pod whose sandbox is made again has another one.
    pub(super) fn look(&self) -> Option<Arc<File>> {
        let pod = self.pod.as_deref()?;
        let all = processes::all(&self.host_proc).ok()?;
        let its = all.iter().filter(|process| process.read("cgroup").is_ok_and(|text| is_of_pod(&text, pod)));
        let found = its.filter_map(|process| process.other_user_namespace().ok()?).next().map(Arc::new);
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&found);
        found
    }
}

/// How long an answer may take, and who asks.
pub(super) fn asked_by(users: Option<&File>) -> Patience<'_> {
    Patience { users: users.map(AsFd::as_fd), ..Patience::USUAL }
}
