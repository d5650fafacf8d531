//! `kubectl hostmount doctor`: what works on each node.
//!
//! Runs on the main thread.

use crate::Outcome;
use crate::ask::{Answers, Element};
use crate::cluster::Where;
use crate::list::with_nodes;
use api::exit::Exit;
use api::shown::shown;
use clap::ValueEnum;
use show::document::{Finding, Level};
use show::table::{Cell, Colour, Column};
use show::terminal::Terminal;
use std::process::ExitCode;

/// How findings are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each node, and below them what is not well
    Table,
    /// An array of all findings (docs/json.md)
    Json,
}

/// Its command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How to show them
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
}

const COLUMNS: [Column; 3] = [Column::new("OK"), Column::new("WARN"), Column::new("FAIL")];

/// Runs `kubectl hostmount doctor`. It succeeds when volumes could be mounted on all nodes.
pub(crate) fn doctor(place: &Where, arguments: &Arguments) -> Outcome {
    let answers: Answers<Vec<Element<Finding>>> = place.arrays(place.mounters()?, &["doctor", "--output", "json"]);
    let fails = |(_, found): &(_, Vec<Element<Finding>>)| found.iter().any(|one| one.known.level == Level::Failure);
    let code: ExitCode = if answers.of.iter().any(fails) { Exit::System.into() } else { answers.code() };
    let text = match arguments.output {
        Format::Table => text(&answers, Terminal::of_output()),
        Format::Json => show::json(&answers.elements().iter().map(Element::document).collect::<Vec<_>>()),
    };
    linux::standard::put(format_args!("{text}"));
    Ok(code)
}

fn text(answers: &Answers<Vec<Element<Finding>>>, terminal: Terminal) -> String {
    let row = |found: &Vec<Element<Finding>>| {
        let count = |level, colour| {
            let count = found.iter().filter(|one| one.known.level == level).count();
            Cell::coloured(count.to_string(), if count > 0 { colour } else { Colour::Plain })
        };
        vec![
            count(Level::Ok, Colour::Good),
            count(Level::Warning, Colour::Doubtful),
            count(Level::Failure, Colour::Bad),
        ]
    };
    let rows = answers.of.iter().map(|(mounter, found)| (mounter.node.clone(), row(found)));
    let mut text = with_nodes(&COLUMNS, rows, terminal);
    for (mounter, found) in &answers.of {
        let not_well: Vec<_> = found.iter().filter(|one| one.known.level != Level::Ok).collect();
        if !not_well.is_empty() {
            text.push_str(&format!("\n{}\n", shown(&mounter.node)));
        }
        for one in not_well {
            one.known.text(terminal).lines().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
    }
    text
}
