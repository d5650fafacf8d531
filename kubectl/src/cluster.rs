//! Where the mounters are: the pods of the DaemonSet, as kubectl lists them.
//!
//! Runs on the main thread.

use crate::run::{Bounds, RunError, run};
use api::shown::shown;
use serde::Deserialize;
use std::process::{Command, Stdio};
use std::time::Duration;

/// What the API server may answer about pods: some ten thousand of them.
const PODS: usize = 256 << 20;

/// Which mounters, and how they are asked.
#[derive(Debug, clap::Args)]
pub(crate) struct Where {
    /// Only these nodes
    #[arg(long, value_name = "NODE", value_delimiter = ',', global = true)]
    node: Vec<String>,
    /// The namespace of hostmount's own pods
    #[arg(long, value_name = "NAMESPACE", env = "HOSTMOUNT_NAMESPACE", default_value = "kube-system", global = true)]
    hostmount_namespace: String,
    /// The labels of the mounters' pods
    #[arg(
        short = 'l',
        long,
        default_value = "app.kubernetes.io/name in (hostmount-csi, hostmount, hostmount-daemonset)",
        global = true
    )]
    selector: String,
    /// The mounter's container in them
    #[arg(long, value_name = "NAME", default_value = "mounter", global = true)]
    container: String,
    /// How long a node may take to answer [default: 30; for heal and swap 300, without a line of its own]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..), global = true)]
    timeout: Option<u64>,
    /// How many nodes are asked at a time
    #[arg(long, value_name = "NODES", default_value = "16", value_parser = clap::value_parser!(u16).range(1..=256), global = true)]
    parallel: u16,
    #[command(flatten)]
    connection: Connection,
}

/// What is passed on to kubectl as it is.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Passed on to kubectl")]
struct Connection {
    /// The kubeconfig's context
    #[arg(long, global = true)]
    context: Option<String>,
    /// The kubeconfig
    #[arg(long, value_name = "FILE", global = true)]
    kubeconfig: Option<String>,
    /// The kubeconfig's cluster
    #[arg(long, global = true)]
    cluster: Option<String>,
    /// The kubeconfig's user
    #[arg(long, global = true)]
    user: Option<String>,
    /// The API server's address
    #[arg(long, value_name = "URL", global = true)]
    server: Option<String>,
    /// As whom to ask
    #[arg(long = "as", value_name = "USER", global = true)]
    as_user: Option<String>,
    /// As which groups
    #[arg(long, value_name = "GROUP", global = true)]
    as_group: Vec<String>,
    /// The file of the authority that the API server's certificate is of
    #[arg(long, value_name = "FILE", global = true)]
    certificate_authority: Option<String>,
    /// The name that is in that certificate
    #[arg(long, value_name = "NAME", global = true)]
    tls_server_name: Option<String>,
    /// Do not look at that certificate
    #[arg(long, global = true)]
    insecure_skip_tls_verify: bool,
}

/// Why nothing could be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// kubectl could not be run.
    #[error("cannot list the mounters' pods")]
    Run(#[source] RunError),
    /// It failed, and has said why.
    #[error("cannot list the mounters' pods: kubectl has failed; may you list pods there? (docs/kubectl.md)")]
    Failed,
    /// It answers something else.
    #[error("cannot list the mounters' pods: kubectl's answer is no list of pods")]
    NotPods(#[source] serde_json::Error),
    /// There are none.
    #[error(
        "no pod with the labels '{selector}' is in the namespace {namespace}; --hostmount-namespace and --selector say where they are"
    )]
    None {
        /// Their labels.
        selector: String,
        /// Their namespace.
        namespace: String,
    },
    /// There are some, but not there.
    #[error("no mounter's pod is on {0}")]
    NoSuchNode(String),
    /// No node has what was asked for.
    #[error("{0}")]
    Nowhere(String),
    /// Too many to be followed at once.
    #[error("{0} nodes cannot be followed at once, but {1}; --node says which")]
    TooMany(usize, usize),
}

/// A mounter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mounter {
    /// Its node.
    pub(crate) node: String,
    /// Its pod.
    pub(crate) pod: String,
    /// Why it cannot be asked.
    pub(crate) down: Option<String>,
}

impl Where {
    /// The mounters, by their nodes' names.
    pub(crate) fn mounters(&self) -> Result<Vec<Mounter>, ClusterError> {
        let mut command = self.kubectl();
        // It may ask for a password, and its complaints are about the administrator's own cluster.
        command.args(["get", "pods", "--output", "json", "--selector", &self.selector]);
        command.arg(format!("--request-timeout={}s", self.time().as_secs())).stderr(Stdio::inherit());
        let mut text = Vec::new();
        let bounds = Bounds { time: None, silence: false, output: Some(PODS), stop: None };
        let done = run(&mut command, bounds, |piece| text.extend_from_slice(piece)).map_err(ClusterError::Run)?;
        if done.code != Some(0) {
            return Err(ClusterError::Failed);
        }
        let list: List = serde_json::from_slice(&text).map_err(ClusterError::NotPods)?;
        let mut mounters = list.mounters(&self.container);
        if mounters.is_empty() {
            let (selector, namespace) = (self.selector.clone(), self.hostmount_namespace.clone());
            return Err(ClusterError::None { selector, namespace });
        }
        if let Some(none) = self.node.iter().find(|node| mounters.iter().all(|mounter| mounter.node != **node)) {
            return Err(ClusterError::NoSuchNode(none.clone()));
        }
        mounters.retain(|mounter| self.node.is_empty() || self.node.contains(&mounter.node));
        Ok(mounters)
    }

    /// `hostmount` with these words in the mounter's container.
    pub(crate) fn hostmount(&self, mounter: &Mounter, words: &[&str]) -> Command {
        let mut command = self.kubectl();
        command.args(["exec", &mounter.pod, "--container", &self.container, "--", "hostmount"]).args(words);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// How long a node may take.
    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs(self.timeout.unwrap_or(30))
    }

    /// How long one may be silent that changes its volumes: longer than a helper may take to get ready.
    pub(crate) fn time_for_changes(&self) -> Duration {
        Duration::from_secs(self.timeout.unwrap_or(300))
    }

    /// How many are asked at a time.
    pub(crate) fn parallel(&self) -> usize {
        self.parallel.into()
    }

    fn kubectl(&self) -> Command {
        let mut command = Command::new("kubectl");
        let Connection { context, kubeconfig, cluster, user, server, as_user, as_group, .. } = &self.connection;
        let Connection { certificate_authority, tls_server_name, .. } = &self.connection;
        let passed_on = [
            ("context", context),
            ("kubeconfig", kubeconfig),
            ("cluster", cluster),
            ("user", user),
            ("server", server),
            ("as", as_user),
            ("certificate-authority", certificate_authority),
            ("tls-server-name", tls_server_name),
        ];
        for (name, value) in passed_on {
            command.args(value.iter().map(|value| format!("--{name}={value}")));
        }
        command.args(as_group.iter().map(|group| format!("--as-group={group}")));
        if self.connection.insecure_skip_tls_verify {
            command.arg("--insecure-skip-tls-verify");
        }
        command.arg(format!("--namespace={}", self.hostmount_namespace));
        command
    }
}

#[derive(Debug, Deserialize)]
struct List {
    items: Vec<Pod>,
}

#[derive(Debug, Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    deletion_timestamp: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: String,
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Deserialize)]
struct ContainerStatus {
    name: String,
    #[serde(default)]
    state: State,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    running: Option<serde_json::Value>,
    waiting: Option<Waiting>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Waiting {
    reason: String,
}

impl List {
    /// A pod that is being removed, or has ended, has another one in its place or will have. One without a node has no volumes.
    fn mounters(self, container: &str) -> Vec<Mounter> {
        let is_one = |pod: &Pod| {
            let ended = ["Succeeded", "Failed"].contains(&pod.status.phase.as_str());
            pod.metadata.deletion_timestamp.is_none() && !ended && !pod.spec.node_name.is_empty()
        };
        let mut mounters: Vec<_> = self
            .items
            .into_iter()
            .filter(is_one)
            .map(|pod| Mounter {
                down: pod.status.down(container),
                // An argument of kubectl's that began with a dash would be an option.
                pod: format!("pod/{}", pod.metadata.name),
                node: pod.spec.node_name,
            })
            .collect();
        mounters.sort_by(|one, other| (&one.node, &one.pod).cmp(&(&other.node, &other.pod)));
        mounters
    }
}

impl Status {
    fn down(&self, container: &str) -> Option<String> {
        match self.container_statuses.iter().find(|status| status.name == container) {
            Some(ContainerStatus { state: State { running: Some(_), .. }, .. }) => None,
            Some(ContainerStatus { state: State { waiting: Some(Waiting { reason }), .. }, .. }) => {
                Some(format!("its mounter's container does not run: {}", shown(reason)))
            }
            Some(_) => Some("its mounter's container does not run".to_owned()),
            None => Some(format!("its pod has no container '{container}' that was started; it is {}", self.phase)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn those_that_are_there_to_stay_and_what_keeps_them() {
        let pod = |name: &str, node: &str, state: serde_json::Value| {
            json!({
                "metadata": { "name": name, "labels": {} },
                "spec": { "nodeName": node },
                "status": { "phase": "Running", "containerStatuses": [
                    { "name": "csi", "state": { "running": {} } },
                    { "name": "mounter", "state": state },
                ] },
            })
        };
        let mut going = pod("going", "b", json!({ "running": {} }));
        going["metadata"]["deletionTimestamp"] = "2026-11-29T02:40:00Z".into();
        let mut evicted = pod("evicted", "b", json!({ "terminated": {} }));
        evicted["status"]["phase"] = "Failed".into();
        let list = json!({ "items": [
            pod("of-b", "b", json!({ "waiting": { "reason": "CrashLoopBackOff\u{1b}" } })),
            pod("of-a", "a", json!({ "running": { "startedAt": "x" } })),
            going,
            evicted,
            { "metadata": { "name": "pending" }, "spec": {}, "status": { "phase": "Pending" } },
            { "metadata": { "name": "of-c" }, "spec": { "nodeName": "c" }, "status": { "phase": "Pending" } },
        ] });
        let mounters = serde_json::from_value::<List>(list).unwrap().mounters("mounter");
        let seen: Vec<_> = mounters
            .iter()
            .map(|mounter| (mounter.node.as_str(), mounter.pod.as_str(), mounter.down.as_deref()))
            .collect();
        let down = "its mounter's container does not run: CrashLoopBackOff\\u{1b}";
        let pending = "its pod has no container 'mounter' that was started; it is Pending";
        assert_eq!(seen, [("a", "pod/of-a", None), ("b", "pod/of-b", Some(down)), ("c", "pod/of-c", Some(pending))]);
    }
}
