//! What helpers use, in a table.
//!
//! Pure.

use crate::document::Usage;
use crate::table::{Cell, Column};
use crate::volumes::{memory, state};
use crate::{pods, words};
use clap::ValueEnum;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Instant;

/// By what they are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Processor time since the round before
    Cpu,
    /// Processor time in all
    Time,
    /// Memory
    Memory,
    /// Requests that wait
    Waiting,
    /// Age
    Age,
    /// Target
    Target,
}

/// How usage is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns
    Table,
    /// One round, as an array of objects (docs/json.md)
    Json,
}

/// How long the helpers of a node were on a processor, by their volumes' filesystems, at a time.
#[derive(Debug)]
pub struct Round(Instant, HashMap<String, f64>);

impl Round {
    /// Of what was just answered.
    pub fn new(usage: &[Usage]) -> Self {
        Self(Instant::now(), usage.iter().map(|usage| (usage.volume.device.clone(), usage.processor)).collect())
    }

    /// What one of them took of one processor from `self` to `now`, in percent.
    pub fn share(&self, now: &Self, usage: &Usage) -> Option<f64> {
        let took = usage.processor - self.1.get(&usage.volume.device)?;
        let seconds = now.0.saturating_duration_since(self.0).as_secs_f64();
        (seconds > 0.0).then(|| took.max(0.0) * 100.0 / seconds)
    }
}

/// A helper's usage, its share of a processor since the round before, and what else stands with it: its node, or nothing.
pub type Row<T = ()> = (Usage, Option<f64>, T);

/// What comes first, first.
pub fn sort<T>(rows: &mut [Row<T>], by: Sort) {
    rows.sort_by(|(one, ..), (other, ..)| one.volume.target.cmp(&other.volume.target));
    match by {
        Sort::Cpu => rows.sort_by(|(_, one, _), (_, other, _)| other.unwrap_or(0.0).total_cmp(&one.unwrap_or(0.0))),
        Sort::Time => rows.sort_by(|(one, ..), (other, ..)| other.processor.total_cmp(&one.processor)),
        Sort::Memory => rows.sort_by_key(|(usage, ..)| Reverse(usage.volume.memory.unwrap_or(0))),
        Sort::Waiting => rows.sort_by_key(|(usage, ..)| Reverse(usage.volume.waiting.unwrap_or(0))),
        // The oldest has the smallest time.
        Sort::Age => rows.sort_by_key(|(usage, ..)| usage.volume.since),
        Sort::Target => {}
    }
}

/// The columns.
pub const COLUMNS: [Column; 11] = [
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

/// A helper's cells.
pub fn row<T>((usage, share, _): &Row<T>, now: u64) -> Vec<Cell> {
    let Usage { volume, processor, .. } = usage;
    let (namespace, pod) = pods::cells(&volume.pods, false);
    let dash = || "-".to_owned();
    vec![
        namespace.into(),
        pod.into(),
        (&volume.r#type).into(),
        (&volume.source).into(),
        state(volume),
        words::age(now.saturating_sub(volume.since.0)).into(),
        memory(volume).into(),
        share.map_or_else(dash, |percent| format!("{percent:.1}%")).into(),
        time(*processor).into(),
        volume.waiting.map_or_else(dash, |count| count.to_string()).into(),
        (&volume.target).into(),
    ]
}

/// The line above the table: the sums.
pub fn head<T>(rows: &[Row<T>], now: u64) -> String {
    let sum = |value: fn(&Usage) -> u64| rows.iter().map(|(usage, ..)| value(usage)).fold(0, u64::saturating_add);
    let waiting = usize::try_from(sum(|usage| usage.volume.waiting.unwrap_or(0))).unwrap_or(usize::MAX);
    format!(
        "{}, {}; memory {}, processor time {}, {} waiting\n",
        words::time(now),
        words::count(rows.len(), "volume"),
        words::size(sum(|usage| usage.volume.memory.unwrap_or(0))),
        time(rows.iter().map(|(usage, ..)| usage.processor).sum()),
        words::count(waiting, "request"),
    )
}

/// As top(1) has it: minutes, seconds and hundredths.
fn time(seconds: f64) -> String {
    // What is no number, or too great for one, is one all the same.
    let hundredths = (seconds * 100.0).round() as u64;
    format!("{}:{:02}.{:02}", hundredths / 6000, hundredths / 100 % 60, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::table;
    use crate::terminal::Terminal;
    use api::volume::{Usage as HelperUsage, VolumeView};
    use std::time::Duration;

    #[test]
    fn who_takes_most_comes_first() {
        let usage = |target: &str, processor, memory| {
            Usage::from(&HelperUsage {
                view: VolumeView {
                    target: target.into(),
                    device: target.into(),
                    memory: Some(memory),
                    waiting: Some(1),
                    ..VolumeView::example()
                },
                processes: 1,
                processor,
            })
        };
        let began = Instant::now();
        let before = Round(began, HashMap::from([("/a".into(), 1.0), ("/b".into(), 61.0)]));
        let now = Round(began + Duration::from_secs(2), HashMap::new());
        let all = || vec![usage("/a", 150, 1 << 20), usage("/b", 6_105, 2 << 20), usage("/c", 7, 3 << 20)];
        let text = |shares: bool, by| {
            let share = |usage: &Usage| before.share(&now, usage).filter(|_| shares);
            let mut usage: Vec<_> = all().into_iter().map(|usage| (usage.clone(), share(&usage), ())).collect();
            sort(&mut usage, by);
            let rows: Vec<_> = usage.iter().map(|usage| row(usage, 9)).collect();
            head(&usage, 9) + &table(&COLUMNS, &rows, Terminal::default())
        };
        let order =
            |text: &str| text.lines().skip(2).filter_map(|line| line.rsplit(' ').next()).collect::<Vec<_>>().concat();
        let shown = text(true, Sort::Cpu);
        assert_eq!(order(&shown), "/a/b/c", "{shown}");
        assert!(
            shown.contains("25.0%  0:01.50  1        /a") && shown.contains("2.5%   1:01.05  1        /b"),
            "{shown}"
        );
        assert!(shown.contains("-      0:00.07  1        /c"), "{shown}");
        assert!(shown.contains(", 3 volumes; memory 6.0Mi, processor time 1:02.62, 3 requests waiting\n"), "{shown}");
        for (by, expected) in [(Sort::Memory, "/c/b/a"), (Sort::Time, "/b/a/c"), (Sort::Target, "/a/b/c")] {
            assert_eq!(order(&text(false, by)), expected, "{by:?}");
        }
        assert_eq!((time(f64::NAN), time(-1.0)), ("0:00.00".into(), "0:00.00".into()));
    }
}
