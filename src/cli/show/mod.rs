//! What people and programs are shown: tables, words for times and sizes, and the documents of `--output json`.
//!
//! Pure, but for what [`terminal`] asks about standard output, and [`again`] the mounter.

pub(super) mod again;
pub(super) mod document;
pub(super) mod lines;
pub(super) mod pods;
pub(super) mod table;
pub(super) mod terminal;
pub(super) mod words;

use api::shown::{shown, shown_json};
use serde::Serialize;

/// A document as JSON, in lines, as a terminal may show it.
pub(super) fn json(document: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.lines().map(|line| shown_json(line) + "\n").collect()
}

/// The same in one line.
pub(super) fn json_line(document: &impl Serialize) -> String {
    shown_json(&serde_json::to_string(document).unwrap_or_default()).into_owned() + "\n"
}

/// The same as YAML.
pub(super) fn yaml(document: &impl Serialize) -> String {
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
