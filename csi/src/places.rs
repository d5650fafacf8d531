//! Paths on the node, which are the same in this container.
//!
//! Pure. The mounter looks at them once more, and at what is really there.

use crate::settings::Settings;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Component, Path, PathBuf};

/// The paths that the driver has to do with.
#[derive(Debug, Clone)]
pub struct Places {
    kubelet_dir: PathBuf,
    driver_name: String,
}

/// A path of a call that cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// It is none of kubelet's.
    #[error("{field} must be a path below {kubelet_dir}, without '..'", kubelet_dir = kubelet_dir.display())]
    Elsewhere {
        /// Which one.
        field: &'static str,
        /// Where it should be.
        kubelet_dir: PathBuf,
    },
}

impl Places {
    /// Those of a driver with these settings.
    pub fn new(settings: &Settings) -> Self {
        Self { kubelet_dir: settings.kubelet_dir.clone(), driver_name: settings.driver_name.clone() }
    }

    /// The driver's socket.
    pub fn endpoint(&self) -> PathBuf {
        self.kubelet_dir.join("plugins").join(&self.driver_name).join("csi.sock")
    }

    /// The socket that kubelet asks about the driver, in a directory of its own: kubelet looks into directories as well, and ours may
    /// belong to the driver's user.
    pub fn registration(&self) -> PathBuf {
        self.kubelet_dir.join("plugins_registry").join(&self.driver_name).join("reg.sock")
    }

    /// What the helper of some work in a filesystem is known by, where nothing is ever mounted: the same for the same work, so that two
    /// who ask for it take turns.
    pub fn of_work(&self, about: &impl Hash) -> String {
        let mut hasher = DefaultHasher::new();
        about.hash(&mut hasher);
        let directory = self.kubelet_dir.join("plugins/kubernetes.io/csi").join(&self.driver_name);
        directory.join(format!("work-{:016x}", hasher.finish())).display().to_string()
    }

    /// The uid of the pod that a path is for.
    pub fn pod_of<'a>(&self, path: &'a str) -> Option<&'a str> {
        let below = Path::new(path).strip_prefix(self.kubelet_dir.join("pods")).ok()?;
        below.components().next()?.as_os_str().to_str()
    }

    /// A path of a call, in its field.
    pub fn check(&self, path: &str, field: &'static str) -> Result<(), BadPath> {
        if path.is_empty() {
            return Err(BadPath::Missing(field));
        }
        let below = Path::new(path).strip_prefix(&self.kubelet_dir);
        let names = |below: &Path| below.components().all(|part| matches!(part, Component::Normal(_)));
        match below {
            Ok(below) if !below.as_os_str().is_empty() && names(below) && !path.contains('\0') => Ok(()),
            _ => Err(BadPath::Elsewhere { field, kubelet_dir: self.kubelet_dir.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_kubelets_directory() {
        let places = Places { kubelet_dir: "/var/lib/kubelet".into(), driver_name: "d".into() };
        places.check("/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/n/mount", "target_path").unwrap();
        assert_eq!(places.check("", "target_path"), Err(BadPath::Missing("target_path")));
        for bad in [
            "/etc",
            "/var/lib/kubelet",
            "/var/lib/kubelet/",
            "/var/lib/kubelet/../x",
            "/var/lib/kubelet/pods/../../x",
            "/var/lib/kubeletx/pods",
            "var/lib/kubelet/x",
            "/var/lib/kubelet/a\0b",
        ] {
            assert!(matches!(places.check(bad, "target_path"), Err(BadPath::Elsewhere { .. })), "{bad}");
        }
        assert_eq!(places.pod_of("/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/n/mount"), Some("u"));
        assert_eq!(places.pod_of("/var/lib/kubelet/plugins/kubernetes.io/csi/d/h/globalmount"), None);
        assert_eq!(places.endpoint(), Path::new("/var/lib/kubelet/plugins/d/csi.sock"));
        assert_eq!(places.registration(), Path::new("/var/lib/kubelet/plugins_registry/d/reg.sock"));
    }
}
