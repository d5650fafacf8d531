//! Which pods have a volume, and what they are called.
//!
//! Runs in the mounter, on the threads of those who ask. A pod's uid is in the path of each place that kubelet has for it. Its
//! name is that of kubelet's directory for its logs, or else what a caller has said: without an API server there is no other
//! word for it, so it is shown, and nothing is decided by it.

use crate::mounter::Mounter;
use api::pod::{Pod, PodName};
use linux::mount_namespace::MountNamespace;
use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags, openat2};
use std::collections::HashMap;
use std::path::{Component, Path};
use std::sync::{Mutex, PoisonError};

/// Kubelet's directories for logs, one for each pod that has been started: `NAMESPACE_NAME_UID`.
const LOGS: &str = "/var/log/pods";
/// How many of them are read: kubelet has one for each pod of the node.
const READ: usize = 10_000;
/// How many names are kept that callers have said.
const KEPT: usize = 4096;

/// What callers have said of pods, by their uids.
#[derive(Debug, Default)]
pub struct PodNames(Mutex<HashMap<String, PodName>>);

impl PodNames {
    /// A caller says of which pod the place `target` is.
    pub fn hear(&self, target: &Path, kubelet_dir: &Path, name: &PodName) {
        uid_of(target, kubelet_dir).into_iter().for_each(|uid| self.learn(uid, name));
    }

    fn learn(&self, uid: &str, name: &PodName) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= KEPT && !names.contains_key(uid) {
            // Those of pods that have been started are in kubelet's directory by now.
            names.clear();
        }
        names.insert(uid.to_owned(), name.clone());
    }

    fn of(&self, uid: &str) -> Option<PodName> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }
}

/// The uid of the pod that kubelet has the place `target` for: `KUBELET_DIR/pods/UID/…`.
pub fn uid_of<'a>(target: &'a Path, kubelet_dir: &Path) -> Option<&'a str> {
    let mut below = target.strip_prefix(kubelet_dir).ok()?.components();
    match (below.next()?, below.next()?, below.next()?) {
        (Component::Normal(pods), Component::Normal(uid), Component::Normal(_)) if pods == "pods" => uid.to_str(),
        _ => None,
    }
}

/// Gives pods their names, as far as they are known: kubelet's directory is read once, if there is any pod.
pub fn name<'a>(mounter: &Mounter, pods: impl Iterator<Item = &'a mut Pod>) {
    let mut pods = pods.peekable();
    if pods.peek().is_none() {
        return;
    }
    let started = started(&mounter.node);
    for pod in pods {
        let name = started.get(&pod.uid).cloned();
        // Kubelet's directory goes with the pod; what has happened to its volumes is shown for longer.
        name.iter().for_each(|name| mounter.pod_names.learn(&pod.uid, name));
        pod.name = name.or_else(|| mounter.pod_names.of(&pod.uid)).or_else(|| pod.name.take());
    }
}

/// The pods that kubelet has a directory for logs of. No link is followed: pods that collect logs may write beside it.
fn started(node: &MountNamespace) -> HashMap<String, PodName> {
    let read = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat2(CWD, LOGS, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).ok()?;
        let entries = Dir::read_from(&directory).ok()?.take(READ).flatten();
        Some(entries.filter_map(|entry| from_directory(entry.file_name().to_str().ok()?)).collect())
    };
    node.visit(read).ok().flatten().unwrap_or_default()
}

fn from_directory(name: &str) -> Option<(String, PodName)> {
    let [namespace, name, uid] = name.splitn(3, '_').collect::<Vec<_>>().try_into().ok()?;
    Some((uid.to_owned(), PodName::new(namespace, name)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_places_are_below_its_directory() {
        let uid = |target: &'static str| uid_of(Path::new(target), Path::new("/var/lib/kubelet"));
        assert_eq!(uid("/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~csi/v/mount"), Some("u-1"));
        assert_eq!(uid("/var/lib/kubelet/pods/u-1/volume-subpaths/v/c/0"), Some("u-1"));
        for none in ["/var/lib/kubelet/pods/u-1", "/var/lib/kubelet/plugins/x/y", "/var/lib/kubeletx/pods/u/v", "/mnt"]
        {
            assert_eq!(uid(none), None, "{none}");
        }
    }

    #[test]
    fn a_directory_for_logs_names_its_pod() {
        let (uid, name) = from_directory("kube-system_etcd.1_0af3").unwrap();
        assert_eq!((uid.as_str(), name.path().as_str()), ("0af3", "kube-system/etcd.1"));
        assert_eq!(from_directory("README"), None);
        assert_eq!(from_directory("a_\u{1b}[2J_c"), None);
    }

    #[test]
    fn what_is_said_is_bounded() {
        let (names, kubelet_dir) = (PodNames::default(), Path::new("/k"));
        let pod = PodName::new("n", "p").unwrap();
        for number in 0..=KEPT {
            names.hear(Path::new(&format!("/k/pods/u{number}/v")), kubelet_dir, &pod);
        }
        names.hear(Path::new("/mnt/x"), kubelet_dir, &pod);
        assert_eq!(names.of(&format!("u{KEPT}")), Some(pod));
        assert_eq!(names.0.lock().unwrap().len(), 1);
    }
}
