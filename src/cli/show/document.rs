//! The documents that `--output json` and `yaml` print. docs/json.md describes each member; it changes only as is said there.
//!
//! Pure. What goes over the socket is another thing: it has numbers for times, and belongs to the programs of one version.

use super::words;
use api::event::VolumeEvent;
use api::origin::Origin;
use api::pod::Pod;
use api::volume::{HelperProcess, Options, VolumeDetail, VolumeState, VolumeView};
use serde::{Serialize, Serializer};

/// Seconds since 1970, in RFC 3339.
#[derive(Debug, Clone, Copy)]
pub(in crate::cli) struct Time(pub(in crate::cli) u64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&words::time(self.0))
    }
}

/// A volume in a list.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Volume<'a> {
    target: &'a str,
    r#type: &'a str,
    source: &'a str,
    state: VolumeState,
    pods: &'a [Pod],
    helper: &'a str,
    device: &'a str,
    origin: Option<Origin>,
    since: Time,
    memory: Option<u64>,
    waiting: Option<u64>,
    hung_since: Option<Time>,
    heals: u64,
    swaps: u64,
    hangs: u64,
    note: Option<&'a str>,
}

impl<'a> From<&'a VolumeView> for Volume<'a> {
    fn from(view: &'a VolumeView) -> Self {
        Self {
            target: &view.target,
            r#type: &view.fstype,
            source: &view.source,
            state: view.state,
            pods: &view.pods,
            helper: &view.helper,
            device: &view.device,
            origin: view.origin,
            since: Time(view.since),
            memory: view.memory,
            waiting: view.waiting,
            hung_since: view.hung_since.map(Time),
            heals: view.heals,
            swaps: view.swaps,
            hangs: view.hangs,
            note: view.note.as_deref(),
        }
    }
}

/// One volume.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Detail<'a> {
    #[serde(flatten)]
    volume: Volume<'a>,
    ended: Option<Time>,
    places: &'a [String],
    process: Option<Process<'a>>,
    options: Option<&'a Options>,
    lines: &'a [String],
}

/// Its helper.
#[derive(Debug, Serialize)]
struct Process<'a> {
    pid: u32,
    uid: u32,
    program: Option<&'a str>,
    processes: u64,
    descriptors: u64,
    memory: u64,
    memory_limit: Option<u64>,
    cgroup: Option<&'a str>,
    started: Time,
}

impl<'a> From<&'a VolumeDetail> for Detail<'a> {
    fn from(detail: &'a VolumeDetail) -> Self {
        let VolumeDetail { view, ended, lines, places, process, options } = detail;
        let process = process.as_ref().map(|process: &HelperProcess| Process {
            pid: process.pid,
            uid: process.uid,
            program: process.program.as_deref(),
            processes: process.processes,
            descriptors: process.descriptors,
            memory: process.memory,
            memory_limit: process.memory_limit,
            cgroup: process.cgroup.as_deref(),
            started: Time(process.started),
        });
        Self { volume: view.into(), ended: ended.map(Time), places, process, options: options.as_ref(), lines }
    }
}

/// Something that happened to a volume.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Event<'a> {
    time: Time,
    event: &'a str,
    target: &'a str,
    r#type: Option<&'a str>,
    source: Option<&'a str>,
    pods: &'a [Pod],
    seconds: Option<f64>,
    code: Option<i64>,
    message: &'a str,
}

impl<'a> From<&'a VolumeEvent> for Event<'a> {
    fn from(event: &'a VolumeEvent) -> Self {
        Self {
            time: Time(event.time),
            event: &event.event,
            target: &event.target,
            r#type: event.fstype.as_deref(),
            source: event.source.as_deref(),
            pods: &event.pods,
            seconds: event.seconds,
            code: event.code,
            message: &event.message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::explained::{Explained, Rule};
    use serde_json::Value;
    use std::collections::BTreeSet;

    /// The first cells of the tables below each heading or introduction of docs/json.md, in their order.
    fn tables() -> Vec<BTreeSet<String>> {
        let mut tables = Vec::new();
        for line in include_str!("../../../docs/json.md").lines() {
            if line.starts_with("|---") {
                tables.push(BTreeSet::new());
            } else if let Some(name) = line.strip_prefix("| `").and_then(|row| row.split('`').next()) {
                tables.last_mut().expect("a row is below a head").insert(name.to_owned());
            }
        }
        tables
    }

    fn members(document: &Value) -> BTreeSet<String> {
        document.as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn the_page_names_every_member() {
        let process = Some(HelperProcess::default());
        let detail = VolumeDetail {
            process,
            options: Some(Options::default()),
            ..VolumeDetail::of(VolumeView::example(), None, Vec::new())
        };
        let volume = serde_json::to_value(Volume::from(&detail.view)).unwrap();
        let detail = serde_json::to_value(Detail::from(&detail)).unwrap();
        let event = serde_json::to_value(Event::from(&VolumeEvent::default())).unwrap();
        let explained =
            Explained { rules: vec![Rule { about: String::new(), rule: String::new() }], ..Default::default() };
        let explained = serde_json::to_value(explained).unwrap();
        let [of_volume, of_detail, of_process, of_options, of_event, of_finding, of_explained] =
            tables().try_into().unwrap();
        assert_eq!(
            of_finding,
            ["name", "level", "message", "advice"].map(str::to_owned).into(),
            "a test of finding.rs has them"
        );
        assert_eq!(members(&explained), of_explained);
        assert_eq!(members(&event), of_event);
        assert_eq!(members(&volume), of_volume);
        assert_eq!(members(&detail), &of_volume | &of_detail);
        assert_eq!(members(&detail["process"]), of_process);
        assert_eq!(members(&detail["options"]), of_options);
        assert_eq!((&detail["ended"], &detail["since"]), (&Value::Null, &Value::from("1970-01-01T00:00:07Z")));
    }
}
