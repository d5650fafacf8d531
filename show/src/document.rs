//! The documents that `--output json` and `yaml` print. docs/json.md describes each member; it changes only as is said there.
//!
//! Pure. What goes over the mounter's socket is another thing: it has numbers for times, and belongs to the programs of one version. Documents
//! are read as well, of any version: a member that is missing has its default, one that is not known is passed over.

use crate::words;
use api::event::VolumeEvent;
use api::origin::Origin;
use api::pod::Pod;
use api::volume::{HelperProcess, Options, Usage as HelperUsage, VolumeDetail, VolumeView};
use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Seconds since 1970, in RFC 3339.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&words::time(self.0))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: Timestamp = text.parse().map_err(|_| D::Error::custom("it is no time in RFC 3339"))?;
        Ok(Self(u64::try_from(time.as_second()).unwrap_or(0)))
    }
}

/// A volume in a list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Where it is.
    pub target: String,
    /// The type that was asked for.
    pub r#type: String,
    /// What is mounted.
    pub source: String,
    /// Its state, in a word ([`api::volume::VolumeState`]); another version may have others.
    pub state: String,
    /// The pods that have it.
    pub pods: Vec<Pod>,
    /// The helper's program.
    pub helper: String,
    /// The device number.
    pub device: String,
    /// Who asked for it, in a word ([`Origin`]).
    pub origin: Option<String>,
    /// When it was mounted, or that was tried.
    pub since: Time,
    /// What its helper uses of memory.
    pub memory: Option<u64>,
    /// How many requests wait.
    pub waiting: Option<u64>,
    /// Since when it has hung.
    pub hung_since: Option<Time>,
    /// How often it was healed.
    pub heals: u64,
    /// How often it was swapped.
    pub swaps: u64,
    /// How often it began to hang.
    pub hangs: u64,
    /// What an operator should know, and do.
    pub note: Option<String>,
}

impl From<&VolumeView> for Volume {
    fn from(view: &VolumeView) -> Self {
        let view = view.clone();
        Self {
            target: view.target,
            r#type: view.fstype,
            source: view.source,
            state: view.state.word().to_owned(),
            pods: view.pods,
            helper: view.helper,
            device: view.device,
            origin: view.origin.map(|origin| Origin::name(origin).to_owned()),
            since: Time(view.since),
            memory: view.memory,
            waiting: view.waiting,
            hung_since: view.hung_since.map(Time),
            heals: view.heals,
            swaps: view.swaps,
            hangs: view.hangs,
            note: view.note,
        }
    }
}

/// One volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detail {
    /// As in a list.
    #[serde(flatten)]
    pub volume: Volume,
    /// When it ended.
    pub ended: Option<Time>,
    /// Where it shows.
    pub places: Vec<String>,
    /// Its helper, while that runs.
    pub process: Option<Process>,
    /// What became of its options.
    pub options: Option<Options>,
    /// The last lines that its helpers wrote.
    pub lines: Vec<String>,
}

/// Its helper.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// The process that serves.
    pub pid: u32,
    /// What it runs as.
    pub uid: u32,
    /// The program that it runs.
    pub program: Option<String>,
    /// The package that it is from, and its version.
    pub package: Option<String>,
    /// How many processes the helper is.
    pub processes: u64,
    /// How many descriptors they have open.
    pub descriptors: u64,
    /// Its memory.
    pub memory: u64,
    /// Its limit.
    pub memory_limit: Option<u64>,
    /// Its cgroup.
    pub cgroup: Option<String>,
    /// When it was started.
    pub started: Time,
}

impl From<&VolumeDetail> for Detail {
    fn from(detail: &VolumeDetail) -> Self {
        let VolumeDetail { view, ended, lines, places, process, options } = detail.clone();
        let process = process.map(|process: HelperProcess| Process {
            pid: process.pid,
            uid: process.uid,
            program: process.program,
            package: process.package,
            processes: process.processes,
            descriptors: process.descriptors,
            memory: process.memory,
            memory_limit: process.memory_limit,
            cgroup: process.cgroup,
            started: Time(process.started),
        });
        Self { volume: (&view).into(), ended: ended.map(Time), places, process, options, lines }
    }
}

/// What a volume's helper uses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// As in a list.
    #[serde(flatten)]
    pub volume: Volume,
    /// How many processes the helper is.
    pub processes: u64,
    /// How long they were on a processor, in seconds.
    pub processor: f64,
}

impl From<&HelperUsage> for Usage {
    fn from(HelperUsage { view, processes, processor }: &HelperUsage) -> Self {
        Self { volume: view.into(), processes: *processes, processor: *processor as f64 / 100.0 }
    }
}

/// Something that happened to a volume.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// When it happened.
    pub time: Time,
    /// Its name in the log.
    pub event: String,
    /// The volume's target.
    pub target: String,
    /// Its type.
    pub r#type: Option<String>,
    /// What is mounted.
    pub source: Option<String>,
    /// The pods that had it.
    pub pods: Vec<Pod>,
    /// How long it took.
    pub seconds: Option<f64>,
    /// The exit code.
    pub code: Option<i64>,
    /// What the log says.
    pub message: String,
}

impl From<&VolumeEvent> for Event {
    fn from(event: &VolumeEvent) -> Self {
        let event = event.clone();
        Self {
            time: Time(event.time),
            event: event.event,
            target: event.target,
            r#type: event.fstype,
            source: event.source,
            pods: event.pods,
            seconds: event.seconds,
            code: event.code,
            message: event.message,
        }
    }
}

/// How bad a finding of the doctor is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// It works.
    #[default]
    Ok,
    /// Volumes work without it.
    Warning,
    /// Volumes do not work.
    Failure,
}

/// One finding of the doctor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub advice: Option<String>,
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
        for line in include_str!("../../docs/json.md").lines() {
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
        let [of_volume, of_detail, of_process, of_options, of_event, of_usage, of_finding, of_explained] =
            tables().try_into().unwrap();
        assert_eq!(members(&serde_json::to_value(Finding::default()).unwrap()), of_finding);
        assert_eq!(members(&serde_json::to_value(Usage::default()).unwrap()), &of_volume | &of_usage);
        assert_eq!(members(&explained), of_explained);
        assert_eq!(members(&event), of_event);
        assert_eq!(members(&volume), of_volume);
        assert_eq!(members(&detail), &of_volume | &of_detail);
        assert_eq!(members(&detail["process"]), of_process);
        assert_eq!(members(&detail["options"]), of_options);
        assert_eq!((&detail["ended"], &detail["since"]), (&Value::Null, &Value::from("1970-01-01T00:00:07Z")));
    }

    #[test]
    fn what_is_printed_is_read_and_so_is_that_of_other_versions() {
        let process = Some(HelperProcess::default());
        let options = Some(Options::default());
        let detail =
            VolumeDetail { process, options, ..VolumeDetail::of(VolumeView::example(), Some(8), vec!["a".into()]) };
        let detail = Detail::from(&detail);
        let mut written = serde_json::to_value(&detail).unwrap();
        assert_eq!(serde_json::from_value::<Detail>(written.clone()).unwrap(), detail);
        written["state"] = "a-later-one".into();
        written["later"] = Value::Null;
        written.as_object_mut().unwrap().remove("heals");
        let read: Detail = serde_json::from_value(written.clone()).unwrap();
        assert_eq!((read.volume.state.as_str(), read.volume.heals), ("a-later-one", 0));
        written["since"] = "yesterday".into();
        assert!(serde_json::from_value::<Detail>(written).unwrap_err().to_string().contains("RFC 3339"));
    }
}
