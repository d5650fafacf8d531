//! `hostmount events`: what happened to volumes, the newest last, also to those that are gone.

use super::Complaint;
use super::show::document::Event;
use super::show::pods::{self, PodFilter};
use super::show::table::{Cell, Colour, Column, table};
use super::show::terminal::Terminal;
use super::show::{self, again, words};
use crate::observe::events as kinds;
use api::client::Client;
use api::event::VolumeEvent;
use api::origin::Origin;
use api::shown::shown_lines;
use clap::ValueEnum;
use std::path::Path;

/// How events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns
    Table,
    /// An array of objects (docs/json.md); with --follow an object a line
    Json,
}

/// Its command line.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only what happened to the volume at this target
    target: Option<String>,
    /// How to show them
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Go on with what happens from now on, until it is interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only what happened since then: 90s, 10m, 2h30m, 3d, or a time as in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = words::since)]
    since: Option<u64>,
    #[command(flatten)]
    pods: PodFilter,
    /// Only these events, as they are shown, or as the log names them (volume.dead)
    #[arg(long = "event", value_name = "EVENT", value_delimiter = ',')]
    events: Vec<String>,
}

/// Runs `hostmount events`.
pub(super) fn events(arguments: &Arguments) -> Result<(), Complaint> {
    let client = Client::from_environment(Origin::Operator);
    let mut got = client.events(0)?;
    let mut trouble = None;
    let mut after = 0;
    let mut first = true;
    loop {
        if got.trouble.is_some() && got.trouble != trouble {
            let why = got.trouble.as_deref().map(shown_lines).unwrap_or_default();
            linux::complain!("hostmount: some events may be missing: {why}.");
            trouble.clone_from(&got.trouble);
        }
        after = got.events.last().map_or(after, |last| last.number);
        got.events.retain(|event| arguments.wants(event));
        if first || !got.events.is_empty() {
            linux::standard::put(format_args!("{}", arguments.text(&got.events, first, Terminal::of_output())));
            // A table of none has a head all the same, for what follows.
            first = false;
        }
        if !arguments.follow {
            return Ok(());
        }
        match again::until_answered(|| client.events(after)) {
            Some(more) => got = more?,
            None => return Ok(()),
        }
    }
}

impl Arguments {
    fn wants(&self, event: &VolumeEvent) -> bool {
        self.target.as_ref().is_none_or(|target| Path::new(target) == Path::new(&event.target))
            && self.since.is_none_or(|since| event.time >= since)
            && self.pods.wants(&event.pods)
            && (self.events.is_empty()
                || self.events.iter().any(|wanted| *wanted == event.event || *wanted == word(&event.event)))
    }

    fn text(&self, events: &[VolumeEvent], head: bool, terminal: Terminal) -> String {
        match self.output {
            Format::Table => rows(events, head, terminal),
            Format::Json if self.follow => events.iter().map(|event| show::json_line(&Event::from(event))).collect(),
            Format::Json => show::json(&events.iter().map(Event::from).collect::<Vec<_>>()),
        }
    }
}

/// What happened, in a word. What happened to a pod's program says so.
fn word(event: &str) -> &str {
    event.strip_prefix("volume.").unwrap_or(event)
}

const COLUMNS: [Column; 10] = [
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

fn rows(events: &[VolumeEvent], head: bool, terminal: Terminal) -> String {
    let row = |event: &VolumeEvent| -> Vec<Cell> {
        let (namespace, pod) = pods::cells(&event.pods, false);
        let dash = || "-".to_owned();
        vec![
            words::time(event.time).into(),
            Cell::coloured(word(&event.event), colour(&event.event)),
            namespace.into(),
            pod.into(),
            event.fstype.clone().unwrap_or_else(dash).into(),
            event.source.clone().unwrap_or_else(dash).into(),
            (&event.target).into(),
            event.seconds.map_or_else(dash, |seconds| format!("{seconds:.2}s")).into(),
            event.code.map_or_else(dash, |code| code.to_string()).into(),
            (&event.message).into(),
        ]
    };
    let text = table(&COLUMNS, &events.iter().map(row).collect::<Vec<_>>(), terminal);
    if head { text } else { text.split_inclusive('\n').skip(1).collect() }
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

#[cfg(test)]
mod tests {
    use super::*;
    use api::pod::{Pod, PodName};
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(words: &str) -> Arguments {
        Line::parse_from(["events"].into_iter().chain(words.split_whitespace())).arguments
    }

    fn some() -> [VolumeEvent; 2] {
        let failed = VolumeEvent {
            number: 1,
            time: 1000,
            event: "volume.not-mounted".into(),
            target: "/mnt/a".into(),
            code: Some(32),
            seconds: Some(2.5),
            message: "not mounted: why\n/mnt/b \u{1b}[2J".into(),
            ..VolumeEvent::default()
        };
        let pod = Pod { uid: "u1".into(), name: PodName::new("shop", "web-0") };
        let dead = VolumeEvent {
            number: 2,
            time: 2000,
            event: "volume.dead".into(),
            target: "/k/pods/u1/v".into(),
            fstype: Some("sshfs".into()),
            source: Some("h:/".into()),
            pods: vec![pod],
            message: "the helper has ended".into(),
            ..VolumeEvent::default()
        };
        [failed, dead]
    }

    #[test]
    fn a_line_for_each_and_words_of_others_make_none() {
        let text = arguments("").text(&some(), true, Terminal::default());
        assert_eq!(
            text,
            "\
TIME                  EVENT        NAMESPACE  POD    TYPE   SOURCE  TARGET        TOOK   CODE  MESSAGE
1970-01-01T00:16:40Z  not-mounted  -          -      -      -       /mnt/a        2.50s  32    not mounted: why\\n/mnt/b \\u{1b}[2J
1970-01-01T00:33:20Z  dead         shop       web-0  sshfs  h:/     /k/pods/u1/v  -      -     the helper has ended
"
        );
        let more = arguments("--follow").text(&some(), false, Terminal::default());
        assert_eq!(more, text.split_once('\n').unwrap().1);
        let lines = arguments("--follow --output json").text(&some(), false, Terminal::default());
        let [first, second] = lines.lines().collect::<Vec<_>>().try_into().unwrap();
        let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        assert_eq!(json(first)["message"], some()[0].message, "it is exact for programs");
        assert_eq!(json(second)["pods"][0]["name"], "web-0");
    }

    #[test]
    fn what_is_asked_for_is_shown() {
        let wants = |words: &str| some().each_ref().map(|event| arguments(words).wants(event));
        assert_eq!(wants(""), [true; 2]);
        assert_eq!(wants("/mnt//a/"), [true, false]);
        assert_eq!(wants("--pod web-0"), [false, true]);
        assert_eq!(wants("-n shop --pod u1"), [false, true]);
        assert_eq!(wants("--event dead,mounted"), [false, true]);
        assert_eq!(wants("--event volume.not-mounted"), [true, false]);
        assert_eq!(wants("--since 1970-01-01T00:20:00Z"), [false, true]);
        assert_eq!(wants("--since 10s"), [false; 2]);
    }
}
