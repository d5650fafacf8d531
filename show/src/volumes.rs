//! Volumes in a table, and which of them are asked for.
//!
//! Pure.

use crate::document::Volume;
use crate::pods::{self, PodFilter};
use crate::table::{Cell, Colour, Column};
use crate::words;
use api::volume::VolumeState;
use clap::ValueEnum;
use clap::builder::PossibleValuesParser;

/// How a list is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
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

/// Which volumes.
#[derive(Debug, Default, clap::Args)]
pub struct Filter {
    /// Those of these pods.
    #[command(flatten)]
    pub pods: PodFilter,
    /// Only volumes of this type, with or without its `fuse.`
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    pub fstype: Option<String>,
    /// Only volumes in one of these states
    #[arg(long, value_name = "STATE", value_delimiter = ',',
          value_parser = PossibleValuesParser::new(VolumeState::ALL.map(VolumeState::word)))]
    pub state: Vec<String>,
}

impl Filter {
    /// Whether this one is asked for.
    pub fn wants(&self, volume: &Volume) -> bool {
        let plain = |fstype: &str| fstype.strip_prefix("fuse.").unwrap_or(fstype).to_owned();
        self.pods.wants(&volume.pods)
            && self.fstype.as_ref().is_none_or(|wanted| plain(wanted) == plain(&volume.r#type))
            && (self.state.is_empty() || self.state.contains(&volume.state))
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

/// The columns.
pub fn columns(wide: bool) -> Vec<Column> {
    let mut columns = COLUMNS.to_vec();
    if wide {
        columns.splice(8..8, MORE);
    }
    columns
}

/// A volume's row.
pub fn row(volume: &Volume, wide: bool, now: u64) -> Vec<Cell> {
    let (namespace, pod) = pods::cells(&volume.pods, wide);
    let mut cells: Vec<Cell> = vec![
        namespace.into(),
        pod.into(),
        (&volume.r#type).into(),
        (&volume.source).into(),
        state(volume),
        words::age(now.saturating_sub(volume.since.0)).into(),
        memory(volume).into(),
        volume.heals.to_string().into(),
        (&volume.target).into(),
        volume.note.as_deref().unwrap_or_default().into(),
    ];
    if wide {
        let more = [
            volume.swaps.to_string(),
            volume.hangs.to_string(),
            volume.waiting.map_or_else(|| "-".to_owned(), |number| number.to_string()),
            volume.helper.clone(),
            volume.device.clone(),
            volume.origin.clone().unwrap_or_else(|| "-".to_owned()),
        ];
        cells.splice(8..8, more.map(Cell::from));
    }
    cells
}

/// A volume's state, in its colour.
pub(crate) fn state(volume: &Volume) -> Cell {
    Cell::coloured(&volume.state, colour(&volume.state))
}

pub(crate) fn memory(volume: &Volume) -> String {
    volume.memory.map_or_else(|| "-".to_owned(), words::size)
}

/// The colour of a state.
pub(crate) fn colour(state: &str) -> Colour {
    match VolumeState::ALL.into_iter().find(|known| known.word() == state) {
        None => Colour::Plain,
        Some(VolumeState::Mounted) => Colour::Good,
        Some(VolumeState::Detached | VolumeState::Waiting) => Colour::Doubtful,
        Some(VolumeState::Hung | VolumeState::Dead | VolumeState::Failed) => Colour::Bad,
        Some(VolumeState::Ended) => Colour::Faint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::table;
    use crate::terminal::Terminal;
    use api::origin::Origin;
    use api::pod::{Pod, PodName};
    use api::volume::VolumeView;

    fn pod(uid: &str, name: &str) -> Pod {
        Pod { uid: uid.into(), name: name.split_once('/').and_then(|(namespace, name)| PodName::new(namespace, name)) }
    }

    fn some() -> [Volume; 3] {
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
        [mounted, shared, dead].each_ref().map(Volume::from)
    }

    fn rows(volumes: &[Volume], wide: bool, terminal: Terminal) -> String {
        let rows: Vec<_> = volumes.iter().map(|volume| row(volume, wide, 1192)).collect();
        table(&columns(wide), &rows, terminal)
    }

    #[test]
    fn people_see_pods_first() {
        let text = rows(&some(), false, Terminal::default());
        assert_eq!(
            text,
            "\
NAMESPACE  POD       TYPE         SOURCE  STATE    AGE    MEMORY  HEALS  TARGET                                                NOTE
shop       web-0     fuse.bindfs  /s      mounted  3m12s  36Mi    2      /var/lib/kubelet/pods/u1/volumes/hostmount~fuse/data
shop       web-0 +1  fuse.bindfs  /s      mounted  3m12s  36Mi    2      /var/lib/kubelet/pods/u1/volumes/hostmount~fuse/data
-          -         sshfs        /s      dead     3m22s  -       0      /mnt/a                                                not healed: why
"
        );
        let wide = rows(&some()[..2], true, Terminal::default());
        let line = wide.lines().nth(2).unwrap();
        assert!(line.starts_with("shop,-     web-0,u2  fuse.bindfs"), "{wide}");
        assert!(line.contains("0      0      0        bindfs  0:61    flexvolume  /var/lib"), "{wide}");
    }

    #[test]
    fn a_narrow_terminal_is_fitted() {
        let text = rows(&some(), false, Terminal { width: Some(80), colour: false });
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
}
