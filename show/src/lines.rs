//! Things with names, a line for each.
//!
//! Pure.

use super::table::{Colour, painted};
use super::terminal::Terminal;
use api::shown::shown;

/// A thing: its name, and what is said of it, in as many lines.
pub type Row = (&'static str, Vec<String>);

/// The lines. What has no value is left out; words of others are escaped.
pub fn text(rows: &[Row], terminal: Terminal) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for (name, values) in rows {
        for (nth, value) in values.iter().enumerate() {
            let name =
                if nth == 0 { painted(&format!("{name:<width$}"), Colour::Faint, terminal) } else { " ".repeat(width) };
            text.push_str(format!("{name} {}", shown(value)).trim_end());
            text.push('\n');
        }
    }
    text
}
