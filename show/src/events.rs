//! What happened to volumes, in a table, and what of it is asked for.
//!
//! Pure.

use crate::document::Event;
use crate::pods::{self, PodFilter};
use crate::table::{Cell, Colour, Column};
use crate::words;
use api::log_events as kinds;
use clap::ValueEnum;
use serde::Serialize;
use std::path::Path;

/// How events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns
    Table,
    /// An array of objects (docs/json.md); with --follow an object a line
    Json,
}

/// The command line of `events`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How to show them
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Go on with what happens from now on, until it is interrupted
    #[arg(short, long)]
    pub follow: bool,
    /// Which of them.
    #[command(flatten)]
    pub filter: Filter,
}

impl Arguments {
    /// Events as they are asked for: the documents, or the table of them, without its head if they follow others.
    pub fn text(&self, documents: &[impl Serialize], table: impl FnOnce() -> String, head: bool) -> String {
        match self.output {
            Format::Table if head => table(),
            Format::Table => table().split_inclusive('\n').skip(1).collect(),
            Format::Json if self.follow => documents.iter().map(crate::json_line).collect(),
            Format::Json => crate::json(&documents),
        }
    }
}

/// Which events.
#[derive(Debug, clap::Args)]
pub struct Filter {
    /// Only what happened to the volume at this target
    pub target: Option<String>,
    /// Only what happened since then: 90s, 10m, 2h30m, 3d, or a time as in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = words::since)]
    pub since: Option<u64>,
    /// What these pods had.
    #[command(flatten)]
    pub pods: PodFilter,
    /// Only these events, as they are shown, or as the log names them (volume.dead)
    #[arg(long = "event", value_name = "EVENT", value_delimiter = ',')]
    pub events: Vec<String>,
}

impl Filter {
    /// Whether this one is asked for.
    pub fn wants(&self, event: &Event) -> bool {
        self.target.as_ref().is_none_or(|target| Path::new(target) == Path::new(&event.target))
            && self.since.is_none_or(|since| event.time.0 >= since)
            && self.pods.wants(&event.pods)
            && (self.events.is_empty()
                || self.events.iter().any(|wanted| *wanted == event.event || *wanted == word(&event.event)))
    }
}

/// What happened, in a word. What happened to a pod's program says so.
fn word(event: &str) -> &str {
    event.strip_prefix("volume.").unwrap_or(event)
}

/// The columns.
pub const COLUMNS: [Column; 10] = [
    Column::new("TIME"),
    Column::new("EVENT"),
    Column::new("NAMESPACE"),
    Column::new("POD"),
    Column::new("TYPE"),
    Column::new("SOURCE"),
    Column::new("TARGET").of_paths(),
    Column::new("TOOK"),
    Column::new("CODE"),
    Column::new("MESSAGE"),
];

/// An event's row.
pub fn row(event: &Event) -> Vec<Cell> {
    let (namespace, pod) = pods::cells(&event.pods, false);
    let dash = || "-".to_owned();
    vec![
        words::time(event.time.0).into(),
        Cell::coloured(word(&event.event), colour(&event.event)),
        namespace.into(),
        pod.into(),
        event.r#type.clone().unwrap_or_else(dash).into(),
        event.source.clone().unwrap_or_else(dash).into(),
        (&event.target).into(),
        event.seconds.map_or_else(dash, |seconds| format!("{seconds:.2}s")).into(),
        event.code.map_or_else(dash, |code| code.to_string()).into(),
        (&event.message).into(),
    ]
}

fn colour(event: &str) -> Colour {
    match event {
        kinds::MOUNTED | kinds::HEALED | kinds::SWAPPED | kinds::UPGRADED | kinds::ANSWERS | kinds::PROGRAM_SERVES => {
            Colour::Good
        }
        kinds::NOT_MOUNTED
        | kinds::DEAD
        | kinds::HUNG
        | kinds::HEAL_FAILED
        | kinds::HOLD_OVER
        | kinds::ABANDONED
        | kinds::HELPER_OUT_OF_MEMORY
        | kinds::PROGRAM_LATE => Colour::Bad,
        kinds::VOLUME_REFUSED
        | kinds::NOT_HEALED
        | kinds::NOT_SWAPPED
        | kinds::NOT_UPGRADED
        | kinds::FORGOTTEN
        | kinds::PLACE_LEFT
        | kinds::INNER_MOUNT_LOST
        | kinds::PROGRAM_ENDED => Colour::Doubtful,
        _ => Colour::Plain,
    }
}
