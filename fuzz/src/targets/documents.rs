//! Documents that nodes answer `kubectl hostmount` with: what is shown of them, to people and to programs.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use show::document::{Detail, Event, Finding, Usage, Volume};
use show::table::{Cell, Column, table};
use show::terminal::Terminal;
use show::usage::{Round, Sort};
use show::{detail, events, usage, volumes};

/// One answer.
pub fn check(bytes: &[u8]) {
    let all: Vec<Value> = match serde_json::from_slice(bytes) {
        Ok(Value::Array(all)) => all,
        Ok(one) => vec![one],
        Err(_) => return,
    };
    let in_table = |columns: &[Column], rows: Vec<Vec<Cell>>| {
        for width in [None, Some(40)] {
            let text = table(columns, &rows, Terminal { width, colour: false });
            assert_eq!(text.lines().count(), 1 + rows.len(), "a row is a line");
            acts_on_nothing(&text);
        }
    };
    let listed: Vec<Volume> = known(&all);
    in_table(&volumes::columns(true), listed.iter().map(|volume| volumes::row(volume, true, 9)).collect());
    let happened: Vec<Event> = known(&all);
    in_table(&events::COLUMNS, happened.iter().map(events::row).collect());
    let used: Vec<Usage> = known(&all);
    let (before, now) = (Round::new(&used), Round::new(&used));
    let mut used: Vec<usage::Row> =
        used.into_iter().map(|usage| (usage.clone(), before.share(&now, &usage), ())).collect();
    usage::sort(&mut used, Sort::Cpu);
    acts_on_nothing(&usage::head(&used, 9));
    in_table(&usage::COLUMNS, used.iter().map(|usage| usage::row(usage, 9)).collect());
    known::<Detail>(&all).iter().for_each(|volume| acts_on_nothing(&detail::lines(volume, Terminal::default(), 9)));
    for found in known::<Finding>(&all) {
        let text = found.text(Terminal::default());
        acts_on_nothing(&text);
        assert!(text.lines().skip(1).all(|line| line.starts_with("      ")), "words of others begin no line: {text}");
    }
}

/// Those that are understood. They are written so that they can be read again.
fn known<T: DeserializeOwned + Serialize>(all: &[Value]) -> Vec<T> {
    let understood = all.iter().filter_map(|one| serde_json::from_value(one.clone()).ok());
    let understood: Vec<T> = understood.collect();
    let text = show::json(&understood);
    acts_on_nothing(&text);
    acts_on_nothing(&show::yaml(&understood));
    let again: Vec<T> = serde_json::from_str(&text).expect("what was written is read");
    // But for the last digit of a number with a point.
    assert_eq!(again.len(), understood.len());
    understood
}

fn acts_on_nothing(text: &str) {
    assert!(!text.contains(|character: char| character.is_control() && !['\n', '\t'].contains(&character)), "{text:?}");
}
