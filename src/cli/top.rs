//! `hostmount top`: what helpers use, again and again.

use super::Complaint;
use super::list::colour;
use super::show::pods::{self, PodFilter};
use super::show::table::{Cell, Column, table};
use super::show::terminal::{self, Terminal, wait_while_read};
use super::show::words;
use api::client::Client;
use api::origin::Origin;
use api::volume::Usage;
use clap::ValueEnum;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Instant;

/// By what they are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// Processor time since the round before
    Cpu,
    /// Processor time in all
    Time,
    Memory,
    /// Requests that wait
    Waiting,
    Age,
    Target,
}

/// Its command line.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// One round, and no more
    #[arg(long)]
    once: bool,
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
        let mut usage = client.top()?;
        usage.retain(|usage| arguments.pods.wants(&usage.view.pods));
        let round = Round::new(&usage);
        let terminal = Terminal::of_output();
        let text = text(usage, before.as_ref().map(|before| (before, &round)), arguments.sort, terminal);
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

/// How long each helper was on a processor, by its volume's filesystem, at a time.
struct Round(Instant, HashMap<String, u64>);

impl Round {
    fn new(usage: &[Usage]) -> Self {
        Self(Instant::now(), usage.iter().map(|usage| (usage.view.device.clone(), usage.processor)).collect())
    }
}

/// What one of them took of one processor since the round before, in tenths of a percent.
fn share(usage: &Usage, (before, now): (&Round, &Round)) -> Option<u64> {
    let hundredths = usage.processor.saturating_sub(*before.1.get(&usage.view.device)?);
    let seconds = now.0.saturating_duration_since(before.0).as_secs_f64();
    (seconds > 0.0).then(|| (hundredths as f64 * 10.0 / seconds).round() as u64)
}

const COLUMNS: [Column; 11] = [
    Column::new("NAMESPACE"),
    Column::new("POD"),
    Column::new("TYPE"),
    Column::new("SOURCE"),
    Column::new("STATE"),
    Column::new("AGE"),
    Column::new("MEMORY"),
    Column::new("CPU"),
    Column::new("TIME"),
    Column::new("WAITING"),
    Column::new("TARGET").of_paths(),
];

fn text(mut usage: Vec<Usage>, rounds: Option<(&Round, &Round)>, sort: Sort, terminal: Terminal) -> String {
    let share = |usage: &Usage| rounds.and_then(|rounds| share(usage, rounds));
    usage.sort_by(|one, other| one.view.target.cmp(&other.view.target));
    usage.sort_by_key(|usage| match sort {
        Sort::Cpu => Reverse(share(usage).unwrap_or(0)),
        Sort::Time => Reverse(usage.processor),
        Sort::Memory => Reverse(usage.view.memory.unwrap_or(0)),
        Sort::Waiting => Reverse(usage.view.waiting.unwrap_or(0)),
        // The oldest has the smallest time.
        Sort::Age => Reverse(u64::MAX - usage.view.since),
        Sort::Target => Reverse(0),
    });
    let now = words::now();
    let dash = || "-".to_owned();
    let rows: Vec<Vec<Cell>> = usage
        .iter()
        .map(|one| {
            let Usage { view, processor, .. } = one;
            let (namespace, pod) = pods::cells(&view.pods, false);
            let percent = share(one).map_or_else(dash, |tenths| format!("{}.{}%", tenths / 10, tenths % 10));
            vec![
                namespace.into(),
                pod.into(),
                (&view.fstype).into(),
                (&view.source).into(),
                Cell::coloured(view.state.word(), colour(view.state)),
                words::age(now.saturating_sub(view.since)).into(),
                view.memory.map_or_else(dash, words::size).into(),
                percent.into(),
                time(*processor).into(),
                view.waiting.map_or_else(dash, |count| count.to_string()).into(),
                (&view.target).into(),
            ]
        })
        .collect();
    let sum = |value: fn(&Usage) -> u64| usage.iter().map(value).sum::<u64>();
    let head = format!(
        "{}, {}; memory {}, processor time {}, {} waiting\n",
        words::time(now),
        words::count(usage.len(), "volume"),
        words::size(sum(|usage| usage.view.memory.unwrap_or(0))),
        time(sum(|usage| usage.processor)),
        words::count(usize::try_from(sum(|usage| usage.view.waiting.unwrap_or(0))).unwrap_or(usize::MAX), "request"),
    );
    head + &table(&COLUMNS, &rows, terminal)
}

/// As top(1) has it: minutes, seconds and hundredths.
fn time(hundredths: u64) -> String {
    format!("{}:{:02}.{:02}", hundredths / 6000, hundredths / 100 % 60, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::volume::VolumeView;
    use std::time::Duration;

    #[test]
    fn who_takes_most_comes_first() {
        let usage = |target: &str, processor, memory| Usage {
            view: VolumeView {
                target: target.into(),
                device: target.into(),
                memory: Some(memory),
                waiting: Some(1),
                ..VolumeView::example()
            },
            processes: 1,
            processor,
        };
        let began = Instant::now();
        let before = Round(began, HashMap::from([("/a".into(), 100), ("/b".into(), 6_100)]));
        let now = Round(began + Duration::from_secs(2), HashMap::new());
        let all = || vec![usage("/a", 150, 1 << 20), usage("/b", 6_105, 2 << 20), usage("/c", 7, 3 << 20)];
        let text = |rounds, sort| text(all(), rounds, sort, Terminal::default());
        let order =
            |text: &str| text.lines().skip(2).filter_map(|line| line.rsplit(' ').next()).collect::<Vec<_>>().concat();
        let shown = text(Some((&before, &now)), Sort::Cpu);
        assert_eq!(order(&shown), "/a/b/c", "{shown}");
        assert!(
            shown.contains("25.0%  0:01.50  1        /a") && shown.contains("2.5%   1:01.05  1        /b"),
            "{shown}"
        );
        assert!(shown.contains("-      0:00.07  1        /c"), "{shown}");
        assert!(shown.contains(", 3 volumes; memory 6.0Mi, processor time 1:02.62, 3 requests waiting\n"), "{shown}");
        for (sort, expected) in [(Sort::Memory, "/c/b/a"), (Sort::Time, "/b/a/c"), (Sort::Target, "/a/b/c")] {
            assert_eq!(order(&text(None, sort)), expected, "{sort:?}");
        }
    }
}
