//! What people and programs are shown of volumes: tables, words for times and sizes, and the documents of `--output json`.
//!
//! Runs in the operator's command line on a node, and in `kubectl hostmount`, which shows what those on all nodes have answered. Pure, but for
//! what [`terminal`] asks about standard output, and the files that [`manual`] writes if it is asked to.

// They panic where nobody reads: `linux::standard`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod detail;
pub mod document;
pub mod events;
pub mod examples;
pub mod findings;
pub mod lines;
pub mod logs;
pub mod manual;
pub mod pods;
pub mod table;
pub mod terminal;
pub mod usage;
pub mod volumes;
pub mod words;

use api::shown::{shown, shown_json};
use serde::Serialize;

/// A document as JSON, in lines, as a terminal may show it.
pub fn json(document: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.lines().map(|line| shown_json(line) + "\n").collect()
}

/// The same in one line.
pub fn json_line(document: &impl Serialize) -> String {
    shown_json(&serde_json::to_string(document).unwrap_or_default()).into_owned() + "\n"
}

/// The same as YAML.
pub fn yaml(document: &impl Serialize) -> String {
    let text = serde_saphyr::to_string(document).unwrap_or_default();
    text.lines().map(|line| shown(line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_string_holds_acts_on_no_terminal_and_is_exact_for_programs() {
        let hostile = vec!["\u{1b}[2J\u{9b}A\n- forged: true", "plain"];
        for text in [json(&hostile), yaml(&hostile)] {
            assert!(!text.replace('\n', "").contains(char::is_control), "{text:?}");
        }
        assert_eq!(serde_json::from_str::<Vec<String>>(&json(&hostile)).unwrap(), hostile);
        let plain = vec!["a: b", "- c", "true", "7"];
        assert_eq!(serde_saphyr::from_str::<Vec<String>>(&yaml(&plain)).unwrap(), plain);
    }
}
