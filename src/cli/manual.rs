//! `hostmount completion` and `hostmount manual`: completion for shells and manual pages, made from what the help is made from.
//!
//! Runs in the caller's process and asks nobody; `manual --to` writes files.

use super::examples::{self, Example};
use super::{Complaint, command};
use api::exit::Exit;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The configuration, with what each key is for: docs/configuration.md shows it.
const CONFIGURATION: &str = include_str!("../../docs/hostmount.toml");
const OF_CONFIGURATION: &str = "hostmount.toml.5";

/// What administrators alone use is in section 8, as mount(8) is.
const SECTION_8: [&str; 2] = ["mount", "umount"];

/// The command line of `hostmount completion`.
#[derive(Debug, clap::Args)]
pub(super) struct CompletionArguments {
    /// The shell
    #[arg(value_parser = shell)]
    shell: Shell,
}

/// The command line of `hostmount manual`.
#[derive(Debug, clap::Args)]
pub(super) struct ManualArguments {
    /// Print this page
    page: Option<String>,
    /// Write all pages into this directory, below man1, man5 and man8
    #[arg(long, value_name = "DIR", conflicts_with = "page")]
    to: Option<PathBuf>,
}

fn shell(name: &str) -> Result<Shell, String> {
    let shells = [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)];
    let found = shells.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, shell)| shell).ok_or_else(|| "it is bash, zsh or fish".to_owned())
}

/// Runs `hostmount completion`.
pub(super) fn completion(arguments: &CompletionArguments) -> Result<(), Complaint> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command(), "hostmount", &mut text);
    linux::standard::put(format_args!("{}", String::from_utf8_lossy(&text)));
    Ok(())
}

/// Runs `hostmount manual`.
pub(super) fn manual(arguments: &ManualArguments) -> Result<(), Complaint> {
    let pages = pages().map_err(|error| Complaint::new(Exit::Internal, format!("cannot make the pages: {error}")))?;
    let Some(directory) = &arguments.to else {
        let Some(name) = &arguments.page else {
            pages.iter().for_each(|(name, _)| linux::say!("{name}"));
            return Ok(());
        };
        let page = pages
            .iter()
            .find(|(known, _)| known == name || known.rsplit_once('.').is_some_and(|(known, _)| known == name));
        let none =
            || Complaint::new(Exit::Usage, format!("there is no page '{name}'; `hostmount manual` lists all of them"));
        let (_, text) = page.ok_or_else(none)?;
        linux::standard::put(format_args!("{text}"));
        return Ok(());
    };
    for (name, text) in &pages {
        let section = name.rsplit_once('.').map_or("1", |(_, section)| section);
        let file = directory.join(format!("man{section}")).join(name);
        write(&file, text).map_err(|error| {
            Complaint::new(Exit::System, format!("cannot write the manual page {}: {error}", file.display()))
        })?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> io::Result<()> {
    file.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(file, text)
}

/// All pages: the name of the file, and the text.
fn pages() -> io::Result<Vec<(String, String)>> {
    let mut root = command();
    root.build();
    let mut pages = Vec::new();
    add(&root, "", &mut pages)?;
    pages.push((OF_CONFIGURATION.to_owned(), of_configuration()));
    let names: Vec<_> = pages.iter().map(|(name, _)| name.clone()).collect();
    for (name, text) in &mut pages {
        let others = names.iter().filter(|other| *other != name);
        let others: Vec<_> = others.filter_map(|other| other.rsplit_once('.')).collect();
        let others = others.iter().map(|(name, section)| format!("\\fB{}\\fR({section})", escaped(name)));
        text.push_str(&format!(".SH \"SEE ALSO\"\n{}\n", others.collect::<Vec<_>>().join(",\n")));
    }
    Ok(pages)
}

/// The page of a command, and those of the commands below it.
fn add(command: &Command, words: &str, pages: &mut Vec<(String, String)>) -> io::Result<()> {
    let section = if SECTION_8.contains(&words) { "8" } else { "1" };
    let name = format!("hostmount {words}").trim().replace(' ', "-");
    let shown = command.clone().after_help("");
    let man = Man::new(shown).title(name.clone()).section(section).source(version()).manual("hostmount");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut text = String::from_utf8_lossy(&page).into_owned();
    let below: Vec<_> = command.get_subcommands().filter(|below| below.get_name() != "help").collect();
    if !below.is_empty() {
        text.push_str(".SH COMMANDS\n");
        for below in &below {
            let about = below.get_about().map(ToString::to_string).unwrap_or_default();
            text.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", escaped(below.get_name()), line(&about)));
        }
    }
    text.push_str(&of_examples(examples::of(words)));
    pages.push((format!("{name}.{section}"), text));
    below.into_iter().try_for_each(|below| add(below, format!("{words} {}", below.get_name()).trim(), pages))
}

fn version() -> String {
    format!("hostmount {}", env!("CARGO_PKG_VERSION"))
}

fn of_examples(examples: &[Example]) -> String {
    let example = |(command, what): &Example| format!(".TP\n{}\n\\fB{}\\fR\n", line(what), escaped(command));
    format!(".SH EXAMPLES\n{}", examples.iter().map(example).collect::<String>())
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

/// A line of text, which is no request to groff whatever it begins with.
fn line(text: &str) -> String {
    format!("\\&{}", escaped(text))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq").replace('\'', "\\(aq").replace('~', "\\(ti")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

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
    }
}
