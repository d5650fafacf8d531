//! Events of pods: a volume is dead or hangs, and it is served again.
//!
//! Nothing is watched: kubelet asks how each pod's volume is, once a minute unless its settings say otherwise (`volumeStatsAggPeriod`),
//! and what differs from the last answer is an event. What was said last is all that the driver keeps, and it is lost with the driver: then a
//! volume that is well has no event.

use crate::api_server::{ApiServer, waits};
use crate::mounter::Mounter;
use api::exit::chain;
use api::message::Call;
use api::pod::{Pod, PodName};
use api::shown::shown;
use api::volume::{Stats, VolumeState, VolumeView};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::warn;

/// Of how many places it is known what was said last: more than a node has.
const PLACES: usize = 4096;
/// How many events wait to be sent.
const QUEUE: usize = 64;
/// How often one is tried.
const TRIES: usize = 5;
/// How long an event's text is at most, in characters.
const WORDS: usize = 900;

/// What was last said of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    /// The state, if the volume is not served.
    abnormal: Option<VolumeState>,
    heals: u64,
}

/// Something has happened to a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// It is not served.
    Abnormal(VolumeState),
    /// It was not when it was last asked for, and is.
    Again,
    /// It was served both times, by another helper.
    Healed,
}

/// An event to be sent.
#[derive(Debug)]
struct Report {
    uid: String,
    change: Change,
    words: String,
}

/// What has been said, and to whom changes are reported.
#[derive(Debug)]
pub struct Conditions {
    said: Mutex<HashMap<String, Said>>,
    reports: mpsc::Sender<Report>,
}

/// Who sends the events.
#[derive(Debug)]
pub struct Reporter {
    /// The API server.
    pub server: ApiServer,
    /// Who knows the pods' names.
    pub mounter: Mounter,
    /// The driver's name.
    pub driver: String,
    /// The node's.
    pub node: String,
    reports: mpsc::Receiver<Report>,
}

impl Conditions {
    /// Those of a driver that has said nothing yet, and who sends what changes.
    pub fn new(server: ApiServer, mounter: Mounter, driver: String, node: String) -> (Self, Reporter) {
        let (sender, reports) = mpsc::channel(QUEUE);
        (Self { said: Mutex::default(), reports: sender }, Reporter { server, mounter, driver, node, reports })
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kubelet is about to hear how a volume is at a place of the pod with this uid, in these words.
    pub fn say(&self, place: &str, uid: &str, stats: &Stats, words: &str) {
        let now = Said { abnormal: is_abnormal(stats.state).then_some(stats.state), heals: stats.heals };
        let before = {
            let mut said = self.locked();
            if said.len() >= PLACES && !said.contains_key(place) {
                said.clear();
            }
            said.insert(place.to_owned(), now)
        };
        let Some(change) = change(before, now) else { return };
        let report = Report { uid: uid.to_owned(), change, words: words.to_owned() };
        if self.reports.try_send(report).is_err() {
            warn!(event = "csi.event-lost", pod = uid, "no event: {QUEUE} others wait for the API server");
        }
    }

    /// A volume has left a place.
    pub fn forget(&self, place: &str) {
        self.locked().remove(place);
    }
}

/// Whether nobody can use a volume in this state.
pub fn is_abnormal(state: VolumeState) -> bool {
    matches!(state, VolumeState::Dead | VolumeState::Hung | VolumeState::Waiting)
}

fn change(before: Option<Said>, now: Said) -> Option<Change> {
    match (before.and_then(|before| before.abnormal), now.abnormal) {
        (before, Some(state)) => (before != Some(state)).then_some(Change::Abnormal(state)),
        (Some(_), None) => Some(Change::Again),
        // An other mounter counts anew.
        (None, None) => before.is_some_and(|before| now.heals > before.heals).then_some(Change::Healed),
    }
}

impl Change {
    fn reason(self) -> &'static str {
        match self {
            Self::Abnormal(VolumeState::Hung) => "VolumeHung",
            Self::Abnormal(VolumeState::Waiting) => "VolumeNotServed",
            Self::Abnormal(_) => "VolumeDead",
            Self::Again => "VolumeServedAgain",
            Self::Healed => "VolumeHealed",
        }
    }

    fn kind(self) -> &'static str {
        if matches!(self, Self::Abnormal(_)) { "Warning" } else { "Normal" }
    }
}

impl Reporter {
    /// Sends what comes, one after the other.
    pub async fn send_all(mut self) {
        while let Some(report) = self.reports.recv().await {
            for (tried, wait) in waits().take(TRIES).enumerate() {
                let Err(error) = self.send(&report).await else { break };
                if tried + 1 == TRIES {
                    let pod = &report.uid;
                    warn!(event = "csi.event-lost", pod, "no event {}: {error}", report.change.reason());
                    break;
                }
                sleep(wait).await;
            }
        }
    }

    async fn send(&self, report: &Report) -> Result<(), String> {
        let volumes: Vec<VolumeView> = self.mounter.ask(&Call::List).await.map_err(|error| chain(&error))?;
        let mut pods = volumes.into_iter().flat_map(|volume| volume.pods);
        // A pod that is gone needs no event.
        let Some(Pod { name: Some(name), .. }) = pods.find(|pod| pod.uid == report.uid) else { return Ok(()) };
        let Some(name) = name.checked() else { return Ok(()) };
        let event = self.event(report, &name, Timestamp::now());
        let path = format!("/api/v1/namespaces/{}/events", name.namespace);
        self.server.create(&path, &event).await.map(drop).map_err(|error| chain(&error))
    }

    fn event(&self, report: &Report, pod: &PodName, now: Timestamp) -> Value {
        // Kubernetes' times are whole seconds.
        let now = Timestamp::from_second(now.as_second()).unwrap_or_default().to_string();
        let words: String = shown(&report.words).chars().take(WORDS).collect();
        let message = match report.change {
            Change::Healed => format!("its helper had ended or did not answer, and a fresh one took over; {words}"),
            Change::Abnormal(_) | Change::Again => words,
        };
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": { "generateName": "hostmount-", "namespace": pod.namespace },
            "involvedObject":
                { "apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": report.uid },
            "type": report.change.kind(),
            "reason": report.change.reason(),
            "message": message,
            "source": { "component": self.driver, "host": self.node },
            "reportingComponent": self.driver,
            "reportingInstance": self.node,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(abnormal: Option<VolumeState>, heals: u64) -> Said {
        Said { abnormal, heals }
    }

    #[test]
    fn what_differs_is_a_change() {
        let (well, dead, hung) = (said(None, 0), said(Some(VolumeState::Dead), 0), said(Some(VolumeState::Hung), 0));
        assert_eq!(change(None, well), None);
        assert_eq!(change(None, said(None, 7)), None, "it may have been healed days ago");
        assert_eq!(change(None, dead), Some(Change::Abnormal(VolumeState::Dead)));
        assert_eq!(change(Some(dead), dead), None);
        assert_eq!(change(Some(hung), dead), Some(Change::Abnormal(VolumeState::Dead)));
        assert_eq!(change(Some(hung), well), Some(Change::Again));
        assert_eq!(change(Some(dead), said(None, 1)), Some(Change::Again));
        assert_eq!(change(Some(well), said(None, 1)), Some(Change::Healed));
        assert_eq!(change(Some(said(None, 3)), said(None, 0)), None);
    }
}
