//! `hostmount completion` and `hostmount manual`: the pages of the commands, and that of the configuration.
//!
//! Runs in the caller's process and asks nobody; `manual --to` writes files.

use super::show::manual::{
    self, CompletionArguments, ManualArguments, ManualError, Page, Program, escaped, line, version,
};
use super::{Complaint, command, examples};
use api::exit::chain;

/// The configuration, with what each key is for: docs/configuration.md shows it.
const CONFIGURATION: &str = include_str!("../../docs/hostmount.toml");
const OF_CONFIGURATION: &str = "hostmount.toml.5";

/// What administrators alone use is in section 8, as mount(8) is.
const SECTION_8: [&str; 2] = ["mount", "umount"];

impl From<ManualError> for Complaint {
    fn from(error: ManualError) -> Self {
        Self::new(error.exit(), chain(&error))
    }
}

/// Runs `hostmount completion`.
pub(super) fn completion(arguments: &CompletionArguments) {
    linux::standard::put(format_args!("{}", manual::completion(command(), "hostmount", arguments)));
}

/// Runs `hostmount manual`.
pub(super) fn manual(arguments: &ManualArguments) -> Result<(), Complaint> {
    let text = arguments.answer(&pages()?)?;
    linux::standard::put(format_args!("{text}"));
    Ok(())
}

fn pages() -> Result<Vec<Page>, ManualError> {
    let more = vec![(OF_CONFIGURATION.to_owned(), of_configuration())];
    let (name, examples, section_8) = ("hostmount", examples::of, &SECTION_8);
    Program { command: command(), name, examples, section_8, more }.pages()
}

/// The page of the configuration: a paragraph for each line of the file, with its comment.
fn of_configuration() -> String {
    let mut text = format!(
        ".TH hostmount.toml 5 \"\" \"{}\" hostmount\n.SH NAME\nhostmount.toml \\- configuration of the mounter, \
         /etc/hostmount/config.toml\n.SH DESCRIPTION\n\
         The mounter reads it when it starts and when it changes, \\fBhostmount doctor\\fR and \\fBhostmount install\\fR as well. It is TOML. Every key is \
         optional; one that is not known is an error.\n.SH KEYS\n",
        version()
    );
    for written in CONFIGURATION.lines().filter(|written| !written.is_empty()) {
        // No value of the file has a `#` with blanks before it.
        let (setting, comment) = written.split_once(" # ").unwrap_or((written, ""));
        let setting = setting.trim_end();
        let comment = if comment.is_empty() { String::new() } else { format!("{}\n", line(comment)) };
        match setting.starts_with('[') {
            true => text.push_str(&format!(".SS {}\n{comment}", escaped(setting))),
            false => text.push_str(&format!(".TP\n\\fB{}\\fR\n{comment}", escaped(setting))),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::path::Path;

    #[test]
    fn the_configurations_page_is_what_is_read() {
        Config::parse(CONFIGURATION, Path::new("hostmount.toml")).unwrap();
        // What is not known is answered with all that is.
        let mut sections = 0;
        for section in ["", "[helpers]", "[doors]", "[policy.csi]", "[policy.csi.filesystem.x]", "[filesystem.x]"] {
            let error = Config::parse(&format!("{section}\nno_such_key = 1\n"), Path::new("x")).unwrap_err();
            let words = api::exit::chain(&error);
            let (_, known) = words.split_once("expected one of ").unwrap_or_else(|| panic!("{words}"));
            for key in known.split('`').skip(1).step_by(2) {
                let is_there = |start: &str| CONFIGURATION.lines().any(|line| line.starts_with(start));
                let there = is_there(&format!("{key} ="))
                    || is_there(&format!("[{key}"))
                    || CONFIGURATION.contains(&format!(".{key}."));
                assert!(there, "{section} {key} is not in docs/hostmount.toml");
            }
            sections += 1;
        }
        assert_eq!(sections, 6);
    }

    #[test]
    fn each_page_has_its_section() {
        let names: Vec<_> = pages().unwrap().into_iter().map(|(name, _)| name).collect();
        for name in ["hostmount.1", "hostmount-mount.8", "hostmount-policy-check.1", "hostmount.toml.5"] {
            assert!(names.iter().any(|known| known == name), "{names:?}");
        }
        assert!(
            !names.iter().any(|name| name.contains("serve-")),
            "what the mounter starts is nobody's command: {names:?}"
        );
    }
}
