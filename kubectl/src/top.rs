//! `kubectl hostmount top`: what helpers on all nodes use, again and again.
//!
//! Runs on the main thread.

use crate::Outcome;
use crate::ask::{Answers, Element};
use crate::cluster::Where;
use crate::list::with_nodes;
use show::document::Usage;
use show::pods::PodFilter;
use show::terminal::{self, Terminal, wait_while_read};
use show::usage::{COLUMNS, Format, Round, Row, Sort, head, row, sort};
use show::words;
use std::collections::HashMap;

/// Its command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// One round, and no more
    #[arg(long)]
    once: bool,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// How long between two rounds
    #[arg(short, long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// What comes first
    #[arg(short, long, value_enum, default_value = "cpu")]
    sort: Sort,
    #[command(flatten)]
    pods: PodFilter,
}

/// Runs `kubectl hostmount top`.
pub(crate) fn top(place: &Where, arguments: &Arguments) -> Outcome {
    let mut before: HashMap<String, Round> = HashMap::new();
    loop {
        let answers: Answers<Vec<Element<Usage>>> = place.arrays(place.mounters()?, &["top", "--output", "json"]);
        let code = answers.code();
        let (mut rounds, mut all) = (HashMap::new(), Vec::new());
        for (mounter, mut elements) in answers.of {
            elements.retain(|element| arguments.pods.wants(&element.known.volume.pods));
            let usage: Vec<_> = elements.iter().map(|element| element.known.clone()).collect();
            let round = Round::new(&usage);
            let earlier = before.get(&mounter.node);
            let share = |usage: &Usage| earlier.and_then(|before| before.share(&round, usage));
            all.extend(elements.into_iter().map(|element| (element.known.clone(), share(&element.known), element)));
            rounds.insert(mounter.node, round);
        }
        if arguments.output == Format::Json {
            let documents: Vec<_> = all.iter().map(|(.., element)| element.document()).collect();
            linux::standard::put(format_args!("{}", show::json(&documents)));
            return Ok(code);
        }
        show_round(all, arguments);
        if arguments.once || !wait_while_read(arguments.interval) {
            return Ok(code);
        }
        if !Terminal::of_output().is_there() {
            linux::say!("");
        }
        before = rounds;
    }
}

fn show_round(mut all: Vec<Row<Element<Usage>>>, arguments: &Arguments) {
    sort(&mut all, arguments.sort);
    let now = words::now();
    let rows = all.iter().map(|one| (one.2.node.clone(), row(one, now)));
    let text = head(&all, now) + &with_nodes(&COLUMNS, rows, Terminal::of_output());
    match terminal::lines().filter(|_| !arguments.once) {
        Some(lines) => {
            // The cursor goes to the first line, and what is below it away. The last line stays free.
            let text: String = text.split_inclusive('\n').take(lines - 1).collect();
            linux::standard::put(format_args!("\u{1b}[H\u{1b}[J{text}"));
        }
        None => linux::standard::put(format_args!("{text}")),
    }
}
