//! The text: counters as they are, and gauges of the volumes that there are just now.

use super::Metrics;
use crate::node::mount_search::Searched;
use api::volume::{Usage, VolumeState};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// The states of volumes that are there.
const STATES: [VolumeState; 5] =
    [VolumeState::Mounted, VolumeState::Detached, VolumeState::Hung, VolumeState::Dead, VolumeState::Waiting];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfVolume {
    target: String,
    r#type: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPod {
    target: String,
    r#type: String,
    namespace: String,
    pod: String,
    uid: String,
}

type Gauges = Family<OfVolume, Gauge>;
type Counts = Family<OfVolume, Counter>;
type Seconds = Family<OfVolume, Counter<f64, AtomicU64>>;

/// What is known beside counters.
#[derive(Debug)]
pub struct Now<'a> {
    /// The volumes, with what their helpers use.
    pub volumes: &'a [Usage],
    /// What was searched.
    pub searched: Searched,
    /// How many descriptors the mounter has open.
    pub descriptors: u64,
    /// What the mounter has in memory, in bytes.
    pub memory: u64,
}

/// The text.
pub fn text(metrics: &Metrics, now: &Now<'_>) -> String {
    let mut registry = Registry::with_prefix("hostmount");
    of_volumes(&mut registry, now.volumes);
    of_operations(&mut registry, metrics);
    let total = |count: u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(count);
        counter
    };
    let gauge = |value: u64| {
        let gauge = Gauge::<i64>::default();
        gauge.set(value.try_into().unwrap_or(i64::MAX));
        gauge
    };
    let (searches, tables) = ("Searches of the node's mount tables", "Mount tables that were read for them");
    registry.register("mount_searches", searches, total(now.searched.searches));
    registry.register("mount_tables_read", tables, total(now.searched.tables));
    registry.register("open_descriptors", "Descriptors that the mounter has open", gauge(now.descriptors));
    registry.register_with_unit("memory", "What the mounter has in memory", Unit::Bytes, gauge(now.memory));
    let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The mounter's version", version);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

fn of_operations(registry: &mut Registry, metrics: &Metrics) {
    let Metrics { operations, durations, steps, failures, hangs, holds, heirs } = metrics;
    registry.register("operations", "Operations on volumes, and their results", operations.clone());
    registry.register("failures", "Operations that failed, by their reasons", failures.clone());
    let took = "How long operations took that succeeded";
    registry.register_with_unit("operation_duration", took, Unit::Seconds, durations.clone());
    let took = "How long the steps of bringing a filesystem up took";
    registry.register_with_unit("step_duration", took, Unit::Seconds, steps.clone());
    let took = "How long requests waited for the next helper, each death once";
    registry.register_with_unit("hold_duration", took, Unit::Seconds, holds.clone());
    registry.register("hangs", "How often a volume began to hang", hangs.clone());
    registry.register("heirs", "Processes started for files that were open when a helper died", heirs.clone());
}

fn of_volumes(registry: &mut Registry, volumes: &[Usage]) {
    let states = Family::<State, Gauge>::default();
    for state in STATES {
        let count = volumes.iter().filter(|usage| usage.view.state == state).count();
        states.get_or_create(&State { state: state.word() }).set(count.try_into().unwrap_or(i64::MAX));
    }
    let [up, waiting, since, hung, memory, processes] = [(); 6].map(|()| Gauges::default());
    let [heals, swaps, hangs] = [(); 3].map(|()| Counts::default());
    let (processor, pods) = (Seconds::default(), Family::<OfPod, Gauge>::default());
    for Usage { view, processes: count, processor: hundredths } in volumes {
        let labels = OfVolume { target: view.target.clone(), r#type: view.fstype.clone() };
        let set = |gauge: &Gauges, value: u64| {
            gauge.get_or_create(&labels).set(value.try_into().unwrap_or(i64::MAX));
        };
        let add = |counter: &Counts, value: u64| _ = counter.get_or_create(&labels).inc_by(value);
        let serves = matches!(view.state, VolumeState::Mounted | VolumeState::Detached);
        set(&up, serves.into());
        set(&since, view.since);
        set(&processes, *count);
        view.waiting.into_iter().for_each(|count| set(&waiting, count));
        view.hung_since.into_iter().for_each(|time| set(&hung, time));
        view.memory.into_iter().for_each(|bytes| set(&memory, bytes));
        add(&heals, view.heals);
        add(&swaps, view.swaps);
        add(&hangs, view.hangs);
        processor.get_or_create(&labels).inc_by(*hundredths as f64 / 100.0);
        for pod in &view.pods {
            let OfVolume { target, r#type } = labels.clone();
            let (namespace, name) = pod.name.clone().map(|name| (name.namespace, name.name)).unwrap_or_default();
            pods.get_or_create(&OfPod { target, r#type, namespace, pod: name, uid: pod.uid.clone() }).set(1);
        }
    }
    registry.register("volumes", "Volumes in each state", states);
    registry.register("volume_up", "Whether the volume is served: 1, or 0 if it is dead or hangs", up);
    registry.register("volume_pod", "The pods that have a volume: 1 for each", pods);
    registry.register("volume_waiting_requests", "Requests that wait for the helper's answer", waiting);
    registry.register("volume_mounted_timestamp_seconds", "When the volume was mounted, since 1970", since);
    registry.register("volume_hung_timestamp_seconds", "Since when the volume has hung, since 1970", hung);
    registry.register(
        "volume_heals",
        "How often the volume was given a fresh helper as its own was dead or hung",
        heals,
    );
    registry.register("volume_swaps", "How often in the place of one that served", swaps);
    registry.register("volume_hangs", "How often the volume began to hang", hangs);
    registry.register_with_unit("volume_helper_memory", "What the helper uses of memory", Unit::Bytes, memory);
    registry.register("volume_helper_processes", "Processes of the helper", processes);
    let used = "How long the helper's processes were on a processor";
    registry.register_with_unit("volume_helper_cpu", used, Unit::Seconds, processor);
}
