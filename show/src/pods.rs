//! Pods: which of them are asked for, and how they stand in a table.
//!
//! Pure.

use api::pod::Pod;

/// Which pods.
#[derive(Debug, Default, clap::Args)]
pub struct PodFilter {
    /// Only what this pod has: its name, NAMESPACE/NAME or its uid
    #[arg(long, value_name = "POD")]
    pub pod: Option<String>,
    /// Only what pods of this namespace have
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

impl PodFilter {
    /// Whether one of these pods is asked for.
    pub fn wants(&self, pods: &[Pod]) -> bool {
        let is_one = |pod: &Pod, wanted: &String| {
            let named = pod.name.as_ref().is_some_and(|name| name.name == *wanted || name.path() == *wanted);
            named || pod.uid == *wanted
        };
        let is_in = |pod: &Pod, wanted: &String| pod.name.as_ref().is_some_and(|name| name.namespace == *wanted);
        // One pod must be both.
        self.pod.is_none() && self.namespace.is_none()
            || pods.iter().any(|pod| {
                self.pod.as_ref().is_none_or(|wanted| is_one(pod, wanted))
                    && self.namespace.as_ref().is_none_or(|wanted| is_in(pod, wanted))
            })
    }
}

/// The namespace and the name of the first pod, and how many there are beyond; or all of them.
pub fn cells(pods: &[Pod], all: bool) -> (String, String) {
    let namespace = |pod: &Pod| pod.name.as_ref().map_or_else(|| "-".to_owned(), |name| name.namespace.clone());
    let name = |pod: &Pod| pod.name.as_ref().map_or_else(|| pod.uid.clone(), |name| name.name.clone());
    match pods {
        [] => ("-".to_owned(), "-".to_owned()),
        [one] => (namespace(one), name(one)),
        many if all => {
            let joined = |word: &dyn Fn(&Pod) -> String| many.iter().map(word).collect::<Vec<_>>().join(",");
            (joined(&namespace), joined(&name))
        }
        [first, others @ ..] => (namespace(first), format!("{} +{}", name(first), others.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::pod::PodName;

    #[test]
    fn a_pod_is_asked_for_by_its_name_its_path_or_its_uid() {
        let pods =
            [Pod { uid: "u1".into(), name: PodName::new("shop", "web-0") }, Pod { uid: "u2".into(), name: None }];
        let wants = |pod: &str, namespace: &str| {
            let word = |word: &str| Some(word.to_owned()).filter(|word| !word.is_empty());
            let filter = PodFilter { pod: word(pod), namespace: word(namespace) };
            [filter.wants(&pods[..1]), filter.wants(&pods), filter.wants(&[])]
        };
        assert_eq!(wants("", ""), [true; 3]);
        assert_eq!(wants("web-0", ""), [true, true, false]);
        assert_eq!(wants("shop/web-0", ""), [true, true, false]);
        assert_eq!(wants("u2", ""), [false, true, false]);
        assert_eq!(wants("", "shop"), [true, true, false]);
        assert_eq!(wants("u2", "shop"), [false; 3], "no pod is both");
    }
}
