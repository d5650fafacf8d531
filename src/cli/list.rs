//! `hostmount list`: the volumes on this node, as a table for people or as a document for programs.

use super::Complaint;
use super::show::document::Volume;
use super::show::table::table;
use super::show::terminal::{Terminal, wait_while_read};
use super::show::volumes::{Filter, Format, columns, row};
use super::show::{self, words};
use api::client::Client;
use api::origin::Origin;
use api::shown::shown;

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

/// Runs `hostmount list`.
pub(super) fn list(arguments: &Arguments) -> Result<(), Complaint> {
    let client = Client::from_environment(Origin::Operator);
    let mut before = String::new();
    loop {
        let terminal = Terminal::of_output();
        let mut volumes: Vec<Volume> = client.list()?.iter().map(Volume::from).collect();
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

fn text(volumes: &[Volume], format: Format, terminal: Terminal) -> String {
    match format {
        Format::Table | Format::Wide => {
            let wide = format == Format::Wide;
            let rows: Vec<_> = volumes.iter().map(|volume| row(volume, wide, words::now())).collect();
            table(&columns(wide), &rows, terminal)
        }
        Format::Json => show::json(&volumes),
        Format::Yaml => show::yaml(&volumes),
        Format::Name => volumes.iter().map(|volume| shown(&volume.target) + "\n").collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::volume::VolumeView;

    #[test]
    fn each_format_has_its_text() {
        let other = VolumeView { target: "/mnt/b".into(), since: 1000, ..VolumeView::example() };
        let some = [Volume::from(&other), Volume::from(&VolumeView::example())];
        let text = |format| text(&some, format, Terminal::default());
        assert_eq!(text(Format::Name), "/mnt/b\n/mnt/a\n");
        let json: serde_json::Value = serde_json::from_str(&text(Format::Json)).unwrap();
        assert_eq!(json[0]["since"], "1970-01-01T00:16:40Z");
        let yaml: serde_json::Value = serde_saphyr::from_str(&text(Format::Yaml)).unwrap();
        assert_eq!(yaml, json);
    }
}
