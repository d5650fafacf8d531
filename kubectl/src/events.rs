//! `kubectl hostmount events`: what happened to volumes on all nodes.
//!
//! Runs on the main thread.

use crate::Outcome;
use crate::ask::{Answers, Element, Trouble, complain};
use crate::cluster::{Mounter, Where};
use crate::follow::follow;
use crate::list::with_nodes;
use api::exit::Exit;
use serde_json::Value;
use show::document::{Event, Time};
use show::events::{Arguments, COLUMNS, row};
use show::terminal::Terminal;
use show::words;
use std::collections::HashSet;

/// Runs `kubectl hostmount events`.
pub(crate) fn events(place: &Where, arguments: &Arguments) -> Outcome {
    let answers: Answers<Vec<Element<Event>>> = place.arrays(place.mounters()?, &["events", "--output", "json"]);
    let code = answers.code();
    let mut seen: Vec<_> = answers.of.iter().map(|(mounter, events)| Seen::of(mounter, events)).collect();
    let mut events = answers.elements();
    events.retain(|event| arguments.filter.wants(&event.known));
    // Those of one node stay in their order.
    events.sort_by_key(|event| event.known.time);
    linux::standard::put(format_args!("{}", text(arguments, &events, true)));
    if !arguments.follow {
        return Ok(code);
    }
    let followed = seen.iter().map(|seen| (seen.mounter.clone(), seen.words())).collect();
    let mut complained = HashSet::new();
    let well = follow(place, followed, |mounter, line| {
        match serde_json::from_str(line).map_err(|error| Trouble::Nonsense(error.to_string())) {
            Ok(raw) if !Seen::is_new(&mut seen, mounter, &raw) => {}
            raw => match raw.and_then(|raw| Element::<Event>::new(&mounter.node, raw)) {
                Ok(event) if arguments.filter.wants(&event.known) => {
                    linux::standard::put(format_args!("{}", text(arguments, &[event], false)));
                }
                Ok(_) => {}
                // Once for each node.
                Err(trouble) if complained.insert(mounter.node.clone()) => complain(mounter, &trouble),
                Err(_) => {}
            },
        }
    })?;
    Ok(if well && complained.is_empty() { code } else { Exit::System.into() })
}

fn text(arguments: &Arguments, events: &[Element<Event>], head: bool) -> String {
    let rows = events.iter().map(|event| (event.node.clone(), row(&event.known)));
    let documents: Vec<_> = events.iter().map(Element::document).collect();
    arguments.text(&documents, || with_nodes(&COLUMNS, rows, Terminal::of_output()), head)
}

/// What was shown already of a node's last second: it comes again when that is followed from there.
struct Seen {
    mounter: Mounter,
    last: Option<Time>,
    events: Vec<Value>,
}

impl Seen {
    fn of(mounter: &Mounter, events: &[Element<Event>]) -> Self {
        let last = events.iter().map(|event| event.known.time).max();
        let newest = events.iter().filter(|event| Some(event.known.time) == last).map(|event| event.raw.clone());
        Self { mounter: mounter.clone(), last, events: newest.collect() }
    }

    fn words(&self) -> Vec<String> {
        let since = self.last.map(|Time(last)| ["--since".to_owned(), words::time(last)]);
        let words = ["events", "--follow", "--output", "json"].map(str::to_owned);
        words.into_iter().chain(since.into_iter().flatten()).collect()
    }

    fn is_new(all: &mut [Self], mounter: &Mounter, raw: &Value) -> bool {
        let Some(seen) = all.iter_mut().find(|seen| seen.mounter == *mounter) else { return true };
        let known = seen.events.iter().position(|known| known == raw);
        known.map(|at| seen.events.remove(at)).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_shown_does_not_come_again() {
        let mounter = Mounter { node: "a".into(), pod: "pod/p".into(), down: None };
        let event = |second: u32, message: &str| {
            let raw = json!({ "time": format!("1970-01-01T00:00:0{second}Z"), "event": "volume.dead", "target": "/a", "message": message });
            Element::<Event>::new("a", raw).unwrap()
        };
        let events = [event(1, "old"), event(2, "x"), event(2, "y")];
        let mut seen = [Seen::of(&mounter, &events)];
        assert_eq!(seen[0].words().join(" "), "events --follow --output json --since 1970-01-01T00:00:02Z");
        let mut is_new = |message: &str| Seen::is_new(&mut seen, &mounter, &event(2, message).raw);
        assert_eq!(["x", "y", "z", "x"].map(&mut is_new), [false, false, true, true]);
        assert_eq!(Seen::of(&mounter, &[]).words().join(" "), "events --follow --output json");
    }
}
