//! `hostmount top`: what helpers use, again and again.

use super::Complaint;
use super::show::document::Usage;
use super::show::pods::PodFilter;
use super::show::table::table;
use super::show::terminal::{self, Terminal, wait_while_read};
use super::show::usage::{COLUMNS, Format, Round, Sort, head, row, sort};
use super::show::{self, words};
use api::client::Client;
use api::origin::Origin;

/// Its command line.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// One round, and no more
    #[arg(long)]
    once: bool,
    /// How to show it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    /// How long between two rounds
    #[arg(short, long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// What comes first
    #[arg(short, long, value_enum, default_value = "cpu")]
    sort: Sort,
    #[command(flatten)]
    pods: PodFilter,
}

/// Runs `hostmount top`.
pub(super) fn top(arguments: &Arguments) -> Result<(), Complaint> {
    let client = Client::from_environment(Origin::Operator);
    let mut before: Option<Round> = None;
    loop {
        let mut usage: Vec<Usage> = client.top()?.iter().map(Usage::from).collect();
        usage.retain(|usage| arguments.pods.wants(&usage.volume.pods));
        if arguments.output == Format::Json {
            linux::standard::put(format_args!("{}", show::json(&usage)));
            return Ok(());
        }
        let round = Round::new(&usage);
        let share = |usage: &Usage| before.as_ref().and_then(|before| before.share(&round, usage));
        let mut usage: Vec<_> = usage.iter().map(|one| (one.clone(), share(one), ())).collect();
        sort(&mut usage, arguments.sort);
        let terminal = Terminal::of_output();
        let rows: Vec<_> = usage.iter().map(|usage| row(usage, words::now())).collect();
        let text = head(&usage, words::now()) + &table(&COLUMNS, &rows, terminal);
        match terminal::lines().filter(|_| !arguments.once) {
            Some(lines) => {
                // The cursor goes to the first line, and what is below it away. The last line stays free.
                let text: String = text.split_inclusive('\n').take(lines - 1).collect();
                linux::standard::put(format_args!("\u{1b}[H\u{1b}[J{text}"));
            }
            None => linux::standard::put(format_args!("{text}")),
        }
        if arguments.once || !wait_while_read(arguments.interval) {
            return Ok(());
        }
        if !terminal.is_there() {
            linux::say!("");
        }
        before = Some(round);
    }
}
