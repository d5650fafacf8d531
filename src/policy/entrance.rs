//! What can be asked at which door.
//!
//! Runs in the mounter; pure. Each kind of caller has the requests that it makes, and no other.

use api::message::Call;
use api::origin::Origin;
use std::path::{Component, Path};

/// A request that is not for callers from there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// Callers from there never make it.
    #[error("{origin} may not ask for this ({request}): use `hostmount`, as root on the node")]
    Request {
        /// Where the request comes from.
        origin: Origin,
        /// Its name.
        request: &'static str,
    },
    /// It is about a volume of others.
    #[error("{origin} may ask only about targets that kubelet has made for CSI volumes, below its directory")]
    Target {
        /// Where the request comes from.
        origin: Origin,
    },
}

/// Whether `call` is one that callers from `origin` make.
pub fn serves(origin: Origin, call: &Call, kubelet_dir: &Path) -> Result<(), NotServed> {
    let (request, places) = match call {
        Call::Mount(mount) => ("mount", vec![&mount.request.target]),
        Call::Bind(bind) => ("bind", vec![&bind.source, &bind.target]),
        Call::Unmount { target, .. } => ("unmount", vec![target]),
        Call::Status { target } => ("status", vec![target]),
        Call::Stats { target } => ("stats", vec![target]),
        Call::Logs { target, .. } => ("logs", vec![target]),
        Call::Heal { target } => ("heal", vec![target]),
        Call::Swap { target, .. } => ("swap", vec![target]),
        Call::Directory(asked) => ("directory", vec![&asked.request.target]),
        Call::Program(asked) => ("program", vec![&asked.target]),
        Call::List => ("list", vec![]),
        Call::CheckPolicy { .. } | Call::Policy | Call::Explain { .. } => ("policy", vec![]),
        Call::Events { .. } => ("events", vec![]),
        Call::Metrics => ("metrics", vec![]),
        Call::About => ("about", vec![]),
        Call::Top => ("top", vec![]),
    };
    let served = match origin {
        Origin::Operator => true,
        Origin::Kubelet | Origin::FlexVolume => request == "mount",
        Origin::Csi => {
            ["mount", "bind", "unmount", "status", "stats", "list", "directory", "program"].contains(&request)
        }
    };
    if !served {
        return Err(NotServed::Request { origin, request });
    }
    let seen = places.into_iter().all(|place| is_seen(origin, Path::new(place), kubelet_dir));
    if seen { Ok(()) } else { Err(NotServed::Target { origin }) }
}

/// Whether callers from `origin` may know of a volume at `target`. The CSI server sees those at the places that kubelet has for
/// CSI volumes: `pods/UID/volumes/kubernetes.io~csi/NAME/mount` and what is below `plugins/kubernetes.io/csi`.
pub fn is_seen(origin: Origin, target: &Path, kubelet_dir: &Path) -> bool {
    if origin != Origin::Csi {
        return true;
    }
    let Ok(below) = target.strip_prefix(kubelet_dir) else { return false };
    let mut names = Vec::new();
    for component in below.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().unwrap_or_default()),
            _ => return false,
        }
    }
    match names.as_slice() {
        ["pods", _, "volumes", "kubernetes.io~csi", _, "mount"] => true,
        ["plugins", "kubernetes.io", "csi", below @ ..] => !below.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::plan::tests::request;
    use api::directory::{Directory, Work};
    use api::message::Bind;
    use api::program::ProgramVolume;

    const KUBELET: &str = "/var/lib/kubelet";
    const PODS: &str = "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v/mount";

    fn bind(source: &str, target: &str) -> Call {
        let (source, target) = (source.into(), target.into());
        Call::Bind(Bind { source, target, read_only: false, alone: false, make_target: true, pod: None })
    }

    fn calls(target: &str) -> Vec<Call> {
        let there = target;
        let target = || target.to_owned();
        vec![
            Call::Mount(request("x", &target(), "").into()),
            Call::Unmount { target: target(), remove_target: true },
            Call::Status { target: target() },
            Call::List,
            bind(PODS, there),
            bind(there, PODS),
            Call::Stats { target: target() },
            Call::Directory(Directory {
                request: request("x", &target(), ""),
                path: "d".into(),
                work: Work::Remove,
                within: 9,
            }),
            Call::Program(ProgramVolume {
                target: target(),
                empty_dir: "e".into(),
                name: "n".into(),
                read_only: false,
                host_users: true,
            }),
            Call::Heal { target: target() },
            Call::Swap { target: target(), changes: Default::default() },
            Call::CheckPolicy { origin: Origin::Operator, request: request("x", &target(), "") },
            Call::Policy,
            Call::Metrics,
            Call::About,
            Call::Top,
            Call::Explain { origin: Origin::Operator, request: request("x", &target(), "") },
            Call::Events { after: 0 },
            Call::Logs { target: target(), after: 0 },
        ]
    }

    #[test]
    fn each_origin_has_its_requests() {
        let served = |origin| {
            let served = |call: &Call| serves(origin, call, Path::new(KUBELET)).is_ok();
            calls(PODS).iter().map(served).collect::<Vec<_>>()
        };
        assert_eq!(served(Origin::Operator), [true; 19]);
        for origin in [Origin::Kubelet, Origin::FlexVolume] {
            assert_eq!(served(origin).iter().filter(|served| **served).count(), 1);
            assert!(served(origin)[0]);
        }
        assert_eq!(served(Origin::Csi), [[true; 9].as_slice(), &[false; 10]].concat());
    }

    #[test]
    fn the_csi_server_knows_of_csi_volumes_alone() {
        let seen = |target: &str| is_seen(Origin::Csi, Path::new(target), Path::new(KUBELET));
        for target in [PODS, "/var/lib/kubelet/plugins/kubernetes.io/csi/d/hash/globalmount"] {
            assert!(seen(target), "{target}");
        }
        for target in [
            "/mnt/x",
            KUBELET,
            "pods/u/volumes/kubernetes.io~csi/v/mount",
            "/var/lib/kubelet/pods/u/volumes/hostmount~fuse/v",
            "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v",
            "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v/mount/below",
            "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/../mount",
            "/var/lib/kubelet/plugins/kubernetes.io/csi",
            "/var/lib/kubelet/plugins/kubernetes.io/csi/../../../x",
            "/var/lib/kubeletx/plugins/kubernetes.io/csi/x",
        ] {
            assert!(!seen(target), "{target}");
            assert!(
                calls(target)
                    .iter()
                    .filter(|call| !matches!(call, Call::List))
                    .all(|call| { serves(Origin::Csi, call, Path::new(KUBELET)).is_err() })
            );
        }
    }
}
