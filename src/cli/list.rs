//! `hostmount list`: the volumes on this node, as a table for people or as a document for programs.

use super::Complaint;
use super::show::document::Volume;
use super::show::pods::{self, PodFilter};
use super::show::table::{Cell, Colour, Column, table};
use super::show::terminal::{Terminal, wait_while_read};
use super::show::{self, words};
use api::client::Client;
use api::origin::Origin;
use api::shown::shown;
use api::volume::{VolumeState, VolumeView};
use clap::ValueEnum;
use clap::builder::PossibleValuesParser;

/// How a list is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Columns, as many as people need at first
    Table,
    /// More columns
    Wide,
    /// An array of objects (docs/json.md)
    Json,
    /// The same
    Yaml,
    /// Targets alone, one a line
    Name,
}

/// Its command line.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How to show them
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// Show them again every SECONDS, until it is interrupted; what is no terminal gets them only when they have changed
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
          value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
    #[command(flatten)]
    filter: Filter,
}

/// Which volumes.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Filter {
    #[command(flatten)]
    pods: PodFilter,
    /// Only volumes of this type, with or without its `fuse.`
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    fstype: Option<String>,
    /// Only volumes in one of these states
    #[arg(long, value_name = "STATE", value_delimiter = ',',
          value_parser = PossibleValuesParser::new(VolumeState::ALL.map(VolumeState::word)))]
    state: Vec<String>,
}

impl Filter {
    fn wants(&self, volume: &VolumeView) -> bool {
        let plain = |fstype: &str| fstype.strip_prefix("fuse.").unwrap_or(fstype).to_owned();
        self.pods.wants(&volume.pods)
            && self.fstype.as_ref().is_none_or(|wanted| plain(wanted) == plain(&volume.fstype))
            && (self.state.is_empty() || self.state.iter().any(|state| state == volume.state.word()))
    }
}

/// Runs `hostmount list`.
pub(super) fn list(arguments: &Arguments) -> Result<(), Complaint> {
    let client = Client::from_environment(Origin::Operator);
    let mut before = String::new();
    loop {
        let terminal = Terminal::of_output();
        let mut volumes = client.list()?;
        volumes.retain(|volume| arguments.filter.wants(volume));
        let text = text(&volumes, arguments.output, terminal);
        let Some(seconds) = arguments.watch else {
            linux::standard::put(format_args!("{text}"));
            return Ok(());
        };
        if terminal.is_there() {
            // The cursor goes to the first line, and what is below it away.
            linux::standard::put(format_args!("\u{1b}[H\u{1b}[J{text}"));
        } else if text != before {
            linux::standard::put(format_args!("{text}"));
        }
        if !wait_while_read(seconds) {
            return Ok(());
        }
        before = text;
    }
}

fn text(volumes: &[VolumeView], format: Format, terminal: Terminal) -> String {
    let documents = || volumes.iter().map(Volume::from).collect::<Vec<_>>();
    match format {
        Format::Table => rows(volumes, false, terminal, words::now()),
        Format::Wide => rows(volumes, true, terminal, words::now()),
        Format::Json => show::json(&documents()),
        Format::Yaml => show::yaml(&documents()),
        Format::Name => volumes.iter().map(|volume| shown(&volume.target) + "\n").collect(),
    }
}

const COLUMNS: [Column; 10] = [
    Column::new("NAMESPACE"),
    Column::new("POD"),
    Column::new("TYPE"),
    Column::new("SOURCE"),
    Column::new("STATE"),
    Column::new("AGE"),
    Column::new("MEMORY"),
    Column::new("HEALS"),
    Column::new("TARGET").of_paths(),
    Column::new("NOTE").optional(),
];

/// What is between the heals and the target if there is room for everything.
const MORE: [Column; 6] = [
    Column::new("SWAPS"),
    Column::new("HANGS"),
    Column::new("WAITING"),
    Column::new("HELPER"),
    Column::new("DEVICE"),
    Column::new("ORIGIN"),
];

fn rows(volumes: &[VolumeView], wide: bool, terminal: Terminal, now: u64) -> String {
    let mut columns = COLUMNS.to_vec();
    if wide {
        columns.splice(8..8, MORE);
    }
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let row = |volume: &VolumeView| {
        let (namespace, pod) = pods::cells(&volume.pods, wide);
        let memory = volume.memory.map_or_else(|| "-".to_owned(), words::size);
        let mut cells: Vec<Cell> = vec![
            namespace.into(),
            pod.into(),
            (&volume.fstype).into(),
            (&volume.source).into(),
            Cell::coloured(volume.state.word(), colour(volume.state)),
            words::age(now.saturating_sub(volume.since)).into(),
            memory.into(),
            volume.heals.to_string().into(),
            (&volume.target).into(),
            volume.note.as_deref().unwrap_or_default().into(),
        ];
        if wide {
            let more = [
                volume.swaps.to_string(),
                volume.hangs.to_string(),
                number(volume.waiting),
                volume.helper.clone(),
                volume.device.clone(),
                volume.origin.map_or("-", Origin::name).to_owned(),
            ];
            cells.splice(8..8, more.map(Cell::from));
        }
        cells
    };
    table(&columns, &volumes.iter().map(row).collect::<Vec<_>>(), terminal)
}

/// The colour of a state.
pub(super) fn colour(state: VolumeState) -> Colour {
    match state {
        VolumeState::Mounted => Colour::Good,
        VolumeState::Detached | VolumeState::Waiting => Colour::Doubtful,
        VolumeState::Hung | VolumeState::Dead | VolumeState::Failed => Colour::Bad,
        VolumeState::Ended => Colour::Faint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::pod::{Pod, PodName};

    fn pod(uid: &str, name: &str) -> Pod {
        Pod { uid: uid.into(), name: name.split_once('/').and_then(|(namespace, name)| PodName::new(namespace, name)) }
    }

    fn some() -> [VolumeView; 3] {
        let mounted = VolumeView {
            target: "/var/lib/kubelet/pods/u1/volumes/hostmount~fuse/data".into(),
            pods: vec![pod("u1", "shop/web-0")],
            memory: Some(36 << 20),
            heals: 2,
            since: 1000,
            origin: Some(Origin::FlexVolume),
            waiting: Some(0),
            ..VolumeView::example()
        };
        let shared = VolumeView { pods: vec![pod("u1", "shop/web-0"), pod("u2", "")], ..mounted.clone() };
        let dead = VolumeView {
            state: VolumeState::Dead,
            note: Some("not healed: why".into()),
            since: 990,
            fstype: "sshfs".into(),
            ..VolumeView::example()
        };
        [mounted, shared, dead]
    }

    #[test]
    fn people_see_pods_first() {
        let text = rows(&some(), false, Terminal::default(), 1192);
        assert_eq!(
            text,
            "\
NAMESPACE  POD       TYPE         SOURCE  STATE    AGE    MEMORY  HEALS  TARGET                                                NOTE
shop       web-0     fuse.bindfs  /s      mounted  3m12s  36Mi    2      /var/lib/kubelet/pods/u1/volumes/hostmount~fuse/data
shop       web-0 +1  fuse.bindfs  /s      mounted  3m12s  36Mi    2      /var/lib/kubelet/pods/u1/volumes/hostmount~fuse/data
-          -         sshfs        /s      dead     3m22s  -       0      /mnt/a                                                not healed: why
"
        );
        let wide = rows(&some()[..2], true, Terminal::default(), 1192);
        let line = wide.lines().nth(2).unwrap();
        assert!(line.starts_with("shop,-     web-0,u2  fuse.bindfs"), "{wide}");
        assert!(line.contains("0      0      0        bindfs  0:61    flexvolume  /var/lib"), "{wide}");
    }

    #[test]
    fn a_narrow_terminal_is_fitted() {
        let text = rows(&some(), false, Terminal { width: Some(80), colour: false }, 1192);
        assert!(text.lines().all(|line| line.chars().count() <= 98), "{text}");
        assert!(text.contains("…"), "{text}");
    }

    #[test]
    fn what_is_asked_for_is_shown() {
        let filter = |filter: Filter| some().iter().map(|volume| filter.wants(volume)).collect::<Vec<_>>();
        let word = |word: &str| Some(word.to_owned());
        assert_eq!(filter(Filter::default()), [true; 3]);
        let pods = PodFilter { pod: word("u2"), namespace: None };
        assert_eq!(filter(Filter { pods, ..Filter::default() }), [false, true, false]);
        assert_eq!(filter(Filter { fstype: word("bindfs"), ..Filter::default() }), [true, true, false]);
        assert_eq!(filter(Filter { fstype: word("fuse.sshfs"), ..Filter::default() }), [false, false, true]);
        assert_eq!(filter(Filter { state: vec!["dead".into()], ..Filter::default() }), [false, false, true]);
    }

    #[test]
    fn each_format_has_its_text() {
        let text = |format| text(&some(), format, Terminal::default());
        assert_eq!(text(Format::Name).lines().last(), Some("/mnt/a"));
        let json: serde_json::Value = serde_json::from_str(&text(Format::Json)).unwrap();
        assert_eq!(json[0]["since"], "1970-01-01T00:16:40Z");
        let yaml: serde_json::Value = serde_saphyr::from_str(&text(Format::Yaml)).unwrap();
        assert_eq!(yaml, json);
    }
}
