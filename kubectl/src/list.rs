//! `kubectl hostmount list`: the volumes on all nodes.
//!
//! Runs on the main thread.

use crate::Outcome;
use crate::ask::{Answers, Element};
use crate::cluster::Where;
use api::shown::shown;
use show::document::Volume;
use show::table::{Cell, Column, table};
use show::terminal::Terminal;
use show::volumes::{Filter, Format, columns, row};
use show::words;

/// Its command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How to show them
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    #[command(flatten)]
    filter: Filter,
}

/// The first column of all tables.
pub(crate) const NODE: Column = Column::new("NODE");

/// Rows with their nodes before them, as a table.
pub(crate) fn with_nodes(
    columns: &[Column],
    rows: impl Iterator<Item = (String, Vec<Cell>)>,
    terminal: Terminal,
) -> String {
    let columns: Vec<_> = std::iter::once(NODE).chain(columns.iter().copied()).collect();
    let rows: Vec<_> =
        rows.map(|(node, row)| std::iter::once(Cell::from(node)).chain(row).collect::<Vec<_>>()).collect();
    table(&columns, &rows, terminal)
}

/// Runs `kubectl hostmount list`.
pub(crate) fn list(place: &Where, arguments: &Arguments) -> Outcome {
    let answers: Answers<Vec<Element<Volume>>> = place.arrays(place.mounters()?, &["list", "--output", "json"]);
    let code = answers.code();
    let mut volumes = answers.elements();
    volumes.retain(|volume| arguments.filter.wants(&volume.known));
    linux::standard::put(format_args!("{}", text(&volumes, arguments.output)));
    Ok(code)
}

fn text(volumes: &[Element<Volume>], format: Format) -> String {
    let documents = || volumes.iter().map(Element::document).collect::<Vec<_>>();
    match format {
        Format::Table | Format::Wide => {
            let (wide, now) = (format == Format::Wide, words::now());
            let rows = volumes.iter().map(|volume| (volume.node.clone(), row(&volume.known, wide, now)));
            with_nodes(&columns(wide), rows, Terminal::of_output())
        }
        Format::Json => show::json(&documents()),
        Format::Yaml => show::yaml(&documents()),
        Format::Name => {
            volumes.iter().map(|volume| format!("{} {}\n", shown(&volume.node), shown(&volume.known.target))).collect()
        }
    }
}
