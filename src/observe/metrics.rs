//! The mounter's metrics, in the text format of Prometheus (OpenMetrics 1.0). docs/metrics.md lists the names.
//!
//! Runs in the mounter: counters on the thread of each operation, the text on the thread of the request for it.

use crate::node::mount_search::Searched;
use api::volume::{VolumeState, VolumeView};
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The states of volumes that are there.
const STATES: [VolumeState; 5] =
    [VolumeState::Mounted, VolumeState::Detached, VolumeState::Hung, VolumeState::Dead, VolumeState::Waiting];

/// Counters since the mounter started.
#[derive(Debug, Default)]
pub struct Metrics {
    operations: Family<Counted, Counter>,
    /// Volumes that began to hang.
    pub hangs: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Counted {
    operation: Operation,
    result: Outcome,
}

/// An operation on a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the values of a label")]
pub enum Operation {
    /// It is mounted.
    mount,
    /// A dead volume gets a fresh helper.
    heal,
    /// A live volume gets a fresh helper.
    swap,
    /// It is shown at one more place.
    bind,
    /// It is taken away from a place, by request.
    unmount,
    /// A directory for one is made, or taken away.
    directory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the values of a label")]
enum Outcome {
    done,
    failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfVolume {
    target: String,
    r#type: String,
}

impl Metrics {
    /// Counts an operation that succeeded or failed.
    pub fn count<T, E>(&self, operation: Operation, result: &Result<T, E>) {
        let result = if result.is_ok() { Outcome::done } else { Outcome::failed };
        self.operations.get_or_create(&Counted { operation, result }).inc();
    }

    /// The text, with the volumes as they are now.
    pub fn text(&self, volumes: &[VolumeView], searched: Searched) -> String {
        let mut registry = Registry::with_prefix("hostmount");
        let states = Family::<State, Gauge>::default();
        for state in STATES {
            let count = volumes.iter().filter(|volume| volume.state == state).count();
            states.get_or_create(&State { state: state.word() }).set(count.try_into().unwrap_or(i64::MAX));
        }
        let (up, waiting, since, hung) =
            <(Family<OfVolume, Gauge>, Family<_, Gauge>, Family<_, Gauge>, Family<_, Gauge>)>::default();
        for volume in volumes {
            let labels = OfVolume { target: volume.target.clone(), r#type: volume.fstype.clone() };
            let set = |gauge: &Family<OfVolume, Gauge>, value: u64| {
                gauge.get_or_create(&labels).set(value.try_into().unwrap_or(i64::MAX));
            };
            let serves = matches!(volume.state, VolumeState::Mounted | VolumeState::Detached);
            set(&up, serves.into());
            set(&since, volume.since);
            volume.waiting.into_iter().for_each(|count| set(&waiting, count));
            volume.hung_since.into_iter().for_each(|time| set(&hung, time));
        }
        registry.register("volumes", "Volumes in each state", states);
        registry.register("operations", "Operations on volumes, and their results", self.operations.clone());
        registry.register("hangs", "How often a volume began to hang", self.hangs.clone());
        registry.register("volume_up", "Whether the volume is served: 1, or 0 if it is dead or hangs", up);
        registry.register("volume_waiting_requests", "Requests that wait for the helper's answer", waiting);
        registry.register("volume_mounted_timestamp_seconds", "When the volume was mounted, since 1970", since);
        registry.register("volume_hung_timestamp_seconds", "Since when the volume has hung, since 1970", hung);
        let total = |count: u64| {
            let counter = Counter::<u64>::default();
            counter.inc_by(count);
            counter
        };
        let (searches, tables) = ("Searches of the node's mount tables", "Mount tables that were read for them");
        registry.register("mount_searches", searches, total(searched.searches));
        registry.register("mount_tables_read", tables, total(searched.tables));
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
