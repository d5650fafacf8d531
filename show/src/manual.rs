//! Completion for shells and manual pages, made from what the help is made from.
//!
//! Runs in the process of the program that is asked for its own; `manual --to` writes files.

use crate::examples::Example;
use api::exit::Exit;
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The command line of `completion`.
#[derive(Debug, clap::Args)]
pub struct CompletionArguments {
    /// The shell: bash, zsh or fish
    #[arg(value_parser = shell)]
    shell: Shell,
}

fn shell(name: &str) -> Result<Shell, String> {
    let shells = [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)];
    let found = shells.into_iter().find(|(known, _)| *known == name);
    found.map(|(_, shell)| shell).ok_or_else(|| "it is bash, zsh or fish".to_owned())
}

/// The completion of a program that is called by this name.
pub fn completion(mut command: Command, name: &str, arguments: &CompletionArguments) -> String {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The command line of `manual`.
#[derive(Debug, clap::Args)]
pub struct ManualArguments {
    /// Print this page
    page: Option<String>,
    /// Write all pages into this directory, below man1, man5 and man8
    #[arg(long, value_name = "DIR", conflicts_with = "page")]
    to: Option<PathBuf>,
}

/// What keeps a page from being had.
#[derive(Debug, thiserror::Error)]
pub enum ManualError {
    /// They could not be made.
    #[error("cannot make the manual pages")]
    Make(#[from] io::Error),
    /// There is none of this name.
    #[error("there is no page '{0}'; `manual` without a name lists all of them")]
    NoPage(String),
    /// It could not be written.
    #[error("cannot write the manual page {page}", page = .0.display())]
    Write(PathBuf, #[source] io::Error),
}

impl ManualError {
    /// What to exit with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Make(_) => Exit::Internal,
            Self::NoPage(_) => Exit::Usage,
            Self::Write(..) => Exit::System,
        }
    }
}

/// A page: the name of its file, and its text.
pub type Page = (String, String);

impl ManualArguments {
    /// What is asked for of these pages: one, or the names of all. Those that are to be written are written.
    pub fn answer(&self, pages: &[Page]) -> Result<String, ManualError> {
        match (&self.to, &self.page) {
            (Some(directory), _) => pages.iter().try_for_each(|page| write(directory, page)).map(|()| String::new()),
            (None, None) => Ok(pages.iter().map(|(name, _)| format!("{name}\n")).collect()),
            (None, Some(wanted)) => {
                let is_wanted = |name: &str| name == wanted || without_section(name).0 == wanted;
                let page = pages.iter().find(|(name, _)| is_wanted(name));
                page.map(|(_, text)| text.clone()).ok_or_else(|| ManualError::NoPage(wanted.clone()))
            }
        }
    }
}

fn write(directory: &Path, (name, text): &Page) -> Result<(), ManualError> {
    let directory = directory.join(format!("man{}", without_section(name).1));
    let file = directory.join(name);
    let written = fs::create_dir_all(directory).and_then(|()| fs::write(&file, text));
    written.map_err(|error| ManualError::Write(file, error))
}

fn without_section(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or((name, "1"))
}

/// A program whose pages are made.
#[derive(Debug)]
pub struct Program {
    /// Its command line, in which the examples stand after the help.
    pub command: Command,
    /// The name of its first page; those of its commands begin with it.
    pub name: &'static str,
    /// The examples of a command, by its words.
    pub examples: fn(&str) -> &'static [Example],
    /// The commands whose pages are in section 8.
    pub section_8: &'static [&'static str],
    /// Pages about something else.
    pub more: Vec<Page>,
}

impl Program {
    /// All its pages.
    pub fn pages(mut self) -> Result<Vec<Page>, ManualError> {
        let mut pages = Vec::new();
        self.command.build();
        self.add(&self.command, "", &mut pages)?;
        pages.append(&mut self.more);
        let names: Vec<_> = pages.iter().map(|(name, _)| name.clone()).collect();
        for (name, text) in &mut pages {
            let others = names.iter().filter(|other| *other != name).map(|other| without_section(other));
            let others = others.map(|(name, section)| format!("\\fB{}\\fR({section})", escaped(name)));
            text.push_str(&format!(".SH \"SEE ALSO\"\n{}\n", others.collect::<Vec<_>>().join(",\n")));
        }
        Ok(pages)
    }

    /// The page of a command, and those of the commands below it.
    fn add(&self, command: &Command, words: &str, pages: &mut Vec<Page>) -> io::Result<()> {
        let section = if self.section_8.contains(&words) { "8" } else { "1" };
        let name = format!("{} {words}", self.name).trim().replace(' ', "-");
        let shown = command.clone().display_name(&name).after_help("");
        let man = Man::new(shown).title(&name).section(section).source(version()).manual("hostmount");
        let mut page = Vec::new();
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
        let mut text = String::from_utf8_lossy(&page).into_owned();
        let below: Vec<_> =
            command.get_subcommands().filter(|below| below.get_name() != "help" && !below.is_hide_set()).collect();
        if !below.is_empty() {
            text.push_str(".SH COMMANDS\n");
            for below in &below {
                let about = below.get_about().map(ToString::to_string).unwrap_or_default();
                text.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", escaped(below.get_name()), line(&about)));
            }
        }
        text.push_str(".SH EXAMPLES\n");
        for (command, what) in (self.examples)(words) {
            text.push_str(&format!(".TP\n{}\n\\fB{}\\fR\n", line(what), escaped(command)));
        }
        pages.push((format!("{name}.{section}"), text));
        below.into_iter().try_for_each(|below| self.add(below, format!("{words} {}", below.get_name()).trim(), pages))
    }
}

/// What a page names as its source.
pub fn version() -> String {
    format!("hostmount {}", env!("CARGO_PKG_VERSION"))
}

/// A line of text, which is no request to groff whatever it begins with.
pub fn line(text: &str) -> String {
    format!("\\&{}", escaped(text))
}

/// Text with what groff would take for its own escaped.
pub fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq").replace('\'', "\\(aq").replace('~', "\\(ti")
}
