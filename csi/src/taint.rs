//! The node's start-up taint `DRIVER/agent-not-ready`, which keeps pods away until the driver is there: it is taken away each time that
//! kubelet has registered the driver and CSINode lists it.
//!
//! Nothing watches the node: with a taint that is put there again, kubelet or the driver starts again, too.

use crate::api_server::{ApiError, ApiServer, waits};
use api::exit::chain;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

/// The taint's name, after the driver's.
const NOT_READY: &str = "agent-not-ready";

/// The taint of one driver on one node.
#[derive(Debug)]
pub struct StartupTaint {
    /// The API server.
    pub server: ApiServer,
    /// The driver's name.
    pub driver: String,
    /// The node's.
    pub node: String,
}

/// It is still there, or may be.
#[derive(Debug, thiserror::Error)]
pub enum TaintError {
    /// The API server.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Kubelet has said that it registered the driver, and CSINode does not say so.
    #[error("the CSINode of {0} does not list the driver")]
    NotListed(String),
}

impl StartupTaint {
    /// Takes it away whenever kubelet has registered the driver.
    pub async fn keep_away(&self, registered: Arc<Notify>) {
        loop {
            registered.notified().await;
            for wait in waits() {
                match self.remove().await {
                    Ok(true) => {
                        info!(event = "csi.taint-removed", node = self.node, "the node's start-up taint is gone")
                    }
                    Ok(false) => {}
                    Err(error) => {
                        warn!(
                            event = "csi.taint-left",
                            node = self.node,
                            "tries again in {} s: {}",
                            wait.as_secs(),
                            chain(&error)
                        );
                        // A fresh registration is a reason to try now.
                        if timeout(wait, registered.notified()).await.is_ok() {
                            sleep(waits().next().unwrap_or_default()).await;
                        }
                        continue;
                    }
                }
                break;
            }
        }
    }

    /// Takes it away; whether it was there.
    async fn remove(&self) -> Result<bool, TaintError> {
        let csinode = self.server.get(&format!("/apis/storage.k8s.io/v1/csinodes/{}", self.node)).await?;
        if !lists(&csinode, &self.driver) {
            return Err(TaintError::NotListed(self.node.clone()));
        }
        let path = format!("/api/v1/nodes/{}", self.node);
        let node = self.server.get(&path).await?;
        let Some(steps) = without(&node, &format!("{}/{NOT_READY}", self.driver)) else { return Ok(false) };
        self.server.patch(&path, &steps).await?;
        Ok(true)
    }
}

/// Whether a CSINode has a driver.
fn lists(csinode: &Value, driver: &str) -> bool {
    csinode["spec"]["drivers"].as_array().is_some_and(|drivers| drivers.iter().any(|one| one["name"] == driver))
}

/// The steps that take all taints of this name from a node, whatever their effects are. Somebody who changes the taints meanwhile makes
/// them fail.
fn without(node: &Value, key: &str) -> Option<Value> {
    let taints = node["spec"]["taints"].as_array()?;
    let kept: Vec<_> = taints.iter().filter(|taint| taint["key"] != key).collect();
    let steps = || {
        json!([
            { "op": "test", "path": "/spec/taints", "value": taints },
            { "op": "replace", "path": "/spec/taints", "value": kept },
        ])
    };
    (kept.len() < taints.len()).then(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_taints_of_the_name_go_and_no_other() {
        let other = json!({ "key": "hostmount.csi", "effect": "NoSchedule" });
        let ours = |effect: &str| json!({ "key": "hostmount.csi/agent-not-ready", "effect": effect });
        let node = |taints: Value| json!({ "spec": { "taints": taints } });
        let steps = |taints: Value| without(&node(taints), "hostmount.csi/agent-not-ready");
        let all = json!([ours("NoSchedule"), other, ours("NoExecute")]);
        assert_eq!(
            steps(all.clone()).unwrap(),
            json!([
                { "op": "test", "path": "/spec/taints", "value": all },
                { "op": "replace", "path": "/spec/taints", "value": [other] },
            ])
        );
        assert_eq!(steps(json!([other])), None);
        assert_eq!(without(&json!({ "spec": {} }), "x"), None);
        let csinode = json!({ "spec": { "drivers": [{ "name": "a" }, { "name": "hostmount.csi" }] } });
        assert!(lists(&csinode, "hostmount.csi") && !lists(&csinode, "b") && !lists(&json!({}), "a"));
    }
}
