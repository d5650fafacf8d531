//! `hostmount list`: the volumes on this node, as a table for people or as JSON for programs.

use super::Complaint;
use api::client::Client;
use api::origin::Origin;
use api::shown::shown;
use api::volume::VolumeView;
use clap::ValueEnum;

/// How to show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns, with a line of names.
    Table,
    /// An array of objects.
    Json,
}

/// Runs `hostmount list`.
pub(super) fn list(format: Format) -> Result<(), Complaint> {
    let volumes = Client::from_environment(Origin::Operator).list()?;
    match format {
        Format::Table => linux::standard::put(format_args!("{}", table(&volumes))),
        Format::Json => linux::say!("{}", serde_json::to_string_pretty(&volumes).unwrap_or_default()),
    }
    Ok(())
}

fn table(volumes: &[VolumeView]) -> String {
    let mut rows = vec![["TARGET", "TYPE", "SOURCE", "STATE", "HELPER", "DEVICE", "NOTE"].map(str::to_owned)];
    rows.extend(volumes.iter().map(|volume| {
        let state = volume.state.word();
        let note = volume.note.as_deref().unwrap_or_default();
        let VolumeView { target, fstype, source, helper, device, .. } = volume;
        [target, fstype, source, state, helper, device, note].map(|cell| shown(cell).into_owned())
    }));
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; 7]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let volume = VolumeView { target: "/mnt/long/target".into(), ..VolumeView::example() };
        let noted = VolumeView { note: Some("do something".into()), ..volume.clone() };
        let text = table(&[volume, noted]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "TARGET            TYPE         SOURCE  STATE    HELPER  DEVICE  NOTE");
        assert_eq!(lines[1], "/mnt/long/target  fuse.bindfs  /s      mounted  bindfs  0:61");
        assert!(lines[2].ends_with("  0:61    do something"), "{text}");
    }

    #[test]
    fn a_source_cannot_write_lines_of_its_own() {
        let source = "x\n/mnt/b  fuse.bindfs\u{1b}[1A".into();
        let text = table(&[VolumeView { source, ..VolumeView::example() }]);
        assert!(text.lines().count() == 2 && text.contains("x\\n/mnt/b  fuse.bindfs\\u{1b}[1A  mounted"), "{text}");
    }
}
