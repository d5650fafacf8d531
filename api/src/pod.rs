//! Pods, as people and kubelet know them.
//!
//! Pure. A pod's uid is in kubelet's paths. Its name is what a caller says: it is shown and logged, and nothing is decided by it.

use serde::{Deserialize, Serialize};

/// A pod's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

/// A pod that has a volume.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pod {
    /// As in kubelet's paths: the uid that the API server gives, or the hash that a static pod has instead.
    pub uid: String,
    /// Its name, if it is known.
    #[serde(flatten)]
    pub name: Option<PodName>,
}

impl PodName {
    /// A name, if both words can be ones of Kubernetes: DNS labels (RFC 1123), for the name several with dots.
    pub fn new(namespace: &str, name: &str) -> Option<Self> {
        let word = |word: &str, longest: usize, dots: bool| {
            let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || dots && c == '.';
            !word.is_empty() && word.len() <= longest && word.chars().all(good)
        };
        let is_one = word(namespace, 63, false) && word(name, 253, true);
        is_one.then(|| Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The same of one that came in a message.
    pub fn checked(self) -> Option<Self> {
        Self::new(&self.namespace, &self.name)
    }

    /// As `kubectl` writes it: `NAMESPACE/NAME`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_kubernetes_would_call_a_pod() {
        assert_eq!(PodName::new("kube-system", "etcd-node.1").unwrap().path(), "kube-system/etcd-node.1");
        for (namespace, name) in
            [("", "a"), ("a", ""), ("a.b", "c"), ("a", "b/c"), ("A", "b"), ("a", "b\n"), ("a", "é")]
        {
            assert_eq!(PodName::new(namespace, name), None, "{namespace} {name}");
        }
        assert_eq!(PodName::new(&"n".repeat(64), "a"), None);
        assert_eq!(PodName { namespace: "a".into(), name: "\u{1b}".into() }.checked(), None);
    }

    #[test]
    fn a_pod_without_a_name_is_its_uid_alone() {
        let json = |pod: &Pod| serde_json::to_string(pod).unwrap();
        let unnamed = Pod { uid: "u".into(), name: None };
        let named = Pod { uid: "u".into(), name: PodName::new("n", "p") };
        assert_eq!(json(&unnamed), r#"{"uid":"u"}"#);
        assert_eq!(json(&named), r#"{"uid":"u","namespace":"n","name":"p"}"#);
        for pod in [unnamed, named] {
            assert_eq!(serde_json::from_str::<Pod>(&json(&pod)).unwrap(), pod);
        }
    }
}
